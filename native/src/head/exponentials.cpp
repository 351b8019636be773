#include "head/exponentials.h"

#include "base/exponential.h"

#include <cmath>

namespace vt {

namespace {

constexpr size_t LANES = 32;

VT_INLINE float max_with(const float * x, size_t n) {
    float  lanes[LANES];
    size_t i = 0;
    for (size_t j = 0; j < LANES; j++) {
        lanes[j] = -INFINITY;
    }
    for (; i + LANES <= n; i += LANES) {
        for (size_t j = 0; j < LANES; j++) {
            lanes[j] = x[i + j] > lanes[j] ? x[i + j] : lanes[j];
        }
    }
    float most = -INFINITY;
    for (; i < n; i++) {
        most = x[i] > most ? x[i] : most;
    }
    for (size_t j = 0; j < LANES; j++) {
        most = lanes[j] > most ? lanes[j] : most;
    }
    return most;
}

VT_INLINE double sum_with(const float * x, size_t n, float max) {
    constexpr size_t BLOCK = 4096;  // floats add up well so far
    double           total = 0.0;
    for (size_t first = 0; first < n; first += BLOCK) {
        const size_t end          = n - first < BLOCK ? n : first + BLOCK;
        float        lanes[LANES] = {};
        size_t       i            = first;
        for (; i + LANES <= end; i += LANES) {
            for (size_t j = 0; j < LANES; j++) {
                lanes[j] += exp_of(x[i + j] - max);
            }
        }
        for (; i < end; i++) {
            lanes[0] += exp_of(x[i] - max);
        }
        for (size_t j = 0; j < LANES; j++) {
            total += static_cast<double>(lanes[j]);
        }
    }
    return total;
}

#if defined(VT_WIDE)

VT_WIDE_512 float max_512(const float * x, size_t n) {
    return max_with(x, n);
}

VT_WIDE_512 double sum_512(const float * x, size_t n, float max) {
    return sum_with(x, n, max);
}

VT_WIDE_256 float max_256(const float * x, size_t n) {
    return max_with(x, n);
}

VT_WIDE_256 double sum_256(const float * x, size_t n, float max) {
    return sum_with(x, n, max);
}

#endif

}  // namespace

float max_of(const float * x, size_t n) {
#if defined(VT_WIDE)
    if (has_512()) {
        return max_512(x, n);
    }
    if (has_256()) {
        return max_256(x, n);
    }
#endif
    return max_with(x, n);
}

double sum_of_exp(const float * x, size_t n, float max) {
#if defined(VT_WIDE)
    if (has_512()) {
        return sum_512(x, n, max);
    }
    if (has_256()) {
        return sum_256(x, n, max);
    }
#endif
    return sum_with(x, n, max);
}

}  // namespace vt
