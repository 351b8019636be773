#include "kernel.h"

namespace vt {

// One state after the other; the compiler may vectorise the integer dot.

static bool supported() {
    return true;
}

static scan_layout layout(int n_states) {
    return {SCAN_QK, 1, n_states};
}

static void run(const scan_job & job) {
    const int n_lanes = job.layout.lanes();
    for (int64_t r = 0; r < job.n_rows; r++) {
        const uint8_t * row = job.rows + r * job.n_blocks * SCAN_BLOCK;
        for (int s = 0; s < job.layout.groups; s++) {
            float sum = 0.0f;
            for (int b = 0; b < job.n_blocks; b++) {
                const uint8_t * block = row + b * SCAN_BLOCK;
                const int       at    = b * job.layout.groups + s;
                const int8_t *  h     = job.h + (size_t) at * SCAN_QK;
                int             dot   = 0;
                for (int i = 0; i < SCAN_QK; i++) {
                    dot += (int8_t) block[2 + i] * h[i];
                }
                sum += (float) dot * (scan_block_scale(block) * job.d[(size_t) at * (size_t) n_lanes]);
            }
            if (sum >= job.thresholds[s * n_lanes]) {
                scan_emit(job.hits, job.row_first + r, s, sum);
            }
        }
    }
}

const scan_kernel scan_kernel_scalar = {"scalar", supported, layout, run};

}  // namespace vt
