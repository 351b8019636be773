#include "block_length.h"

#include <algorithm>
#include <cmath>

namespace vt {

namespace {

constexpr double MEMORY      = 0.97;  // what a verdict still weighs after the next one
constexpr double TIME_MEMORY = 0.8;
constexpr double UNSEEN      = 1.2;  // guess for the next longer block that was never measured

void smooth(double & mean, double value) {
    mean = mean == 0.0 ? value : TIME_MEMORY * mean + (1.0 - TIME_MEMORY) * value;
}

}  // namespace

double block_length::verify_us(size_t which) const {
    double guess = 0.0;
    for (size_t i = 0; i <= which; i++) {
        guess = m_verify_us[i] > 0.0 ? m_verify_us[i] : guess * UNSEEN;
    }
    return guess;
}

size_t block_length::next(size_t limit) const {
    const double a         = std::min(acceptance(), 0.9999);
    size_t       best      = 1;
    double       best_time = INFINITY;
    for (size_t i = 0; i < N_CLASSES && (size_t(1) << i) <= limit; i++) {
        const double n        = static_cast<double>(size_t(1) << i);
        const double expected = (1.0 - std::pow(a, n)) / (1.0 - a);  // tokens that the block gives
        const double time     = (n * m_draft_us + verify_us(i)) / expected;
        if (time < best_time) {
            best_time = time;
            best      = size_t(1) << i;
        }
    }
    return best;
}

void block_length::record(size_t n, size_t n_accepted, int64_t draft_us, int64_t verify_us) {
    const size_t judged = std::min(n, n_accepted + 1);
    for (size_t i = 0; i < judged; i++) {
        m_judged   = MEMORY * m_judged + 1.0;
        m_accepted = MEMORY * m_accepted + (i < n_accepted ? 1.0 : 0.0);
    }
    smooth(m_draft_us, static_cast<double>(draft_us) / static_cast<double>(n));
    size_t which = 0;
    while (which + 1 < N_CLASSES && (size_t(1) << which) < n) {
        which++;
    }
    smooth(m_verify_us[which], static_cast<double>(verify_us));
}

}  // namespace vt
