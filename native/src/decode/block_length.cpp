#include "decode/block_length.h"

#include <algorithm>
#include <cmath>

namespace vt {

namespace {

constexpr double MEMORY       = 0.97;  // what a verdict still weighs after the next one
constexpr double TIME_MEMORY  = 0.8;
constexpr double BLOCK_MEMORY = 0.9;
constexpr double UNSEEN       = 1.2;  // guess for the next longer block that was never measured
constexpr int    RETRY        = 64;   // blocks or tokens after which the other way is measured again
constexpr size_t RETRY_LENGTH = 2;    // and again at once while it holds

// leads of logits that are told apart, and log odds that a draft with them holds until more is known
constexpr float  LEADS[]      = {-1.0f, 0.0f, 0.25f, 0.5f, 1.0f, 2.0f, 3.0f, 4.0f, 6.0f};
constexpr double FIRST_ODDS[] = {0.4, 0.6, 0.8, 1.0, 1.6, 2.5, 3.5, 4.5, 5.5, 6.5};
// what a verdict moves: little of what a lead tells, more of what is the text's own
constexpr double LEAD_RATE    = 0.05;
constexpr double TEXT_RATE    = 0.3;
constexpr double MOST_ODDS    = 4.0;  // of the text's own

void smooth(double & mean, double value) {
    mean = mean == 0.0 ? value : TIME_MEMORY * mean + (1.0 - TIME_MEMORY) * value;
}

double size_of(size_t which) {
    return static_cast<double>(size_t(1) << which);
}

}  // namespace

block_length::block_length() {
    static_assert(std::size(FIRST_ODDS) == N_LEADS && std::size(LEADS) + 1 == N_LEADS, "");
    std::copy_n(FIRST_ODDS, N_LEADS, m_odds.begin());
    std::copy_n(FIRST_ODDS, N_LEADS, m_odds.begin() + N_LEADS);
}

double block_length::probability(size_t draft) const {
    return 1.0 / (1.0 + std::exp(-m_odds[draft] - m_text_odds));
}

void block_length::record_verdict(size_t draft, bool holds) {
    m_judged           = MEMORY * m_judged + 1.0;
    m_accepted         = MEMORY * m_accepted + (holds ? 1.0 : 0.0);
    const double error = (holds ? 1.0 : 0.0) - probability(draft);
    m_odds[draft] += LEAD_RATE * error;
    m_text_odds = std::min(std::max(m_text_odds + TEXT_RATE * error, -MOST_ODDS), MOST_ODDS);
}

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

// what one more token adds to a verification
double block_length::state_us() const {
    const double added = verify_us(N_CLASSES - 1) - verify_us(0);
    return std::isfinite(added) ? std::max(added, 0.0) / (size_of(N_CLASSES - 1) - 1.0) : 0.0;
}

size_t block_length::next(size_t limit, bool or_none) {
    if (m_is_cold) {
        return 1;
    }
    const double a         = std::min(acceptance(), 0.9999);
    double       best_time = INFINITY;
    for (size_t i = 0; i < N_CLASSES && (size_t(1) << i) <= limit; i++) {
        const double n        = size_of(i);
        const double expected = (1.0 - std::pow(a, n)) / (1.0 - a);  // tokens that the block gives
        best_time             = std::min(best_time, (n * (m_decode_us + m_draft_us) + verify_us(i)) / expected);
    }
    if (!or_none || std::isinf(best_time)) {
        return limit;
    }
    // both ways are measured from time to time; while blocks of several pay, the whole vocabulary is no rival
    const double whole = m_whole_us == 0.0 ? INFINITY : m_decode_us + m_whole_us;
    if (whole < best_time) {
        return m_held || ++m_since_drafting % RETRY == 0 ? std::min<size_t>(limit, RETRY_LENGTH) : 0;
    }
    return m_is_short && ++m_since_whole % RETRY == 0 ? 0 : limit;
}

void block_length::begin_block() {
    m_drafted.clear();
    m_holds = 1.0;
}

void block_length::record_draft(float lead, bool is_drawn) {
    size_t which = 0;
    while (which < std::size(LEADS) && !(lead < LEADS[which])) {
        which++;
    }
    which += is_drawn ? N_LEADS : 0;
    m_drafted.push_back(which);
    m_holds *= probability(which);
}

void block_length::recent::add(const recent & block) {
    const auto join = [](double & sum, double value) { sum = BLOCK_MEMORY * sum + value; };
    join(decode_us, block.decode_us);
    join(decodes, block.decodes);
    join(draft_us, block.draft_us);
    join(drafted, block.drafted);
    join(verify_us, block.verify_us);
    join(emitted, block.emitted);
}

bool block_length::pays(bool is_decoded) const {
    const recent & r = m_recent;
    if (r.emitted == 0.0 || r.decodes == 0.0) {
        return true;
    }
    const double us = r.draft_us / r.drafted + state_us() + (is_decoded ? 0.0 : r.decode_us / r.decodes);
    return us <= m_holds * (r.decode_us + r.draft_us + r.verify_us) / r.emitted;
}

void block_length::record_decode(int64_t us) {
    smooth(m_decode_us, static_cast<double>(us));
    m_open.decode_us += static_cast<double>(us);
    m_open.decodes += 1.0;
}

void block_length::record_block(size_t n_accepted, int64_t draft_us, int64_t verify_us) {
    const size_t n      = m_drafted.size();
    const size_t judged = std::min(n, n_accepted + 1);
    m_held              = n_accepted >= n;
    m_is_short          = n == 1;
    for (size_t i = 0; i < judged; i++) {
        record_verdict(m_drafted[i], i < n_accepted);
    }
    recent block = m_open;
    m_open       = {};
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
    block.drafted   = static_cast<double>(n);
    block.draft_us  = static_cast<double>(draft_us);
    block.verify_us = static_cast<double>(verify_us);
    block.emitted   = static_cast<double>(judged);
    m_recent.add(block);
}

void block_length::record_whole(int64_t us) {
    m_held = false;
    m_open = {};
    smooth(m_whole_us, static_cast<double>(us));
}

}  // namespace vt
