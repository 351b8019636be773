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

static scan_layout layout(int n_states) {
    return n_states <= 2 ? scan_layout{16, 1, n_states} : scan_layout{16, 4, (n_states + 3) / 4};
}

// row against state, for one or two states
template <int GROUPS, int N> TARGET static inline void run_rows_1(const scan_job & job, int64_t row) {
    const int64_t   row_size = (int64_t) job.n_blocks * SCAN_BLOCK;
    const uint8_t * p        = job.rows + row * row_size;

    float32x4_t sum[N][GROUPS];
    for (int r = 0; r < N; r++) {
        for (int g = 0; g < GROUPS; g++) {
            sum[r][g] = vdupq_n_f32(0.0f);
        }
    }
    for (int b = 0; b < job.n_blocks; b++, p += SCAN_BLOCK) {
        for (int r = 0; r < N; r++) {
            const uint8_t * block = p + r * row_size;
            const int8x16_t w0    = vld1q_s8((const int8_t *) block + 2);
            const int8x16_t w1    = vld1q_s8((const int8_t *) block + 18);
            const float     dw    = scan_block_scale(block);
            for (int g = 0; g < GROUPS; g++) {
                const int      at  = b * GROUPS + g;
                const int8_t * h   = job.h + (size_t) at * 32;
                int32x4_t      acc = vdotq_s32(vdupq_n_s32(0), w0, vld1q_s8(h));
                acc                = vdotq_s32(acc, w1, vld1q_s8(h + 16));
                sum[r][g]          = vfmaq_f32(sum[r][g], vcvtq_f32_s32(acc), vmulq_n_f32(vld1q_f32(job.d + at * 4), dw));
            }
        }
    }
    for (int r = 0; r < N; r++) {
        for (int g = 0; g < GROUPS; g++) {
            const float x = vaddvq_f32(sum[r][g]);
            if (x >= job.thresholds[g * 4]) {
                scan_emit(job.hits, job.row_first + row + r, g, x);
            }
        }
    }
}

// four states in the lanes, a dword of weights for all of them: sdot by element
template <int GROUPS, int N> TARGET static inline void run_rows_4(const scan_job & job, int64_t row) {
    const int64_t   row_size = (int64_t) job.n_blocks * SCAN_BLOCK;
    const uint8_t * p        = job.rows + row * row_size;

    float32x4_t sum[N][GROUPS];
    for (int r = 0; r < N; r++) {
        for (int g = 0; g < GROUPS; g++) {
            sum[r][g] = vdupq_n_f32(0.0f);
        }
    }
    for (int b = 0; b < job.n_blocks; b++, p += SCAN_BLOCK) {
        int8x16_t w0[N];
        int8x16_t w1[N];
        float     dw[N];
        for (int r = 0; r < N; r++) {
            const uint8_t * block = p + r * row_size;
            w0[r]                 = vld1q_s8((const int8_t *) block + 2);
            w1[r]                 = vld1q_s8((const int8_t *) block + 18);
            dw[r]                 = scan_block_scale(block);
        }
        for (int g = 0; g < GROUPS; g++) {
            const int at = b * GROUPS + g;
            int8x16_t h[8];
            for (int k = 0; k < 8; k++) {
                h[k] = vld1q_s8(job.h + (size_t) at * 128 + 16 * k);
            }
            const float32x4_t dh = vld1q_f32(job.d + at * 4);
            for (int r = 0; r < N; r++) {
                int32x4_t acc = vdupq_n_s32(0);
                acc           = vdotq_laneq_s32(acc, h[0], w0[r], 0);
                acc           = vdotq_laneq_s32(acc, h[1], w0[r], 1);
                acc           = vdotq_laneq_s32(acc, h[2], w0[r], 2);
                acc           = vdotq_laneq_s32(acc, h[3], w0[r], 3);
                acc           = vdotq_laneq_s32(acc, h[4], w1[r], 0);
                acc           = vdotq_laneq_s32(acc, h[5], w1[r], 1);
                acc           = vdotq_laneq_s32(acc, h[6], w1[r], 2);
                acc           = vdotq_laneq_s32(acc, h[7], w1[r], 3);
                sum[r][g]     = vfmaq_f32(sum[r][g], vcvtq_f32_s32(acc), vmulq_n_f32(dh, dw[r]));
            }
        }
    }
    for (int r = 0; r < N; r++) {
        for (int g = 0; g < GROUPS; g++) {
            const uint32x4_t ge = vcgeq_f32(sum[r][g], vld1q_f32(job.thresholds + g * 4));
            if (vmaxvq_u32(ge) == 0) {
                continue;
            }
            float    lanes[4];
            uint32_t hit[4];
            vst1q_f32(lanes, sum[r][g]);
            vst1q_u32(hit, ge);
            for (int i = 0; i < 4; i++) {
                if (hit[i]) {
                    scan_emit(job.hits, job.row_first + row + r, g * 4 + i, lanes[i]);
                }
            }
        }
    }
}

template <int SIDE, int GROUPS> TARGET static void run_side(const scan_job & job) {
    constexpr int N   = 4;
    int64_t       row = 0;
    for (; row + N <= job.n_rows; row += N) {
        SIDE == 1 ? run_rows_1<GROUPS, N>(job, row) : run_rows_4<GROUPS, N>(job, row);
    }
    for (; row < job.n_rows; row++) {
        SIDE == 1 ? run_rows_1<GROUPS, 1>(job, row) : run_rows_4<GROUPS, 1>(job, row);
    }
}

static void run(const scan_job & job) {
    switch (job.layout.side * 8 + job.layout.groups) {
    case 1 * 8 + 1: run_side<1, 1>(job); break;
    case 1 * 8 + 2: run_side<1, 2>(job); break;
    case 4 * 8 + 1: run_side<4, 1>(job); break;
    case 4 * 8 + 2: run_side<4, 2>(job); break;
    case 4 * 8 + 3: run_side<4, 3>(job); break;
    default: run_side<4, 4>(job); break;
    }
}

const scan_kernel scan_kernel_dotprod = {"dotprod", supported, layout, run};

}  // namespace vt

#endif
