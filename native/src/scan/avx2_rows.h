// The loops shared by the two 256-bit kernels. The includer defines TARGET, and
// dot_start / dot_weights / dot_add for its instruction family.

typedef int16_t __attribute__((may_alias, aligned(1))) i16_any;
typedef int32_t __attribute__((may_alias, aligned(1))) i32_any;
typedef int64_t __attribute__((may_alias, aligned(1))) i64_any;

static constexpr int PREFETCH_TILES = 2;  // tiles ahead; a prefetch past the end does not fault

static scan_layout layout(int n_states) {
    return {32, n_states <= 1 ? 1 : n_states <= 2 ? 2 : n_states <= 4 ? 4 : 8, n_states <= 8 ? 1 : 2};
}

__attribute__((noinline, cold)) static void emit(const scan_job & job, int64_t row, int group, unsigned mask, const float * lanes) {
    for (; mask; mask &= mask - 1) {
        const int lane = __builtin_ctz(mask);
        scan_emit(job.hits, job.row_first + row, group * job.layout.side + lane / job.layout.per_state(), lanes[lane]);
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

// the k-th 32 / SIDE weights of a block, repeated SIDE times
template <int SIDE> TARGET static inline __m256i repeat(const uint8_t * q, int k) {
    switch (SIDE) {
    case 1: return _mm256_loadu_si256((const __m256i *) q);
    case 2: return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *) (q + 16 * k)));
    case 4: return _mm256_set1_epi64x(*(const i64_any *) (q + 8 * k));
    default: return _mm256_set1_epi32(*(const i32_any *) (q + 4 * k));
    }
}

template <int SIDE, int GROUPS, int N> TARGET static inline void run_rows(const scan_job & job, int64_t row) {
    const int       n_blocks = job.n_blocks;
    const int64_t   row_size = (int64_t) n_blocks * SCAN_BLOCK;
    const uint8_t * rows     = job.rows + row * row_size;
    const char *    ahead    = (const char *) rows + PREFETCH_TILES * N * row_size;

    __m256          sum[N][GROUPS];
    const uint8_t * q[N];
#pragma GCC unroll 8
    for (int r = 0; r < N; r++) {
#pragma GCC unroll 2
        for (int g = 0; g < GROUPS; g++) {
            sum[r][g] = _mm256_setzero_ps();
        }
        q[r] = rows + r * row_size + 2;
    }
    for (int b = 0; b < n_blocks; b++) {
        __m256i acc[N][GROUPS];
#pragma GCC unroll 8
        for (int r = 0; r < N; r++) {
#pragma GCC unroll 2
            for (int g = 0; g < GROUPS; g++) {
                acc[r][g] = dot_start(job.bias + (b * GROUPS + g) * 8);
            }
        }
// the rows are columns here, which the hardware prefetcher does not follow well
#pragma GCC unroll 8
        for (int i = 0; i < N * SCAN_BLOCK; i += 64) {
            _mm_prefetch(ahead + i, _MM_HINT_T0);
        }
        ahead += N * SCAN_BLOCK;
#pragma GCC unroll 8
        for (int k = 0; k < SIDE; k++) {
#pragma GCC unroll 8
            for (int r = 0; r < N; r++) {
                const __m256i w = repeat<SIDE>(q[r], k);
                const __m256i u = dot_weights(w);
#pragma GCC unroll 2
                for (int g = 0; g < GROUPS; g++) {
                    const __m256i h = _mm256_load_si256((const __m256i *) (job.h + (size_t) ((b * GROUPS + g) * SIDE + k) * 32));
                    acc[r][g]       = dot_add(acc[r][g], w, u, h);
                }
            }
        }
#pragma GCC unroll 8
        for (int r = 0; r < N; r++) {
            const __m256 dw = _mm256_cvtph_ps(_mm_set1_epi16(*(const i16_any *) (q[r] - 2)));
#pragma GCC unroll 2
            for (int g = 0; g < GROUPS; g++) {
                const __m256 d = _mm256_mul_ps(dw, _mm256_load_ps(job.d + (b * GROUPS + g) * 8));
                sum[r][g]      = _mm256_fmadd_ps(_mm256_cvtepi32_ps(acc[r][g]), d, sum[r][g]);
            }
            q[r] += SCAN_BLOCK;
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < N; r++) {
#pragma GCC unroll 2
        for (int g = 0; g < GROUPS; g++) {
            const __m256   x    = fold<SIDE>(sum[r][g]);
            const unsigned mask = (unsigned) _mm256_movemask_ps(_mm256_cmp_ps(x, _mm256_load_ps(job.thresholds + g * 8), _CMP_GE_OQ));
            if (__builtin_expect(mask != 0, 0)) {
                alignas(32) float lanes[8];
                _mm256_store_ps(lanes, x);
                emit(job, row + r, g, mask, lanes);
            }
        }
    }
}

template <int SIDE, int GROUPS, int N> TARGET static void run_side(const scan_job & job) {
    int64_t row = 0;
    for (; row + N <= job.n_rows; row += N) {
        run_rows<SIDE, GROUPS, N>(job, row);
    }
    for (; row < job.n_rows; row++) {
        run_rows<SIDE, GROUPS, 1>(job, row);
    }
}

static void run(const scan_job & job) {
    switch (job.layout.side * job.layout.groups) {
    case 1: run_side<1, 1, ROWS1>(job); break;
    case 2: run_side<2, 1, ROWS1>(job); break;
    case 4: run_side<4, 1, ROWS1>(job); break;
    case 8: run_side<8, 1, ROWS1>(job); break;
    default: run_side<8, 2, ROWS2>(job); break;
    }
}
