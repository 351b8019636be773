// Which script a letter is of, Latin ones apart.
#pragma once

#include <cstdint>
#include <string>

namespace vt {

// one of Greek, Cyrillic, ..., Han (Unicode blocks, those of one script taken together); NO_SCRIPT for Latin, digits, signs
using script_id = int32_t;

constexpr script_id NO_SCRIPT = -1;

script_id script_of(uint32_t code_point);

// of a text's first letter that is of one. Where the text ends inside of a character, all code points that it may be must be of
// the same.
script_id script_of(const std::string & text);

}  // namespace vt
