// How the rows of a weight lie in the buffer that llama.cpp would take for it.
#pragma once

#include <ggml-backend.h>
#include <ggml.h>

#include <cstddef>
#include <cstdint>

namespace vt {

struct weight_layout {
    ggml_backend_buffer_type_t buft;
    bool                       is_plain;     // rows as they lie in the file
    bool                       has_groups;   // GROUP rows after GROUP rows, so that groups can be placed one by one
    size_t                     group_bytes;  // of GROUP rows, where there are groups

    static constexpr size_t GROUP = 32;  // a multiple of every interleave of ggml's: repack.cpp and amx/mmq.cpp in ggml/src/ggml-cpu
};

// of a (n_cols, n_rows) weight of a matrix product; throws where ggml has no CPU device
weight_layout pick_weight_layout(ggml_type type, int64_t n_cols, int64_t n_rows);

// bytes of a buffer that takes n_rows rows of it
size_t weight_bytes(const weight_layout & layout, ggml_type type, int64_t n_cols, int64_t n_rows);

}  // namespace vt
