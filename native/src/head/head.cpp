#include "head/head.h"

#include "base/checked.h"
#include "base/error.h"

#include <ggml-cpu.h>
#include <ggml.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <string>

namespace vt {

namespace {

constexpr size_t SPARE_ROWS  = 512;   // room for a prompt before the buffer must grow
constexpr size_t STAGE_ROWS  = 2048;  // a multiple of GROUP
constexpr size_t GRAPH_NODES = 16;

size_t pad_group(size_t n) {
    return (n + head::GROUP - 1) / head::GROUP * head::GROUP;
}

}  // namespace

head::head(store & s)
    : m_store(s), m_backend(ggml_backend_cpu_init()),
      m_layout(pick_weight_layout(static_cast<ggml_type>(s.get_table(VT_TABLE_HEAD).type), s.get_table(VT_TABLE_HEAD).n_cols,
                                  s.get_table(VT_TABLE_HEAD).n_rows)) {
    if (!m_backend) {
        throw error(VT_ERROR_COMPUTE, "ggml's CPU backend cannot be started");
    }
    m_member.resize((static_cast<size_t>(s.info().n_vocab) + 63) / 64);
}

// rows of the product for n rows of the set. ggml takes another kernel, which rounds differently, where the number of
// rows is no multiple of 4 (ggml/src/ggml-cpu/llamafile/sgemm.cpp) or of 2: so it is the full head's, modulo GROUP
size_t head::n_computed(size_t first, size_t n) const {
    const size_t n_vocab = static_cast<size_t>(m_store.info().n_vocab);
    return first + n == n_vocab ? n : pad_group(n) + n_vocab % GROUP;
}

// drop rows from n on
void head::shrink(size_t n) {
    for (size_t i = n; i < m_ids.size(); i++) {
        flip_member(m_ids[i]);
    }
    m_ids.resize(n);
}

void head::push_new(const int32_t * ids, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (!is_member(ids[i])) {
            m_ids.push_back(ids[i]);
            flip_member(ids[i]);
        }
    }
}

void head::set_static(const int32_t * ids, size_t n) {
    m_store.check_ids(ids, n);
    if (n == 0) {
        throw error(VT_ERROR_ARGUMENT, "the active set is empty");
    }
    size_t same = 0;
    while (same < n && same < m_ids.size() && m_ids[same] == ids[same]) {
        same++;
    }
    shrink(same);
    m_version++;
    try {
        push_new(ids + same, n - same);
        place(same);
    } catch (...) {
        // a half-written set must not be computed with
        shrink(same);
        m_n_static = same;
        throw;
    }
    m_n_static = m_ids.size();
}

void head::set_all(bool mapped) {
    const table &        t       = m_store.get_table(VT_TABLE_HEAD);
    const size_t         n_vocab = static_cast<size_t>(m_store.info().n_vocab);
    std::vector<int32_t> ids(n_vocab);
    std::iota(ids.begin(), ids.end(), 0);
    // ggml wants tensors aligned
    if (!mapped || !m_layout.is_plain || t.offset % ggml_backend_buft_get_alignment(m_layout.buft) != 0) {
        set_static(ids.data(), n_vocab);
        return;
    }
    const uint64_t           n_bytes = checked_mul(t.row_bytes, n_vocab);
    std::unique_ptr<mapping> map(new mapping(m_store.path(), t.offset, n_bytes));
    ggml_backend_buffer_ptr  rows(ggml_backend_cpu_buffer_from_ptr(const_cast<uint8_t *>(map->data()), to_size(n_bytes)));
    if (!rows) {
        throw error(VT_ERROR_MEMORY, "the mapped LM head cannot be bound");
    }
    if (m_store.bias()) {
        m_bias.resize(n_vocab);
        m_store.read_range(*m_store.bias(), 0, n_vocab, reinterpret_cast<uint8_t *>(m_bias.data()));
    }
    shrink(0);
    push_new(ids.data(), n_vocab);
    m_graph    = graph();
    m_rows     = std::move(rows);
    m_map      = std::move(map);
    m_capacity = n_vocab;
    m_n_static = n_vocab;
    m_version++;
}

const uint8_t * head::plain_rows() const {
    return m_rows && m_layout.is_plain ? static_cast<const uint8_t *>(ggml_backend_buffer_get_base(m_rows.get())) : nullptr;
}

// of a row that begins a group
uint8_t * head::address(size_t row) const {
    return static_cast<uint8_t *>(ggml_backend_buffer_get_base(m_rows.get())) + row / GROUP * m_layout.group_bytes;
}

size_t head::append(const int32_t * ids, size_t n) {
    m_store.check_ids(ids, n);
    const size_t before = m_ids.size();
    try {
        push_new(ids, n);
        if (m_ids.size() != before) {
            m_version++;
            place(before);
        }
    } catch (...) {
        shrink(before);
        throw;
    }
    return m_ids.size() - before;
}

void head::reset() {
    if (m_ids.size() != m_n_static) {
        shrink(m_n_static);
        m_version++;
    }
}

// grow by at least half, so that appending row by row stays linear
void head::reserve(size_t n_rows) {
    if (n_rows <= m_capacity) {
        return;
    }
    const table & t        = m_store.get_table(VT_TABLE_HEAD);
    const size_t  n_vocab  = pad_group(static_cast<size_t>(m_store.info().n_vocab));
    const size_t  want     = m_capacity == 0 ? n_rows + SPARE_ROWS : std::max(n_rows, m_capacity + m_capacity / 2);
    const size_t  capacity = std::min(pad_group(want), n_vocab);

    // a group of zero rows for n_computed; quantised matrix products may read a little past the last row
    const size_t            n_needed = weight_bytes(m_layout, static_cast<ggml_type>(t.type), t.n_cols, static_cast<int64_t>(capacity + GROUP));
    const size_t            n_bytes  = to_size(checked_add(n_needed, 1024));
    ggml_backend_buffer_ptr rows(ggml_backend_buft_alloc_buffer(m_layout.buft, n_bytes));
    if (!rows) {
        throw error(VT_ERROR_MEMORY, format("no memory for %zu head rows (%zu bytes)", capacity, n_bytes));
    }
    m_graph = graph();
    if (m_store.bias()) {
        m_bias.resize(capacity + GROUP);
    }
    uint8_t *    base = static_cast<uint8_t *>(ggml_backend_buffer_get_base(rows.get()));
    const size_t kept = m_layout.has_groups ? m_capacity / GROUP * m_layout.group_bytes : 0;
    if (kept > 0) {
        memcpy(base, ggml_backend_buffer_get_base(m_rows.get()), kept);
    }
    memset(base + kept, 0, n_bytes - kept);
    m_rows     = std::move(rows);
    m_capacity = capacity;
}

// bring rows first .. n_rows of the set into the buffer
void head::place(size_t first) {
    const table & t = m_store.get_table(VT_TABLE_HEAD);
    const size_t  n = m_ids.size();
    reserve(pad_group(n));
    // without groups the rows of a product are placed together
    const size_t begin = m_layout.has_groups ? first / GROUP * GROUP : 0;
    const size_t step  = m_layout.has_groups ? STAGE_ROWS : n_computed(0, n);

    for (size_t i = begin; i < n; i += step) {
        const size_t n_new    = std::min(step, n - i);
        const size_t n_padded = m_layout.has_groups ? pad_group(n_new) : step;
        m_staging.assign(n_padded * t.row_bytes, 0);
        m_store.read_rows(t, m_ids.data() + i, n_new, m_staging.data());

        const ggml_init_params params = {ggml_tensor_overhead(), nullptr, true};
        ggml_context_ptr       ctx(ggml_init(params));
        ggml_tensor *          w = ggml_new_tensor_2d(ctx.get(), static_cast<ggml_type>(t.type), t.n_cols, static_cast<int64_t>(n_padded));
        if (ggml_backend_tensor_alloc(m_rows.get(), w, address(i)) != GGML_STATUS_SUCCESS) {
            throw error(VT_ERROR_COMPUTE, "head rows cannot be placed");
        }
        ggml_backend_tensor_set(w, m_staging.data(), 0, m_staging.size());
    }
    if (m_store.bias()) {
        m_store.read_rows(*m_store.bias(), m_ids.data() + first, n - first, reinterpret_cast<uint8_t *>(m_bias.data() + first));
    }
    if (m_staging.capacity() > STAGE_ROWS * t.row_bytes / 4) {
        std::vector<uint8_t>().swap(m_staging);
    }
}

size_t head::n_bytes() const {
    return (m_rows && !m_map ? ggml_backend_buffer_get_size(m_rows.get()) : 0) + m_ids.capacity() * sizeof(int32_t) +
           m_bias.capacity() * sizeof(float) + m_member.capacity() * sizeof(uint64_t) + m_staging.capacity() + m_work.capacity() * sizeof(float);
}

void head::build_graph(size_t n_padded, size_t n_hidden, size_t first) {
    const table &         t    = m_store.get_table(VT_TABLE_HEAD);
    const vt_store_info & info = m_store.info();
    graph &               g    = m_graph;
    g                          = graph();

    const ggml_init_params params = {ggml_tensor_overhead() * GRAPH_NODES + ggml_graph_overhead_custom(GRAPH_NODES, false), nullptr, true};
    g.ctx.reset(ggml_init(params));
    ggml_context * ctx = g.ctx.get();

    const int64_t n_rows = static_cast<int64_t>(n_padded);
    ggml_tensor * w      = ggml_new_tensor_2d(ctx, static_cast<ggml_type>(t.type), t.n_cols, n_rows);
    if (ggml_backend_tensor_alloc(m_rows.get(), w, address(first)) != GGML_STATUS_SUCCESS) {
        throw error(VT_ERROR_COMPUTE, "head rows cannot be bound");
    }
    g.input = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, t.n_cols, static_cast<int64_t>(n_hidden));

    ggml_tensor * cur     = ggml_mul_mat(ctx, w, g.input);
    ggml_tensor * product = cur;
    if (m_store.bias()) {
        g.bias = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, n_rows);
        cur    = ggml_add_inplace(ctx, cur, g.bias);
    }
    if (info.logit_scale != 1.0f) {
        cur = ggml_scale_inplace(ctx, cur, info.logit_scale);
    }
    if (info.logit_softcap != 0.0f) {
        cur = ggml_scale_inplace(ctx, cur, 1.0f / info.logit_softcap);
        cur = ggml_tanh_inplace(ctx, cur);
        cur = ggml_scale_inplace(ctx, cur, info.logit_softcap);
    }
    g.output = cur;

    // every op after the product works in place, so one array serves them all
    const size_t n_in  = static_cast<size_t>(t.n_cols) * n_hidden;
    const size_t n_out = n_padded * n_hidden;
    m_work.resize(n_in + n_out);
    g.input->data = m_work.data();
    product->data = m_work.data() + n_in;
    for (ggml_tensor * x = cur; x != product; x = x->src[0]) {
        x->data = product->data;
    }
    if (g.bias) {
        g.bias->data = m_bias.data() + first;
    }
    g.gf = ggml_new_graph_custom(ctx, GRAPH_NODES, false);
    ggml_build_forward_expand(g.gf, cur);
    g.n_padded = n_padded;
    g.n_hidden = n_hidden;
    g.first    = first;
}

void head::compute(const float * hidden, size_t n_hidden, int32_t n_threads, float * logits) {
    if (m_ids.empty()) {
        throw error(VT_ERROR_ARGUMENT, "the active set is empty");
    }
    compute_range(hidden, n_hidden, n_threads, 0, m_ids.size(), logits);
}

void head::compute_range(const float * hidden, size_t n_hidden, int32_t n_threads, size_t first, size_t n_rows, float * logits) {
    if (n_threads < 1 || n_threads > GGML_MAX_N_THREADS) {
        throw error(VT_ERROR_ARGUMENT, format("%d threads, expected 1 to %d", n_threads, GGML_MAX_N_THREADS));
    }
    const size_t n_embd = static_cast<size_t>(m_store.info().n_embd);
    for (size_t i = 0; i < n_hidden * n_embd; i++) {
        if (!std::isfinite(hidden[i])) {
            throw error(VT_ERROR_COMPUTE, format("hidden state %zu is not finite at %zu", i / n_embd, i % n_embd));
        }
    }
    const size_t n_padded = n_computed(first, n_rows);
    if (m_graph.gf == nullptr || m_graph.n_padded != n_padded || m_graph.n_hidden != n_hidden || m_graph.first != first) {
        build_graph(n_padded, n_hidden, first);
    }
    memcpy(m_graph.input->data, hidden, n_hidden * n_embd * sizeof(float));
    ggml_backend_cpu_set_n_threads(m_backend.get(), n_threads);
    if (ggml_backend_graph_compute(m_backend.get(), m_graph.gf) != GGML_STATUS_SUCCESS) {
        throw error(VT_ERROR_COMPUTE, "the LM head product failed");
    }
    const float * out = static_cast<const float *>(m_graph.output->data);
    for (size_t i = 0; i < n_hidden; i++) {
        memcpy(logits + i * n_rows, out + i * n_padded, n_rows * sizeof(float));
    }
}

}  // namespace vt
