// Simple case mapping of the alphabets that have case: Latin, Greek, Cyrillic, Armenian (Unicode Character Database,
// fields Simple_Uppercase_Mapping and Simple_Lowercase_Mapping). One code point to one; archaic and phonetic letters, and
// those of other alphabets, map to themselves.
#pragma once

#include <cstdint>

namespace vt {

uint32_t to_lower(uint32_t c);
uint32_t to_upper(uint32_t c);

}  // namespace vt
