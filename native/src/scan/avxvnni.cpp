#if defined(__x86_64__) && defined(__GNUC__)

#    include "cpuid.h"
#    include "kernel.h"

#    include <immintrin.h>

namespace vt {

#    define TARGET __attribute__((target("avx2,fma,f16c,avxvnni")))

static constexpr int ROWS1 = 8;  // the float sums spill, once per block, but the dots get their parallelism
static constexpr int ROWS2 = 4;

static bool supported() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c() && has_avxvnni();
}

// weights as unsigned w + 128; the accumulators start at -128 * (sum of h) to take it back
TARGET static inline __m256i dot_start(const int32_t * bias) {
    return _mm256_load_si256((const __m256i *) bias);
}

TARGET static inline __m256i dot_weights(__m256i w) {
    return _mm256_xor_si256(w, _mm256_set1_epi8((char) -128));
}

TARGET static inline __m256i dot_add(__m256i acc, __m256i, __m256i u, __m256i h) {
    return _mm256_dpbusd_avx_epi32(acc, u, h);
}

TARGET static inline __m256i dot_unsigned(__m256i acc, __m256i u, __m256i h) {
    return _mm256_dpbusd_avx_epi32(acc, u, h);
}

#    include "avx2_rows.h"

const scan_kernel scan_kernel_avxvnni = {"avxvnni", supported, layout, run};

}  // namespace vt

#endif
