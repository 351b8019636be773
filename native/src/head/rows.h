// Rows of the LM head in one buffer of the kind that llama.cpp would take for the whole head on this machine, in ggml's
// interleaved layout or its AMX tiles where it would repack: only then are the logits the same bits as those of the full
// head. Such layouts join up to GROUP rows, so a group that is only begun is read again when rows are added to it.
#pragma once

#include "head/weight_layout.h"
#include "store/store.h"

#include <ggml-backend.h>
#include <ggml-cpp.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

namespace vt {

class head_rows {
  public:
    static constexpr size_t GROUP = weight_layout::GROUP;

    head_rows(store & s, const weight_layout & layout) : m_store(s), m_layout(layout) {}

    // the groups of the first n rows of another one, with room for more; place must follow
    head_rows(const head_rows & other, size_t n, size_t n_room);

    // (n,) ids of the rows, of which those from `first` on are new; spare: room for rows that may follow
    void place(const int32_t * ids, size_t n, size_t first, size_t spare);

    // every row of the vocabulary as pages of the file; false where the layout does not allow it
    bool map_all();

    // rows that a product of n rows from `first` on has to compute
    size_t n_computed(size_t first, size_t n) const;

    // the rows from `first` on as a weight of n rows
    ggml_tensor * bind(ggml_context * ctx, size_t first, size_t n) const;

    // of the rows from `first` on; NULL where the head has none
    float * bias(size_t first) { return m_bias.empty() ? nullptr : m_bias.data() + first; }

    // where they lie as in the file, or NULL
    const uint8_t * plain() const;

    size_t n_bytes() const;

    // more than one head has them, so they never change again
    bool is_shared() const { return m_shared; }
    void set_shared() { m_shared = true; }

  private:
    store &                  m_store;
    weight_layout            m_layout;
    std::unique_ptr<mapping> m_map;           // under m_rows, where they are pages of the file
    ggml_backend_buffer_ptr  m_rows;          // m_capacity + GROUP rows
    size_t                   m_capacity = 0;  // rows, a multiple of GROUP
    std::vector<float>       m_bias;          // (m_capacity + GROUP,)
    std::vector<uint8_t>     m_staging;       // rows on their way from the file
    std::atomic<bool>        m_shared{false};

    uint8_t * address(size_t row) const;
    void      reserve(size_t n_rows, size_t spare);
    void      allocate(size_t capacity, const head_rows & from, size_t n_kept);
};

}  // namespace vt
