// Rows of floats of 16 bits: the loops that the vector kernels share. The includer defines TARGET and, for its vectors,
//   floats, LANES              a vector, and how many values it holds
//   load, multiply_add, zero   of floats; multiply_add(a, b, sum) rounds once
//   load_pair(type, p, pair)   2 * LANES values of a row: BF16 those with even places, then the others
//   add_lanes(v)               of four vectors: (4,) sums
//   reaching(sums, thr)        bits of those at or above their thresholds
//   MOST_STATES, rows_for(S)   how many states at once, and how many rows with S of them
//   sums4, prefetch
//
// Every value of a row is loaded and widened once for up to 8 states, every value of a state once for a few rows.

static scan_layout float_layout(int n_states) {
    return {LANES * 4, 1, n_states <= 2 ? n_states : n_states <= 4 ? 4 : (n_states + MOST_STATES - 1) / MOST_STATES * MOST_STATES};
}

template <int S>
__attribute__((noinline, cold)) static void emit_floats(const scan_job & job, int64_t row, int state, unsigned mask, const sums4 & x) {
    float lanes[4];
    memcpy(lanes, &x, sizeof(lanes));
    for (; mask; mask &= mask - 1) {
        const int lane = __builtin_ctz(mask);
        scan_emit(job.hits, job.row_first + row + lane / S, state + lane % S, lanes[lane]);
    }
}

// n of the four sums
template <int S> TARGET static inline void keep_floats(const scan_job & job, int64_t row, int state, int n, const sums4 & x) {
    float lanes[4];
    memcpy(lanes, &x, sizeof(lanes));
    for (int i = 0; i < n; i++) {
        job.values[(row + i / S) * job.layout.bundles + state + i % S] = lanes[i];
    }
}

template <class F, int N, int S> TARGET static inline void run_floats(const scan_job & job, int64_t row, int state) {
    constexpr int PAIR  = 2 * LANES;
    const float * h     = job.states + (size_t) state * (size_t) job.n_values;
    const char *  w     = (const char *) job.rows + row * job.row_size;
    const int64_t ahead = state == 0 ? N * job.row_size : 0;  // later states find the rows in the cache
    constexpr int UNIT  = N * S < 4 ? 4 : N * S;

    floats sum[UNIT];
#pragma GCC unroll 32
    for (int i = 0; i < UNIT; i++) {
        sum[i] = zero();
    }
    for (int i = 0; i < job.n_values; i += PAIR) {
        floats pair[N][2];
#pragma GCC unroll 8
        for (int r = 0; r < N; r++) {
            prefetch(w + r * job.row_size + ahead + i * 2);
            load_pair(F(), w + r * job.row_size + i * 2, pair[r]);
        }
#pragma GCC unroll 8
        for (int s = 0; s < S; s++) {
#pragma GCC unroll 2
            for (int k = 0; k < 2; k++) {
                const floats x = load(h + (size_t) s * (size_t) job.n_values + (size_t) (i + k * LANES));
#pragma GCC unroll 8
                for (int r = 0; r < N; r++) {
                    sum[r * S + s] = multiply_add(pair[r][k], x, sum[r * S + s]);
                }
            }
        }
    }
    alignas(16) float thresholds[4];
#pragma GCC unroll 8
    for (int i = 0; i < UNIT; i += 4) {
        for (int k = 0; k < 4; k++) {
            thresholds[k] = i + k < N * S ? job.thresholds[state + (i + k) % S] : __builtin_nanf("");
        }
        const sums4 x = add_lanes(sum + i);
        if (job.values != nullptr) {
            keep_floats<S>(job, row + i / S, state + i % S, N * S - i < 4 ? N * S - i : 4, x);
        }
        const unsigned mask = reaching(x, thresholds);
        if (__builtin_expect(mask != 0, 0)) {
            emit_floats<S>(job, row + i / S, state + i % S, mask, x);
        }
    }
}

template <class F, int N, int S> TARGET static inline void take_floats(const scan_job & job, int64_t row) {
    for (int state = 0; state < job.layout.bundles; state += S) {
        run_floats<F, N, S>(job, row, state);
    }
}

template <class F, int S> TARGET static void run_floats_of(const scan_job & job) {
    constexpr int N   = rows_for(S);
    int64_t       row = 0;
    for (; row + N <= job.n_rows; row += N) {
        take_floats<F, N, S>(job, row);
    }
    for (; row < job.n_rows; row++) {
        take_floats<F, 1, S>(job, row);
    }
}

template <class F> static void run_float_type(const scan_job & job) {
    switch (job.layout.bundles) {
    case 1: run_floats_of<F, 1>(job); break;
    case 2: run_floats_of<F, 2>(job); break;
    case 4: run_floats_of<F, 4>(job); break;
    default: run_floats_of<F, MOST_STATES>(job);
    }
}
