// Passes of the core while drafting: a token that was chosen, and guesses of what follows: what followed the same words
// before, what a grammar leaves, what somebody else has drafted.
//
// Tokens behind the text, or the draft, are in the context's memory although nobody chose them yet. Where they then are chosen
// they need no pass of their own. A pass takes no more tokens than keep the bits of single ones.
#pragma once

#include "decode/pass_length.h"
#include "decode/session.h"
#include "decode/text_index.h"

#include <cstdint>
#include <vector>

namespace vt {

class passes {
  public:
    // max: tokens of a pass; 1 where the text drafts nothing
    passes(session & s, size_t max) : m_session(s), m_length(max) {}

    // the text, or the draft, ends at a position: looks for what stood before as it ends
    void begin(int32_t pos);

    // whether passes take guesses at all
    bool take_guesses() const { return max() > 1; }

    // tokens of a pass
    size_t max() const { return m_length.max(); }

    // whether the tokens are drawn
    void set_drawn(bool is_drawn) { m_length.set_drawn(is_drawn); }

    // whether the last pass had a token at its position
    bool has(int32_t token, int32_t pos) const;

    // what somebody else expects from a position on, in the place of what was given before
    void expect(const int32_t * tokens, size_t n, int32_t pos);

    // what is left of it
    const std::vector<int32_t> & given() const { return m_given; }

    // whether a token that was chosen had better be given before it is decoded: somebody said what follows the text, nothing of it
    // is left behind the token, and a pass with more of it would be worth its time
    bool wants_more(int32_t token, int32_t pos) const;

    // the context's memory goes on with a chosen token, whose hidden state is the session's only one then. ruled: what a grammar lets
    // follow it; room: tokens that will be asked for after it. Returns the time of the core in us, 0 where the last pass had the token.
    int64_t advance(int32_t token, int32_t pos, const std::vector<int32_t> & ruled, size_t room);

    // position behind the last pass, whose tokens may lie ahead of the text
    int32_t end() const { return m_pos + static_cast<int32_t>(m_tokens.size()); }

    // its tokens are no longer those that the memory has, or that follow
    void forget();

    uint64_t n_ahead() const { return m_n_ahead; }    // tokens that were decoded before they were chosen
    uint64_t n_agreed() const { return m_n_agreed; }  // of them those that were chosen

  private:
    session &            m_session;
    pass_length          m_length;
    text_index           m_index;
    text_index::match    m_match;       // of its end
    int32_t              m_pos    = 0;  // of the last pass
    int32_t              m_chosen = 0;  // position of its last token that was chosen
    std::vector<int32_t> m_tokens;
    pass_length::source  m_source{};       // of its guesses
    std::vector<int32_t> m_given;          // by somebody else
    int32_t              m_given_pos = 0;  // of the first of them
    int64_t              m_given_end = 0;  // behind the last one, right or wrong
    int32_t              m_base      = 0;  // where the text, or the draft, ended when it was told
    std::vector<float>   m_hidden;         // (tokens, n_embd)
    uint64_t             m_n_ahead  = 0;
    uint64_t             m_n_agreed = 0;

    struct guess {
        pass_length::source source;
        const int32_t *     tokens;
        size_t              n;  // 0 for none
    };

    void    follow(int32_t token, int32_t pos);
    guess   from_others(int32_t pos) const;
    guess   from_text() const;
    int64_t decode(int32_t token, int32_t pos, const std::vector<int32_t> & ruled, size_t room);
};

}  // namespace vt
