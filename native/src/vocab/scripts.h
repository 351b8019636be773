// The tokens of a vocabulary that are written in a script other than Latin.
//
// A token is of the script of its first letter that has one.
#pragma once

#include "vocab/script_of.h"

#include <llama.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace vt {

class scripts {
  public:
    // vocab must outlive this
    explicit scripts(const llama_vocab & vocab) : m_vocab(vocab) {}

    script_id of(int32_t token) const;

    // the tokens of a script, most frequent first as far as ids tell: they follow the order in which a tokenizer was trained. But
    // SentencePiece numbers single characters behind everything that was merged, so of both one is taken in turn.
    const std::vector<int32_t> & tokens(script_id script);

  private:
    const llama_vocab &                       m_vocab;
    std::map<script_id, std::vector<int32_t>> m_tokens;  // of those that were asked for

    std::string piece(int32_t token) const;
};

}  // namespace vt
