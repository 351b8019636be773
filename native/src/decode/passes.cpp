#include "decode/passes.h"

#include <algorithm>

namespace vt {

void passes::begin(int32_t pos) {
    m_base = pos;
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

void passes::expect(const int32_t * tokens, size_t n, int32_t pos) {
    m_given.assign(tokens, tokens + n);
    m_given_pos = pos;
    m_given_end = pos + static_cast<int64_t>(n);
}

bool passes::wants_more(int32_t token, int32_t pos) const {
    if (m_given_end <= m_base || has(token, pos)) {
        return false;
    }
    const int64_t at       = int64_t(pos) - m_given_pos;
    const bool    is_other = at >= 0 && at < static_cast<int64_t>(m_given.size()) && m_given[static_cast<size_t>(at)] != token;
    const bool    is_left  = !is_other && from_others(pos).n > 0;
    const bool    repeats  = m_match.length > 0 && m_index[m_match.next] == token && m_match.next + 1 < m_index.size();
    return !is_left && !repeats && m_length.next(pass_length::source::given, max()).n > 1;
}

// were they right?
void passes::follow(int32_t token, int32_t pos) {
    if (m_match.length > 0) {
        m_length.record_guess(pass_length::source_of(m_match.length), m_index[m_match.next] == token);
    }
    m_index.append(token);
    m_match = m_index.find();

    const bool was_ahead = pos > std::max(m_pos, m_chosen) && pos < end();
    if (was_ahead && (m_source == pass_length::source::grammar || m_source == pass_length::source::given)) {
        m_length.record_guess(m_source, has(token, pos));
    }
    const int64_t at = int64_t(pos) - m_given_pos;
    if (at >= 0 && at < static_cast<int64_t>(m_given.size()) && m_given[static_cast<size_t>(at)] != token) {
        m_given.clear();
    }
}

// what they said of the tokens behind a position
passes::guess passes::from_others(int32_t pos) const {
    const int64_t first = int64_t(pos) + 1 - m_given_pos;
    const bool    known = first >= 0 && first < static_cast<int64_t>(m_given.size());
    const size_t  at    = known ? static_cast<size_t>(first) : m_given.size();
    return {pass_length::source::given, m_given.data() + at, m_given.size() - at};
}

passes::guess passes::from_text() const {
    size_t n = 0;
    while (m_match.length > 0 && m_match.next + n < m_index.size() && m_index[m_match.next + n] >= 0) {
        n++;
    }
    return {pass_length::source_of(m_match.length), n > 0 ? m_index.data() + m_match.next : nullptr, n};
}

int64_t passes::decode(int32_t token, int32_t pos, const std::vector<int32_t> & ruled, size_t room) {
    m_length.set_depth(static_cast<size_t>(pos));
    const size_t        limit     = std::min(room, m_session.most_together(pos));
    const guess         guesses[] = {{pass_length::source::grammar, ruled.data(), ruled.size()}, from_others(pos), from_text()};
    const guess *       best      = nullptr;
    pass_length::choice choice;
    for (const guess & g : guesses) {
        const pass_length::choice c = g.n == 0 ? pass_length::choice() : m_length.next(g.source, std::min(limit, g.n + 1));
        if (c.n > 1 && (best == nullptr || c.us < choice.us)) {
            best   = &g;
            choice = c;
        }
    }
    std::vector<int32_t> tokens = {token};
    if (best != nullptr) {
        tokens.insert(tokens.end(), best->tokens, best->tokens + (choice.n - 1));
        m_source = best->source;
    }
    forget();
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

int64_t passes::advance(int32_t token, int32_t pos, const std::vector<int32_t> & ruled, size_t room) {
    if (take_guesses()) {
        follow(token, pos);
    }
    const bool    is_here = has(token, pos);
    const int64_t us      = is_here ? 0 : decode(token, pos, ruled, room);
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
