#include "scan.h"

#include "base/error.h"
#include "base/parallel.h"

#include <ggml-cpu.h>
#include <ggml.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <new>

namespace vt {

namespace {

constexpr int64_t CHUNK_BYTES = 1 << 19;  // large against the atomic, small against the tail
constexpr int64_t CHUNK_ROWS  = 16;       // kernels take a power of two of rows at once

// covers the double rounding of a norm: sums of at most 2^20 terms
double norm_up(double norm) {
    return norm * (1.0 + 0x1p-32);
}

// whether ggml quantises states in blocks of 256 with a scale of 32 bits
bool is_k(const scan_format & f) {
    return f.values == 256;
}

// Q8_0 is fp16 scale, 32 int8; Q8_K is f32 scale, 256 int8, 16 int16 sums
scan_quants quantise(const scan_format & f, size_t n_embd, const float * hidden, size_t n_states) {
    const bool           wide   = is_k(f);
    const ggml_type      type   = wide ? GGML_TYPE_Q8_K : GGML_TYPE_Q8_0;
    const size_t         values = wide ? 256 : 32;
    const size_t         bytes  = wide ? 292 : 34;
    const size_t         head   = wide ? 4 : 2;
    const size_t         group  = static_cast<size_t>(f.group);
    std::vector<uint8_t> row(n_embd / values * bytes);
    scan_quants          out;
    if (ggml_type_size(type) != bytes) {
        throw error(VT_ERROR_INTERNAL, "scan: ggml's blocks have another layout");
    }
    for (size_t s = 0; s < n_states; s++) {
        ggml_get_type_traits_cpu(type)->from_float(hidden + s * n_embd, row.data(), static_cast<int64_t>(n_embd));
        for (size_t b = 0; b < n_embd / values; b++) {
            const uint8_t * block = row.data() + b * bytes;
            uint16_t        half;
            float           d;
            memcpy(&half, block, 2);
            memcpy(&d, block, 4);
            out.d.insert(out.d.end(), values / group, wide ? d : scan_fp16_to_fp32(half));
            out.q.insert(out.q.end(), block + head, block + head + values);
        }
    }
    return out;
}

// to floats of 16 bits and back
std::vector<float> round_states(ggml_type type, const float * hidden, size_t n) {
    std::vector<uint16_t> halves(n);
    std::vector<float>    out(n);
    ggml_get_type_traits_cpu(type)->from_float(hidden, halves.data(), static_cast<int64_t>(n));
    ggml_get_type_traits(type)->to_float(halves.data(), out.data(), static_cast<int64_t>(n));
    return out;
}

// by its bits: comparisons may take the smallest numbers for zero
bool is_zero(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof(bits));
    return bits << 1 == 0;
}

double float_norm_of(const float * x, size_t n) {
    double sum = 0.0;
    for (size_t i = 0; i < n; i++) {
        sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
    }
    return norm_up(std::sqrt(sum));
}

// integers are exact, the double sum is not
double norm_of(const scan_quants & x, size_t state, size_t n_groups, size_t group) {
    double sum = 0.0;
    for (size_t g = 0; g < n_groups; g++) {
        const double d   = static_cast<double>(x.d[state * n_groups + g]);
        int          dot = 0;
        for (size_t i = 0; i < group; i++) {
            const int q = x.q[(state * n_groups + g) * group + i];
            dot += q * q;
        }
        sum += d * d * dot;
    }
    return norm_up(std::sqrt(sum));
}

// calls use(thread, job) for pieces of the rows, on several threads
template <typename F> void for_each_piece(const scan_matrix & m, int32_t n_threads, F && use) {
    const int64_t        row_size = static_cast<int64_t>(m.row_size());
    const int64_t        piece    = std::max<int64_t>(1, CHUNK_BYTES / row_size / CHUNK_ROWS) * CHUNK_ROWS;
    std::atomic<int64_t> next(0);
    parallel(n_threads, [&](size_t thread) {
        aligned_array<uint8_t> tile(scan_tile_bytes(*m.format, m.n_embd));
        for (int64_t first = piece * next++; first < m.n_rows; first = piece * next++) {
            use(thread, scan_rows(m, first, std::min(piece, m.n_rows - first), tile.data()));
        }
    });
}

// a threshold of -infinity is for every row, also those whose sums overflow to no number; no comparison finds them
void add_what_is_nan(const scan_matrix & m, size_t n_states, const float * thresholds, size_t n_before, std::vector<scan_hit> & hits) {
    for (size_t s = 0; s < n_states; s++) {
        if (thresholds[s] != -std::numeric_limits<float>::infinity()) {
            continue;
        }
        const int32_t     state = static_cast<int32_t>(s);
        std::vector<bool> is_there(static_cast<size_t>(m.n_rows), false);
        for (size_t i = n_before; i < hits.size(); i++) {
            is_there[static_cast<size_t>(hits[i].row)] = is_there[static_cast<size_t>(hits[i].row)] || hits[i].state == state;
        }
        for (size_t row = 0; row < is_there.size(); row++) {
            if (!is_there[row]) {
                hits.push_back({static_cast<int32_t>(row), state, std::numeric_limits<float>::quiet_NaN()});
            }
        }
    }
}

}  // namespace

const scan_format * find_scan_format(int32_t ggml_type) {
    switch (ggml_type) {
    case GGML_TYPE_Q8_0: return scan_format_of(scan_type::q8_0);
    case GGML_TYPE_Q4_0: return scan_format_of(scan_type::q4_0);
    case GGML_TYPE_Q5_0: return scan_format_of(scan_type::q5_0);
    case GGML_TYPE_IQ4_NL: return scan_format_of(scan_type::iq4_nl);
    case GGML_TYPE_Q4_K: return scan_format_of(scan_type::q4_k);
    case GGML_TYPE_Q5_K: return scan_format_of(scan_type::q5_k);
    case GGML_TYPE_Q6_K: return scan_format_of(scan_type::q6_k);
    case GGML_TYPE_F16: return scan_format_of(scan_type::f16);
    case GGML_TYPE_BF16: return scan_format_of(scan_type::bf16);
    default: return nullptr;
    }
}

scan_states::scan_states(const scan_format & format, size_t n_embd, const float * hidden, size_t n_states, const scan_kernel * kernel,
                         bool whole_states)
    : m_format(format), m_n_embd(n_embd) {
    // 2^20 keeps every index and the bound's k * 2^-24 in range
    if (n_embd == 0 || n_embd % static_cast<size_t>(format.values) != 0 || n_embd > (1u << 20)) {
        throw error(VT_ERROR_ARGUMENT, vt::format("scan: n_embd must be a positive multiple of %d, at most 2^20", m_format.values));
    }
    if (n_states == 0 || n_states > SCAN_MAX_STATES) {
        throw error(VT_ERROR_ARGUMENT, "scan: n_states must be 1 to 16");
    }
    if (kernel == nullptr) {
        kernel = scan_kernels().front();
    }

    scan_quants x;
    if (!m_format.floats) {
        x = quantise(m_format, n_embd, hidden, n_states);
    } else if (whole_states) {
        x.f.assign(hidden, hidden + n_states * n_embd);
    } else {
        x.f = round_states(m_format.type == scan_type::f16 ? GGML_TYPE_F16 : GGML_TYPE_BF16, hidden, n_states * n_embd);
    }
    const size_t group = static_cast<size_t>(m_format.group);
    for (size_t s = 0; s < n_states; s++) {
        const float * first = hidden + s * n_embd;
        m_norms.push_back(m_format.floats ? float_norm_of(x.f.data() + s * n_embd, n_embd) : norm_of(x, s, n_embd / group, group));
        m_is_zero.push_back(std::all_of(first, first + n_embd, is_zero));
    }
    m_pack.reset(new scan_pack(*kernel, m_format, n_embd, x, n_states));
}

scan_states::~scan_states() = default;

float scan_states::margin(size_t state, double max_row_norm) const {
    // The terms t of a logit are (exact integer) * (scale * scale), those of scaled quants, of offsets where they are
    // multiplied apart, and of minima; by Cauchy-Schwarz sum |t| <= (sum of the parts' norms) * |state| for every way of
    // splitting the parts. A float result differs from the true sum by at most gamma_k * sum |t|, k = most roundings met
    // by one term.
    //   own:  2 per group at most (quants, minima), and 2 scale products, 1 conversion, 1 sum of a lane, 3 folds
    //   ggml: its kernels add 4 products of integers per lane at least, so there are <= n_embd / 4 terms of each part,
    //         any order of adding them has fewer adds, plus a few products and conversions. AMX sums a block in exact
    //         integers: one conversion, one product of scales and one fma for each part of a block
    // Of floats every product is a term, and is rounded at most once. ggml may add them in any order, so that one term
    // meets n_embd sums at most; here there are four lanes or more.
    const double parts   = m_format.mins || m_format.apart ? 2.0 : 1.0;
    const double n_embd  = (double) m_n_embd;
    const double n_terms = m_format.floats ? n_embd / 4.0 : parts * n_embd / m_format.group;
    const double u       = 0x1p-24;
    const auto   gamma   = [u](double k) { return k * u / (1.0 - k * u); };
    const double own     = gamma(n_terms + 8.0);
    const double ggmls   = gamma(m_format.floats ? n_embd + 8.0 : parts * n_embd / 4.0 + 8.0);
    const double terms   = max_row_norm * m_norms[state];
    double       m       = (own + ggmls) * terms;
    if (is_k(m_format) && !m_is_zero[state]) {
        // The state's scales are floats of any size; elsewhere all scales are halves, whose products lie well inside.
        // Below: a scale, a product or a sum may come out wrong by the smallest normal number, where a thread flushes
        // such results to zero. A scale meets sum |w q| <= row norm * 128 * sqrt(n_embd), here and in ggml; a product
        // meets an integer of at most 2^21 for each value; sums are fewer than the values.
        m += 0x1p-126 * (256.0 * std::sqrt(n_embd) * max_row_norm + 0x1p22 * n_embd);
        // Above: scales reach 65504 * 128, and meet the state's also where quants are zero, infinity times zero then
        if (!(m_norms[state] < 0x1p100)) {
            return std::numeric_limits<float>::infinity();
        }
    }
    if (m_format.floats && !m_is_zero[state]) {
        // Below: floats of rows and states may be that small, and be taken for zero; each product and sum may be, too
        m += 0x1p-125 * (std::sqrt(n_embd) * (max_row_norm + m_norms[state]) + 4.0 * n_embd);
    }
    if (!(terms < 0x1p126) || !(m < 0x1p126)) {  // any partial sum stays below that
        return std::numeric_limits<float>::infinity();
    }
    // one step up covers the rounding to float and that of the doubles above
    return std::nextafter((float) (m * (1.0 + 0x1p-40)), std::numeric_limits<float>::infinity());
}

double scan_max_row_norm(const scan_matrix & m, int32_t n_threads) {
    check_threads(n_threads);
    std::vector<double> most(static_cast<size_t>(n_threads), 0.0);
    for_each_piece(m, n_threads, [&](size_t thread, const scan_job & job) {
        for (int64_t r = 0; r < job.n_rows; r++) {
            const double norm = scan_norm(job, r);
            most[thread]      = norm <= most[thread] ? most[thread] : std::isnan(norm) ? INFINITY : norm;
        }
    });
    return norm_up(*std::max_element(most.begin(), most.end()));
}

void scan(const scan_matrix & m, const scan_states & states, const float * thresholds, int32_t n_threads, std::vector<scan_hit> & hits,
          scan_tail * tails, float scale) {
    if (m.n_rows < 0 || m.n_rows > std::numeric_limits<int32_t>::max()) {
        throw error(VT_ERROR_ARGUMENT, "scan: n_rows out of range");
    }
    check_threads(n_threads);
    const scan_thresholds               lanes = states.pack().lanes(thresholds);
    std::vector<std::vector<scan_hit>>  found(static_cast<size_t>(n_threads));
    const size_t                        n_states = states.n_states();
    const scan_lanes                    places   = {states.pack().n_lanes(), states.pack().per_state(), lanes.lanes, scale};
    std::vector<std::vector<scan_tail>> weighed(static_cast<size_t>(n_threads));
    std::vector<std::vector<float>>     values(static_cast<size_t>(n_threads));
    if (tails != nullptr) {
        for (std::vector<scan_tail> & w : weighed) {
            for (size_t s = 0; s < n_states; s++) {
                w.push_back({tails[s].top, tails[s].cap});
            }
        }
    }
    for_each_piece(m, n_threads, [&](size_t thread, const scan_job & job) {
        std::vector<float> & all = values[thread];
        if (tails != nullptr) {
            all.resize(std::max(all.size(), static_cast<size_t>(job.n_rows) * places.stride));
        }
        states.pack().run(job, lanes, found[thread], tails != nullptr ? all.data() : nullptr);
        if (tails != nullptr) {
            add_tails(places, all.data(), static_cast<size_t>(job.n_rows), weighed[thread].data(), n_states);
        }
    });
    for (const std::vector<scan_tail> & w : weighed) {
        for (size_t s = 0; s < w.size(); s++) {
            tails[s].weight += w[s].weight;
            tails[s].capped += w[s].capped;
        }
    }

    const size_t n_before = hits.size();
    for (const std::vector<scan_hit> & f : found) {
        hits.insert(hits.end(), f.begin(), f.end());
    }
    add_what_is_nan(m, states.n_states(), thresholds, n_before, hits);
    std::sort(hits.begin() + (std::ptrdiff_t) n_before, hits.end(),
              [](const scan_hit & a, const scan_hit & b) { return a.row != b.row ? a.row < b.row : a.state < b.state; });
}

}  // namespace vt
