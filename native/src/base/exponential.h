// e^x for loops that the compiler turns into vectors of their function's target.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__GNUC__)
#    define VT_INLINE inline __attribute__((always_inline))
#else
#    define VT_INLINE inline
#endif
#if defined(__x86_64__) && defined(__GNUC__)
#    define VT_WIDE(name) __attribute__((target(name)))
#    define VT_WIDE_512 VT_WIDE("avx512f,avx512dq,avx512bw,avx512vl,fma")
#    define VT_WIDE_256 VT_WIDE("avx2,fma")
#endif

namespace vt {

#if defined(VT_WIDE)

inline bool has_512() {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma");
}

inline bool has_256() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

#endif

// e^x for x <= 0, to 3e-7 of it: 2^k e^r with |r| <= ln 2 / 2, a polynomial of degree 6; 0 below the smallest normal number
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

}  // namespace vt
