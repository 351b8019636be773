#include "decode/grammar_mask.h"

#include <algorithm>
#include <cmath>
#include <functional>

namespace vt {

namespace {

constexpr size_t FIRST  = 64;  // candidates that are asked about at once, beyond those that are wanted
constexpr size_t GROWTH = 4;   // and as long as too few are allowed

void mask(llama_sampler & grammar, candidates & c, size_t begin, size_t end) {
    llama_token_data_array cur = {c.data() + begin, end - begin, -1, false};
    if (begin < end) {
        llama_sampler_apply(&grammar, &cur);
    }
}

}  // namespace

bool mask_best(llama_sampler & grammar, size_t n_best, float reach, candidates & c) {
    const auto at       = [&](size_t i) { return c.begin() + static_cast<std::ptrdiff_t>(i); };
    const auto is_above = [](const llama_token_data & a, const llama_token_data & b) { return a.logit > b.logit; };
    if (std::any_of(c.begin(), c.end(), [](const llama_token_data & x) { return std::isnan(x.logit); })) {
        mask(grammar, c, 0, c.size());
        return false;
    }
    std::vector<float> allowed;
    size_t             asked = 0;
    for (size_t end = n_best + FIRST; asked < c.size() && allowed.size() < n_best; end *= GROWTH) {
        end = std::min(end, c.size());
        if (end < c.size()) {
            std::nth_element(at(asked), at(end), c.end(), is_above);
        }
        mask(grammar, c, asked, end);
        std::for_each(at(asked), at(end), [&](const llama_token_data & x) {
            if (x.logit > -INFINITY) {
                allowed.push_back(x.logit);
            }
        });
        asked = end;
    }
    const bool are_few = asked > n_best + FIRST || allowed.size() < n_best;
    if (asked == c.size()) {
        return are_few;
    }
    const auto last = allowed.begin() + static_cast<std::ptrdiff_t>(n_best - 1);
    std::nth_element(allowed.begin(), last, allowed.end(), std::greater<float>());
    const float best    = *std::max_element(allowed.begin(), std::next(last));
    const float least   = std::min(*last, std::nextafter(best - reach, -INFINITY));
    const auto  dropped = std::partition(at(asked), c.end(), [&](const llama_token_data & x) { return x.logit >= least; });
    mask(grammar, c, asked, static_cast<size_t>(dropped - c.begin()));
    c.erase(dropped, c.end());
    return are_few;
}

}  // namespace vt
