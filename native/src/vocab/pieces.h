// The texts of all tokens, packed: what decoding needs of a vocabulary when nothing is tokenized any more. llama.cpp's
// tables, which can then be freed, take some 160 bytes a token.
#pragma once

#include <llama.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace vt {

class pieces {
  public:
    // vocab is not needed any more afterwards
    explicit pieces(const llama_vocab * vocab);

    // as llama_token_to_piece has it for output; empty for special tokens
    std::string_view text(int32_t token) const;

    bool is_eog(int32_t token) const;

    size_t n_bytes() const;

  private:
    std::string           m_text;  // of all tokens, one after the other
    std::vector<uint32_t> m_ends;  // (n_vocab,) where each ends
    std::vector<int32_t>  m_eog;   // ascending

    size_t checked(int32_t token) const;
};

}  // namespace vt
