#include "head/whole_head.h"

#include "base/checked.h"
#include "base/exponential.h"
#include "store/quantize.h"

#include <ggml.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace vt {

namespace {

constexpr size_t CHUNK_ROWS  = 8192;        // of a product through ggml, whose logits are held at once
constexpr size_t CHUNK_BYTES = 256u << 20;  // where rows are long

size_t chunk_rows(size_t row_bytes) {
    return std::min(CHUNK_ROWS, std::max(head::GROUP, CHUNK_BYTES / row_bytes / head::GROUP * head::GROUP));
}

double norm(const float * x, size_t n) {
    double sum = 0.0;
    for (size_t i = 0; i < n; i++) {
        sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
    }
    return std::sqrt(sum) * (1.0 + 0x1p-40);  // rounded up
}

// of the rows as ggml dequantises them
double max_row_norm(store & s, int32_t n_threads) {
    const table &        t      = s.get_table(table_id::head);
    const size_t         n_cols = static_cast<size_t>(t.n_cols);
    const size_t         step   = chunk_rows(std::max(t.row_bytes, n_cols * sizeof(float)));
    std::vector<uint8_t> rows(step * t.row_bytes);
    std::vector<float>   values(step * n_cols);
    double               most = 0.0;
    for (int64_t first = 0; first < t.n_rows; first += static_cast<int64_t>(step)) {
        const size_t n = std::min(step, static_cast<size_t>(t.n_rows - first));
        s.read_range(t, static_cast<size_t>(first), n, rows.data());
        requantize(t.type, rows.data(), n * t.row_bytes, GGML_TYPE_F32, reinterpret_cast<uint8_t *>(values.data()), n * n_cols * sizeof(float),
                   static_cast<int64_t>(n), t.n_cols, n_threads);
        for (size_t i = 0; i < n; i++) {
            most = std::max(most, norm(values.data() + i * n_cols, n_cols));
        }
    }
    return most;
}

}  // namespace

whole_head::whole_head(store & s, vt_placement placement, int32_t n_threads) : m_store(s), m_placement(placement), m_head(s) {
#if defined(_WIN32)
    m_placement = placement == VT_PLACEMENT_MAPPED ? VT_PLACEMENT_MEMORY : placement;  // there are no maps
#endif
    const vt_store_info & info = s.info();
    if (m_head.layout().has_groups && info.logit_scale > 0.0f && !sums_are_halves()) {
        m_scan_rows.format = find_scan_format(info.head_type);
    }
    if (uses_kernel() && info.n_embd % m_scan_rows.format->values != 0) {
        m_scan_rows = {};
    }
    // a buffer for AMX holds F16 as well, but multiplies it with the states as they are
    m_whole_states = info.head_type == GGML_TYPE_F16 && !m_head.layout().is_plain;
    if (s.bias() != nullptr) {
        m_bias.resize(static_cast<size_t>(info.n_vocab));
        s.read_range(*s.bias(), 0, m_bias.size(), reinterpret_cast<uint8_t *>(m_bias.data()));
        m_max_bias = *std::max_element(m_bias.begin(), m_bias.end());
    }
    // interleaved rows are for logits alone, once the scan has its own
    if (m_placement != VT_PLACEMENT_STREAMED && (m_head.layout().is_plain || !uses_kernel())) {
        expect_logits();
    }
    if (uses_kernel()) {
        place_scan_rows();
        m_max_row_norm = 0.0;
        for_each_scan([&](size_t, const scan_matrix & rows) { m_max_row_norm = std::max(m_max_row_norm, scan_max_row_norm(rows, n_threads)); });
        if (!std::isfinite(m_max_row_norm)) {
            m_scan_rows = {};
            m_map.reset();
            std::vector<uint8_t>().swap(m_rows);
            expect_logits();
        }
    } else {
        m_max_row_norm = max_row_norm(s, n_threads);
    }
}

void whole_head::expect_logits() {
    const std::lock_guard<std::mutex> lock(m_product);
    // chunks of rows that are held all together need groups
    if (m_in_chunks && m_placement != VT_PLACEMENT_STREAMED && m_head.layout().has_groups) {
        m_head.set_all(m_placement == VT_PLACEMENT_MAPPED);
        m_in_chunks = false;
    }
}

void whole_head::expect_more(size_t n_hidden) {
    if (n_hidden == 1 && m_had_single.exchange(true)) {
        expect_logits();
    }
}

// the rows as they lie in the file: those that ggml multiplies, pages of the file, or a copy
void whole_head::place_scan_rows() {
    const table & t      = m_store.get_table(table_id::head);
    const size_t  n_rows = static_cast<size_t>(t.n_rows);
    m_scan_rows.n_embd   = static_cast<size_t>(t.n_cols);
    m_scan_rows.n_rows   = t.n_rows;
    if (m_placement == VT_PLACEMENT_STREAMED) {
        return;
    }
    if (m_head.plain_rows() != nullptr && !m_in_chunks) {
        m_scan_rows.rows = m_head.plain_rows();
    } else if (m_placement == VT_PLACEMENT_MAPPED) {
        m_map            = m_store.map_table(t);
        m_scan_rows.rows = m_map->data();
    } else {
        m_rows.resize(n_rows * t.row_bytes);
        m_store.read_range(t, 0, n_rows, m_rows.data());
        m_scan_rows.rows = m_rows.data();
    }
}

template <typename F> void whole_head::for_each_chunk(size_t chunk, F && use) {
    const size_t n_rows = static_cast<size_t>(m_store.info().n_vocab);
    for (size_t first = 0; first < n_rows;) {
        // the last chunk takes what is left, so that no product reads past the last row
        const size_t n = n_rows - first < 2 * chunk ? n_rows - first : chunk;
        use(first, n);
        first += n;
    }
}

template <typename F> void whole_head::for_each_scan(F && use) {
    if (m_placement != VT_PLACEMENT_STREAMED) {
        use(0, m_scan_rows);
        return;
    }
    const table & t    = m_store.get_table(table_id::head);
    scan_matrix   rows = m_scan_rows;
    buffer        chunk;
    {
        const std::lock_guard<std::mutex> lock(m_spare_lock);
        if (!m_spare.empty()) {
            chunk = std::move(m_spare.back());
            m_spare.pop_back();
        }
    }
    for_each_chunk(chunk_rows(t.row_bytes), [&](size_t first, size_t n) {
        chunk.resize(n * t.row_bytes);
        m_store.read_range(t, first, n, chunk.data());
        rows.rows   = chunk.data();
        rows.n_rows = static_cast<int64_t>(n);
        use(first, rows);
    });
    const std::lock_guard<std::mutex> lock(m_spare_lock);
    m_spare.push_back(std::move(chunk));
}

size_t whole_head::n_bytes() {
    const std::lock_guard<std::mutex> lock(m_product), spare_lock(m_spare_lock);
    size_t                            n_spare = 0;
    for (const buffer & b : m_spare) {
        n_spare += b.capacity();
    }
    return m_head.n_bytes() + m_rows.capacity() + n_spare + (m_bias.capacity() + m_chunk.capacity()) * sizeof(float);
}

size_t whole_head::bring(size_t first, size_t n) {
    if (!m_in_chunks) {
        return first;
    }
    std::vector<int32_t> ids(n);
    std::iota(ids.begin(), ids.end(), static_cast<int32_t>(first));
    m_head.set_static(ids.data(), n);
    return 0;
}

void whole_head::logits(const float * hidden, int32_t n_threads, float * out) {
    const std::lock_guard<std::mutex> lock(m_product);
    for_each_chunk(m_in_chunks ? chunk_rows(m_store.info().head_row_bytes) : static_cast<size_t>(m_store.info().n_vocab),
                   [&](size_t first, size_t n) { m_head.compute_range(hidden, 1, n_threads, bring(first, n), n, out + first); });
}

void whole_head::compute_some(const float * hidden, size_t n_hidden, const size_t * which, size_t n_which, int32_t n_threads, float * logits) {
    expect_more(n_hidden);
    const std::lock_guard<std::mutex> lock(m_product);
    const size_t                      n_vocab = static_cast<size_t>(m_store.info().n_vocab);
    if (!m_in_chunks) {
        m_head.compute_some(hidden, n_hidden, which, n_which, n_threads, logits);
        return;
    }
    for_each_chunk(chunk_rows(m_store.info().head_row_bytes), [&](size_t first, size_t n) {
        bring(first, n);
        m_chunk.resize(n * n_which);
        m_head.compute_some(hidden, n_hidden, which, n_which, n_threads, m_chunk.data());
        for (size_t i = 0; i < n_which; i++) {
            std::copy_n(m_chunk.begin() + static_cast<std::ptrdiff_t>(i * n), n, logits + i * n_vocab + first);
        }
    });
}

void whole_head::compute_softmax(softmax & s) {
    expect_more(s.params().n_hidden);
    const std::lock_guard<std::mutex> lock(m_product);
    if (!m_in_chunks) {
        m_head.compute_softmax(s, 0);
        return;
    }
    for_each_chunk(chunk_rows(m_store.info().head_row_bytes), [&](size_t first, size_t n) {
        bring(first, n);
        m_head.compute_softmax(s, first);
    });
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

// Logits that are right to a margin have weights that are right to its exponential. The rest is what the sums of tails are
// right to, and the rounding of logits that are scaled, all of which lie within 100 of the top or weigh nothing.
double whole_head::factor(float top, float error) {
    return std::exp(static_cast<double>(error)) * (1.0 + 2e-4 + 0x1p-21 * (std::fabs(static_cast<double>(top)) + 100.0));
}

// what product and bias must add up to for the logit to reach a threshold: a soft cap and a scale undone
float whole_head::product_threshold(float threshold) const {
    const vt_store_info & info  = m_store.info();
    const double          slack = 64.0 * 0x1p-24;  // some units in the last place for each step after the product
    double                x     = static_cast<double>(threshold);
    if (info.logit_softcap != 0.0f) {
        const double cap = static_cast<double>(info.logit_softcap);
        const double y   = (x - slack * (cap + std::fabs(x))) / cap;
        x                = y <= -1.0 ? -INFINITY : y >= 1.0 ? INFINITY : cap * std::atanh(y);
    }
    if (info.logit_scale != 1.0f) {
        x = (x - slack * (1.0 + std::fabs(x))) / static_cast<double>(info.logit_scale);
    }
    return std::nextafter(static_cast<float>(x), -INFINITY);
}

void whole_head::find(const float * hidden, size_t n_hidden, const float * thresholds, int32_t n_threads, std::vector<scan_hit> & hits,
                      head_tail * tails) {
    const size_t n_embd = static_cast<size_t>(m_store.info().n_embd);
    hits.clear();
    if (uses_kernel()) {
        const scan_states states(*m_scan_rows.format, n_embd, hidden, n_hidden, nullptr, m_whole_states);
        scan_all(states, bounds_of(states, thresholds), n_threads, hits, tails);
    } else {
        multiply(hidden, n_hidden, thresholds, n_threads, hits, tails);
    }
}

void whole_head::find(const float * hidden, size_t n_hidden, const float * thresholds, const float * near, int32_t n_threads,
                      std::vector<scan_hit> & hits, std::vector<scan_hit> & near_hits) {
    const size_t       n_embd = static_cast<size_t>(m_store.info().n_embd);
    std::vector<float> least(n_hidden), decisive(n_hidden);
    for (size_t i = 0; i < n_hidden; i++) {
        least[i] = std::min(thresholds[i], near[i]);
    }
    hits.clear();
    near_hits.clear();
    if (uses_kernel()) {
        const scan_states states(*m_scan_rows.format, n_embd, hidden, n_hidden, nullptr, m_whole_states);
        scan_all(states, bounds_of(states, least.data()), n_threads, hits, nullptr);
        decisive = bounds_of(states, thresholds).sum;
    } else {
        multiply(hidden, n_hidden, least.data(), n_threads, hits, nullptr);
        for (size_t i = 0; i < n_hidden; i++) {
            decisive[i] = multiplied_threshold(hidden + i * n_embd, n_hidden, thresholds[i]);
        }
    }
    // what is no number may be anything
    const auto decides = [&](const scan_hit & h) { return !((uses_kernel() ? sum_of(h) : h.value) < decisive[static_cast<size_t>(h.state)]); };
    const auto rest    = std::stable_partition(hits.begin(), hits.end(), decides);
    near_hits.assign(rest, hits.end());
    hits.erase(rest, hits.end());
}

whole_head::scan_bounds whole_head::bounds_of(const scan_states & states, const float * thresholds) const {
    scan_bounds bounds;
    for (size_t i = 0; i < states.n_states(); i++) {
        // with a bias another sum is rounded
        const float threshold = product_threshold(thresholds[i]);
        const float slack     = m_bias.empty() ? 0.0f : 0x1p-20f * (1.0f + std::fabs(threshold) + std::fabs(m_max_bias));
        bounds.sum.push_back(std::nextafter(threshold - states.margin(i, m_max_row_norm) - slack, -INFINITY));
        bounds.product.push_back(bounds.sum[i] - m_max_bias - slack);
    }
    return bounds;
}

void whole_head::scan_all(const scan_states & states, const scan_bounds & bounds, int32_t n_threads, std::vector<scan_hit> & hits,
                          head_tail * tails) {
    const vt_store_info &  info     = m_store.info();
    const size_t           n_hidden = states.n_states();
    std::vector<scan_tail> weighed;
    for (size_t i = 0; tails != nullptr && i < n_hidden; i++) {
        weighed.push_back({tails[i].top, tails[i].cap});
    }
    for_each_scan([&](size_t first, const scan_matrix & rows) {
        const size_t before = hits.size();
        scan(rows, states, bounds.product.data(), n_threads, hits, weighed.empty() ? nullptr : weighed.data(), info.logit_scale);
        for (size_t i = before; i < hits.size(); i++) {
            hits[i].row += static_cast<int32_t>(first);
        }
        if (!m_bias.empty()) {
            const auto is_below = [&](const scan_hit & h) { return sum_of(h) < bounds.sum[static_cast<size_t>(h.state)]; };
            hits.erase(std::remove_if(hits.begin() + static_cast<std::ptrdiff_t>(before), hits.end(), is_below), hits.end());
        }
    });
    for (size_t i = 0; i < weighed.size(); i++) {
        tails[i].weight = weighed[i].weight;
        tails[i].capped = weighed[i].capped;
        tails[i].factor = factor(tails[i].top, info.logit_scale * states.margin(i, m_max_row_norm));
    }
    for (scan_hit & hit : hits) {
        hit.value *= weighed.empty() ? 1.0f : info.logit_scale;
    }
}

// ggml adds products of halves in halves where the processor can: no useful bound holds for another order of them
bool whole_head::sums_are_halves() const {
#if defined(__aarch64__) || defined(_M_ARM64)
    return m_store.info().head_type == GGML_TYPE_F16;
#else
    return false;
#endif
}

// what a logit must reach that was multiplied with others
float whole_head::multiplied_threshold(const float * hidden, size_t n_hidden, float threshold) const {
    return n_hidden == 1 ? threshold : threshold - margin(hidden, threshold);
}

void whole_head::multiply(const float * hidden, size_t n_hidden, const float * thresholds, int32_t n_threads, std::vector<scan_hit> & hits,
                          head_tail * tails) {
    const std::lock_guard<std::mutex> lock(m_product);
    const size_t                      n_embd = static_cast<size_t>(m_store.info().n_embd);
    std::vector<float>                lowered(n_hidden);
    for (size_t i = 0; i < n_hidden; i++) {
        lowered[i] = multiplied_threshold(hidden + i * n_embd, n_hidden, thresholds[i]);
    }
    for (size_t i = 0; tails != nullptr && i < n_hidden; i++) {
        tails[i].weight = tails[i].capped = 0.0;
        tails[i].factor = factor(tails[i].top, n_hidden == 1 ? 0.0f : margin(hidden + i * n_embd, std::fabs(tails[i].top) + 100.0f));
    }
    for_each_chunk(chunk_rows(m_store.info().head_row_bytes), [&](size_t first, size_t n) {
        const size_t from     = bring(first, n);
        const size_t together = sums_are_halves() ? 1 : n_hidden;
        m_chunk.resize(n * n_hidden);
        for (size_t i = 0; i < n_hidden; i += together) {
            m_head.compute_range(hidden + i * n_embd, together, n_threads, from, n, m_chunk.data() + i * n);
        }
        for (size_t row = 0; row < n; row++) {
            for (size_t i = 0; i < n_hidden; i++) {
                const float value = m_chunk[i * n + row];
                if (value >= lowered[i]) {
                    hits.push_back({static_cast<int32_t>(first + row), static_cast<int32_t>(i), value});
                } else if (tails != nullptr) {
                    const float weight = exp_of(value - tails[i].top);
                    tails[i].weight += static_cast<double>(weight);
                    tails[i].capped += static_cast<double>(std::min(weight, tails[i].cap));
                }
            }
        }
    });
}

}  // namespace vt
