// The loops shared by the two 256-bit kernels. The includer defines TARGET, dot_unsigned, and for signed weights dot_start,
// dot_weights and dot_add for its instruction family.

typedef int16_t __attribute__((may_alias, aligned(1)))  i16_any;
typedef uint16_t __attribute__((may_alias, aligned(1))) u16_any;
typedef int32_t __attribute__((may_alias, aligned(1)))  i32_any;
typedef int64_t __attribute__((may_alias, aligned(1)))  i64_any;
typedef float __attribute__((may_alias, aligned(1)))    float_any;

static constexpr int PREFETCH_TILES = 2;  // tiles ahead, into the second level; a prefetch past the end does not fault

TARGET static inline float load_fp16(const uint8_t * p) {
    return _cvtsh_ss(*(const u16_any *) p);
}

// 16 bytes
template <class T> TARGET static inline T look_up(T table, T indices) {
    return (T) _mm_shuffle_epi8((__m128i) table, (__m128i) indices);
}

#include "expand.h"

static scan_layout integer_layout(int n_states, int group) {
    const int least = 32 / group;
    const int side  = n_states <= 1 ? 1 : n_states <= 2 ? 2 : n_states <= 4 ? 4 : 8;
    return {32, side < least ? least : side, n_states <= 8 ? 1 : 2};
}

__attribute__((noinline, cold)) static void emit(const scan_job & job, int64_t row, int bundle, unsigned mask, const float * lanes) {
    for (; mask; mask &= mask - 1) {
        const int lane = __builtin_ctz(mask);
        scan_emit(job.hits, job.row_first + row, bundle * job.layout.side + lane / job.layout.per_state(), lanes[lane]);
    }
}

// sums of one state sit in 8 / SIDE adjacent lanes
template <int SIDE> TARGET static inline __m256 fold(__m256 x) {
    if (SIDE <= 1) {
        x = _mm256_add_ps(x, _mm256_permute2f128_ps(x, x, 0x01));
    }
    if (SIDE <= 2) {
        x = _mm256_add_ps(x, _mm256_permute_ps(x, 0x4e));
    }
    if (SIDE <= 4) {
        x = _mm256_add_ps(x, _mm256_permute_ps(x, 0xb1));
    }
    return x;
}

// the k-th 32 / SIDE weights of a group, repeated SIDE times
template <int SIDE> TARGET static inline __m256i repeat(const uint8_t * q, int k) {
    switch (SIDE) {
    case 1: return _mm256_loadu_si256((const __m256i *) q);
    case 2: return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *) (q + 16 * k)));
    case 4: return _mm256_set1_epi64x(*(const i64_any *) (q + 8 * k));
    default: return _mm256_set1_epi32(*(const i32_any *) (q + 4 * k));
    }
}

TARGET static inline __m256 broadcast(const uint8_t * p) {
    return _mm256_set1_ps(*(const float_any *) p);
}

// N rows, whose groups begin at q and go on step bytes later: Q8_0 as it lies in the file, other types expanded
template <class F, int SIDE, int BUNDLES, int N> TARGET static inline void run_rows(const scan_job & job, const uint8_t * rows, int64_t row) {
    using tile             = scan_tile<F, N>;
    constexpr int NV       = SIDE * F::GROUP / 32;  // vectors per group
    constexpr int STEP     = F::IN_FILE ? F::BYTES : tile::STEP;
    constexpr int SHARE    = scan_share<F, N>::BYTES;
    const int     n_groups = job.n_groups;
    const char *  ahead    = (const char *) job.rows + (row + (F::IN_FILE ? PREFETCH_TILES : 1) * N) * job.row_size;

    __m256          sum[N][BUNDLES];
    const uint8_t * q[N];
#pragma GCC unroll 8
    for (int r = 0; r < N; r++) {
#pragma GCC unroll 2
        for (int b = 0; b < BUNDLES; b++) {
            sum[r][b] = _mm256_setzero_ps();
        }
        q[r] = F::IN_FILE ? rows + r * job.row_size + 2 : rows + r * F::GROUP;
    }
    for (int g = 0; g < n_groups; g++) {
        __m256i acc[N][BUNDLES];
#pragma GCC unroll 8
        for (int r = 0; r < N; r++) {
#pragma GCC unroll 2
            for (int b = 0; b < BUNDLES; b++) {
                const int32_t * bias = job.bias + (g * BUNDLES + b) * 8;
                acc[r][b]            = F::SIGNED ? dot_start(bias) : _mm256_load_si256((const __m256i *) bias);
            }
        }
// the rows are columns here, or are expanded later: the hardware prefetcher does not follow well
#pragma GCC unroll 8
        for (int i = 0; i < SHARE; i += 64) {
            _mm_prefetch(ahead + i, _MM_HINT_T1);
        }
        ahead += SHARE;
#pragma GCC unroll 8
        for (int k = 0; k < NV; k++) {
#pragma GCC unroll 8
            for (int r = 0; r < N; r++) {
                const __m256i w = repeat<SIDE>(q[r], k);
                const __m256i u = F::SIGNED ? dot_weights(w) : w;
#pragma GCC unroll 2
                for (int b = 0; b < BUNDLES; b++) {
                    const __m256i h = _mm256_load_si256((const __m256i *) (job.h + (size_t) ((g * BUNDLES + b) * NV + k) * 32));
                    acc[r][b]       = F::SIGNED ? dot_add(acc[r][b], w, u, h) : dot_unsigned(acc[r][b], u, h);
                }
            }
        }
#pragma GCC unroll 8
        for (int r = 0; r < N; r++) {
            const __m256 dw =
                F::IN_FILE ? _mm256_cvtph_ps(_mm_set1_epi16(*(const i16_any *) (q[r] - 2))) : broadcast(q[r] + tile::SCALES - r * (F::GROUP - 4));
#pragma GCC unroll 2
            for (int b = 0; b < BUNDLES; b++) {
                const int at = (g * BUNDLES + b) * 8;
                sum[r][b]    = _mm256_fmadd_ps(_mm256_cvtepi32_ps(acc[r][b]), _mm256_mul_ps(dw, _mm256_load_ps(job.d + at)), sum[r][b]);
                if (F::MINS) {
                    sum[r][b] = _mm256_fnmadd_ps(broadcast(q[r] + tile::MINIMA - r * (F::GROUP - 4)), _mm256_load_ps(job.sums + at), sum[r][b]);
                }
            }
            q[r] += STEP;
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < N; r++) {
#pragma GCC unroll 2
        for (int b = 0; b < BUNDLES; b++) {
            const __m256 x = fold<SIDE>(sum[r][b]);
            if (job.values != nullptr) {
                _mm256_storeu_ps(job.values + ((row + r) * BUNDLES + b) * 8, x);
            }
            const unsigned mask = (unsigned) _mm256_movemask_ps(_mm256_cmp_ps(x, _mm256_load_ps(job.thresholds + b * 8), _CMP_GE_OQ));
            if (__builtin_expect(mask != 0, 0)) {
                alignas(32) float lanes[8];
                _mm256_store_ps(lanes, x);
                emit(job, row + r, b, mask, lanes);
            }
        }
    }
}

template <class F, int SIDE, int BUNDLES, int N> TARGET static inline void take_rows(const scan_job & job, int64_t row) {
    if (!F::IN_FILE) {
        expand<F, N>(job, row);
    }
    run_rows<F, SIDE, BUNDLES, N>(job, F::IN_FILE ? job.rows + row * job.row_size : job.tile, row);
}

template <class F, int SIDE, int BUNDLES> TARGET static void run_side(const scan_job & job) {
    constexpr int N   = BUNDLES == 1 ? ROWS1 : ROWS2;
    int64_t       row = 0;
    for (; row + N <= job.n_rows; row += N) {
        take_rows<F, SIDE, BUNDLES, N>(job, row);
    }
    for (; row < job.n_rows; row++) {
        take_rows<F, SIDE, BUNDLES, 1>(job, row);
    }
}

template <class F> static void run_type(const scan_job & job) {
    switch (job.layout.side * job.layout.bundles) {
    case 16: run_side<F, 8, 2>(job); break;
    case 8: run_side<F, 8, 1>(job); break;
    case 4: run_side<F, 4, 1>(job); break;
    case 2: run_side<F, 2, 1>(job); break;
    default:
        if constexpr (F::GROUP == 32) {
            run_side<F, 1, 1>(job);
        }
    }
}

typedef __m256 floats;
typedef __m128 sums4;

static constexpr int LANES       = 8;
static constexpr int MOST_STATES = 4;

static constexpr int rows_for(int n_states) {
    return n_states == 4 ? 2 : 4;
}

TARGET static inline void prefetch(const char * p) {
    _mm_prefetch(p, _MM_HINT_T1);
}

TARGET static inline __m256 zero() {
    return _mm256_setzero_ps();
}

TARGET static inline __m256 load(const float * p) {
    return _mm256_load_ps(p);
}

TARGET static inline __m256 multiply_add(__m256 a, __m256 b, __m256 sum) {
    return _mm256_fmadd_ps(a, b, sum);
}

TARGET static inline void load_pair(scan_f16, const char * p, __m256 * pair) {
    pair[0] = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) p));
    pair[1] = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) (p + 16)));
}

TARGET static inline void load_pair(scan_bf16, const char * p, __m256 * pair) {
    const __m256i x = _mm256_loadu_si256((const __m256i *) p);
    pair[0]         = _mm256_castsi256_ps(_mm256_slli_epi32(x, 16));
    pair[1]         = _mm256_castsi256_ps(_mm256_and_si256(x, _mm256_set1_epi32((int) 0xffff0000u)));
}

TARGET static inline __m128 add_lanes(const __m256 * v) {
    const __m256 four = _mm256_hadd_ps(_mm256_hadd_ps(v[0], v[1]), _mm256_hadd_ps(v[2], v[3]));
    return _mm_add_ps(_mm256_castps256_ps128(four), _mm256_extractf128_ps(four, 1));
}

TARGET static inline unsigned reaching(__m128 sums, const float * thresholds) {
    return (unsigned) _mm_movemask_ps(_mm_cmpge_ps(sums, _mm_load_ps(thresholds)));
}

#include "float_rows.h"

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
