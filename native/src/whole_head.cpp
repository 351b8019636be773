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

whole_head::whole_head(store & s, vt_placement placement) : m_store(s), m_streamed(placement == VT_PLACEMENT_STREAMED), m_head(s) {
    if (!m_streamed) {
        m_head.set_all(placement == VT_PLACEMENT_MAPPED);
    }
    const vt_store_info & info         = s.info();
    // a soft cap, a scale and a bias come after the product, which the scan compares
    const bool            product_only = info.logit_softcap == 0.0f && info.logit_scale == 1.0f && !info.has_bias;
    m_max_row_norm                     = max_row_norm(s);
    m_scannable                        = product_only && info.head_type == GGML_TYPE_Q8_0 && m_head.is_plain() && std::isfinite(m_max_row_norm);
}

template <typename F> void whole_head::for_each_chunk(size_t chunk, F && use) {
    const size_t         n_rows = static_cast<size_t>(m_store.info().n_vocab);
    std::vector<int32_t> ids;
    for (size_t first = 0; first < n_rows;) {
        // the last chunk takes what is left, so that no product reads past the last row
        const size_t n = n_rows - first < 2 * chunk ? n_rows - first : chunk;
        if (m_streamed) {
            ids.resize(n);
            std::iota(ids.begin(), ids.end(), static_cast<int32_t>(first));
            m_head.set_static(ids.data(), n);
        }
        use(first, n);
        first += n;
    }
}

void whole_head::logits(const float * hidden, int32_t n_threads, float * out) {
    const size_t n_rows = static_cast<size_t>(m_store.info().n_vocab);
    for_each_chunk(m_streamed ? CHUNK_ROWS : n_rows,
                   [&](size_t first, size_t n) { m_head.compute_range(hidden, 1, n_threads, at(first), n, out + first); });
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
    hits.clear();
    if (m_scannable) {
        scan(hidden, n_hidden, thresholds, n_threads, hits);
    } else {
        multiply(hidden, n_hidden, thresholds, n_threads, hits);
    }
}

void whole_head::scan(const float * hidden, size_t n_hidden, const float * thresholds, int32_t n_threads, std::vector<scan_hit> & hits) {
    const size_t       n_embd = static_cast<size_t>(m_store.info().n_embd);
    const size_t       n_rows = static_cast<size_t>(m_store.info().n_vocab);
    const scan_states  states(n_embd, hidden, n_hidden);
    std::vector<float> lowered(n_hidden);
    for (size_t i = 0; i < n_hidden; i++) {
        lowered[i] = std::nextafter(thresholds[i] - states.margin(i, m_max_row_norm), -INFINITY);
    }
    for_each_chunk(m_streamed ? CHUNK_ROWS : n_rows, [&](size_t first, size_t n) {
        const size_t before = hits.size();
        scan_q8_0(m_head.plain_rows(), static_cast<int64_t>(n), states, lowered.data(), n_threads, hits);
        for (size_t i = before; i < hits.size(); i++) {
            hits[i].row += static_cast<int32_t>(first);
        }
    });
}

void whole_head::multiply(const float * hidden, size_t n_hidden, const float * thresholds, int32_t n_threads, std::vector<scan_hit> & hits) {
    const size_t       n_embd = static_cast<size_t>(m_store.info().n_embd);
    std::vector<float> lowered(n_hidden);
    for (size_t i = 0; i < n_hidden; i++) {
        lowered[i] = n_hidden == 1 ? thresholds[i] : thresholds[i] - margin(hidden + i * n_embd, thresholds[i]);
    }
    for_each_chunk(CHUNK_ROWS, [&](size_t first, size_t n) {
        m_chunk.resize(n * n_hidden);
        m_head.compute_range(hidden, n_hidden, n_threads, at(first), n, m_chunk.data());
        for (size_t row = 0; row < n; row++) {
            for (size_t i = 0; i < n_hidden; i++) {
                const float value = m_chunk[i * n + row];
                if (value >= lowered[i]) {
                    hits.push_back({static_cast<int32_t>(first + row), static_cast<int32_t>(i), value});
                }
            }
        }
    });
}

}  // namespace vt
