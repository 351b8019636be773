#include "decode/block_length.h"

#include <algorithm>
#include <cmath>

namespace vt {

namespace {

constexpr double MEMORY       = 0.97;  // what a verdict still weighs after the next one
constexpr double TIME_MEMORY  = 0.8;
constexpr double UNSEEN       = 1.2;  // guess for the next longer block that was never measured
constexpr int    RETRY        = 64;   // blocks or tokens after which the other way is measured again
constexpr size_t RETRY_LENGTH = 2;    // and again at once while it holds

void smooth(double & mean, double value) {
    mean = mean == 0.0 ? value : TIME_MEMORY * mean + (1.0 - TIME_MEMORY) * value;
}

double size_of(size_t which) {
    return static_cast<double>(size_t(1) << which);
}

}  // namespace

// One disturbed measurement would rule a length out for good, as lengths that are not taken are not measured. So no block
// is believed to take longer than a longer one, or than several shorter ones.
double block_length::verify_us(size_t which) const {
    double best = INFINITY;
    for (size_t i = 0; i < N_CLASSES; i++) {
        if (m_verify_us[i] > 0.0) {
            best = std::min(best, m_verify_us[i] * std::max(1.0, size_of(which) / size_of(i)));
        }
    }
    if (m_verify_us[which] == 0.0 && which > 0) {
        best = std::min(best, verify_us(which - 1) * UNSEEN);
    }
    return best;
}

size_t block_length::next(size_t limit, bool or_none) {
    if (m_is_cold) {
        return 1;
    }
    const double a         = std::min(acceptance(), 0.9999);
    size_t       best      = 1;
    double       best_time = INFINITY;
    for (size_t i = 0; i < N_CLASSES && (size_t(1) << i) <= limit; i++) {
        const double n        = size_of(i);
        const double expected = (1.0 - std::pow(a, n)) / (1.0 - a);  // tokens that the block gives
        const double time     = (n * (m_decode_us + m_draft_us) + verify_us(i)) / expected;
        if (time < best_time) {
            best_time = time;
            best      = size_t(1) << i;
        }
    }
    if (!or_none || std::isinf(best_time)) {
        return best;
    }
    // both ways are measured from time to time; while long blocks pay, the whole vocabulary is no rival
    const double whole = m_whole_us == 0.0 ? INFINITY : m_decode_us + m_whole_us;
    if (whole < best_time) {
        return m_held || ++m_since_drafting % RETRY == 0 ? std::min<size_t>(limit, RETRY_LENGTH) : 0;
    }
    return best == 1 && ++m_since_whole % RETRY == 0 ? 0 : best;
}

void block_length::record_decode(int64_t us) {
    smooth(m_decode_us, static_cast<double>(us));
}

void block_length::record_block(size_t n, size_t n_accepted, int64_t draft_us, int64_t verify_us) {
    m_held              = n_accepted >= n;
    const size_t judged = std::min(n, n_accepted + 1);
    for (size_t i = 0; i < judged; i++) {
        m_judged   = MEMORY * m_judged + 1.0;
        m_accepted = MEMORY * m_accepted + (i < n_accepted ? 1.0 : 0.0);
    }
    if (m_is_cold) {  // pages of the file may have been read for the first time
        m_is_cold = false;
        return;
    }
    smooth(m_draft_us, static_cast<double>(draft_us) / static_cast<double>(n));
    size_t which = 0;
    while (which + 1 < N_CLASSES && (size_t(1) << which) < n) {
        which++;
    }
    smooth(m_verify_us[which], static_cast<double>(verify_us));
}

void block_length::record_whole(int64_t us) {
    m_held = false;
    smooth(m_whole_us, static_cast<double>(us));
}

}  // namespace vt
