// What a chain chooses after a hidden state: from the active set, from what a scan of the whole head adds to it, or from all
// logits. The logits that decide are always those of ggml's product for one state, as in llama.cpp itself.
#pragma once

#include "decode/allowed_tokens.h"
#include "decode/chain.h"
#include "decode/listed.h"
#include "decode/session.h"
#include "head/whole_head.h"

#include <cmath>
#include <cstdint>
#include <vector>

namespace vt {

// one decision, from its draft on
struct step {
    std::vector<float> hidden;  // (n, n_embd) the last state decides; before it those that llama.cpp multiplied at once with it
    chain              before;  // the chain before it decided
    candidates         kept;    // what its selector kept, modified
    float              threshold = 0.0f;
    float              lead      = 0.0f;      // of the token's logit before all others of the active set, negative where it is not the best
    float              near      = INFINITY;  // logit from which on rows are worth drafting with
    int32_t            token     = -1;        // drafted, then verified
    size_t             n_rows    = 0;         // of the active set that has drafted it
    double             weight    = 0.0;       // of the active set, where the chain needs tails
    bool               is_all    = false;     // a grammar allows nothing else than what was kept
    std::vector<moved> changed   = {};        // by modifiers, of the active set and of what was listed
};

// of a step: what the scan lists, by row, and what the rest weighs
struct finding {
    std::vector<scan_hit> hits;
    std::vector<scan_hit> near;  // rows that come near; none where the chain needs tails
    head_tail             tail = {};
};

class decider {
  public:
    // times and counts go to `stats`
    decider(session & s, whole_head & whole, const llama_vocab & vocab, vt_verifier_stats & stats);

    // whether grammars name no tokens
    void set_text_grammars(bool are) { m_are_text = are; }

    // whether the chain may decide on what a scan lists, and that pays
    bool can_draft(const chain & c) const;

    size_t n_states(const step & s) const;

    // what the chain keeps of the active set; false where only all logits can tell, and the chain is not as before then
    bool select(chain & c, step & s);

    // the active set's choice, after select; -1 where only all logits can tell
    int32_t choose(chain & c, step & s);

    // the rows that could change the steps' decisions, all in one scan
    std::vector<finding> find(const std::vector<step> & steps);

    // the decision on what the step has kept and on rows that were found beside; the chain is the one before it
    int32_t decide_again(chain & c, step & s, const std::vector<int32_t> & rows, const finding & found);

    int32_t decide_on_all(chain & c, const step & s);

    // of the rows that were computed last: after select, of the active set
    const std::vector<float> & logits() const { return m_logits; }

    size_t n_bytes() const {
        return m_extra.n_bytes() + m_allowed.n_bytes() + m_logits.capacity() * sizeof(float) + m_candidates.capacity() * sizeof(llama_token_data);
    }

  private:
    session &             m_session;
    whole_head &          m_whole;
    vt_verifier_stats &   m_stats;
    head                  m_extra;  // rows that a scan has listed, or a grammar allows
    allowed_tokens        m_allowed;
    bool                  m_are_text = false;
    candidates            m_candidates;
    std::vector<float>    m_logits;
    std::vector<scan_hit> m_hits;
    std::vector<scan_hit> m_near_hits;

    int32_t n_threads() const { return llama_n_threads(m_session.context()); }
    size_t  n_vocab() const { return static_cast<size_t>(m_session.get_store()->info().n_vocab); }
    void    list_all();
    bool    select_allowed(chain & c, step & s);
    void    fill(head & h, chain & c, const float * hidden);
    void    note_changes(step & s, const std::vector<int32_t> & ids) const;
    bool    settle(chain & c, step & s, const std::vector<int32_t> & rows, const finding & found, int32_t & token);
};

}  // namespace vt
