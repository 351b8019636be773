#include "decode/nucleus.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace vt {

namespace {

constexpr size_t MOST_KEPT   = 64;    // a min_keep beyond this is not worth a shortcut
constexpr double MOST_BEYOND = 4096;  // nor are more candidates that are not known

// of what a draft's candidates weigh beyond p, how much a nucleus may need: others are to come
constexpr double SPARE = 0.8;

constexpr float SLACK = 0x1p-21f;  // of weights: exponentials of another library, and of the smallest logits

double half_ulp(double x) {
    return std::ldexp(1.0, std::ilogb(x) - 24);
}

float weight_of(float logit, float best) {
    return std::exp(logit - best);
}

bool is_above(const llama_token_data & a, const llama_token_data & b) {
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

}  // namespace

nucleus::nucleus(const llama_sampler * top_p, size_t n_least) : m_reach(std::numeric_limits<float>::infinity()) {
    if (n_least > 0 && n_least <= MOST_KEPT) {
        m_n_least = n_least;
        m_p       = top_p_bounds(top_p, n_least);
    }
}

float nucleus::cap(double weight) {
    return static_cast<float>(half_ulp(1.1 * weight));
}

// Z of llama.cpp: a sum of floats that are not negative. An addition rounds by half a unit in the last place of its result
// at most, and by no more than the smaller operand, since the other one is a float, too. So it is off by no more than the
// sum of min(weight, h), h being half a unit in the last place of Z.
nucleus::cuts nucleus::find(const candidates & c, float threshold, const tail & others) const {
    if (c.empty() || !std::isfinite(others.high) || !std::isfinite(others.capped)) {
        return {0, 0, 0};
    }
    const float  best  = c.front().logit;
    const double ratio = std::exp(static_cast<double>(others.top) - static_cast<double>(best));
    double       known = 0.0;
    for (const llama_token_data & x : c) {
        known += static_cast<double>(weight_of(x.logit, best));
    }
    const double slack = static_cast<double>(SLACK);
    const double low   = (known + others.low * ratio) * (1.0 - slack);
    const double high  = (known + others.high * ratio) * (1.0 + slack) + 1e-30;
    const double h     = half_ulp(1.1 * high);
    // min(e, a h) <= a min(e, h) for a >= 1
    const double more  = std::max(1.0, h / (ratio * static_cast<double>(others.cap)));
    const double error = static_cast<double>(c.size()) * h + others.capped * (1.0 + slack) * ratio * more;
    if (!(error < 0.05 * high)) {
        return {0, 0, 0};
    }
    const float z_low  = std::nextafter(static_cast<float>(low - error), 0.0f);
    const float z_high = std::nextafter(static_cast<float>(high + error), std::numeric_limits<float>::infinity());

    cuts  found = {0, 0, 0};
    float soon = 0.0f, late = 0.0f;
    for (size_t i = 0; i < c.size() && found.most == 0; i++) {
        const float weight = weight_of(c[i].logit, best);
        soon += weight * (1.0f + SLACK) / z_low;
        late += weight * (1.0f - SLACK) / z_high;
        if (i + 1 >= m_n_least) {
            found.least = found.least == 0 && soon >= m_p.low ? i + 1 : found.least;
            found.most  = late >= m_p.high ? i + 1 : 0;
        }
    }
    if (found.most == 0 && threshold < best - m_reach) {
        found.most = c.size();  // the end lies beyond what the chain goes on with
    } else if (found.most == 0 && c.size() >= m_n_least) {
        // Probabilities are added up with the same error as Z, of which they are shares, and each is rounded by itself: no sum
        // of them that does not reach p is more than p and that. The candidate that reaches it comes on top.
        const double last = static_cast<double>(weight_of(threshold, best));
        const double most = static_cast<double>(m_p.high) * static_cast<double>(z_high) + error + 2.0 * h - known * (1.0 - slack);
        const double n    = std::ceil(std::max(0.0, most) / (last * (1.0 - slack))) + 2.0;
        found.most        = n < MOST_BEYOND ? c.size() : 0;
        found.n_beyond    = n < MOST_BEYOND ? static_cast<size_t>(n) : 0;
    }
    found.least = found.least == 0 ? found.most : found.least;
    return found.most == 0 ? cuts{0, 0, 0} : found;
}

float nucleus::narrow(candidates & c, double & weight) const {
    const float best = std::max_element(c.begin(), c.end(), [](const auto & a, const auto & b) { return a.logit < b.logit; })->logit;
    weight           = 0.0;
    for (const llama_token_data & x : c) {
        weight += static_cast<double>(weight_of(x.logit, best));
    }
    const double p    = static_cast<double>(m_p.high);
    const double goal = weight * std::min(p + SPARE * (1.0 - p), 1.0);
    // sorting all of them takes long
    double       sum  = 0.0;
    auto         end  = c.begin();
    for (const float depth : {4.0f, 8.0f, 12.0f, std::numeric_limits<float>::infinity()}) {
        end = std::partition(end, c.end(), [&](const llama_token_data & x) { return x.logit >= best - depth; });
        sum = 0.0;
        for (auto x = c.begin(); x != end; ++x) {
            sum += static_cast<double>(weight_of(x->logit, best));
        }
        if (sum >= goal || depth > m_reach) {
            break;
        }
    }
    c.erase(end, c.end());
    std::sort(c.begin(), c.end(), is_above);
    sum              = 0.0;
    size_t      n    = 0;
    const float last = std::nextafter(best - m_reach, -std::numeric_limits<float>::infinity());
    while (n < c.size() && (n < m_n_least || sum < goal) && c[n].logit >= last) {
        sum += static_cast<double>(weight_of(c[n++].logit, best));
    }
    const float threshold = n < c.size() && c[n].logit < last ? last : c[n - 1].logit;
    while (n < c.size() && c[n].logit >= threshold) {
        n++;
    }
    c.resize(n);
    return threshold;
}

}  // namespace vt
