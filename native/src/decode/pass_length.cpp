#include "decode/pass_length.h"

#include <algorithm>
#include <cmath>

namespace vt {

namespace {

constexpr double MEMORY      = 0.9;  // what a verdict still weighs after the next one
constexpr double TIME_MEMORY = 0.8;
constexpr double FORGETTING  = 0.9995;
constexpr double DOUBT       = 0.995;
constexpr double DEEP_DOUBT  = 0.999;  // behind a long text a vain try takes many passes
constexpr double MOST_UP     = 2.0;
constexpr double PER_TOKEN   = 0.08;  // guess: what one more token adds to a pass, in passes
constexpr size_t WARMING     = 2;
constexpr size_t SURE        = 2;    // passes of a length
constexpr size_t SHALLOW     = 512;  // tokens before a pass

}  // namespace

pass_length::pass_length(size_t max) : m_right{{0.3, 0.5, 0.7, 0.8, 0.9, 0.9, 0.7}, {0.1, 0.2, 0.4, 0.6, 0.7, 0.9, 0.5}}, m_warming(WARMING) {
    for (times & t : m_passes) {
        t.us.resize(std::max<size_t>(max, 1) + 1, 0.0);
        t.n.resize(t.us.size(), 0);
    }
}

void pass_length::set_depth(size_t n_tokens) {
    m_depth = 0;
    for (size_t n = SHALLOW; n <= n_tokens && m_depth + 1 < N_DEPTHS; n *= 2) {
        m_depth++;
    }
}

pass_length::source pass_length::source_of(size_t match_length) {
    return match_length <= 2   ? source::match_2
           : match_length == 3 ? source::match_3
           : match_length <= 5 ? source::match_5
           : match_length <= 9 ? source::match_9
                               : source::match_more;
}

// A length that was never taken is guessed from shorter ones: each token adds what one did so far, at first little, so that it
// is tried. None takes longer than a longer one: one disturbed measurement would rule a length out for good.
double pass_length::pass_us(size_t n) const {
    const std::vector<double> & all = m_passes[m_depth].us;
    double                      us  = INFINITY;
    for (size_t i = n; i < all.size(); i++) {
        us = all[i] > 0.0 ? std::min(us, all[i]) : us;
    }
    if (all[n] == 0.0) {
        size_t i = n - 1;  // the longest one below that was taken
        while (i > 1 && all[i] == 0.0) {
            i--;
        }
        const double one = all[1];
        const double per = i == 1 ? PER_TOKEN * one : std::max(PER_TOKEN * one, (pass_us(i) - one) / static_cast<double>(i - 1));
        return std::min(us, pass_us(i) + static_cast<double>(n - i) * per);
    }
    return us;
}

pass_length::choice pass_length::next(source from, size_t limit) const {
    const std::vector<double> & us = m_passes[m_depth].us;
    if (us[1] == 0.0) {
        return {};
    }
    // behind a long text the first try is a short one
    const bool   is_tried = m_depth == 0 || std::any_of(us.begin() + 2, us.end(), [](double x) { return x > 0.0; });
    const size_t most     = std::min(is_tried ? limit : std::min<size_t>(limit, 2), max());
    const double right    = m_right[m_is_drawn][static_cast<size_t>(from)];
    choice       best{1, pass_us(1)};
    double       kept      = 1.0;  // tokens, expected
    double       all_right = 1.0;  // chance of those before
    for (size_t n = 2; n <= most; n++) {
        all_right *= right;
        kept += all_right;
        if (pass_us(n) / kept < best.us) {
            best = {n, pass_us(n) / kept};
        }
    }
    return best;
}

// What disturbs a pass makes it longer, so of the first two the shorter one counts, and later ones cannot pull far up. A length
// that is not taken is believed to be shorter and shorter, until it is tried again: soon where it was measured a few times only.
void pass_length::record_pass(size_t n, int64_t us) {
    if (m_warming > 0) {
        m_warming--;
        return;
    }
    times & t = m_passes[m_depth];
    for (size_t i = n + 1; i < t.us.size(); i++) {
        t.us[i] *= t.n[i] >= SURE ? FORGETTING : m_depth == 0 ? DOUBT : DEEP_DOUBT;
    }
    double &     mean  = t.us[n];
    const double value = static_cast<double>(us);
    t.n[n]++;
    if (t.n[n] <= 2) {
        mean = mean == 0.0 ? value : std::min(mean, value);
    } else {
        mean = TIME_MEMORY * mean + (1.0 - TIME_MEMORY) * std::min(value, MOST_UP * mean);
    }
}

void pass_length::record_guess(source from, bool was_right) {
    double & share = m_right[m_is_drawn][static_cast<size_t>(from)];
    share          = MEMORY * share + (was_right ? 1.0 - MEMORY : 0.0);
}

}  // namespace vt
