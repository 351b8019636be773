#include "vocab/pieces.h"

#include "base/error.h"
#include "vocab/piece_of.h"
#include "vocab/vocab.h"

#include <algorithm>

namespace vt {

pieces::pieces(const llama_vocab * vocab) {
    require_tokenizer(vocab);
    const int32_t n_vocab = llama_vocab_n_tokens(vocab);
    m_ends.reserve(static_cast<size_t>(n_vocab));
    for (int32_t token = 0; token < n_vocab; token++) {
        m_text += piece_of(*vocab, token, false);
        if (m_text.size() > UINT32_MAX) {
            throw error(VT_ERROR_ARGUMENT, "the texts of this vocabulary have more than 4 GiB");
        }
        m_ends.push_back(static_cast<uint32_t>(m_text.size()));
        if (llama_vocab_is_eog(vocab, token)) {
            m_eog.push_back(token);
        }
    }
    m_text.shrink_to_fit();
}

size_t pieces::checked(int32_t token) const {
    if (token < 0 || static_cast<size_t>(token) >= m_ends.size()) {
        throw error(VT_ERROR_TOKEN, format("token id %d, expected 0 to %zu", token, m_ends.size() - 1));
    }
    return static_cast<size_t>(token);
}

std::string_view pieces::text(int32_t token) const {
    const size_t i     = checked(token);
    const size_t begin = i > 0 ? m_ends[i - 1] : 0;
    return std::string_view(m_text).substr(begin, m_ends[i] - begin);
}

bool pieces::is_eog(int32_t token) const {
    checked(token);
    return std::binary_search(m_eog.begin(), m_eog.end(), token);
}

size_t pieces::n_bytes() const {
    return m_text.capacity() + m_ends.capacity() * sizeof(uint32_t) + m_eog.capacity() * sizeof(int32_t);
}

}  // namespace vt
