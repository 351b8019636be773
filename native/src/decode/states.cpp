#include "decode/states.h"

#include <algorithm>
#include <cstring>
#include <new>

namespace vt {

void states_by_position::start(size_t n_ctx, size_t n_embd) {
    m_n_ctx  = n_ctx;
    m_n_embd = n_embd;
    m_hidden.clear();
    m_entries.clear();
}

void states_by_position::take_room() {
    try {
        m_entries.reserve(m_n_ctx);
        m_hidden.reserve(m_n_ctx * m_n_embd);
    } catch (const std::bad_alloc &) {
        // it is address space that lacks; they grow as they must
    }
}

void states_by_position::cut(size_t pos) {
    if (pos < m_entries.size()) {
        m_hidden.resize(m_entries[pos].row * m_n_embd);
        m_entries.resize(pos);
    }
}

void states_by_position::put(size_t pos, const float * hidden, place where) {
    if (m_entries.capacity() < m_n_ctx) {
        take_room();
    }
    const size_t row = m_hidden.size() / m_n_embd;
    m_hidden.insert(m_hidden.end(), hidden, hidden + m_n_embd);
    m_entries.resize(pos, entry{{0, 0}, row});
    m_entries.push_back({where, row});
}

void states_by_position::get(size_t pos, size_t n, float * hidden, place * where) const {
    for (size_t i = 0; i < n; i++) {
        const entry e = pos + i < m_entries.size() ? m_entries[pos + i] : entry{{0, 0}, 0};
        where[i]      = e.where;
        if (hidden != nullptr && e.where.n > 0) {
            memcpy(hidden + i * m_n_embd, m_hidden.data() + e.row * m_n_embd, m_n_embd * sizeof(float));
        } else if (hidden != nullptr) {
            std::fill_n(hidden + i * m_n_embd, m_n_embd, 0.0f);
        }
    }
}

}  // namespace vt
