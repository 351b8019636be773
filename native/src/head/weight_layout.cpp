#include "head/weight_layout.h"

#include "base/error.h"

#include <ggml-cpp.h>
#include <ggml-cpu.h>

#include <string>

namespace vt {

namespace {

// llama.cpp's choice: the first extra buffer type of the CPU device that supports the product, else plain memory
// (make_cpu_buft_list and select_weight_buft in src/llama-model.cpp)
ggml_backend_buffer_type_t pick_buffer_type(ggml_type type, int64_t n_cols, int64_t n_rows) {
    ggml_backend_reg_t reg = ggml_backend_cpu_reg();
    if (ggml_backend_reg_dev_count(reg) == 0) {
        throw error(VT_ERROR_COMPUTE, "ggml has no CPU device");
    }
    ggml_backend_dev_t dev = ggml_backend_reg_dev_get(reg, 0);
    const auto get = reinterpret_cast<ggml_backend_dev_get_extra_bufts_t>(ggml_backend_reg_get_proc_address(reg, "ggml_backend_dev_get_extra_bufts"));
    ggml_backend_buffer_type_t * extra = get ? get(dev) : nullptr;

    const ggml_init_params params = {ggml_tensor_overhead() * 4, nullptr, true};
    ggml_context_ptr       ctx(ggml_init(params));
    ggml_tensor *          w  = ggml_new_tensor_2d(ctx.get(), type, n_cols, n_rows);
    ggml_tensor *          x  = ggml_new_tensor_4d(ctx.get(), GGML_TYPE_F32, n_cols, 512, 1, 1);
    ggml_tensor *          op = ggml_mul_mat(ctx.get(), w, x);
    for (; extra != nullptr && *extra != nullptr; extra++) {
        ggml_backend_buffer_ptr probe(ggml_backend_buft_alloc_buffer(*extra, 0));
        w->buffer         = probe.get();
        const bool chosen = ggml_backend_dev_supports_op(dev, op);
        w->buffer         = nullptr;
        if (chosen) {
            return *extra;
        }
    }
    return ggml_backend_cpu_buffer_type();
}

}  // namespace

size_t weight_bytes(const weight_layout & layout, ggml_type type, int64_t n_cols, int64_t n_rows) {
    const ggml_init_params params = {ggml_tensor_overhead(), nullptr, true};
    ggml_context_ptr       ctx(ggml_init(params));
    return ggml_backend_buft_get_alloc_size(layout.buft, ggml_new_tensor_2d(ctx.get(), type, n_cols, n_rows));
}

weight_layout pick_weight_layout(ggml_type type, int64_t n_cols, int64_t n_rows) {
    constexpr int64_t G      = static_cast<int64_t>(weight_layout::GROUP);
    weight_layout     layout = {pick_buffer_type(type, n_cols, n_rows), false, false, 0};
    const std::string name   = ggml_backend_buft_name(layout.buft);
    const size_t      tight  = ggml_row_size(type, n_cols) * weight_layout::GROUP;
    layout.is_plain          = layout.buft == ggml_backend_cpu_buffer_type();
    layout.group_bytes       = weight_bytes(layout, type, n_cols, G);
    // interleaved rows take what plain ones take; AMX tiles carry sums with them, and follow one another as well
    const bool is_known      = layout.is_plain || name == "CPU_REPACK" ? layout.group_bytes == tight : name == "AMX";
    layout.has_groups        = is_known && weight_bytes(layout, type, n_cols, 3 * G) == 3 * layout.group_bytes;
    return layout;
}

}  // namespace vt
