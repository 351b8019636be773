#include "store/quantize.h"

#include "base/checked.h"
#include "base/error.h"
#include "base/parallel.h"

#include <ggml.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <vector>

namespace vt {

namespace {

// rows that one thread converts at once, so that the f32 rows stay in its cache
constexpr int64_t CHUNK_VALUES = 1 << 16;

// ggml's quantisers abort on values that are not finite, and some on ones far beyond the f16 scales of their blocks
bool can_be_quantized(const float * values, size_t n) {
    constexpr float F16_MAX = 65504.0f;
    return std::all_of(values, values + n, [](float x) { return std::fabs(x) <= F16_MAX; });
}

uint64_t row_bytes(ggml_type type, int64_t n_per_row) {
    return checked_mul(static_cast<uint64_t>(n_per_row / ggml_blck_size(type)), ggml_type_size(type));
}

// ggml looks at scales and floats
void check_rows(ggml_type type, const uint8_t * rows, size_t n_bytes, int64_t first, int64_t n) {
    if (!ggml_validate_row_data(type, rows, n_bytes)) {
        throw error(VT_ERROR_FORMAT, format("rows %lld to %lld have values that are not finite", static_cast<long long>(first),
                                            static_cast<long long>(first + n - 1)));
    }
}

void convert_rows(ggml_type src_type, const uint8_t * src, ggml_type dst_type, uint8_t * dst, int64_t n_rows, int64_t n_per_row) {
    const size_t       src_row = ggml_row_size(src_type, n_per_row);
    const size_t       dst_row = ggml_row_size(dst_type, n_per_row);
    const int64_t      step    = std::max<int64_t>(1, CHUNK_VALUES / n_per_row);
    std::vector<float> values(static_cast<size_t>(std::min(step, n_rows) * n_per_row));
    for (int64_t i = 0; i < n_rows; i += step) {
        const int64_t   n  = std::min(step, n_rows - i);
        const uint8_t * in = src + static_cast<size_t>(i) * src_row;
        if (src_type == GGML_TYPE_F32) {
            memcpy(values.data(), in, static_cast<size_t>(n) * src_row);
        } else {
            ggml_get_type_traits(src_type)->to_float(in, values.data(), n * n_per_row);
        }
        if (ggml_is_quantized(dst_type) && !can_be_quantized(values.data(), static_cast<size_t>(n * n_per_row))) {
            throw error(VT_ERROR_FORMAT, format("rows %lld to %lld have values that are not finite or too large for type %s",
                                                static_cast<long long>(i), static_cast<long long>(i + n - 1), ggml_type_name(dst_type)));
        }
        uint8_t * out = dst + static_cast<size_t>(i) * dst_row;
        if (dst_type == GGML_TYPE_F32) {
            memcpy(out, values.data(), static_cast<size_t>(n) * dst_row);
        } else {
            ggml_quantize_chunk(dst_type, values.data(), out, 0, n, n_per_row, nullptr);
        }
        check_rows(dst_type, out, static_cast<size_t>(n) * dst_row, i, n);
    }
}

}  // namespace

void check_row_type(int32_t type) {
    if (type < 0 || type >= GGML_TYPE_COUNT || ggml_type_size(static_cast<ggml_type>(type)) == 0) {
        throw error(VT_ERROR_ARGUMENT, format("unknown type %d", type));
    }
    const ggml_type t = static_cast<ggml_type>(type);
    if (t != GGML_TYPE_F32 && ggml_get_type_traits(t)->to_float == nullptr) {
        throw error(VT_ERROR_ARGUMENT, format("type %s cannot be decoded by row", ggml_type_name(t)));
    }
}

void requantize(int32_t src_type, const uint8_t * src, uint64_t n_src, int32_t dst_type, uint8_t * dst, uint64_t n_dst, int64_t n_rows,
                int64_t n_per_row, int32_t n_threads) {
    check_row_type(src_type);
    check_row_type(dst_type);
    const ggml_type from = static_cast<ggml_type>(src_type);
    const ggml_type to   = static_cast<ggml_type>(dst_type);
    if (n_rows < 1 || n_per_row < 1 || n_threads < 1) {
        throw error(VT_ERROR_ARGUMENT, "rows, values and threads must be positive");
    }
    if (n_per_row % ggml_blck_size(from) != 0 || n_per_row % ggml_blck_size(to) != 0) {
        throw error(VT_ERROR_ARGUMENT, format("rows of %lld values do not fit type %s, whose blocks have %lld", static_cast<long long>(n_per_row),
                                              ggml_type_name(to), static_cast<long long>(ggml_blck_size(to))));
    }
    // it aborts where one is missing
    if (to != from && ggml_quantize_requires_imatrix(to)) {
        throw error(VT_ERROR_ARGUMENT, format("type %s needs an importance matrix", ggml_type_name(to)));
    }
    const uint64_t rows = static_cast<uint64_t>(n_rows);
    if (n_src != checked_mul(rows, row_bytes(from, n_per_row)) || n_dst != checked_mul(rows, row_bytes(to, n_per_row))) {
        throw error(VT_ERROR_ARGUMENT, "a buffer has not the size of its rows");
    }
    check_threads(n_threads);
    if (to == from) {  // through f32 they could become others
        check_rows(from, src, to_size(n_src), 0, n_rows);
        memcpy(dst, src, to_size(n_src));
        return;
    }
    ggml_quantize_init(to);

    const int64_t        n     = std::min<int64_t>({n_threads, n_rows, GGML_MAX_N_THREADS});
    const int64_t        share = (n_rows + n - 1) / n;
    std::atomic<int64_t> next(0);
    parallel(static_cast<int32_t>(n), [&](size_t) {
        for (int64_t first = share * next++; first < n_rows; first = share * next++) {
            convert_rows(from, src + static_cast<size_t>(first) * ggml_row_size(from, n_per_row), to,
                         dst + static_cast<size_t>(first) * ggml_row_size(to, n_per_row), std::min(share, n_rows - first), n_per_row);
        }
    });
}

}  // namespace vt
