#include "head/softmax.h"

#include "base/error.h"
#include "base/parallel.h"
#include "head/exponentials.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

namespace vt {

namespace {

constexpr size_t CHUNK_LOGITS   = 1u << 20;  // of a group of states, held at once
constexpr size_t MAX_CHUNK_ROWS = 8192;

void need(bool ok, const char * what) {
    if (!ok) {
        throw error(VT_ERROR_ARGUMENT, what);
    }
}

}  // namespace

size_t chunk_rows_of(size_t n_hidden, size_t unit) {
    return std::min(MAX_CHUNK_ROWS, std::max<size_t>(1, CHUNK_LOGITS / n_hidden / unit) * unit);
}

softmax::softmax(const vt_softmax_params & p, const vt_softmax & out, size_t n_vocab, const std::vector<int32_t> * ids)
    : m_params(p), m_out(out), m_ids(ids), m_best(p.n_hidden) {
    need(p.hidden != nullptr && p.n_hidden > 0, "hidden must not be NULL or empty");
    need(out.max != nullptr && out.sum != nullptr, "max and sum must not be NULL");
    need(p.n_top == 0 || (out.top_ids != nullptr && out.top_logits != nullptr), "top_ids and top_logits must not be NULL");
    need(p.n_targets == 0 || (p.targets != nullptr && p.states != nullptr && out.target_logits != nullptr),
         "targets, states and target_logits must not be NULL");
    if (p.n_top > n_vocab) {
        throw error(VT_ERROR_ARGUMENT, format("%zu best tokens of %zu", p.n_top, n_vocab));
    }
    check_threads(p.n_threads);
    take_groups();
    take_targets(n_vocab);
    std::fill_n(m_out.max, p.n_hidden, -INFINITY);
    std::fill_n(m_out.sum, p.n_hidden, 0.0);
    std::fill_n(m_out.target_logits, p.n_targets, -INFINITY);
}

void softmax::take_groups() {
    if (m_params.groups == nullptr) {
        m_groups = {m_params.n_hidden};
        return;
    }
    m_groups.assign(m_params.groups, m_params.groups + m_params.n_groups);
    size_t left = m_params.n_hidden;
    for (const size_t n : m_groups) {
        need(n > 0 && n <= left, "the groups do not add up to the hidden states");
        left -= n;
    }
    need(left == 0, "the groups do not add up to the hidden states");
}

void softmax::take_targets(size_t n_vocab) {
    std::vector<int32_t> row_of;
    if (m_ids != nullptr && m_params.n_targets > 0) {
        row_of.assign(n_vocab, -1);
        for (size_t i = 0; i < m_ids->size(); i++) {
            row_of[static_cast<size_t>((*m_ids)[i])] = static_cast<int32_t>(i);
        }
    }
    for (size_t i = 0; i < m_params.n_targets; i++) {
        const int32_t token = m_params.targets[i];
        const int32_t state = m_params.states[i];
        if (token < 0 || static_cast<size_t>(token) >= n_vocab) {
            throw error(VT_ERROR_TOKEN, format("target %zu: token id %d, expected 0 to %zu", i, token, n_vocab - 1));
        }
        need(state >= 0 && static_cast<size_t>(state) < m_params.n_hidden, "a target's state is out of range");
        m_targets.push_back({static_cast<size_t>(state), row_of.empty() ? token : row_of[static_cast<size_t>(token)], i});
    }
    std::sort(m_targets.begin(), m_targets.end(),
              [](const target & a, const target & b) { return a.state != b.state ? a.state < b.state : a.row < b.row; });
    m_begin.assign(m_params.n_hidden + 1, 0);
    for (const target & t : m_targets) {
        m_begin[t.state + 1]++;
    }
    std::partial_sum(m_begin.begin(), m_begin.end(), m_begin.begin());
}

size_t softmax::chunk_rows(size_t unit) const {
    return chunk_rows_of(*std::max_element(m_groups.begin(), m_groups.end()), unit);
}

void softmax::add(size_t state, size_t n_states, size_t first, size_t n, const float * logits, size_t stride) {
    const size_t n_threads = std::min(static_cast<size_t>(m_params.n_threads), n_states);
    const auto   work      = [&](size_t thread) {
        for (size_t i = thread; i < n_states; i += n_threads) {
            add_state(state + i, first, n, logits + i * stride);
        }
    };
    if (n_threads == 1) {
        work(0);
    } else {
        parallel(static_cast<int32_t>(n_threads), work);
    }
}

void softmax::add_state(size_t state, size_t first, size_t n, const float * logits) {
    const float most = max_of(logits, n);
    for (size_t i = m_begin[state]; i < m_begin[state + 1]; i++) {
        const target & t = m_targets[i];
        if (t.row >= 0 && static_cast<size_t>(t.row) - first < n) {
            m_out.target_logits[t.index] = logits[static_cast<size_t>(t.row) - first];
        }
    }
    // where no logit is a number above -inf, nothing adds to the sum
    float & max = m_out.max[state];
    if (most > max) {
        m_out.sum[state] *= std::exp(static_cast<double>(max) - static_cast<double>(most));
        max = most;
    }
    if (max != -INFINITY) {
        m_out.sum[state] += sum_of_exp(logits, n, max);
    }
    best & b = m_best[state];
    if (m_params.n_top > 0 && (b.size() < m_params.n_top || most >= b.front().first)) {
        keep_best(b, first, n, logits);
    }
}

void softmax::keep_best(best & b, size_t first, size_t n, const float * logits) const {
    const auto better = std::greater<std::pair<float, int32_t>>();
    for (size_t i = 0; i < n; i++) {
        const bool is_full = b.size() == m_params.n_top;
        if (std::isnan(logits[i]) || (is_full && logits[i] < b.front().first)) {
            continue;
        }
        const std::pair<float, int32_t> found(logits[i], m_ids != nullptr ? (*m_ids)[first + i] : static_cast<int32_t>(first + i));
        if (is_full) {
            if (!better(found, b.front())) {
                continue;
            }
            std::pop_heap(b.begin(), b.end(), better);
            b.back() = found;
        } else {
            b.push_back(found);
        }
        std::push_heap(b.begin(), b.end(), better);
    }
}

void softmax::finish() {
    for (size_t state = 0; state < m_params.n_hidden && m_params.n_top > 0; state++) {
        best & b = m_best[state];
        std::sort(b.begin(), b.end(), std::greater<std::pair<float, int32_t>>());
        b.resize(m_params.n_top, {-INFINITY, -1});
        for (size_t i = 0; i < b.size(); i++) {
            m_out.top_logits[state * m_params.n_top + i] = b[i].first;
            m_out.top_ids[state * m_params.n_top + i]    = b[i].second;
        }
    }
}

}  // namespace vt
