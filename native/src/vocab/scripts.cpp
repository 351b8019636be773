#include "vocab/scripts.h"

#include "vocab/utf8.h"

#include <algorithm>

namespace vt {

std::string scripts::piece(int32_t token) const {
    char          text[64];  // longer ones are no words
    const int32_t n = llama_token_to_piece(&m_vocab, token, text, sizeof(text), 0, false);
    return std::string(text, n > 0 ? static_cast<size_t>(n) : 0);
}

script_id scripts::of(int32_t token) const {
    return token < 0 || token >= llama_vocab_n_tokens(&m_vocab) ? NO_SCRIPT : script_of(piece(token));
}

const std::vector<int32_t> & scripts::tokens(script_id script) {
    const auto found = m_tokens.find(script);
    if (found != m_tokens.end()) {
        return found->second;
    }
    std::vector<int32_t> letters, words, both;
    for (int32_t id = 0; id < llama_vocab_n_tokens(&m_vocab); id++) {
        const std::string text = piece(id);
        if (script_of(text) == script) {
            const utf8_char first = read_utf8(text, 0);
            (first.n == text.size() && !first.is_cut ? letters : words).push_back(id);
        }
    }
    for (size_t i = 0; i < std::max(letters.size(), words.size()); i++) {
        if (i < letters.size()) {
            both.push_back(letters[i]);
        }
        if (i < words.size()) {
            both.push_back(words[i]);
        }
    }
    return m_tokens[script] = std::move(both);
}

}  // namespace vt
