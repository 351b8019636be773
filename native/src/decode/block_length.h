// How many tokens to draft before they are verified together, or whether to draft at all.
//
// A long block shares the cost of verification among many tokens, but what follows a rejected token was computed for
// nothing. The length with the least expected time per emitted token is taken, from the share of drafts that were accepted
// lately and from times that were measured lately. Where even single drafts take longer than a decision on the whole
// vocabulary, nothing is drafted. All this changes how fast tokens come, never which.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace vt {

class block_length {
  public:
    static constexpr size_t MAX = 16;

    // tokens to draft, at most `limit`; 0, where that may be: decide on the whole vocabulary
    size_t next(size_t limit, bool or_none);

    // the core decoded one token
    void record_decode(int64_t us);

    // a block of n drafted tokens took so long without its decodes; of them n_accepted were confirmed, and the next one,
    // if any, was not
    void record_block(size_t n, size_t n_accepted, int64_t draft_us, int64_t verify_us);

    // one decision on the whole vocabulary
    void record_whole(int64_t us);

    double acceptance() const { return m_accepted / m_judged; }

  private:
    static constexpr size_t N_CLASSES = 5;  // 1, 2, 4, 8, 16

    // an optimist: nine of ten are accepted until something else is known
    double                        m_accepted  = 9.0;
    double                        m_judged    = 10.0;
    double                        m_decode_us = 0.0;
    double                        m_draft_us  = 0.0;         // of one token, without its decode
    double                        m_whole_us  = 0.0;         // 0 where not measured yet
    std::array<double, N_CLASSES> m_verify_us{};             // of a block, 0 where not measured yet
    bool                          m_held           = false;  // the last decision was a block, all of it accepted
    bool                          m_is_cold        = true;
    int                           m_since_whole    = 0;  // blocks
    int                           m_since_drafting = 0;  // tokens

    double verify_us(size_t which) const;
};

}  // namespace vt
