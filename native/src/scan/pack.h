// States, thresholds and rows as kernels want them. Nothing here knows ggml.
#pragma once

#include "kernel.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <new>
#include <vector>

namespace vt {

struct scan_hit {
    int32_t row;
    int32_t state;
    float   value;
};

// families that this CPU can run, the best first; the last one is always "scalar"
std::vector<const scan_kernel *> scan_kernels();

const scan_format * scan_format_of(scan_type type);

// (n_rows, n_embd) weights as they lie in a file
struct scan_matrix {
    const scan_format * format;
    const uint8_t *     rows;
    int64_t             n_rows;
    size_t              n_embd;

    size_t row_size() const { return n_embd / static_cast<size_t>(format->values) * static_cast<size_t>(format->bytes); }
};

// rows first .. first + n; tile: scan_tile_bytes(), aligned to 64
scan_job scan_rows(const scan_matrix & m, int64_t first, int64_t n, uint8_t * tile);
size_t   scan_tile_bytes(const scan_format & f, size_t n_embd);

// hidden states in groups of integers that share a scale, or as floats
struct scan_quants {
    std::vector<int8_t> q;  // (n_states, n_embd)
    std::vector<float>  d;  // (n_states, n_embd / group)
    std::vector<float>  f;  // (n_states, n_embd), for rows of floats
};

template <typename T> class aligned_array {
  public:
    explicit aligned_array(size_t n) : m_data(static_cast<T *>(::operator new(std::max<size_t>(n, 1) * sizeof(T), std::align_val_t(64)))) {}
    ~aligned_array() { ::operator delete(m_data, std::align_val_t(64)); }

    aligned_array(const aligned_array &)             = delete;
    aligned_array & operator=(const aligned_array &) = delete;

    T *       data() { return m_data; }
    const T * data() const { return m_data; }

  private:
    T * m_data;
};

class scan_pack {
  public:
    scan_pack(const scan_kernel & kernel, const scan_format & format, size_t n_embd, const scan_quants & x, size_t n_states);

    // thresholds: (n_states,)
    scan_thresholds lanes(const float * thresholds) const;

    // lanes of a row's results, and of one state
    size_t n_lanes() const { return static_cast<size_t>(m_layout.bundles * (m_format.floats ? 1 : m_layout.lanes())); }
    size_t per_state() const { return m_format.floats ? 1 : static_cast<size_t>(m_layout.per_state()); }

    // appends to hits the rows of a job whose logits reach the thresholds; values: NULL or space for all results, n_lanes() a row
    void run(scan_job job, const scan_thresholds & thresholds, std::vector<scan_hit> & hits, float * values = nullptr) const;

  private:
    void pack_groups(const scan_quants & x);
    void pack_floats(const scan_quants & x);

    const scan_kernel &    m_kernel;
    const scan_format &    m_format;
    size_t                 m_n_embd;
    scan_layout            m_layout;
    size_t                 m_n_states;
    aligned_array<int8_t>  m_h;
    aligned_array<float>   m_d;
    aligned_array<int32_t> m_bias;
    aligned_array<float>   m_sums;
    aligned_array<float>   m_states;
};

}  // namespace vt
