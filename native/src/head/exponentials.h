// Sums of exponentials, in the widest vectors that the processor has.
#pragma once

#include <cstddef>

namespace vt {

float max_of(const float * x, size_t n);

// sum of exp(x - max); n must not be 0. Relative error below 1e-6.
double sum_of_exp(const float * x, size_t n, float max);

}  // namespace vt
