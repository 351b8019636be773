#include "whole_head.h"

#include "quantize.h"

#include <ggml.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace vt {

namespace {

constexpr size_t CHUNK_ROWS = 8192;  // of a product through ggml, whose logits are held at once

double norm(const float * x, size_t n) {
    double sum = 0.0;
    for (size_t i = 0; i < n; i++) {
        sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
    }
    return std::sqrt(sum) * (1.0 + 0x1p-40);  // rounded up
}

// of the rows as ggml dequantises them
double max_row_norm(store & s) {
    const table &        t      = s.get_table(VT_TABLE_HEAD);
    const size_t         n_cols = static_cast<size_t>(t.n_cols);
    std::vector<int32_t> ids(CHUNK_ROWS);
    std::vector<uint8_t> rows(CHUNK_ROWS * t.row_bytes);
    std::vector<float>   values(CHUNK_ROWS * n_cols);
    double               most = 0.0;
    for (int64_t first = 0; first < t.n_rows; first += static_cast<int64_t>(CHUNK_ROWS)) {
        const size_t n = std::min(CHUNK_ROWS, static_cast<size_t>(t.n_rows - first));
        std::iota(ids.begin(), ids.end(), static_cast<int32_t>(first));
        s.read_rows(t, ids.data(), n, rows.data());
        requantize(t.type, rows.data(), n * t.row_bytes, GGML_TYPE_F32, reinterpret_cast<uint8_t *>(values.data()), n * n_cols * sizeof(float),
                   static_cast<int64_t>(n), t.n_cols, 1);
        for (size_t i = 0; i < n; i++) {
            most = std::max(most, norm(values.data() + i * n_cols, n_cols));
        }
    }
    return most;
}

}  // namespace

whole_head::whole_head(store & s, bool mapped) : m_store(s), m_head(s) {
    m_head.set_all(mapped);
    const vt_store_info & info         = s.info();
    // a soft cap, a scale and a bias come after the product, which the scan compares
    const bool            product_only = info.logit_softcap == 0.0f && info.logit_scale == 1.0f && !info.has_bias;
    if (product_only && info.head_type == GGML_TYPE_Q8_0 && m_head.plain_rows() != nullptr) {
        m_max_row_norm = scan_max_row_norm(m_head.plain_rows(), info.n_vocab, static_cast<size_t>(info.n_embd));
        m_scannable    = std::isfinite(m_max_row_norm);
    }
    if (!m_scannable) {
        m_max_row_norm = max_row_norm(s);
    }
}

// ggml sums in another order for several states than for one. Both sums have the same n_embd products, of rows and of
// states that are at most 10% longer once they are quantised, so they differ by no more than this.
float whole_head::margin(const float * hidden, float threshold) const {
    const vt_store_info & info   = m_store.info();
    const double          u      = 0x1p-24;
    const double          k      = static_cast<double>(info.n_embd) + 16.0;
    const double          gamma  = k * u / (1.0 - k * u);
    const double          length = 1.1 * norm(hidden, static_cast<size_t>(info.n_embd));
    const double          scale  = std::fabs(static_cast<double>(info.logit_scale));
    // the soft cap is nowhere steeper than 1; each step after the product rounds by some units in the last place
    return static_cast<float>(scale * 2.0 * gamma * length * m_max_row_norm + 64.0 * u * (1.0 + std::fabs(static_cast<double>(threshold))));
}

void whole_head::find(const float * hidden, size_t n_hidden, const float * thresholds, int32_t n_threads, std::vector<scan_hit> & hits) {
    const size_t n_embd = static_cast<size_t>(m_store.info().n_embd);
    const size_t n_rows = static_cast<size_t>(m_store.info().n_vocab);
    hits.clear();
    if (m_scannable) {
        const scan_states  states(n_embd, hidden, n_hidden);
        std::vector<float> lowered(n_hidden);
        for (size_t i = 0; i < n_hidden; i++) {
            lowered[i] = std::nextafter(thresholds[i] - states.margin(i, m_max_row_norm), -INFINITY);
        }
        scan_q8_0(m_head.plain_rows(), static_cast<int64_t>(n_rows), states, lowered.data(), n_threads, hits);
        return;
    }
    std::vector<float> lowered(n_hidden);
    for (size_t i = 0; i < n_hidden; i++) {
        lowered[i] = n_hidden == 1 ? thresholds[i] : thresholds[i] - margin(hidden + i * n_embd, thresholds[i]);
    }
    for (size_t first = 0; first < n_rows;) {
        // the last chunk takes what is left, so that no product reads past the last row
        const size_t n = n_rows - first < 2 * CHUNK_ROWS ? n_rows - first : CHUNK_ROWS;
        m_chunk.resize(n * n_hidden);
        m_head.compute_range(hidden, n_hidden, n_threads, first, n, m_chunk.data());
        for (size_t row = 0; row < n; row++) {
            for (size_t i = 0; i < n_hidden; i++) {
                const float value = m_chunk[i * n + row];
                if (value >= lowered[i]) {
                    hits.push_back({static_cast<int32_t>(first + row), static_cast<int32_t>(i), value});
                }
            }
        }
        first += n;
    }
}

}  // namespace vt
