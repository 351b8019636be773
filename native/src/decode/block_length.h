// How many tokens to draft before they are verified together, or whether to draft at all.
//
// A long block shares the cost of verification among many tokens, but what follows a rejected token was computed for
// nothing. How likely a draft holds is learned by how far its logit lies ahead of the next best one: most are nearly sure,
// and a doubtful one ends a block. Another token is drafted as long as the time that it takes is no more than what the
// tokens that it may be expected to bring have taken lately. Where even that is longer than a decision on the whole
// vocabulary, nothing is drafted. All this changes how fast tokens come, never which.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace vt {

class block_length {
  public:
    static constexpr size_t MAX = 16;

    block_length();

    // most tokens to draft, at most `limit`; 0, where that may be: decide on the whole vocabulary
    size_t next(size_t limit, bool or_none);

    // nothing is drafted yet
    void begin_block();

    // a token was drafted whose logit is so far ahead of all others; is_drawn: the chain does not simply take the best
    void record_draft(float lead, bool is_drawn);

    // whether to draft another one before verification; is_decoded: no pass of the core is needed for it
    bool pays(bool is_decoded) const;

    // the core decoded one token
    void record_decode(int64_t us);

    // the drafted tokens took so long without their decodes; the first n_accepted were confirmed, and the next one, if any,
    // was not
    void record_block(size_t n_accepted, int64_t draft_us, int64_t verify_us);

    // one decision on the whole vocabulary
    void record_whole(int64_t us);

    double acceptance() const { return m_accepted / m_judged; }

  private:
    static constexpr size_t N_CLASSES = 5;  // of blocks of 1, 2, 4, 8, 16
    static constexpr size_t N_LEADS   = 10;

    // what blocks took and gave; older ones weigh less
    struct recent {
        double decode_us = 0.0, decodes = 0.0, draft_us = 0.0, drafted = 0.0, verify_us = 0.0;
        double emitted = 0.0;  // tokens

        void add(const recent & block);
    };

    // an optimist: nine of ten are accepted until something else is known
    double                          m_accepted = 9.0;
    double                          m_judged   = 10.0;
    // log odds that a draft holds: by its lead, of greedy chains, then of others; and what the text of late adds
    std::array<double, 2 * N_LEADS> m_odds;
    double                          m_text_odds = 0.0;
    std::vector<size_t>             m_drafted;          // of this block, by lead
    double                          m_holds     = 1.0;  // probability that all of them do
    double                          m_decode_us = 0.0;
    double                          m_draft_us  = 0.0;         // of one token, without its decode
    double                          m_whole_us  = 0.0;         // 0 where not measured yet
    std::array<double, N_CLASSES>   m_verify_us{};             // of a block, 0 where not measured yet
    recent                          m_recent;                  // blocks
    recent                          m_open;                    // decodes since the last block
    bool                            m_held           = false;  // the last decision was a block, all of it accepted
    bool                            m_is_short       = true;   // and of one token
    bool                            m_is_cold        = true;
    int                             m_since_whole    = 0;  // blocks
    int                             m_since_drafting = 0;  // tokens

    double probability(size_t draft) const;
    void   record_verdict(size_t draft, bool holds);
    double verify_us(size_t which) const;
    double state_us() const;
};

}  // namespace vt
