#if defined(__aarch64__) && defined(__GNUC__)

#    include "kernel.h"

#    include <arm_neon.h>
#    if defined(__linux__)
#        include <asm/hwcap.h>
#        include <sys/auxv.h>
#    endif

namespace vt {

#    define TARGET __attribute__((target("arch=armv8.2-a+dotprod")))

static bool supported() {
#    if defined(__linux__)
    return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#    elif defined(__APPLE__)
    return true;  // every 64-bit Apple desktop chip has it
#    else
    return false;
#    endif
}

TARGET static inline float load_fp16(const uint8_t * p) {
    __fp16 h;
    memcpy(&h, p, 2);
    return (float) h;
}

// 16 bytes
template <class T> TARGET static inline T look_up(T table, T indices) {
    return (T) vqtbl1q_u8((uint8x16_t) table, (uint8x16_t) indices);
}

#    include "expand.h"

static scan_layout integer_layout(int n_states) {
    return n_states <= 2 ? scan_layout{16, 1, n_states} : scan_layout{16, 4, (n_states + 3) / 4};
}

// where a row's groups begin and go on: Q8_0 as it lies in the file, other types expanded
template <class F, int N> struct rows_at {
    static constexpr int STEP = F::IN_FILE ? F::BYTES : scan_tile<F, N>::STEP;

    const uint8_t * base;
    int64_t         stride;

    const uint8_t * quants(int r) const { return F::IN_FILE ? base + r * stride + 2 : base + r * F::GROUP; }

    TARGET float scale(int r) const {
        if (F::IN_FILE) {
            return load_fp16(base + r * stride);
        }
        float x;
        memcpy(&x, base + scan_tile<F, N>::SCALES + 4 * r, 4);
        return x;
    }

    float minimum(int r) const {
        float x;
        memcpy(&x, base + scan_tile<F, N>::MINIMA + 4 * r, 4);
        return x;
    }
};

// dots start at what takes back the offset of unsigned weights
template <bool SIGNED> TARGET static inline int32x4_t dot_start(const int32_t * bias) {
    return SIGNED ? vdupq_n_s32(0) : vld1q_s32(bias);
}

// row against state, for one or two states
template <class F, int BUNDLES, int N> TARGET static inline void run_rows_1(const scan_job & job, rows_at<F, N> at, int64_t row) {
    float32x4_t sum[N][BUNDLES];
    for (int r = 0; r < N; r++) {
        for (int b = 0; b < BUNDLES; b++) {
            sum[r][b] = vdupq_n_f32(0.0f);
        }
    }
    for (int g = 0; g < job.n_groups; g++, at.base += at.STEP) {
        for (int r = 0; r < N; r++) {
            const int8_t * q  = (const int8_t *) at.quants(r);
            const float    dw = at.scale(r);
            for (int b = 0; b < BUNDLES; b++) {
                const int      lane = (g * BUNDLES + b) * 4;
                const int8_t * h    = job.h + (size_t) (g * BUNDLES + b) * F::GROUP;
                int32x4_t      acc  = dot_start<F::SIGNED>(job.bias + lane);
                for (int k = 0; k < F::GROUP; k += 16) {
                    acc = vdotq_s32(acc, vld1q_s8(q + k), vld1q_s8(h + k));
                }
                sum[r][b] = vfmaq_f32(sum[r][b], vcvtq_f32_s32(acc), vmulq_n_f32(vld1q_f32(job.d + lane), dw));
                if (F::MINS) {
                    sum[r][b] = vfmsq_n_f32(sum[r][b], vld1q_f32(job.sums + lane), at.minimum(r));
                }
            }
        }
    }
    for (int r = 0; r < N; r++) {
        for (int b = 0; b < BUNDLES; b++) {
            const float x = vaddvq_f32(sum[r][b]);
            if (job.values != nullptr) {
                job.values[((row + r) * BUNDLES + b) * 4] = x;
            }
            if (x >= job.thresholds[b * 4]) {
                scan_emit(job.hits, job.row_first + row + r, b, x);
            }
        }
    }
}

// four states in the lanes, a dword of weights for all of them: sdot by element
template <class F, int BUNDLES, int N> TARGET static inline void run_rows_4(const scan_job & job, rows_at<F, N> at, int64_t row) {
    constexpr int W = F::GROUP / 16;  // vectors of weights per group

    float32x4_t sum[N][BUNDLES];
    for (int r = 0; r < N; r++) {
        for (int b = 0; b < BUNDLES; b++) {
            sum[r][b] = vdupq_n_f32(0.0f);
        }
    }
    for (int g = 0; g < job.n_groups; g++, at.base += at.STEP) {
        int8x16_t w[N][W];
        float     dw[N];
        for (int r = 0; r < N; r++) {
            for (int k = 0; k < W; k++) {
                w[r][k] = vld1q_s8((const int8_t *) at.quants(r) + 16 * k);
            }
            dw[r] = at.scale(r);
        }
        for (int b = 0; b < BUNDLES; b++) {
            const int lane = (g * BUNDLES + b) * 4;
            int8x16_t h[4 * W];
            for (int k = 0; k < 4 * W; k++) {
                h[k] = vld1q_s8(job.h + (size_t) (g * BUNDLES + b) * F::GROUP * 4 + 16 * k);
            }
            const float32x4_t dh = vld1q_f32(job.d + lane);
            for (int r = 0; r < N; r++) {
                int32x4_t acc = dot_start<F::SIGNED>(job.bias + lane);
                for (int k = 0; k < W; k++) {
                    acc = vdotq_laneq_s32(acc, h[4 * k], w[r][k], 0);
                    acc = vdotq_laneq_s32(acc, h[4 * k + 1], w[r][k], 1);
                    acc = vdotq_laneq_s32(acc, h[4 * k + 2], w[r][k], 2);
                    acc = vdotq_laneq_s32(acc, h[4 * k + 3], w[r][k], 3);
                }
                sum[r][b] = vfmaq_f32(sum[r][b], vcvtq_f32_s32(acc), vmulq_n_f32(dh, dw[r]));
                if (F::MINS) {
                    sum[r][b] = vfmsq_n_f32(sum[r][b], vld1q_f32(job.sums + lane), at.minimum(r));
                }
            }
        }
    }
    for (int r = 0; r < N; r++) {
        for (int b = 0; b < BUNDLES; b++) {
            if (job.values != nullptr) {
                vst1q_f32(job.values + ((row + r) * BUNDLES + b) * 4, sum[r][b]);
            }
            const uint32x4_t ge = vcgeq_f32(sum[r][b], vld1q_f32(job.thresholds + b * 4));
            if (vmaxvq_u32(ge) == 0) {
                continue;
            }
            float    lanes[4];
            uint32_t hit[4];
            vst1q_f32(lanes, sum[r][b]);
            vst1q_u32(hit, ge);
            for (int i = 0; i < 4; i++) {
                if (hit[i]) {
                    scan_emit(job.hits, job.row_first + row + r, b * 4 + i, lanes[i]);
                }
            }
        }
    }
}

template <class F, int SIDE, int BUNDLES, int N> TARGET static inline void take_rows(const scan_job & job, int64_t row) {
    if (!F::IN_FILE) {
        expand<F, N>(job, row);
    }
    const rows_at<F, N> at = {F::IN_FILE ? job.rows + row * job.row_size : job.tile, job.row_size};
    if constexpr (SIDE == 1) {
        run_rows_1<F, BUNDLES, N>(job, at, row);
    } else {
        run_rows_4<F, BUNDLES, N>(job, at, row);
    }
}

template <class F, int SIDE, int BUNDLES> TARGET static void run_side(const scan_job & job) {
    constexpr int N   = 4;
    int64_t       row = 0;
    for (; row + N <= job.n_rows; row += N) {
        take_rows<F, SIDE, BUNDLES, N>(job, row);
    }
    for (; row < job.n_rows; row++) {
        take_rows<F, SIDE, BUNDLES, 1>(job, row);
    }
}

template <class F> static void run_type(const scan_job & job) {
    switch (job.layout.side * 8 + job.layout.bundles) {
    case 1 * 8 + 1: run_side<F, 1, 1>(job); break;
    case 1 * 8 + 2: run_side<F, 1, 2>(job); break;
    case 4 * 8 + 1: run_side<F, 4, 1>(job); break;
    case 4 * 8 + 2: run_side<F, 4, 2>(job); break;
    case 4 * 8 + 3: run_side<F, 4, 3>(job); break;
    default: run_side<F, 4, 4>(job); break;
    }
}

typedef float32x4_t floats;
typedef float32x4_t sums4;

static constexpr int LANES       = 4;
static constexpr int MOST_STATES = 4;

static constexpr int rows_for(int) {
    return 4;
}

TARGET static inline void prefetch(const char *) {
}

TARGET static inline float32x4_t zero() {
    return vdupq_n_f32(0.0f);
}

TARGET static inline float32x4_t load(const float * p) {
    return vld1q_f32(p);
}

TARGET static inline float32x4_t multiply_add(float32x4_t a, float32x4_t b, float32x4_t sum) {
    return vfmaq_f32(sum, a, b);
}

TARGET static inline void load_pair(scan_f16, const char * p, float32x4_t * pair) {
    const uint16x8_t x = vld1q_u16((const uint16_t *) p);
    pair[0]            = vcvt_f32_f16(vreinterpret_f16_u16(vget_low_u16(x)));
    pair[1]            = vcvt_f32_f16(vreinterpret_f16_u16(vget_high_u16(x)));
}

TARGET static inline void load_pair(scan_bf16, const char * p, float32x4_t * pair) {
    const uint32x4_t x = vreinterpretq_u32_u16(vld1q_u16((const uint16_t *) p));
    pair[0]            = vreinterpretq_f32_u32(vshlq_n_u32(x, 16));
    pair[1]            = vreinterpretq_f32_u32(vandq_u32(x, vdupq_n_u32(0xffff0000u)));
}

TARGET static inline float32x4_t add_lanes(const float32x4_t * v) {
    return vpaddq_f32(vpaddq_f32(v[0], v[1]), vpaddq_f32(v[2], v[3]));
}

TARGET static inline unsigned reaching(float32x4_t sums, const float * thresholds) {
    const uint32x4_t bits = {1, 2, 4, 8};
    return vaddvq_u32(vandq_u32(vcgeq_f32(sums, vld1q_f32(thresholds)), bits));
}

#    include "float_rows.h"

static scan_layout layout(int n_states, int group) {
    return group == 0 ? float_layout(n_states) : integer_layout(n_states);
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

const scan_kernel scan_kernel_dotprod = {"dotprod", supported, layout, run};

}  // namespace vt

#endif
