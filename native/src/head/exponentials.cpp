#include "head/exponentials.h"

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__GNUC__)
#    define VT_INLINE inline __attribute__((always_inline))
#else
#    define VT_INLINE inline
#endif
// loops over LANES floats become vectors of the function's target
#if defined(__x86_64__) && defined(__GNUC__)
#    define VT_WIDE(name) __attribute__((target(name)))
#endif

namespace vt {

namespace {

constexpr size_t LANES = 32;

// e^x for x <= 0: 2^k e^r with |r| <= ln 2 / 2, a polynomial of degree 6; 0 below the smallest normal number
VT_INLINE float exp_of(float x) {
    const float clamped = x < -87.0f ? -87.0f : x;
    const float shifted = clamped * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: the integer lies in the last bits
    const float k       = shifted - 12582912.0f;
    const float r       = (clamped - k * 0.693145751953125f) - k * 1.428606765330187e-06f;
    float       p       = 1.0f / 720.0f;
    p                   = p * r + 1.0f / 120.0f;
    p                   = p * r + 1.0f / 24.0f;
    p                   = p * r + 1.0f / 6.0f;
    p                   = p * r + 0.5f;
    p                   = p * r + 1.0f;
    p                   = p * r + 1.0f;
    int32_t bits;
    memcpy(&bits, &shifted, sizeof(bits));
    bits = static_cast<int32_t>((static_cast<uint32_t>(bits) + 127u) << 23);
    float scale;
    memcpy(&scale, &bits, sizeof(scale));
    return x < -87.0f ? 0.0f : p * scale;
}

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

VT_WIDE("avx512f,avx512dq,avx512bw,avx512vl,fma") float max_512(const float * x, size_t n) {
    return max_with(x, n);
}

VT_WIDE("avx512f,avx512dq,avx512bw,avx512vl,fma") double sum_512(const float * x, size_t n, float max) {
    return sum_with(x, n, max);
}

VT_WIDE("avx2,fma") float max_256(const float * x, size_t n) {
    return max_with(x, n);
}

VT_WIDE("avx2,fma") double sum_256(const float * x, size_t n, float max) {
    return sum_with(x, n, max);
}

bool has_512() {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma");
}

bool has_256() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
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
