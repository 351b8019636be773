#include "decode/pass_length.h"

#include <algorithm>
#include <cmath>

namespace vt {

namespace {

constexpr double MEMORY      = 0.9;  // what a verdict still weighs after the next one
constexpr double TIME_MEMORY = 0.8;
constexpr double PER_TOKEN   = 0.08;  // guess: what one more token adds to a pass, in passes
constexpr size_t WARMING     = 2;

}  // namespace

pass_length::pass_length(size_t max) : m_pass_us(std::max<size_t>(max, 1) + 1, 0.0), m_right{0.3, 0.5, 0.7, 0.8, 0.9}, m_warming(WARMING) {
}

size_t pass_length::class_of(size_t match_length) {
    return match_length <= 2 ? 0 : match_length == 3 ? 1 : match_length <= 5 ? 2 : match_length <= 9 ? 3 : 4;
}

// A length that was never taken is guessed low, so that it is tried. None takes longer than a longer one: one disturbed
// measurement would rule a length out for good.
double pass_length::pass_us(size_t n) const {
    double us = INFINITY;
    for (size_t i = n; i < m_pass_us.size(); i++) {
        us = m_pass_us[i] > 0.0 ? std::min(us, m_pass_us[i]) : us;
    }
    if (m_pass_us[n] == 0.0) {
        for (size_t i = n; i-- > 1;) {
            if (m_pass_us[i] > 0.0) {
                return std::min(us, pass_us(i) + static_cast<double>(n - i) * PER_TOKEN * m_pass_us[1]);
            }
        }
    }
    return us;
}

size_t pass_length::next(size_t match_length, size_t limit) const {
    if (match_length == 0 || m_pass_us[1] == 0.0) {
        return 1;
    }
    const double right     = m_right[class_of(match_length)];
    size_t       best      = 1;
    double       best_time = pass_us(1);
    double       kept      = 1.0;  // tokens, expected
    double       all_right = 1.0;  // chance of those before
    for (size_t n = 2; n <= std::min(limit, max()); n++) {
        all_right *= right;
        kept += all_right;
        if (pass_us(n) / kept < best_time) {
            best_time = pass_us(n) / kept;
            best      = n;
        }
    }
    return best;
}

void pass_length::record_pass(size_t n, int64_t us) {
    if (m_warming > 0) {
        m_warming--;
        return;
    }
    double & mean = m_pass_us[n];
    mean          = mean == 0.0 ? static_cast<double>(us) : TIME_MEMORY * mean + (1.0 - TIME_MEMORY) * static_cast<double>(us);
}

void pass_length::record_match(size_t match_length, bool was_right) {
    double & share = m_right[class_of(match_length)];
    share          = MEMORY * share + (was_right ? 1.0 - MEMORY : 0.0);
}

}  // namespace vt
