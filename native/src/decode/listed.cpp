#include "decode/listed.h"

#include <algorithm>
#include <cmath>

namespace vt {

namespace {

constexpr float LIKELY = 4.0f;  // below the best logit

}  // namespace

tail weigh_others(const candidates & known, float threshold, const std::vector<moved> & changed, const std::vector<scan_hit> & listed,
                  const head_tail & found) {
    const auto weight    = [&](float logit) { return std::exp(static_cast<double>(logit) - static_cast<double>(found.top)); };
    const auto is_listed = [&](int32_t id) {
        const auto at = std::lower_bound(listed.begin(), listed.end(), id, [](const scan_hit & h, int32_t row) { return h.row < row; });
        return at != listed.end() && at->row == id;
    };
    std::vector<int32_t> counted;
    for (const llama_token_data & x : known) {
        counted.push_back(x.id);
    }
    double before = 0.0, after = 0.0;
    for (const moved & x : changed) {
        before += is_listed(x.id) ? 0.0 : weight(x.raw);
        after += x.logit >= threshold ? 0.0 : weight(x.logit);
        counted.push_back(x.id);
    }
    std::sort(counted.begin(), counted.end());
    for (const scan_hit & hit : listed) {
        after += std::binary_search(counted.begin(), counted.end(), hit.row) ? 0.0 : weight(hit.value);
    }
    const double f = found.factor;
    if (!std::isfinite(f) || !std::isfinite(found.weight)) {
        return {found.top, 0.0, INFINITY, INFINITY, found.cap};
    }
    return {found.top, std::max(0.0, found.weight / f - before * f) + after / f, std::max(0.0, found.weight * f - before / f) + after * f,
            (found.capped + after) * f, found.cap};
}

std::vector<int32_t> likely_rows(const std::vector<int32_t> & rows, const std::vector<scan_hit> & listed, float top) {
    std::vector<int32_t> likely;
    for (const scan_hit & hit : listed) {
        if (hit.value >= top - LIKELY && std::binary_search(rows.begin(), rows.end(), hit.row)) {
            likely.push_back(hit.row);
        }
    }
    return likely;
}

}  // namespace vt
