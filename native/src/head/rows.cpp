#include "head/rows.h"

#include "base/checked.h"
#include "base/error.h"

#include <ggml.h>

#include <algorithm>
#include <cstring>

namespace vt {

namespace {

constexpr size_t STAGE_ROWS = 2048;  // a multiple of GROUP

size_t pad_group(size_t n) {
    return (n + head_rows::GROUP - 1) / head_rows::GROUP * head_rows::GROUP;
}

}  // namespace

head_rows::head_rows(const head_rows & other, size_t n, size_t n_room) : m_store(other.m_store), m_layout(other.m_layout) {
    const size_t n_vocab = static_cast<size_t>(m_store.info().n_vocab);
    allocate(pad_group(std::min(n_room, n_vocab)), other, n);
}

// ggml takes another kernel, which rounds differently, where the number of rows is no multiple of 4
// (ggml/src/ggml-cpu/llamafile/sgemm.cpp) or of 2: so it is the full head's, modulo GROUP
size_t head_rows::n_computed(size_t first, size_t n) const {
    const size_t n_vocab = static_cast<size_t>(m_store.info().n_vocab);
    return first + n == n_vocab ? n : pad_group(n) + n_vocab % GROUP;
}

const uint8_t * head_rows::plain() const {
    return m_rows && m_layout.is_plain ? static_cast<const uint8_t *>(ggml_backend_buffer_get_base(m_rows.get())) : nullptr;
}

// of a row that begins a group
uint8_t * head_rows::address(size_t row) const {
    return static_cast<uint8_t *>(ggml_backend_buffer_get_base(m_rows.get())) + row / GROUP * m_layout.group_bytes;
}

ggml_tensor * head_rows::bind(ggml_context * ctx, size_t first, size_t n) const {
    const table & t = m_store.get_table(table_id::head);
    ggml_tensor * w = ggml_new_tensor_2d(ctx, static_cast<ggml_type>(t.type), t.n_cols, static_cast<int64_t>(n));
    if (ggml_backend_tensor_alloc(m_rows.get(), w, address(first)) != GGML_STATUS_SUCCESS) {
        throw error(VT_ERROR_COMPUTE, "head rows cannot be placed");
    }
    return w;
}

bool head_rows::map_all() {
    const table & t       = m_store.get_table(table_id::head);
    const size_t  n_vocab = static_cast<size_t>(t.n_rows);
    // ggml wants tensors aligned
    if (!m_layout.is_plain || t.offset % ggml_backend_buft_get_alignment(m_layout.buft) != 0) {
        return false;
    }
    std::unique_ptr<mapping> map = m_store.map_table(t);
    ggml_backend_buffer_ptr  rows(ggml_backend_cpu_buffer_from_ptr(const_cast<uint8_t *>(map->data()), to_size(checked_mul(t.row_bytes, n_vocab))));
    if (!rows) {
        throw error(VT_ERROR_MEMORY, "the mapped LM head cannot be bound");
    }
    if (m_store.bias()) {
        m_bias.resize(n_vocab);
        m_store.read_range(*m_store.bias(), 0, n_vocab, reinterpret_cast<uint8_t *>(m_bias.data()));
    }
    m_rows     = std::move(rows);
    m_map      = std::move(map);
    m_capacity = n_vocab;
    return true;
}

// a buffer for `capacity` rows that begins with the groups of the first n_kept rows of another one, perhaps our own
void head_rows::allocate(size_t capacity, const head_rows & from, size_t n_kept) {
    const table &           t        = m_store.get_table(table_id::head);
    // a group of zero rows for n_computed; quantised matrix products may read a little past the last row
    const size_t            n_needed = weight_bytes(m_layout, static_cast<ggml_type>(t.type), t.n_cols, static_cast<int64_t>(capacity + GROUP));
    const size_t            n_bytes  = to_size(checked_add(n_needed, 1024));
    ggml_backend_buffer_ptr rows(ggml_backend_buft_alloc_buffer(m_layout.buft, n_bytes));
    if (!rows) {
        throw error(VT_ERROR_MEMORY, format("no memory for %zu head rows (%zu bytes)", capacity, n_bytes));
    }
    if (m_store.bias()) {
        std::vector<float> bias(capacity + GROUP);
        std::copy_n(from.m_bias.begin(), std::min(from.m_bias.size(), n_kept), bias.begin());
        m_bias = std::move(bias);
    }
    uint8_t *    base = static_cast<uint8_t *>(ggml_backend_buffer_get_base(rows.get()));
    const size_t kept = m_layout.has_groups ? pad_group(n_kept) / GROUP * m_layout.group_bytes : 0;
    if (kept > 0) {
        memcpy(base, ggml_backend_buffer_get_base(from.m_rows.get()), kept);
    }
    memset(base + kept, 0, n_bytes - kept);
    m_rows     = std::move(rows);
    m_capacity = capacity;
    m_map.reset();
}

// grow by at least half, so that appending row by row stays linear
void head_rows::reserve(size_t n_rows, size_t spare) {
    if (n_rows <= m_capacity && !m_map) {
        return;
    }
    const size_t n_vocab = pad_group(static_cast<size_t>(m_store.info().n_vocab));
    const size_t want    = m_capacity == 0 ? n_rows + spare : std::max(n_rows, m_capacity + m_capacity / 2);
    // mapped rows end with the table, and were all there are
    allocate(std::min(pad_group(want), n_vocab), *this, m_map ? m_capacity / GROUP * GROUP : m_capacity);
}

void head_rows::place(const int32_t * ids, size_t n, size_t first, size_t spare) {
    const table & t = m_store.get_table(table_id::head);
    reserve(pad_group(n), spare);
    // without groups the rows of a product are placed together
    const size_t begin = m_layout.has_groups ? first / GROUP * GROUP : 0;
    const size_t step  = m_layout.has_groups ? STAGE_ROWS : n_computed(0, n);

    for (size_t i = begin; i < n; i += step) {
        const size_t n_new    = std::min(step, n - i);
        const size_t n_padded = m_layout.has_groups ? pad_group(n_new) : step;
        m_staging.assign(n_padded * t.row_bytes, 0);
        m_store.read_rows(t, ids + i, n_new, m_staging.data());

        const ggml_init_params params = {ggml_tensor_overhead(), nullptr, true};
        ggml_context_ptr       ctx(ggml_init(params));
        ggml_backend_tensor_set(bind(ctx.get(), i, n_padded), m_staging.data(), 0, m_staging.size());
    }
    if (m_store.bias()) {
        m_store.read_rows(*m_store.bias(), ids + first, n - first, reinterpret_cast<uint8_t *>(m_bias.data() + first));
    }
    if (m_staging.capacity() > STAGE_ROWS * t.row_bytes / 4) {
        std::vector<uint8_t>().swap(m_staging);
    }
}

size_t head_rows::n_bytes() const {
    return (m_rows && !m_map ? ggml_backend_buffer_get_size(m_rows.get()) : 0) + m_bias.capacity() * sizeof(float) + m_staging.capacity();
}

}  // namespace vt
