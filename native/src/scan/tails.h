// What rows weigh together that a scan does not list: sums of exp(logit - top).
#pragma once

#include "pack.h"

#include <cstddef>

namespace vt {

// of one state
struct scan_tail {
    float  top;           // given: the logit that weighs 1
    float  cap;           // given
    double weight = 0.0;  // sum of the rows' weights
    double capped = 0.0;  // sum of min(weight, cap)
};

// a kernel's results for a row, and which of them are the states'
struct scan_lanes {
    size_t        stride;
    size_t        per_state;
    const float * thresholds;  // (stride,)
    float         scale;       // of a result for it to be a logit
};

// Adds what rows below their thresholds weigh, and those that are no number; values: (n_rows, stride). Each weight is right
// to 3e-7 and 2^-22 (|top| + 100) of it, and each sum to 1e-4; weights below 1e-37 count as none.
void add_tails(const scan_lanes & lanes, const float * values, size_t n_rows, scan_tail * tails, size_t n_states);

}  // namespace vt
