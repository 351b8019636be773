#include "vocab/vocab.h"

#include "base/error.h"

namespace vt {

namespace {

bool is_space(const char * s, int32_t n) {
    for (int32_t i = 0; i < n; i++) {
        if (s[i] != ' ' && (s[i] < '\t' || s[i] > '\r')) {
            return false;
        }
    }
    return n > 0;
}

// whether a token's text shows that its piece has several bytes, one of them a visible character: most tokens, at a
// tenth of the time that their pieces take. Where tokens are words of characters or of bytes, each stands for one at least.
bool is_plainly_longer(const llama_vocab * vocab, int32_t id) {
    const char * text = llama_vocab_get_text(vocab, id);
    for (size_t i = 0; text[i] != '\0'; i++) {
        if (text[i] > ' ' && text[i] < 0x7f) {
            return i > 0 || text[1] != '\0';
        }
    }
    return false;
}

}  // namespace

void require_tokenizer(const llama_vocab * vocab) {
    if (llama_vocab_type(vocab) == LLAMA_VOCAB_TYPE_NONE) {
        throw error(VT_ERROR_ARGUMENT, "this vocabulary has no tokenizer: the store's is meant, not the core's");
    }
}

std::vector<int32_t> always_on(const llama_vocab * vocab) {
    require_tokenizer(vocab);
    std::vector<int32_t> ids;
    const int32_t        n_vocab = llama_vocab_n_tokens(vocab);
    const auto           type    = llama_vocab_type(vocab);
    const bool           is_text = type == LLAMA_VOCAB_TYPE_SPM || type == LLAMA_VOCAB_TYPE_BPE;  // others have escapes
    for (int32_t id = 0; id < n_vocab; id++) {
        const int  attr = static_cast<int>(llama_vocab_get_attr(vocab, id));
        const bool eog  = llama_vocab_is_eog(vocab, id);
        if ((attr & LLAMA_TOKEN_ATTR_UNUSED) && !eog) {
            continue;
        }
        if (eog || (attr & (LLAMA_TOKEN_ATTR_CONTROL | LLAMA_TOKEN_ATTR_UNKNOWN | LLAMA_TOKEN_ATTR_BYTE))) {
            ids.push_back(id);
            continue;
        }
        if (is_text && is_plainly_longer(vocab, id)) {
            continue;
        }
        char          piece[256];
        const int32_t n = llama_token_to_piece(vocab, id, piece, sizeof(piece), 0, true);
        if (n == 1 || is_space(piece, n)) {
            ids.push_back(id);
        }
    }
    return ids;
}

std::vector<int32_t> common(const llama_vocab * vocab, size_t n) {
    require_tokenizer(vocab);
    std::vector<int32_t> ids;
    const int32_t        n_vocab = llama_vocab_n_tokens(vocab);
    for (int32_t id = 0; id < n_vocab && ids.size() < n; id++) {
        if (llama_vocab_get_attr(vocab, id) & LLAMA_TOKEN_ATTR_NORMAL) {
            ids.push_back(id);
        }
    }
    return ids;
}

}  // namespace vt
