// All tokens that a grammar allows next.
//
// A grammar reads a token's text character by character. So where it refuses a token, it refuses every one whose text begins
// with that token's, and few are left to ask about. That does not hold for grammars that name tokens by id, nor behind a
// token that ends inside a character: then all are asked about.
#pragma once

#include "decode/samplers.h"

#include <llama.h>

#include <cstdint>
#include <vector>

namespace vt {

class allowed_tokens {
  public:
    // vocab must outlive this
    explicit allowed_tokens(const llama_vocab & vocab) : m_vocab(vocab) {}

    // ids, ascending. last: the token that the grammar has accepted last, or -1; is_text: it names no tokens
    std::vector<int32_t> find(llama_sampler & grammar, int32_t last, bool is_text, int32_t n_threads);

    size_t n_bytes() const { return (m_others.capacity() + m_children.capacity()) * sizeof(int32_t) + m_ends.capacity() * sizeof(uint32_t); }

  private:
    const llama_vocab &   m_vocab;
    std::vector<int32_t>  m_others;    // tokens that are always asked about: ends, and those whose text is not UTF-8
    std::vector<int32_t>  m_children;  // of each token, those whose text begins with its text and with no longer token's;
    std::vector<uint32_t> m_ends;      // (n_vocab + 1,) where those of each token end. At last those of none.

    void make_tree();
    void add_children(size_t token, std::vector<int32_t> & ids) const;
};

}  // namespace vt
