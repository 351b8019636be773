// The tokens of a vocabulary that are written in a script other than Latin.
//
// A token is of the script of its first letter of such a script. Where a piece of byte-level BPE ends inside of a
// character, the code points that it may be tell.
#pragma once

#include <llama.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace vt {

// one of Greek, Cyrillic, ..., Han (Unicode blocks, those of one script taken together); NO_SCRIPT for Latin, digits, signs
using script_id = int32_t;

constexpr script_id NO_SCRIPT = -1;

script_id script_of(uint32_t code_point);

// of a text's first letter that is of one
script_id script_of(const std::string & text);

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
