#include "decode/growth.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <unordered_set>

namespace vt {

namespace {

// 1,000 more rows of Gemma's head take 0.03 ms a token, and a rejected draft takes 5 to 10 ms: they pay where they save one
// in 200 tokens.
constexpr size_t SCRIPT_ROWS = 4096;   // of a script that a text is written in
constexpr size_t MORE_ROWS   = 2048;   // with each rejection
constexpr size_t MOST_ROWS   = 32768;  // of the active set,
constexpr size_t MOST_SHARE  = 4;      // which is no more than one of so many tokens of the vocabulary

// shares of a text's tokens that are of a script, and of these that the static rows lack: at least one of so many
constexpr size_t SCRIPT_SHARE = 16;
constexpr size_t LACKED_SHARE = 4;

constexpr size_t FIRST_RANK = 32;
constexpr size_t MOST_RANK  = 64;
constexpr size_t MANY_NEAR  = 32;  // rows of a state: a set that fits no text would bring a flood of them

}  // namespace

growth::growth(const llama_vocab & vocab, head & active)
    : m_active(active), m_scripts(vocab), m_n_most(std::min(MOST_ROWS, static_cast<size_t>(llama_vocab_n_tokens(&vocab)) / MOST_SHARE)),
      m_rank(FIRST_RANK) {
}

void growth::add(std::vector<int32_t> & ids) {
    std::sort(ids.begin(), ids.end());  // neighbours are read at once
    m_active.append(ids.data(), ids.size());
}

void growth::add_script_of(int32_t token) {
    const script_id script = m_scripts.of(token);
    if (script == NO_SCRIPT || is_full()) {
        return;
    }
    m_ids.clear();
    for (const int32_t id : m_scripts.tokens(script)) {
        if (m_ids.size() == MORE_ROWS) {
            break;
        }
        if (!m_active.contains(id)) {
            m_ids.push_back(id);
        }
    }
    add(m_ids);
}

void growth::read(const std::vector<int32_t> & text, size_t n) {
    struct seen {
        size_t n = 0, n_lacked = 0;
    };
    const std::vector<int32_t> &      ids = m_active.ids();
    const std::unordered_set<int32_t> appended(ids.begin() + static_cast<std::ptrdiff_t>(m_active.n_static()), ids.end());
    std::map<script_id, seen>         found;
    for (size_t i = 0; i < std::min(n, text.size()); i++) {
        const script_id script = m_scripts.of(text[i]);
        if (script != NO_SCRIPT) {
            found[script].n++;
            found[script].n_lacked += appended.count(text[i]) > 0 || !m_active.contains(text[i]) ? 1 : 0;
        }
    }
    for (const auto & [script, s] : found) {
        if (!is_full() && s.n * SCRIPT_SHARE >= n && s.n_lacked * LACKED_SHARE >= s.n) {
            const std::vector<int32_t> & tokens = m_scripts.tokens(script);
            m_ids.assign(tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(std::min(SCRIPT_ROWS, tokens.size())));
            add(m_ids);
        }
    }
}

float growth::near_logit(const std::vector<float> & logits) {
    if (is_full()) {
        return INFINITY;
    }
    // a heap of the best, the least of them in front
    m_best.clear();
    for (const float x : logits) {
        if (m_best.size() < m_rank) {
            m_best.push_back(x);
            std::push_heap(m_best.begin(), m_best.end(), std::greater<float>());
        } else if (x > m_best.front()) {
            std::pop_heap(m_best.begin(), m_best.end(), std::greater<float>());
            m_best.back() = x;
            std::push_heap(m_best.begin(), m_best.end(), std::greater<float>());
        }
    }
    return m_best.size() < m_rank ? INFINITY : m_best.front();
}

void growth::add_near(std::vector<scan_hit> & hits, size_t n_states) {
    m_rank = hits.size() > MANY_NEAR * n_states ? std::max<size_t>(1, m_rank / 2) : std::min(MOST_RANK, 2 * m_rank);
    if (is_full()) {
        return;
    }
    const size_t most = std::min(hits.size(), MANY_NEAR * n_states);
    std::partial_sort(hits.begin(), hits.begin() + static_cast<std::ptrdiff_t>(most), hits.end(),
                      [](const scan_hit & a, const scan_hit & b) { return a.value != b.value ? a.value > b.value : a.row < b.row; });
    m_ids.clear();
    for (size_t i = 0; i < most; i++) {
        m_ids.push_back(hits[i].row);
    }
    add(m_ids);
}

}  // namespace vt
