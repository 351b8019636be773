#if defined(__x86_64__) && defined(__GNUC__)

#    include "kernel.h"

// GCC 12 warns about its own _mm512_undefined_* (PR 105593)
#    if defined(__GNUC__) && !defined(__clang__)
#        pragma GCC diagnostic ignored "-Wuninitialized"
#        pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#    endif
#    include <immintrin.h>

namespace vt {

#    define TARGET __attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")))

static constexpr int ROWS           = 8;  // at once; 12 gains nothing, 4 is slower
static constexpr int PREFETCH_TILES = 2;  // ROWS rows ahead; a prefetch past the end does not fault

typedef int16_t __attribute__((may_alias, aligned(1))) i16_any;
typedef int32_t __attribute__((may_alias, aligned(1))) i32_any;
typedef int64_t __attribute__((may_alias, aligned(1))) i64_any;

static bool supported() {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx2") &&
           __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}

// fewer states use wider pieces of the block: up to 2 states are bound by memory anyway
static scan_layout layout(int n_states) {
    return {64, n_states <= 2 ? 2 : n_states <= 4 ? 4 : n_states <= 8 ? 8 : 16, 1};
}

__attribute__((noinline, cold)) static void emit(const scan_job & job, int64_t row, unsigned mask, const float * lanes) {
    for (; mask; mask &= mask - 1) {
        const int lane = __builtin_ctz(mask);
        scan_emit(job.hits, job.row_first + row, lane / job.layout.per_state(), lanes[lane]);
    }
}

// sums of one state sit in 16 / SIDE adjacent lanes
template <int SIDE> TARGET static inline __m512 fold(__m512 x) {
    if (SIDE <= 2) {
        x = _mm512_add_ps(x, _mm512_shuffle_f32x4(x, x, 0xb1));
    }
    if (SIDE <= 4) {
        x = _mm512_add_ps(x, _mm512_permute_ps(x, 0x4e));
    }
    if (SIDE <= 8) {
        x = _mm512_add_ps(x, _mm512_permute_ps(x, 0xb1));
    }
    return x;
}

// the k-th 64 / SIDE weights of a block, repeated SIDE times, as unsigned w + 128
template <int SIDE> TARGET static inline __m512i weights(const uint8_t * q, int k) {
    const __m512i flip = _mm512_set1_epi32((int) 0x80808080u);
    __m512i       w;
    switch (SIDE) {
    case 2: return _mm512_xor_si512(flip, _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *) q)));
    case 4: return _mm512_xor_si512(flip, _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *) (q + 16 * k))));
    // xor with an embedded broadcast is one instruction; GCC does not form it itself
    case 8: asm("vpxorq %2%{1to8%}, %1, %0" : "=v"(w) : "v"(flip), "m"(*(const i64_any *) (q + 8 * k))); return w;
    default: asm("vpxord %2%{1to16%}, %1, %0" : "=v"(w) : "v"(flip), "m"(*(const i32_any *) (q + 4 * k))); return w;
    }
}

template <int SIDE, int N> TARGET static inline void run_rows(const scan_job & job, int64_t row) {
    constexpr int   NV       = SIDE / 2;  // vectors per block
    const int       n_blocks = job.n_blocks;
    const int64_t   row_size = (int64_t) n_blocks * SCAN_BLOCK;
    const uint8_t * rows     = job.rows + row * row_size;
    const char *    ahead    = (const char *) rows + PREFETCH_TILES * N * row_size;

    __m512          sum[N];
    const uint8_t * q[N];
#    pragma GCC     unroll 16
    for (int r = 0; r < N; r++) {
        sum[r] = _mm512_setzero_ps();
        q[r]   = rows + r * row_size + 2;
    }
    for (int b = 0; b < n_blocks; b++) {
        __m512i acc[N];
#    pragma GCC unroll 16
        for (int r = 0; r < N; r++) {
            acc[r] = _mm512_load_si512(job.bias + b * 16);  // takes back the +128
        }
// the rows are columns here, which the hardware prefetcher does not follow well
#    pragma GCC unroll 16
        for (int i = 0; i < N * SCAN_BLOCK; i += 64) {
            _mm_prefetch(ahead + i, _MM_HINT_T0);
        }
        ahead += N * SCAN_BLOCK;
// rows innermost: neighbours in the instruction stream do not depend on each other
#    pragma GCC unroll 8
        for (int k = 0; k < NV; k++) {
            const __m512i h = _mm512_load_si512(job.h + (size_t) (b * NV + k) * 64);
#    pragma GCC unroll 16
            for (int r = 0; r < N; r++) {
                acc[r] = _mm512_dpbusd_epi32(acc[r], weights<SIDE>(q[r], k), h);
            }
        }
        const __m512 dh = _mm512_load_ps(job.d + b * 16);
#    pragma GCC unroll 16
        for (int r = 0; r < N; r++) {
            const __m512 dw = _mm512_cvtph_ps(_mm256_set1_epi16(*(const i16_any *) (q[r] - 2)));
            sum[r]          = _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc[r]), _mm512_mul_ps(dw, dh), sum[r]);
            q[r] += SCAN_BLOCK;
        }
    }
    const __m512 thr = _mm512_load_ps(job.thresholds);
#    pragma GCC  unroll 16
    for (int r = 0; r < N; r++) {
        const __m512   x    = fold<SIDE>(sum[r]);
        const unsigned mask = _mm512_cmp_ps_mask(x, thr, _CMP_GE_OQ);
        if (__builtin_expect(mask != 0, 0)) {
            alignas(64) float lanes[16];
            _mm512_store_ps(lanes, x);
            emit(job, row + r, mask, lanes);
        }
    }
}

template <int SIDE> TARGET static void run_side(const scan_job & job) {
    int64_t row = 0;
    for (; row + ROWS <= job.n_rows; row += ROWS) {
        run_rows<SIDE, ROWS>(job, row);
    }
    for (; row < job.n_rows; row++) {
        run_rows<SIDE, 1>(job, row);
    }
}

static void run(const scan_job & job) {
    switch (job.layout.side) {
    case 2: run_side<2>(job); break;
    case 4: run_side<4>(job); break;
    case 8: run_side<8>(job); break;
    default: run_side<16>(job); break;
    }
}

const scan_kernel scan_kernel_avx512vnni = {"avx512vnni", supported, layout, run};

}  // namespace vt

#endif
