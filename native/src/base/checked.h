// Size arithmetic that refuses to wrap.
#pragma once

#include "base/error.h"

#include <cstddef>
#include <cstdint>
#include <limits>

namespace vt {

inline uint64_t checked_add(uint64_t a, uint64_t b) {
    if (a > std::numeric_limits<uint64_t>::max() - b) {
        throw error(VT_ERROR_FORMAT, "size overflow");
    }
    return a + b;
}

inline uint64_t checked_mul(uint64_t a, uint64_t b) {
    if (b != 0 && a > std::numeric_limits<uint64_t>::max() / b) {
        throw error(VT_ERROR_FORMAT, "size overflow");
    }
    return a * b;
}

// n must be a power of two
inline uint64_t checked_pad(uint64_t x, uint64_t n) {
    return checked_add(x, n - 1) & ~(n - 1);
}

inline size_t to_size(uint64_t x) {
    if (x > std::numeric_limits<size_t>::max()) {
        throw error(VT_ERROR_MEMORY, "size does not fit this platform");
    }
    return static_cast<size_t>(x);
}

}  // namespace vt
