// The LM head over the active set of token ids.
//
// Row order: static rows as given, then appended ones. All rows lie in one buffer of the kind that llama.cpp would take
// for the whole head on this machine, in ggml's interleaved layout or its AMX tiles where it would repack: only then are
// the logits the same bits as those of the full head. Such layouts join up to GROUP rows, so a group that is only begun
// is read again when rows are appended to it.
#pragma once

#include "head/weight_layout.h"
#include "store/store.h"

#include <ggml-backend.h>
#include <ggml-cpp.h>

#include <cstdint>
#include <memory>
#include <vector>

namespace vt {

class head {
  public:
    explicit head(store & s);

    void   set_static(const int32_t * ids, size_t n);
    size_t append(const int32_t * ids, size_t n);
    void   reset();

    size_t                       n_static() const { return m_n_static; }
    const std::vector<int32_t> & ids() const { return m_ids; }
    bool                         contains(int32_t id) const { return is_member(id); }
    size_t                       n_bytes() const;
    uint64_t                     version() const { return m_version; }
    store &                      get_store() { return m_store; }

    // every row of the vocabulary, in order, as static rows; mapped: as pages of the file where the layout allows it
    void set_all(bool mapped);

    const weight_layout & layout() const { return m_layout; }

    // the rows where they lie as in the file, or NULL
    const uint8_t * plain_rows() const;

    // logits: (n_hidden, n_rows)
    void compute(const float * hidden, size_t n_hidden, int32_t n_threads, float * logits);

    // of rows first .. first + n only, first a multiple of GROUP, n too unless these are the last rows; first is 0 where the
    // layout has no groups
    void compute_range(const float * hidden, size_t n_hidden, int32_t n_threads, size_t first, size_t n, float * logits);

    static constexpr size_t GROUP = weight_layout::GROUP;

  private:
    struct graph {
        ggml_context_ptr ctx;
        ggml_cgraph *    gf       = nullptr;
        ggml_tensor *    input    = nullptr;  // (n_embd, n_hidden) f32
        ggml_tensor *    bias     = nullptr;  // (n_padded,) f32
        ggml_tensor *    output   = nullptr;  // (n_padded, n_hidden) f32
        size_t           n_padded = 0;
        size_t           n_hidden = 0;
        size_t           first    = 0;  // row
    };

    store &                  m_store;
    ggml_backend_ptr         m_backend;
    weight_layout            m_layout;
    std::unique_ptr<mapping> m_map;           // under m_rows, where they are pages of the file
    ggml_backend_buffer_ptr  m_rows;          // m_capacity + GROUP rows
    size_t                   m_capacity = 0;  // rows, a multiple of GROUP
    std::vector<int32_t>     m_ids;
    std::vector<float>       m_bias;     // (m_capacity + GROUP,)
    std::vector<uint64_t>    m_member;   // one bit for each token id
    std::vector<uint8_t>     m_staging;  // rows on their way from the file
    std::vector<float>       m_work;     // graph inputs and outputs
    size_t                   m_n_static = 0;
    uint64_t                 m_version  = 0;  // grows with every change of the set
    graph                    m_graph;

    bool is_member(int32_t id) const { return (m_member[static_cast<size_t>(id) >> 6] >> (id & 63)) & 1; }
    void flip_member(int32_t id) { m_member[static_cast<size_t>(id) >> 6] ^= 1ull << (id & 63); }

    size_t    n_computed(size_t first, size_t n) const;
    uint8_t * address(size_t row) const;

    void shrink(size_t n);
    void push_new(const int32_t * ids, size_t n);
    void reserve(size_t n_rows);
    void place(size_t first);
    void build_graph(size_t n_padded, size_t n_hidden, size_t first);
};

}  // namespace vt
