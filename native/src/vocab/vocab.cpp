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
        char          piece[256];
        const int32_t n = llama_token_to_piece(vocab, id, piece, sizeof(piece), 0, true);
        if (n == 1 || is_space(piece, n)) {
            ids.push_back(id);
        }
    }
    return ids;
}

}  // namespace vt
