#include "decode/states.h"

#include <algorithm>
#include <cstring>
#include <new>

namespace vt {

void states_by_position::start(size_t n_ctx, size_t n_embd) {
    m_n_embd = n_embd;
    m_hidden.clear();
    m_places.clear();
    try {
        m_hidden.reserve(n_ctx * n_embd);
        m_places.reserve(n_ctx);
    } catch (const std::bad_alloc &) {
        // it is address space that lacks; they grow as they must
    }
}

void states_by_position::begin(size_t pos, size_t n) {
    m_hidden.resize(std::max(m_hidden.size(), (pos + n) * m_n_embd));
    m_places.resize(std::max(m_places.size(), pos + n), place{0, 0});
    std::fill_n(m_places.begin() + static_cast<std::ptrdiff_t>(pos), n, place{0, 0});
}

void states_by_position::put(size_t pos, const float * hidden, place where) {
    memcpy(m_hidden.data() + pos * m_n_embd, hidden, m_n_embd * sizeof(float));
    m_places[pos] = where;
}

void states_by_position::get(size_t pos, size_t n, float * hidden, place * where) const {
    for (size_t i = 0; i < n; i++) {
        const bool is_there = pos + i < m_places.size();
        where[i]            = is_there ? m_places[pos + i] : place{0, 0};
        if (hidden != nullptr && is_there) {
            memcpy(hidden + i * m_n_embd, m_hidden.data() + (pos + i) * m_n_embd, m_n_embd * sizeof(float));
        } else if (hidden != nullptr) {
            std::fill_n(hidden + i * m_n_embd, m_n_embd, 0.0f);
        }
    }
}

}  // namespace vt
