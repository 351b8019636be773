// What the kernels of the scan share. There are no std templates here or in the kernels: an inline function compiled for
// AVX-512 could be the copy that the linker keeps for all callers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace vt {

enum class scan_type { q8_0, q4_0, q5_0, iq4_nl, q4_k, q5_k, q6_k, f16, bf16 };

// A type of rows. Weights come in groups that share a scale; a group's weight is scale * (q - OFFSET) - minimum, where q
// is what the kernels multiply: an unsigned byte, or where SIGNED an int8 that is q - OFFSET already. APART: ggml has kernels
// that multiply q and the offset by themselves and add the products in another order. IN_FILE: bytes lie in the file as the
// kernels for vectors want them.
struct scan_q8_0 {
    static constexpr scan_type TYPE    = scan_type::q8_0;
    static constexpr int       VALUES  = 32;  // of a block in the file
    static constexpr int       BYTES   = 34;  // fp16 scale, 32 int8
    static constexpr int       GROUP   = 32;
    static constexpr int       OFFSET  = 128;
    static constexpr bool      SIGNED  = true;
    static constexpr bool      MINS    = false;
    static constexpr bool      APART   = false;
    static constexpr bool      IN_FILE = true;
};

struct scan_q4_0 {
    static constexpr scan_type TYPE    = scan_type::q4_0;
    static constexpr int       VALUES  = 32;
    static constexpr int       BYTES   = 18;  // fp16 scale, 16 low nibbles, 16 high ones
    static constexpr int       GROUP   = 32;
    static constexpr int       OFFSET  = 8;
    static constexpr bool      SIGNED  = false;
    static constexpr bool      MINS    = false;
    static constexpr bool      APART   = false;
    static constexpr bool      IN_FILE = false;
};

struct scan_q5_0 {
    static constexpr scan_type TYPE    = scan_type::q5_0;
    static constexpr int       VALUES  = 32;
    static constexpr int       BYTES   = 22;  // fp16 scale, 32 high bits, 16 low nibbles, 16 high ones
    static constexpr int       GROUP   = 32;
    static constexpr int       OFFSET  = 16;
    static constexpr bool      SIGNED  = false;
    static constexpr bool      MINS    = false;
    static constexpr bool      APART   = false;
    static constexpr bool      IN_FILE = false;
};

struct scan_iq4_nl {
    static constexpr scan_type TYPE    = scan_type::iq4_nl;
    static constexpr int       VALUES  = 32;
    static constexpr int       BYTES   = 18;  // fp16 scale, 16 low nibbles, 16 high ones: places in a table of 16 values
    static constexpr int       GROUP   = 32;
    static constexpr int       OFFSET  = 128;
    static constexpr bool      SIGNED  = true;
    static constexpr bool      MINS    = false;
    static constexpr bool      APART   = false;
    static constexpr bool      IN_FILE = false;
};

struct scan_q4_k {
    static constexpr scan_type TYPE    = scan_type::q4_k;
    static constexpr int       VALUES  = 256;
    static constexpr int       BYTES   = 144;  // fp16 scale and minimum, 8 times 6 bits of each, 256 nibbles
    static constexpr int       GROUP   = 32;
    static constexpr int       OFFSET  = 0;
    static constexpr bool      SIGNED  = false;
    static constexpr bool      MINS    = true;
    static constexpr bool      APART   = false;
    static constexpr bool      IN_FILE = false;
};

struct scan_q5_k {
    static constexpr scan_type TYPE    = scan_type::q5_k;
    static constexpr int       VALUES  = 256;
    static constexpr int       BYTES   = 176;  // fp16 scale and minimum, 8 times 6 bits of each, 256 high bits, 256 nibbles
    static constexpr int       GROUP   = 32;
    static constexpr int       OFFSET  = 0;
    static constexpr bool      SIGNED  = false;
    static constexpr bool      MINS    = true;
    static constexpr bool      APART   = false;
    static constexpr bool      IN_FILE = false;
};

struct scan_q6_k {
    static constexpr scan_type TYPE    = scan_type::q6_k;
    static constexpr int       VALUES  = 256;
    static constexpr int       BYTES   = 210;  // 256 nibbles, 256 times 2 bits, 16 int8 scales, fp16 scale
    static constexpr int       GROUP   = 16;
    static constexpr int       OFFSET  = 32;
    static constexpr bool      SIGNED  = false;
    static constexpr bool      MINS    = false;
    static constexpr bool      APART   = true;
    static constexpr bool      IN_FILE = false;
};

// Floats of 16 bits, multiplied as floats of 32. A block here is what the kernels take at once.
struct scan_f16 {
    static constexpr scan_type TYPE   = scan_type::f16;
    static constexpr int       VALUES = 32;
    static constexpr int       BYTES  = 64;
};

struct scan_bf16 {
    static constexpr scan_type TYPE   = scan_type::bf16;
    static constexpr int       VALUES = 32;
    static constexpr int       BYTES  = 64;
};

template <class F> struct scan_is_float {
    static constexpr bool value = F::TYPE == scan_type::f16 || F::TYPE == scan_type::bf16;
};

// calls use with the struct of a type
template <class U> static inline void for_scan_type(scan_type type, U && use) {
    switch (type) {
    case scan_type::q8_0: use(scan_q8_0()); break;
    case scan_type::q4_0: use(scan_q4_0()); break;
    case scan_type::q5_0: use(scan_q5_0()); break;
    case scan_type::iq4_nl: use(scan_iq4_nl()); break;
    case scan_type::q4_k: use(scan_q4_k()); break;
    case scan_type::q5_k: use(scan_q5_k()); break;
    case scan_type::q6_k: use(scan_q6_k()); break;
    case scan_type::f16: use(scan_f16()); break;
    case scan_type::bf16: use(scan_bf16()); break;
    }
}

// the same for code that does not know the type
struct scan_format {
    scan_type type;
    int       values;
    int       bytes;
    int       group;
    int       offset;
    bool      mins;
    bool      apart;
    bool      floats;  // without groups
};

// Where the groups of a few rows lie side by side, expanded: step bytes for each group of a row and its neighbours,
// quants, then scales, then minima.
template <class F, int N> struct scan_tile {
    static constexpr int SCALES = N * F::GROUP;
    static constexpr int MINIMA = SCALES + N * 4;
    static constexpr int STEP   = MINIMA + (F::MINS ? N * 4 : 0);
};

constexpr int SCAN_MAX_TILE_ROWS = 8;

// bytes of N rows that hold a group of each, on average
template <class F, int N> struct scan_share {
    static constexpr int BYTES = N * F::BYTES * F::GROUP / F::VALUES;
};

// How the states lie in memory. A vector of `width` bytes holds `side` states side by side, width / side consecutive
// bytes of the group from each, so a group of weights takes group * side / width vectors of states. Lanes are the dwords
// of a vector.
struct scan_layout {
    int width;
    int side;
    int bundles;  // of `side` states

    int lanes() const { return width / 4; }

    int per_state() const { return lanes() / side; }
};

// most lanes of a layout: 16 states in bundles of their own, a group of 32 bytes wide
constexpr int SCAN_MAX_LANES = 16 * 8;

// one for each lane of every bundle, NaN where a lane must never hit
struct scan_thresholds {
    alignas(64) float lanes[SCAN_MAX_LANES];
};

struct scan_job {
    scan_type       type;
    const uint8_t * rows;
    int64_t         row_first;  // number of rows[0], for the hits
    int64_t         n_rows;
    int64_t         row_size;
    int             n_values;  // in a row
    int             n_groups;  // of weights, in a row
    scan_layout     layout;
    uint8_t *       tile;  // space for SCAN_MAX_TILE_ROWS expanded rows

    const int8_t *  h;     // [group][bundle][vector] quants of the states
    const float *   d;     // [group][bundle][lane] scales
    const int32_t * bias;  // [group][bundle][lane] -OFFSET * sum of the lane's quants
    const float *   sums;  // [group][bundle][lane] scale * sum of the lane's quants

    const float * states;  // [state][value], for rows of floats

    const float * thresholds;  // [bundle][lane], of scan_thresholds; [state] for rows of floats
    void *        hits;        // for scan_emit
    float *       values;      // NULL, or where all results go: [row][bundle][lane]; [row][state] for rows of floats
};

void scan_emit(void * hits, int64_t row, int state, float value);

// one instruction family
struct scan_kernel {
    const char * name;
    bool (*supported)();
    scan_layout (*layout)(int n_states, int group);  // group 0: of floats
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

// Euclidean norms of a row's parts that kernels may sum by themselves, scaled quants, offsets and minima, added
double scan_norm(const scan_job & job, int64_t row);

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

}  // namespace vt
