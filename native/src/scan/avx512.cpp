#if defined(__x86_64__) && defined(__GNUC__)

#    include "cpuid.h"
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
static constexpr int PREFETCH_TILES = 2;  // ROWS rows ahead, into the second level; a prefetch past the end does not fault

typedef int16_t __attribute__((may_alias, aligned(1)))  i16_any;
typedef uint16_t __attribute__((may_alias, aligned(1))) u16_any;
typedef int32_t __attribute__((may_alias, aligned(1)))  i32_any;
typedef int64_t __attribute__((may_alias, aligned(1)))  i64_any;
typedef float __attribute__((may_alias, aligned(1)))    float_any;

static bool supported() {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx2") &&
           __builtin_cpu_supports("fma") && has_f16c();
}

TARGET static inline float load_fp16(const uint8_t * p) {
    return _cvtsh_ss(*(const u16_any *) p);
}

// 16 bytes
template <class T> TARGET static inline T look_up(T table, T indices) {
    return (T) _mm_shuffle_epi8((__m128i) table, (__m128i) indices);
}

#    include "expand.h"

// fewer states use wider pieces of the group: up to 2 states are bound by memory anyway
static scan_layout integer_layout(int n_states, int group) {
    const int least = 64 / group;
    const int side  = n_states <= 2 ? 2 : n_states <= 4 ? 4 : n_states <= 8 ? 8 : 16;
    return {64, side < least ? least : side, 1};
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

// the k-th 64 / SIDE weights of a group, repeated SIDE times; with FLIP int8 ones become unsigned, w + 128
template <int SIDE, bool FLIP> TARGET static inline __m512i weights(const uint8_t * q, int k) {
    const __m512i flip = _mm512_set1_epi32(FLIP ? (int) 0x80808080u : 0);
    __m512i       w;
    switch (SIDE) {
    case 2: w = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *) q)); break;
    case 4: w = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *) (q + 16 * k))); break;
    // xor with an embedded broadcast is one instruction; GCC does not form it itself
    case 8:
        if (FLIP) {
            asm("vpxorq %2%{1to8%}, %1, %0" : "=v"(w) : "v"(flip), "m"(*(const i64_any *) (q + 8 * k)));
            return w;
        }
        return _mm512_set1_epi64(*(const i64_any *) (q + 8 * k));
    default:
        if (FLIP) {
            asm("vpxord %2%{1to16%}, %1, %0" : "=v"(w) : "v"(flip), "m"(*(const i32_any *) (q + 4 * k)));
            return w;
        }
        return _mm512_set1_epi32(*(const i32_any *) (q + 4 * k));
    }
    return FLIP ? _mm512_xor_si512(flip, w) : w;
}

TARGET static inline __m512 broadcast(const uint8_t * p) {
    return _mm512_set1_ps(*(const float_any *) p);
}

// N rows, whose groups begin at q and go on step bytes later: Q8_0 as it lies in the file, other types expanded
template <class F, int SIDE, int N> TARGET static inline void run_rows(const scan_job & job, const uint8_t * rows, int64_t row) {
    using tile             = scan_tile<F, N>;
    constexpr int NV       = SIDE * F::GROUP / 64;  // vectors per group
    constexpr int STEP     = F::IN_FILE ? F::BYTES : tile::STEP;
    constexpr int SHARE    = scan_share<F, N>::BYTES;
    const int     n_groups = job.n_groups;
    const char *  ahead    = (const char *) job.rows + (row + (F::IN_FILE ? PREFETCH_TILES : 1) * N) * job.row_size;

    __m512          sum[N];
    const uint8_t * q[N];
#    pragma GCC     unroll 16
    for (int r = 0; r < N; r++) {
        sum[r] = _mm512_setzero_ps();
        q[r]   = F::IN_FILE ? rows + r * job.row_size + 2 : rows + r * F::GROUP;
    }
    for (int g = 0; g < n_groups; g++) {
        __m512i acc[N];
#    pragma GCC unroll 16
        for (int r = 0; r < N; r++) {
            acc[r] = _mm512_load_si512(job.bias + g * 16);  // takes back the offset
        }
// the rows are columns here, or are expanded later: the hardware prefetcher does not follow well
#    pragma GCC unroll 16
        for (int i = 0; i < SHARE; i += 64) {
            _mm_prefetch(ahead + i, _MM_HINT_T1);
        }
        ahead += SHARE;
// rows innermost: neighbours in the instruction stream do not depend on each other
#    pragma GCC unroll 8
        for (int k = 0; k < NV; k++) {
            const __m512i h = _mm512_load_si512(job.h + (size_t) (g * NV + k) * 64);
#    pragma GCC unroll 16
            for (int r = 0; r < N; r++) {
                acc[r] = _mm512_dpbusd_epi32(acc[r], weights<SIDE, F::SIGNED>(q[r], k), h);
            }
        }
        const __m512 dh = _mm512_load_ps(job.d + g * 16);
#    pragma GCC unroll 16
        for (int r = 0; r < N; r++) {
            const __m512 dw =
                F::IN_FILE ? _mm512_cvtph_ps(_mm256_set1_epi16(*(const i16_any *) (q[r] - 2))) : broadcast(q[r] + tile::SCALES - r * (F::GROUP - 4));
            sum[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc[r]), _mm512_mul_ps(dw, dh), sum[r]);
            if (F::MINS) {
                sum[r] = _mm512_fnmadd_ps(broadcast(q[r] + tile::MINIMA - r * (F::GROUP - 4)), _mm512_load_ps(job.sums + g * 16), sum[r]);
            }
            q[r] += STEP;
        }
    }
    const __m512 thr = _mm512_load_ps(job.thresholds);
#    pragma GCC  unroll 16
    for (int r = 0; r < N; r++) {
        const __m512 x = fold<SIDE>(sum[r]);
        if (job.values != nullptr) {
            _mm512_storeu_ps(job.values + (row + r) * 16, x);
        }
        const unsigned mask = _mm512_cmp_ps_mask(x, thr, _CMP_GE_OQ);
        if (__builtin_expect(mask != 0, 0)) {
            alignas(64) float lanes[16];
            _mm512_store_ps(lanes, x);
            emit(job, row + r, mask, lanes);
        }
    }
}

template <class F, int SIDE, int N> TARGET static inline void take_rows(const scan_job & job, int64_t row) {
    if (!F::IN_FILE) {
        expand<F, N>(job, row);
    }
    run_rows<F, SIDE, N>(job, F::IN_FILE ? job.rows + row * job.row_size : job.tile, row);
}

template <class F, int SIDE> TARGET static void run_side(const scan_job & job) {
    int64_t row = 0;
    for (; row + ROWS <= job.n_rows; row += ROWS) {
        take_rows<F, SIDE, ROWS>(job, row);
    }
    for (; row < job.n_rows; row++) {
        take_rows<F, SIDE, 1>(job, row);
    }
}

template <class F> static void run_type(const scan_job & job) {
    switch (job.layout.side) {
    case 16: run_side<F, 16>(job); break;
    case 8: run_side<F, 8>(job); break;
    case 4: run_side<F, 4>(job); break;
    default:
        if constexpr (F::GROUP == 32) {
            run_side<F, 2>(job);
        }
    }
}

typedef __m512 floats;
typedef __m128 sums4;

static constexpr int LANES       = 16;
static constexpr int MOST_STATES = 8;

static constexpr int rows_for(int n_states) {
    return n_states == 8 ? 3 : 4;
}

TARGET static inline void prefetch(const char * p) {
    _mm_prefetch(p, _MM_HINT_T1);
}

TARGET static inline __m512 zero() {
    return _mm512_setzero_ps();
}

TARGET static inline __m512 load(const float * p) {
    return _mm512_load_ps(p);
}

TARGET static inline __m512 multiply_add(__m512 a, __m512 b, __m512 sum) {
    return _mm512_fmadd_ps(a, b, sum);
}

TARGET static inline void load_pair(scan_f16, const char * p, __m512 * pair) {
    pair[0] = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *) p));
    pair[1] = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *) (p + 32)));
}

TARGET static inline void load_pair(scan_bf16, const char * p, __m512 * pair) {
    const __m512i x = _mm512_loadu_si512(p);
    pair[0]         = _mm512_castsi512_ps(_mm512_slli_epi32(x, 16));
    pair[1]         = _mm512_castsi512_ps(_mm512_and_si512(x, _mm512_set1_epi32((int) 0xffff0000u)));
}

TARGET static inline __m512 add_twos(__m512 a, __m512 b) {
    return _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
}

TARGET static inline __m128 add_lanes(const __m512 * v) {
    const __m512d a    = _mm512_castps_pd(add_twos(v[0], v[1]));  // two sums of each in every 16 bytes
    const __m512d b    = _mm512_castps_pd(add_twos(v[2], v[3]));
    const __m512  four = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
    const __m256  half = _mm256_add_ps(_mm512_castps512_ps256(four), _mm512_extractf32x8_ps(four, 1));
    return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}

TARGET static inline unsigned reaching(__m128 sums, const float * thresholds) {
    return (unsigned) _mm_movemask_ps(_mm_cmpge_ps(sums, _mm_load_ps(thresholds)));
}

#    include "float_rows.h"

static scan_layout layout(int n_states, int group) {
    return group == 0 ? float_layout(n_states) : integer_layout(n_states, group);
}

static void run(const scan_job & job) {
    for_scan_type(job.type, [&](auto type) {
        if constexpr (scan_is_float<decltype(type)>::value) {
            run_float_type<decltype(type)>(job);
        } else {
            run_type<decltype(type)>(job);
        }
    });
}

const scan_kernel scan_kernel_avx512vnni = {"avx512vnni", supported, layout, run};

}  // namespace vt

#endif
