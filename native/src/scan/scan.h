// Which rows of a quantised matrix reach a threshold.
//
// The whole LM head is read once for up to 16 hidden states, and no logits are stored: only the few (row, state) pairs
// whose logit is at least the state's threshold. Logits differ from ggml's in the order of summation only, and `margin`
// bounds by how much, so a scan at (threshold - margin) finds every row that ggml would put at the threshold or above.
#pragma once

#include "pack.h"
#include "tails.h"

#include <cstdint>
#include <memory>
#include <vector>

namespace vt {

constexpr size_t SCAN_MAX_STATES = 16;

// NULL where the scan does not know the ggml type
const scan_format * find_scan_format(int32_t ggml_type);

// 1 to 16 hidden states, quantised by ggml as its product with such rows would, and laid out for one kernel; immutable, so
// threads may share it
class scan_states {
  public:
    // hidden: (n_states, n_embd). whole_states: ggml multiplies rows of floats with the states as they are, where it otherwise
    // rounds them to the type of the rows.
    scan_states(const scan_format & format, size_t n_embd, const float * hidden, size_t n_states, const scan_kernel * kernel = nullptr,
                bool whole_states = false);
    ~scan_states();

    scan_states(const scan_states &)             = delete;
    scan_states & operator=(const scan_states &) = delete;

    const scan_pack & pack() const { return *m_pack; }

    size_t n_states() const { return m_norms.size(); }

    // |own logit - ggml's| is at most this for every row whose norm is at most max_row_norm; infinite when the state is
    // not finite, or so large that a sum could overflow
    float margin(size_t state, double max_row_norm) const;

  private:
    const scan_format &        m_format;
    size_t                     m_n_embd;
    std::vector<double>        m_norms;    // (n_states,) Euclidean, of the quantised states, rounded up
    std::vector<bool>          m_is_zero;  // (n_states,)
    std::unique_ptr<scan_pack> m_pack;
};

// largest norm of the rows as `margin` wants it, rounded up: that of scaled quants, and that of minima; infinite when a
// scale is not finite
double scan_max_row_norm(const scan_matrix & m, int32_t n_threads);

// thresholds: (n_states,). Appends the hits by (row, state); at a threshold of -infinity those are all rows, with NaN where
// a sum overflows. tails: NULL or
// (n_states,), to which the other rows are added; scale: of a result for it to be a logit.
void scan(const scan_matrix & m, const scan_states & states, const float * thresholds, int32_t n_threads, std::vector<scan_hit> & hits,
          scan_tail * tails = nullptr, float scale = 1.0f);

}  // namespace vt
