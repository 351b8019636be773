// What the kernels of the scan share. There are no std templates here or in the kernels: an inline function compiled for
// AVX-512 could be the copy that the linker keeps for all callers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace vt {

constexpr int SCAN_QK    = 32;  // values of a Q8_0 block
constexpr int SCAN_BLOCK = 34;  // its bytes: fp16 scale, 32 int8

// How the states lie in memory. A vector of `width` bytes holds `side` states side by side, width / side consecutive
// bytes of the block from each, so a block of one group of states takes 32 * side / width vectors. Lanes are the dwords
// of a vector.
struct scan_layout {
    int width;
    int side;
    int groups;  // of `side` states

    int lanes() const { return width / 4; }

    int per_state() const { return lanes() / side; }
};

struct scan_job {
    const uint8_t * rows;
    int64_t         row_first;  // number of rows[0], for the hits
    int64_t         n_rows;
    int             n_blocks;
    scan_layout     layout;

    const int8_t *  h;     // [block][group][vector] quants of the states
    const float *   d;     // [block][group][lane] scales
    const int32_t * bias;  // [block][group][lane] -128 * sum of the lane's quants: takes back the +128 of unsigned weights

    const float * thresholds;  // [group][lane], +inf where a lane must never hit
    void *        hits;        // for scan_emit
};

void scan_emit(void * hits, int64_t row, int state, float value);

// one instruction family
struct scan_kernel {
    const char * name;
    bool (*supported)();
    scan_layout (*layout)(int n_states);
    void (*run)(const scan_job & job);
};

extern const scan_kernel scan_kernel_scalar;
#if defined(__x86_64__) && defined(__GNUC__)
extern const scan_kernel scan_kernel_avx512vnni;
extern const scan_kernel scan_kernel_avxvnni;
extern const scan_kernel scan_kernel_avx2;
#elif defined(__aarch64__) && defined(__GNUC__)
extern const scan_kernel scan_kernel_dotprod;
#endif

static inline float scan_fp16_to_fp32(uint16_t h) {
    const uint32_t sign = static_cast<uint32_t>(h & 0x8000u) << 16;
    const uint32_t mag  = h & 0x7fffu;
    uint32_t       bits;
    if (mag >= 0x7c00u) {
        bits = 0x7f800000u | (mag & 0x3ffu) << 13;  // inf, nan
    } else if (mag >= 0x0400u) {
        bits = (mag << 13) + 0x38000000u;
    } else {
        const float f = static_cast<float>(mag) * 0x1p-24f;  // zero, subnormal
        memcpy(&bits, &f, 4);
    }
    bits |= sign;
    float out;
    memcpy(&out, &bits, 4);
    return out;
}

static inline float scan_block_scale(const uint8_t * block) {
    uint16_t h;
    memcpy(&h, block, 2);
    return scan_fp16_to_fp32(h);
}

}  // namespace vt
