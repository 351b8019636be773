// What a file is that is no GGUF file, in words for an error.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace vt {

// head: the first n bytes of a file of `size` bytes
std::string describe_bytes(const uint8_t * head, size_t n, uint64_t size);

}  // namespace vt
