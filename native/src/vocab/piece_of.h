// The text of one token, as llama_token_to_piece has it.
#pragma once

#include <llama.h>

#include <algorithm>
#include <cstdint>
#include <string>

namespace vt {

// special: of special tokens, too, which have none otherwise
inline std::string piece_of(const llama_vocab & vocab, int32_t token, bool special) {
    std::string text(64, '\0');
    int32_t     n = llama_token_to_piece(&vocab, token, &text[0], static_cast<int32_t>(text.size()), 0, special);
    if (n < 0) {
        text.resize(static_cast<size_t>(-n));
        n = llama_token_to_piece(&vocab, token, &text[0], static_cast<int32_t>(text.size()), 0, special);
    }
    text.resize(static_cast<size_t>(std::max(n, 0)));
    return text;
}

}  // namespace vt
