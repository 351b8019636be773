// The LM head over the whole vocabulary, as exact mode asks for it: not for logits, but for the rows that reach a
// threshold.
//
// It is shared by all texts of a model. What a scan reads never changes and what it writes is its own, so scans run side by
// side; ggml's products share their buffers, so they wait for one another.
#pragma once

#include "head/head.h"
#include "scan/scan.h"

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

namespace vt {

// What the rows weigh together that are not listed for a state. A logit's weight is exp(logit - top).
struct head_tail {
    float  top;           // given
    float  cap;           // given
    double weight = 0.0;  // sum of weights, as found
    double capped = 0.0;  // sum of min(weight, cap)
    double factor = 1.0;  // ggml's logits give sums, and weights of what is listed, between x / factor and x * factor
};

class whole_head {
  public:
    whole_head(store & s, vt_placement placement, int32_t n_threads);

    // a row of token id `row` whose logit may be thresholds[state] or more, and every one whose is, by (row, state).
    // hidden: (n_hidden, n_embd), n_hidden <= SCAN_MAX_STATES; thresholds: (n_hidden,), final logits.
    // tails: NULL or (n_hidden,), where can_weigh(); hits hold logits then
    void find(const float * hidden, size_t n_hidden, const float * thresholds, int32_t n_threads, std::vector<scan_hit> & hits,
              head_tail * tails = nullptr);
    bool can_weigh() const { return !uses_kernel() || (m_bias.empty() && m_store.info().logit_softcap == 0.0f); }

    // and in the same scan those of which the same can be said of lower thresholds, `near`, but not of `thresholds`
    void find(const float * hidden, size_t n_hidden, const float * thresholds, const float * near, int32_t n_threads, std::vector<scan_hit> & hits,
              std::vector<scan_hit> & near_hits);

    // all logits of one state, (n_vocab,)
    void logits(const float * hidden, int32_t n_threads, float * out);

    // as those of a head whose rows are all tokens
    void compute_some(const float * hidden, size_t n_hidden, const size_t * which, size_t n_which, int32_t n_threads, float * logits);
    void compute_softmax(softmax & s);

    // logits will be asked for at every token: hold rows in ggml's own layout for them, unless they are streamed
    void expect_logits();

    // whether logits need no more than one product
    bool has_logits() const { return !m_in_chunks; }

    size_t n_bytes();
    bool   uses_kernel() const { return m_scan_rows.format != nullptr; }

    store & get_store() { return m_store; }

  private:
    store &                  m_store;
    vt_placement             m_placement;
    std::mutex               m_product;  // held while m_head and m_chunk are in use
    head                     m_head;     // all rows, or those of a chunk
    std::atomic<bool>        m_in_chunks{true};
    std::atomic<bool>        m_had_single{false};  // logits of one state were asked for
    scan_matrix              m_scan_rows = {};     // for our own kernel; without a format where it does not fit
    std::unique_ptr<mapping> m_map;                // of the file's rows,
    std::vector<uint8_t>     m_rows;               // or a copy of them
    double                   m_max_row_norm = 0.0;
    bool                     m_whole_states = false;  // ggml rounds no state before it multiplies it
    std::vector<float>       m_bias;                  // (n_vocab,), empty where the head has none
    float                    m_max_bias = 0.0f;
    std::vector<float>       m_chunk;  // (n_hidden, rows of a chunk)

    using buffer = std::vector<uint8_t>;
    std::mutex          m_spare_lock;
    std::vector<buffer> m_spare;  // for streamed rows, of scans that have ended

    // calls use(first, n) for chunks of all rows
    template <typename F> void for_each_chunk(size_t chunk, F && use);

    // calls use(first, rows) for all rows as they lie in the file, in chunks where they are streamed
    template <typename F> void for_each_scan(F && use);

    // logits of n_hidden states are asked for: where that is one at a time, more will be
    void expect_more(size_t n_hidden);

    void place_scan_rows();

    // first row of a chunk in m_head, which is filled with it where it holds one chunk only
    size_t bring(size_t first, size_t n);

    // what the sum of a row's product and its bias must reach, and the product alone with the best bias
    struct scan_bounds {
        std::vector<float> sum;      // (n_hidden,)
        std::vector<float> product;  // (n_hidden,)
    };

    float       sum_of(const scan_hit & hit) const { return m_bias.empty() ? hit.value : hit.value + m_bias[static_cast<size_t>(hit.row)]; }
    scan_bounds bounds_of(const scan_states & states, const float * thresholds) const;
    void        scan_all(const scan_states & states, const scan_bounds & bounds, int32_t n_threads, std::vector<scan_hit> & hits, head_tail * tails);
    void        multiply(const float * hidden, size_t n_hidden, const float * thresholds, int32_t n_threads, std::vector<scan_hit> & hits,
                         head_tail * tails);

    bool  sums_are_halves() const;
    float margin(const float * hidden, float threshold) const;
    float multiplied_threshold(const float * hidden, size_t n_hidden, float threshold) const;
    float product_threshold(float threshold) const;

    static double factor(float top, float error);
};

}  // namespace vt
