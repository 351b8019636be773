#if defined(__x86_64__) && defined(__GNUC__)

#    include "cpuid.h"
#    include "kernel.h"

#    include <immintrin.h>

namespace vt {

#    define TARGET __attribute__((target("avx2,fma,f16c")))

static constexpr int ROWS1 = 4;  // 16 registers: rows at once with one and two groups of states
static constexpr int ROWS2 = 2;

static bool supported() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
}

// |w| * (h with the sign of w): |-128| is 128 as unsigned, and as |h| <= 127 two products
// stay below 2^15, so maddubs never saturates
TARGET static inline __m256i dot_start(const int32_t *) {
    return _mm256_setzero_si256();
}

TARGET static inline __m256i dot_weights(__m256i w) {
    return _mm256_abs_epi8(w);
}

TARGET static inline __m256i dot_add(__m256i acc, __m256i w, __m256i u, __m256i h) {
    const __m256i pairs = _mm256_maddubs_epi16(u, _mm256_sign_epi8(h, w));
    return _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

// at most 63 * 127 * 2
TARGET static inline __m256i dot_unsigned(__m256i acc, __m256i u, __m256i h) {
    return _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(u, h), _mm256_set1_epi16(1)));
}

#    include "avx2_rows.h"

const scan_kernel scan_kernel_avx2 = {"avx2", supported, layout, run};

}  // namespace vt

#endif
