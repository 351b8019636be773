#include "decode/passes.h"

#include <algorithm>

namespace vt {

void passes::begin(int32_t pos) {
    if (m_length.max() > 1) {
        const std::vector<int32_t> & text = m_session.text();
        m_index.assign(text.data(), std::min(text.size(), static_cast<size_t>(pos)));
        m_match = m_index.find();
    }
}

void passes::forget() {
    m_tokens.clear();
    m_pos = 0;
}

bool passes::has(int32_t token, int32_t pos) const {
    return pos >= m_pos && pos < end() && m_tokens[static_cast<size_t>(pos - m_pos)] == token;
}

// was it what followed the same words before?
void passes::follow(int32_t token) {
    if (m_match.length > 0) {
        m_length.record_match(m_match.length, m_index[m_match.next] == token);
    }
    m_index.append(token);
    m_match = m_index.find();
}

int64_t passes::decode(int32_t token, int32_t pos, size_t room) {
    const size_t n = m_match.length > 0 ? m_length.next(m_match.length, std::min(room, m_session.most_together(pos))) : 1;
    forget();
    std::vector<int32_t> tokens = {token};
    for (size_t i = m_match.next; tokens.size() < n && i < m_index.size() && m_index[i] >= 0; i++) {
        tokens.push_back(m_index[i]);
    }
    const int64_t start = ggml_time_us();
    m_session.decode_together(tokens.data(), tokens.size(), pos);
    const int64_t us = ggml_time_us() - start;
    m_tokens         = std::move(tokens);
    m_hidden         = m_session.hidden();
    m_pos = m_chosen = pos;
    m_length.record_pass(m_tokens.size(), us);
    m_n_ahead += m_tokens.size() - 1;
    return us;
}

int64_t passes::advance(int32_t token, int32_t pos, size_t room) {
    if (m_length.max() > 1) {
        follow(token);
    }
    const bool    is_here = has(token, pos);
    const int64_t us      = is_here ? 0 : decode(token, pos, room);
    if (is_here && pos > m_chosen) {
        m_n_agreed++;
        m_chosen = pos;
    }
    const size_t n_embd = m_hidden.size() / m_tokens.size();
    const auto   state  = m_hidden.begin() + static_cast<std::ptrdiff_t>(static_cast<size_t>(pos - m_pos) * n_embd);
    m_session.restore(std::vector<float>(state, state + static_cast<std::ptrdiff_t>(n_embd)));
    return us;
}

}  // namespace vt
