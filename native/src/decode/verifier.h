// Exact mode: the token that the whole vocabulary would give, at nearly the cost of the active set.
//
// A block of tokens is drafted with the active set. A pass of the core takes the token that was chosen and guesses of what follows: what followed it
// in the text before, what a grammar forces, what somebody else has drafted; as long as the active set then chooses these, they need no pass of their
// own. Then the whole LM head is read once for all of their hidden states and names the rows that could have changed a decision. Where there are none
// the draft is the truth. Where there are some, they join the active set and the chain decides again, from its state before the draft; if the token
// is another one, the rest of the draft is dropped. Every hidden state has the bits of a decode of one token, and every logit that decides is of
// ggml's product for one state, as in llama.cpp itself.
//
// While a request lasts the verifier owns where the text is. Three things lie ahead of it while drafts wait to be given:
// the context's memory, its hidden state and the chain; drop_block brings all of them back, and whatever goes another way
// than the draft begins with it. Behind a text without drafts the memory may still have tokens of the last pass.
#pragma once

#include "decode/block_length.h"
#include "decode/chain.h"
#include "decode/counts.h"
#include "decode/decider.h"
#include "decode/grammar_text.h"
#include "decode/growth.h"
#include "decode/passes.h"
#include "decode/session.h"
#include "head/whole_head.h"

#include <cstdint>
#include <memory>
#include <vector>

namespace vt {

class verifier {
  public:
    struct limits {
        size_t max_block;  // tokens drafted before they are verified
        size_t max_pass;   // tokens of a pass of the core
        bool   no_drafts;
    };

    // vocab: drafts end at its end-of-generation tokens; the core has none
    verifier(session & s, whole_head & whole, const llama_vocab & vocab, const limits & l);

    // a request with a chain, whose samplers are cloned or borrowed, at the end of the session's text; one that lasts is ended
    void begin(const llama_sampler * samplers);

    // whether the grammars of chains name no tokens, only texts
    void set_text_grammars(bool are) { m_decider.set_text_grammars(are); }

    // nothing is left of it but the text
    void end();

    // tokens of the text
    int32_t n_past() const { return m_chain ? m_pos : m_session.n_past(); }

    // back to a shorter text; the chain stays as it is
    void rewind(int32_t pos);

    // to the end of the session's text, which is another one now; the chain stays as it is
    void resume();

    // the token that follows the text; only verified tokens are given, and accepted by the chain. left: tokens that will be asked
    // for at most, this one included
    int32_t sample(size_t left);

    // tokens that the text goes on with: at no cost where they are those that were drafted and given
    void decode(const int32_t * tokens, size_t n);

    // somebody's guess of the tokens from a position on, of use to passes of several tokens; those behind an id that there is not are left out
    void expect(const int32_t * tokens, size_t n, int32_t pos);

    // the token that the samplers would choose now from the whole vocabulary; nothing changes
    int32_t audit(const llama_sampler * samplers);

    token_counts &    counts() { return m_counts; }
    vt_verifier_stats stats() const;

  private:
    session &              m_session;
    whole_head &           m_whole;
    const llama_vocab &    m_vocab;
    size_t                 m_max_block;
    bool                   m_no_drafts;
    std::unique_ptr<chain> m_chain;
    std::vector<int32_t>   m_raised;       // ids whose logits the chain may raise: a draft without them could not be proved
    std::vector<step>      m_steps;        // of the block
    size_t                 m_n_given = 0;  // steps
    int32_t                m_base    = 0;  // tokens of the text when the block began
    int32_t                m_pos     = 0;  // tokens of the text: those of the last token given may still be undecoded
    size_t                 m_n_base  = 0;  // rows of the active set when the request began
    block_length           m_length;
    grammar_text           m_grammar_text;
    passes                 m_passes;
    bool                   m_is_first = true;  // the next block is its request's first
    size_t                 m_left     = 1;     // tokens that will be asked for at most
    std::vector<scan_hit>  m_near_hits;        // of the block
    growth                 m_growth;
    token_counts           m_counts;
    int64_t                m_decode_us = 0;  // in the block's draft
    vt_verifier_stats      m_stats     = {};
    decider                m_decider;

    head &  active() const { return *m_session.get_head(); }
    bool    ends(int32_t token) const;
    bool    lacked(int32_t token) const;
    void    advance(int32_t token, int32_t pos, size_t room);
    void    drop_ahead();
    bool    choose_draft(step & s);
    bool    had(const step & s, int32_t row) const;
    void    draft(size_t n);
    size_t  verify();
    void    grow(size_t n_states);
    void    run_block(size_t n);
    void    run_whole();
    void    take_steps();
    void    drop_block();
    void    move_to(int32_t pos);
    int32_t give();
};

}  // namespace vt
