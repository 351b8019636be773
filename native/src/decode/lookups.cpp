#include "decode/lookups.h"

#include "base/error.h"
#include "base/stopwatch.h"

#include <cstring>

namespace vt {

lookups::lookups(store & s, size_t n_stubs) : m_store(s), m_n_stubs(n_stubs) {
    m_tables = {{"token_embd.weight", &s.get_table(table_id::embedding), 0}};
    if (s.per_layer() != nullptr) {
        m_tables.push_back({"per_layer_token_embd.weight", s.per_layer(), 0});
    }
}

std::vector<int32_t> & lookups::begin_batch(const int32_t * tokens, size_t n) {
    m_tokens.assign(tokens, tokens + n);
    m_stubs.resize(n);
    for (size_t i = 0; i < n; i++) {
        m_stubs[i] = static_cast<int32_t>(i % m_n_stubs);
    }
    for (lookup & l : m_tables) {
        l.n_done = 0;
    }
    m_first = m_n_micro = 0;
    return m_stubs;
}

size_t lookups::find(const char * weight) const {
    size_t i = 0;
    while (i < m_tables.size() && strcmp(m_tables[i].weight, weight) != 0) {
        i++;
    }
    return i;
}

void lookups::replace(ggml_tensor * t) {
    stopwatch           watch(m_time_us);
    lookup &            l        = m_tables[find(t->src[0]->name)];
    const table &       rows     = *l.rows;
    const ggml_tensor * ids      = t->src[1];
    const size_t        n        = static_cast<size_t>(ggml_nelements(ids));
    const bool          is_plain = t->type == GGML_TYPE_F32 && ids->type == GGML_TYPE_I32 && ggml_is_contiguous(t) && ggml_is_contiguous(ids) &&
                                   ggml_backend_buffer_is_host(t->buffer) && ggml_backend_buffer_is_host(ids->buffer);
    if (!is_plain || t->ne[0] != rows.n_cols || static_cast<size_t>(ggml_nrows(t)) != n) {
        throw error(VT_ERROR_COMPUTE, format("rows of %s are looked up in an unexpected layout", l.weight));
    }
    // micro-batches are consecutive parts of a batch of one sequence; the ids tell if that should ever change
    const int32_t * found = static_cast<const int32_t *>(ids->data);
    bool            same  = n <= m_tokens.size() - m_first && (m_n_micro == 0 || n == m_n_micro);
    for (size_t i = 0; same && i < n; i++) {
        same = found[i] == m_stubs[m_first + i];
    }
    if (!same) {
        throw error(VT_ERROR_COMPUTE, format("rows of %s are looked up for other tokens than those of the batch", l.weight));
    }
    m_store.rows(rows, m_tokens.data() + m_first, n, static_cast<float *>(t->data));
    m_n_micro = n;
    l.n_done  = m_first + n;
}

// every graph ends with the LM head, even that of a micro-batch without an output
void lookups::end_micro_batch() {
    m_first += m_n_micro;
    m_n_micro = 0;
    for (const lookup & l : m_tables) {
        if (l.n_done != m_first) {
            throw error(VT_ERROR_COMPUTE, format("rows of %s are not looked up by token id", l.weight));
        }
    }
}

}  // namespace vt
