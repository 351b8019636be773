// The LM head over the whole vocabulary, as exact mode asks for it: not for logits, but for the rows that reach a
// threshold.
#pragma once

#include "head.h"
#include "scan/scan.h"

#include <cstdint>
#include <vector>

namespace vt {

class whole_head {
  public:
    whole_head(store & s, vt_placement placement);

    // a row of token id `row` whose logit may be thresholds[state] or more, and every one whose is, by (row, state).
    // hidden: (n_hidden, n_embd), n_hidden <= SCAN_MAX_STATES; thresholds: (n_hidden,), final logits
    void find(const float * hidden, size_t n_hidden, const float * thresholds, int32_t n_threads, std::vector<scan_hit> & hits);

    // all logits of one state, (n_vocab,)
    void logits(const float * hidden, int32_t n_threads, float * out);

    size_t n_bytes() const { return m_head.n_bytes() + m_chunk.capacity() * sizeof(float); }

    bool uses_kernel() const { return m_scannable; }

  private:
    store &            m_store;
    bool               m_streamed;
    head               m_head;                  // all rows, or those of a chunk
    bool               m_scannable    = false;  // our own kernel fits
    double             m_max_row_norm = 0.0;
    std::vector<float> m_chunk;  // (n_hidden, rows of a chunk)

    // calls use(first, n) for every chunk of rows, of which m_head then has rows at(first) .. at(first) + n
    template <typename F> void for_each_chunk(size_t chunk, F && use);

    size_t at(size_t first) const { return m_streamed ? 0 : first; }

    void scan(const float * hidden, size_t n_hidden, const float * thresholds, int32_t n_threads, std::vector<scan_hit> & hits);
    void multiply(const float * hidden, size_t n_hidden, const float * thresholds, int32_t n_threads, std::vector<scan_hit> & hits);

    float margin(const float * hidden, float threshold) const;
};

}  // namespace vt
