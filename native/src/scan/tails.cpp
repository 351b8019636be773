#include "tails.h"

#include "base/exponential.h"

namespace vt {

namespace {

constexpr size_t BLOCK = 512;  // rows whose weights are added as floats

struct block {
    const float * values;  // (n_rows, stride)
    size_t        n_rows;
    size_t        stride;
    float         scale;

    alignas(64) float thresholds[SCAN_MAX_LANES], tops[SCAN_MAX_LANES], caps[SCAN_MAX_LANES];
    alignas(64) float weights[SCAN_MAX_LANES], capped[SCAN_MAX_LANES];
};

template <size_t STRIDE> VT_INLINE void add_rows(block & b) {
    const size_t stride = STRIDE == 0 ? b.stride : STRIDE;
    for (size_t row = 0; row < b.n_rows; row++) {
        const float * x = b.values + row * stride;
        for (size_t i = 0; i < stride; i++) {
            const float all = exp_of(x[i] * b.scale - b.tops[i]);
            const float e   = x[i] >= b.thresholds[i] ? 0.0f : all;
            b.weights[i] += e;
            b.capped[i] += e < b.caps[i] ? e : b.caps[i];
        }
    }
}

VT_INLINE void add_block_with(block & b) {
    if (b.stride == 16) {
        add_rows<16>(b);
    } else if (b.stride == 8) {
        add_rows<8>(b);
    } else {
        add_rows<0>(b);
    }
}

#if defined(VT_WIDE)

VT_WIDE_512 void add_block_512(block & b) {
    add_block_with(b);
}

VT_WIDE_256 void add_block_256(block & b) {
    add_block_with(b);
}

#endif

void add_block(block & b) {
#if defined(VT_WIDE)
    if (has_512()) {
        add_block_512(b);
        return;
    }
    if (has_256()) {
        add_block_256(b);
        return;
    }
#endif
    add_block_with(b);
}

}  // namespace

void add_tails(const scan_lanes & lanes, const float * values, size_t n_rows, scan_tail * tails, size_t n_states) {
    block b  = {};
    b.stride = lanes.stride;
    b.scale  = lanes.scale;
    for (size_t i = 0; i < lanes.stride; i++) {
        const size_t state = i / lanes.per_state;  // lanes of one state hold the same sum, or of its first one counts
        b.thresholds[i]    = lanes.thresholds[i];
        b.tops[i]          = state < n_states ? tails[state].top : 0.0f;
        b.caps[i]          = state < n_states ? tails[state].cap : 0.0f;
    }
    for (size_t first = 0; first < n_rows; first += BLOCK) {
        b.values = values + first * lanes.stride;
        b.n_rows = n_rows - first < BLOCK ? n_rows - first : BLOCK;
        for (size_t i = 0; i < lanes.stride; i++) {
            b.weights[i] = 0.0f;
            b.capped[i]  = 0.0f;
        }
        add_block(b);
        for (size_t s = 0; s < n_states; s++) {
            tails[s].weight += static_cast<double>(b.weights[s * lanes.per_state]);
            tails[s].capped += static_cast<double>(b.capped[s * lanes.per_state]);
        }
    }
}

}  // namespace vt
