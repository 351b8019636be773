// Code points of texts that may be cut inside a character, as pieces of tokens are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace vt {

// a character, or what of it is there
struct utf8_char {
    uint32_t first  = 0;  // code points that it may be: one, where it is whole
    uint32_t last   = 0;
    size_t   n      = 0;      // bytes
    bool     is_cut = false;  // the text ends before it does
};

// the character at text[at]; n is 0 where none begins there
inline utf8_char read_utf8(const std::string & text, size_t at) {
    const uint8_t lead = static_cast<uint8_t>(text[at]);
    const size_t  n    = lead < 0x80 ? 1 : lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC0 ? 2 : 0;
    if (n == 0 || lead > 0xF4) {
        return {};
    }
    utf8_char c;
    c.first = n == 1 ? lead : lead & (0xFFu >> (n + 1));
    for (c.n = 1; c.n < n && at + c.n < text.size(); c.n++) {
        const uint8_t byte = static_cast<uint8_t>(text[at + c.n]);
        if ((byte & 0xC0) != 0x80) {
            return {};
        }
        c.first = c.first << 6 | (byte & 0x3F);
    }
    const size_t n_bits = 6 * (n - c.n);
    c.is_cut            = n_bits > 0;
    c.first <<= n_bits;
    c.last = c.first | ((1u << n_bits) - 1);
    return c;
}

}  // namespace vt
