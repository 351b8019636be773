// The LM head over the whole vocabulary, as exact mode asks for it: not for logits, but for the rows that reach a
// threshold.
#pragma once

#include "head/head.h"
#include "scan/scan.h"

#include <cstdint>
#include <memory>
#include <vector>

namespace vt {

class whole_head {
  public:
    whole_head(store & s, vt_placement placement, int32_t n_threads);

    // a row of token id `row` whose logit may be thresholds[state] or more, and every one whose is, by (row, state).
    // hidden: (n_hidden, n_embd), n_hidden <= SCAN_MAX_STATES; thresholds: (n_hidden,), final logits
    void find(const float * hidden, size_t n_hidden, const float * thresholds, int32_t n_threads, std::vector<scan_hit> & hits);

    // all logits of one state, (n_vocab,)
    void logits(const float * hidden, int32_t n_threads, float * out);

    // logits will be asked for at every token: hold rows in ggml's own layout for them, unless they are streamed
    void expect_logits();

    // whether logits need no more than one product
    bool has_logits() const { return !m_in_chunks; }

    size_t n_bytes() const { return m_head.n_bytes() + m_rows.capacity() + (m_bias.capacity() + m_chunk.capacity()) * sizeof(float); }

    bool uses_kernel() const { return m_scan_rows.format != nullptr; }

  private:
    store &                  m_store;
    vt_placement             m_placement;
    head                     m_head;  // all rows, or those of a chunk
    bool                     m_in_chunks = true;
    scan_matrix              m_scan_rows = {};  // for our own kernel; without a format where it does not fit
    std::unique_ptr<mapping> m_map;             // of the file's rows,
    std::vector<uint8_t>     m_rows;            // or a copy of them, or of a chunk
    double                   m_max_row_norm = 0.0;
    std::vector<float>       m_bias;  // (n_vocab,), empty where the head has none
    float                    m_max_bias = 0.0f;
    std::vector<float>       m_chunk;  // (n_hidden, rows of a chunk)

    // calls use(first, n) for chunks of all rows
    template <typename F> void for_each_chunk(size_t chunk, F && use);

    size_t scan_chunk() const;

    void place_scan_rows();
    void read(size_t first, size_t n);

    // first row of a chunk in m_head, which is filled with it where it holds one chunk only
    size_t bring(size_t first, size_t n);

    void scan_all(const float * hidden, size_t n_hidden, const float * thresholds, int32_t n_threads, std::vector<scan_hit> & hits);
    void multiply(const float * hidden, size_t n_hidden, const float * thresholds, int32_t n_threads, std::vector<scan_hit> & hits);

    bool  sums_are_halves() const;
    float margin(const float * hidden, float threshold) const;
    float product_threshold(float threshold) const;
};

}  // namespace vt
