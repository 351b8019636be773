#include "kernel.h"

#include <cmath>

namespace vt {

#define TARGET

static inline float load_fp16(const uint8_t * p) {
    uint16_t h;
    memcpy(&h, p, 2);
    return scan_fp16_to_fp32(h);
}

// 16 bytes
template <class T> static inline T look_up(T table, T indices) {
    uint8_t from[16];
    uint8_t at[16];
    memcpy(from, &table, 16);
    memcpy(at, &indices, 16);
    for (uint8_t & x : at) {
        x = from[x];
    }
    memcpy(&indices, at, 16);
    return indices;
}

#include "expand.h"

// One state after the other; the compiler may vectorise the integer dot.

static bool supported() {
    return true;
}

static scan_layout layout(int n_states, int group) {
    return {group == 0 ? 4 : group, 1, n_states};
}

static inline float load_float(const uint8_t * p) {
    float x;
    memcpy(&x, p, 4);
    return x;
}

// a quant of a tile without its offset
template <class F> static inline int signed_quant(uint8_t q) {
    return F::SIGNED ? (int8_t) q : q - F::OFFSET;
}

template <class F> static void run_type(const scan_job & job) {
    using tile        = scan_tile<F, 1>;
    const int n_lanes = job.layout.lanes();
    for (int64_t r = 0; r < job.n_rows; r++) {
        expand<F, 1>(job, r);
        for (int s = 0; s < job.layout.bundles; s++) {
            float sum = 0.0f;
            for (int g = 0; g < job.n_groups; g++) {
                const uint8_t * q   = job.tile + (size_t) g * tile::STEP;
                const int       at  = g * job.layout.bundles + s;
                const int8_t *  h   = job.h + (size_t) at * F::GROUP;
                const float     d   = job.d[(size_t) at * (size_t) n_lanes];
                int             dot = 0;
                int             all = 0;
                for (int i = 0; i < F::GROUP; i++) {
                    dot += signed_quant<F>(q[i]) * h[i];
                    all += h[i];
                }
                sum += (float) dot * (load_float(q + tile::SCALES) * d);
                if (F::MINS) {
                    sum -= load_float(q + tile::MINIMA) * (d * (float) all);
                }
            }
            if (job.values != nullptr) {
                job.values[(r * job.layout.bundles + s) * n_lanes] = sum;
            }
            if (sum >= job.thresholds[s * n_lanes]) {
                scan_emit(job.hits, job.row_first + r, s, sum);
            }
        }
    }
}

static inline float widen(scan_f16, const uint8_t * p) {
    return load_fp16(p);
}

static inline float widen(scan_bf16, const uint8_t * p) {
    uint16_t h;
    memcpy(&h, p, 2);
    const uint32_t bits = (uint32_t) h << 16;
    float          x;
    memcpy(&x, &bits, 4);
    return x;
}

template <class F> static void run_float_type(const scan_job & job) {
    for (int64_t r = 0; r < job.n_rows; r++) {
        const uint8_t * w = job.rows + r * job.row_size;
        for (int s = 0; s < job.layout.bundles; s++) {
            const float * h      = job.states + (size_t) s * (size_t) job.n_values;
            float         sum[4] = {};
            for (int i = 0; i < job.n_values; i += 4) {
                for (int k = 0; k < 4; k++) {
                    sum[k] += widen(F(), w + 2 * (i + k)) * h[i + k];
                }
            }
            const float x = (sum[0] + sum[1]) + (sum[2] + sum[3]);
            if (job.values != nullptr) {
                job.values[r * job.layout.bundles + s] = x;
            }
            if (x >= job.thresholds[s]) {
                scan_emit(job.hits, job.row_first + r, s, x);
            }
        }
    }
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

const scan_kernel scan_kernel_scalar = {"scalar", supported, layout, run};

template <class F> static double float_norm_of(const scan_job & job, int64_t row) {
    const uint8_t * w      = job.rows + row * job.row_size;
    double          sum[4] = {};
    for (int i = 0; i < job.n_values; i += 4) {
        for (int k = 0; k < 4; k++) {
            const double x = (double) widen(F(), w + 2 * (i + k));
            sum[k] += x * x;
        }
    }
    return std::sqrt(sum[0] + sum[1] + sum[2] + sum[3]);
}

// integers are exact, the double sums are not
template <class F> static double norm_of(const scan_job & job, int64_t row) {
    using tile = scan_tile<F, 1>;
    expand<F, 1>(job, row);
    double weights = 0.0;
    double offsets = 0.0;
    double minima  = 0.0;
    for (int g = 0; g < job.n_groups; g++) {
        const uint8_t * q   = job.tile + (size_t) g * tile::STEP;
        const double    d   = (double) load_float(q + tile::SCALES);
        int             dot = 0;
        for (int i = 0; i < F::GROUP; i++) {
            const int w = F::APART ? q[i] : signed_quant<F>(q[i]);
            dot += w * w;
        }
        weights += d * d * dot;
        if (F::APART) {
            offsets += d * d * F::OFFSET * F::OFFSET * F::GROUP;
        }
        if (F::MINS) {
            const double m = (double) load_float(q + tile::MINIMA);
            minima += m * m * F::GROUP;
        }
    }
    return std::sqrt(weights) + std::sqrt(offsets) + std::sqrt(minima);
}

double scan_norm(const scan_job & job, int64_t row) {
    double norm = 0.0;
    for_scan_type(job.type, [&](auto type) {
        if constexpr (scan_is_float<decltype(type)>::value) {
            norm = float_norm_of<decltype(type)>(job, row);
        } else {
            norm = norm_of<decltype(type)>(job, row);
        }
    });
    return norm;
}

}  // namespace vt
