// Tables from one ggml type to another.
#pragma once

#include <cstdint>

namespace vt {

void requantize(int32_t src_type, const uint8_t * src, uint64_t n_src, int32_t dst_type, uint8_t * dst, uint64_t n_dst, int64_t n_rows,
                int64_t n_per_row, int32_t n_threads);

// an error unless rows of this type can be decoded one by one
void check_row_type(int32_t type);

}  // namespace vt
