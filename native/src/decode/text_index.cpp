#include "decode/text_index.h"

#include <algorithm>

namespace vt {

// of the n-gram of order + 2 tokens that ends at a place. Three ids share 64 bits, so matches are compared.
uint64_t text_index::key(size_t order, size_t end) const {
    uint64_t k = 0;
    for (size_t i = end + 1 - (order + 2); i <= end; i++) {
        k = (k << 21) ^ (k >> 43) ^ static_cast<uint64_t>(m_tokens[i]);
    }
    return k;
}

// tokens that are the same before two places, both included
size_t text_index::common(size_t a, size_t b) const {
    size_t n = 0;
    while (n < MAX_LENGTH && n <= a && m_tokens[a - n] == m_tokens[b - n]) {
        n++;
    }
    return n;
}

void text_index::append(int32_t token) {
    const size_t end = m_tokens.size();
    m_tokens.push_back(token);
    link l;
    for (size_t order = 0; order < N_ORDERS; order++) {
        l.before[order] = NONE;
        if (end + 1 >= order + 2) {
            int32_t & last  = m_last[order].try_emplace(key(order, end), NONE).first->second;
            l.before[order] = last;
            last            = static_cast<int32_t>(end);
        }
    }
    m_links.push_back(l);
}

void text_index::truncate(size_t n) {
    while (m_tokens.size() > n) {
        const size_t end = m_tokens.size() - 1;
        for (size_t order = 0; order < N_ORDERS; order++) {
            if (end + 1 < order + 2) {
                continue;
            }
            const auto at = m_last[order].find(key(order, end));
            if (m_links[end].before[order] == NONE) {
                m_last[order].erase(at);
            } else {
                at->second = m_links[end].before[order];
            }
        }
        m_tokens.pop_back();
        m_links.pop_back();
    }
}

void text_index::assign(const int32_t * tokens, size_t n) {
    const auto end  = m_tokens.begin() + static_cast<std::ptrdiff_t>(std::min(n, m_tokens.size()));
    const auto same = static_cast<size_t>(std::mismatch(m_tokens.begin(), end, tokens).first - m_tokens.begin());
    truncate(same);
    for (size_t i = same; i < n; i++) {
        append(tokens[i]);
    }
}

text_index::match text_index::find() const {
    match best;
    if (m_tokens.empty()) {
        return best;
    }
    const size_t end = m_tokens.size() - 1;
    for (size_t order = N_ORDERS; order-- > 0 && best.length == 0;) {
        int32_t at = m_links[end].before[order];
        for (size_t tried = 0; at != NONE && tried < N_TRIED; tried++) {
            const size_t place  = static_cast<size_t>(at);
            const size_t length = common(place, end);
            if (length >= order + 2 && length > best.length) {
                best = {place + 1, length};
            }
            at = m_links[place].before[order];
        }
    }
    return best;
}

}  // namespace vt
