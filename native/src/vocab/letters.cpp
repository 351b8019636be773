#include "vocab/letters.h"

namespace vt {

namespace {

// upper-case letters first, first + step, .. last; the lower-case one is `delta` further
struct range {
    uint32_t first;
    uint32_t last;
    uint32_t step;
    int32_t  delta;
};

const range RANGES[] = {
    {0x0041, 0x005A, 1, 32},                          // Basic Latin
    {0x00C0, 0x00D6, 1, 32},                          // Latin-1
    {0x00D8, 0x00DE, 1, 32}, {0x0100, 0x012E, 2, 1},  // Latin Extended-A
    {0x0132, 0x0136, 2, 1},  {0x0139, 0x0147, 2, 1},  {0x014A, 0x0176, 2, 1},  {0x0178, 0x0178, 1, -121}, {0x0179, 0x017D, 2, 1},
    {0x01CD, 0x01DB, 2, 1},                                                     // Latin Extended-B
    {0x01DE, 0x01EE, 2, 1},  {0x01F8, 0x021E, 2, 1},  {0x0386, 0x0386, 1, 38},  // Greek
    {0x0388, 0x038A, 1, 37}, {0x038C, 0x038C, 1, 64}, {0x038E, 0x038F, 1, 63}, {0x0391, 0x03A1, 1, 32},   {0x03A3, 0x03AB, 1, 32},
    {0x0400, 0x040F, 1, 80},                                                                                                        // Cyrillic
    {0x0410, 0x042F, 1, 32}, {0x0460, 0x0480, 2, 1},  {0x048A, 0x04BE, 2, 1},  {0x04D0, 0x052E, 2, 1},    {0x0531, 0x0556, 1, 48},  // Armenian
    {0x1E00, 0x1E94, 2, 1},  // Latin Extended Additional
    {0x1EA0, 0x1EFE, 2, 1},
};

}  // namespace

uint32_t to_lower(uint32_t c) {
    for (const range & r : RANGES) {
        if (c >= r.first && c <= r.last && (c - r.first) % r.step == 0) {
            return c + static_cast<uint32_t>(r.delta);
        }
    }
    return c;
}

uint32_t to_upper(uint32_t c) {
    for (const range & r : RANGES) {
        const uint32_t upper = c - static_cast<uint32_t>(r.delta);
        if (upper >= r.first && upper <= r.last && (upper - r.first) % r.step == 0) {
            return upper;
        }
    }
    return c;
}

}  // namespace vt
