// Exact mode: the token that the whole vocabulary would give, at nearly the cost of the active set.
//
// A block of tokens is drafted with the active set, one decode each. Then the whole LM head is read once for all of their
// hidden states and names the rows that could have changed a decision. Where there are none the draft is the truth. Where
// there are some, they join the active set and the chain decides again, from its state before the draft; if the token is
// another one, the rest of the draft is dropped, and the KV cells beyond are removed before the next decode.
// Every decode is of one token and every logit that decides is of ggml's product for one state, as in llama.cpp itself.
#pragma once

#include "decode/block_length.h"
#include "decode/chain.h"
#include "decode/hook.h"
#include "head/whole_head.h"

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

namespace vt {

class exact {
  public:
    // max_block: 1 where the context's memory cannot be rolled back
    // vocab: drafts end at its end-of-generation tokens; the core has none
    exact(hook & k, const llama_vocab & vocab, vt_placement placement, size_t max_block);

    // count how often these are given from now on although the active set has them; those that were watched before count on
    void watch(const int32_t * tokens, size_t n);

    // a new text or a new chain, whose samplers are cloned or borrowed
    void begin(const llama_sampler * samplers);

    // the token that follows the n_tokens of the text; only verified tokens are given, and accepted by the chain
    int32_t sample(int32_t n_tokens, size_t max_block);

    // decode tokens at position pos, unless they have been drafted and given already; what lies beyond is removed
    void eval(const int32_t * tokens, size_t n, int32_t pos);

    // the token that the samplers would choose now from the whole vocabulary; nothing changes
    int32_t audit(const llama_sampler * samplers);

    // tokens that were given and that the active set lacked when their chain began, and how often
    const std::map<int32_t, uint64_t> & missed() const { return m_missed; }

    // those that are watched, and how often they were given
    const std::map<int32_t, uint64_t> & watched() const { return m_watched; }

    vt_exact_stats stats() const;

  private:
    struct step {
        std::vector<float> hidden;  // (n_embd,) the state that decides
        chain              before;  // the chain before it decided
        candidates         kept;    // what its selector kept, modified
        float              threshold = 0.0f;
        int32_t            token     = -1;  // drafted, then verified
    };

    hook &                      m_hook;
    whole_head                  m_whole;
    head                        m_extra;   // rows that a scan has listed
    std::vector<bool>           m_is_end;  // of generation
    size_t                      m_max_block;
    std::unique_ptr<chain>      m_chain;
    std::vector<step>           m_steps;  // of the block
    size_t                      m_n_given = 0;
    size_t                      m_n_base  = 0;  // rows of the active set when the chain began
    int32_t                     m_pos     = 0;  // of the first step's token
    block_length                m_length;
    candidates                  m_candidates;
    std::vector<float>          m_logits;
    std::vector<scan_hit>       m_hits;
    std::map<int32_t, uint64_t> m_missed;
    std::map<int32_t, uint64_t> m_watched;
    int64_t                     m_decode_us = 0;  // in the block's draft
    vt_exact_stats              m_stats     = {};

    int32_t n_threads() const;
    bool    is_end(int32_t token) const { return m_is_end[static_cast<size_t>(token)]; }
    size_t  n_embd() const { return static_cast<size_t>(m_hook.get_store()->info().n_embd); }
    int32_t decide_on_all(chain & c, const float * hidden);

    // logits of rows of a head for one state, modified by a chain
    void fill(head & h, chain & c, const float * hidden, candidates & out);

    // a step's decision on what it has kept and on rows beside; the chain is the one before it
    int32_t decide_again(chain & c, step & s, const std::vector<int32_t> & rows);

    step   new_step() const;
    void   run_block(int32_t n_tokens, size_t n);
    bool   lacked(int32_t token) const;
    void   count_watched(int32_t token);
    void   decode(const int32_t * tokens, size_t n, int32_t pos);
    void   draft(int32_t n_tokens, size_t n);
    size_t verify();
    void   drop_block();
};

}  // namespace vt
