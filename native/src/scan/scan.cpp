#include "scan.h"

#include "../error.h"
#include "../parallel.h"

#include <ggml-cpu.h>
#include <ggml.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <new>

namespace vt {

namespace {

template <typename T> class aligned_array {
  public:
    explicit aligned_array(size_t n) : m_data(static_cast<T *>(::operator new(std::max<size_t>(n, 1) * sizeof(T), std::align_val_t(64)))) {}
    ~aligned_array() { ::operator delete(m_data, std::align_val_t(64)); }

    aligned_array(const aligned_array &)             = delete;
    aligned_array & operator=(const aligned_array &) = delete;

    T *       data() { return m_data; }
    const T * data() const { return m_data; }

  private:
    T * m_data;
};

constexpr int64_t CHUNK_BYTES = 1 << 19;  // large against the atomic, small against the tail
constexpr int64_t CHUNK_ROWS  = 16;       // kernels take a power of two of rows at once

// covers the double rounding of a norm (far below 2^-40 for any real width)
double norm_up(double norm) {
    return norm * (1.0 + 0x1p-40);
}

template <class F> scan_format describe(scan_type type) {
    return {type, F::VALUES, F::BYTES, F::GROUP, F::OFFSET, F::MINS};
}

// hidden states as ggml quantises them
struct quantised {
    std::vector<int8_t> q;  // (n_states, n_embd)
    std::vector<float>  d;  // (n_states, n_groups)
};

// Q8_0 is fp16 scale, 32 int8; Q8_K is f32 scale, 256 int8, 16 int16 sums
quantised quantise(const scan_format & f, size_t n_embd, const float * hidden, size_t n_states) {
    const bool           is_k   = f.values == 256;
    const ggml_type      type   = is_k ? GGML_TYPE_Q8_K : GGML_TYPE_Q8_0;
    const size_t         values = is_k ? 256 : 32;
    const size_t         bytes  = is_k ? 292 : 34;
    const size_t         head   = is_k ? 4 : 2;
    const size_t         group  = static_cast<size_t>(f.group);
    std::vector<uint8_t> row(n_embd / values * bytes);
    quantised            out;
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
            out.d.insert(out.d.end(), values / group, is_k ? d : scan_fp16_to_fp32(half));
            out.q.insert(out.q.end(), block + head, block + head + values);
        }
    }
    return out;
}

// integers are exact, the double sum is not
double norm_of(const quantised & x, size_t state, size_t n_groups, size_t group) {
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

size_t tile_bytes(const scan_format & f, size_t n_embd) {
    const size_t group = static_cast<size_t>(f.group);
    return n_embd / group * SCAN_MAX_TILE_ROWS * (group + (f.mins ? 8 : 4));
}

scan_job rows_of(const scan_matrix & m, int64_t first, int64_t n, uint8_t * tile) {
    scan_job job  = {};
    job.type      = m.format->type;
    job.row_size  = static_cast<int64_t>(m.row_size());
    job.rows      = m.rows + first * job.row_size;
    job.row_first = first;
    job.n_rows    = n;
    job.n_groups  = static_cast<int>(m.n_embd) / m.format->group;
    job.tile      = tile;
    return job;
}

// calls use(thread, job) for pieces of the rows, on several threads
template <typename F> void for_each_piece(const scan_matrix & m, int32_t n_threads, F && use) {
    const int64_t        row_size = static_cast<int64_t>(m.row_size());
    const int64_t        piece    = std::max<int64_t>(1, CHUNK_BYTES / row_size / CHUNK_ROWS) * CHUNK_ROWS;
    std::atomic<int64_t> next(0);
    parallel(n_threads, [&](size_t thread) {
        aligned_array<uint8_t> tile(tile_bytes(*m.format, m.n_embd));
        for (int64_t first = piece * next++; first < m.n_rows; first = piece * next++) {
            use(thread, rows_of(m, first, std::min(piece, m.n_rows - first), tile.data()));
        }
    });
}

}  // namespace

struct scan_pack {
    scan_pack(const scan_kernel * k, const scan_layout & l, size_t n_groups, size_t group)
        : kernel(k), layout(l), h(n_groups * (size_t) (l.bundles * l.side) * group), d(n_groups * (size_t) (l.bundles * l.lanes())),
          bias(n_groups * (size_t) (l.bundles * l.lanes())), sums(n_groups * (size_t) (l.bundles * l.lanes())) {}

    const scan_kernel *    kernel;
    scan_layout            layout;
    aligned_array<int8_t>  h;
    aligned_array<float>   d;
    aligned_array<int32_t> bias;
    aligned_array<float>   sums;
};

const scan_format * find_scan_format(int32_t ggml_type) {
    static const scan_format q8_0 = describe<scan_q8_0>(scan_type::q8_0);
    static const scan_format q4_0 = describe<scan_q4_0>(scan_type::q4_0);
    static const scan_format q4_k = describe<scan_q4_k>(scan_type::q4_k);
    static const scan_format q6_k = describe<scan_q6_k>(scan_type::q6_k);
    switch (ggml_type) {
    case GGML_TYPE_Q8_0: return &q8_0;
    case GGML_TYPE_Q4_0: return &q4_0;
    case GGML_TYPE_Q4_K: return &q4_k;
    case GGML_TYPE_Q6_K: return &q6_k;
    default: return nullptr;
    }
}

std::vector<const scan_kernel *> scan_kernels() {
    std::vector<const scan_kernel *> all;
    const auto                       add = [&](const scan_kernel & k) {
        if (k.supported()) {
            all.push_back(&k);
        }
    };
#if defined(__x86_64__) && defined(__GNUC__)
    add(scan_kernel_avx512vnni);
    add(scan_kernel_avxvnni);
    add(scan_kernel_avx2);
#elif defined(__aarch64__) && defined(__GNUC__)
    add(scan_kernel_dotprod);
#endif
    add(scan_kernel_scalar);
    return all;
}

scan_states::scan_states(const scan_format & format, size_t n_embd, const float * hidden, size_t n_states, const scan_kernel * kernel)
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

    const size_t    group    = static_cast<size_t>(m_format.group);
    const size_t    n_groups = n_embd / group;
    const quantised x        = quantise(m_format, n_embd, hidden, n_states);
    for (size_t s = 0; s < n_states; s++) {
        m_norms.push_back(norm_of(x, s, n_groups, group));
    }

    const scan_layout l = kernel->layout((int) n_states, m_format.group);
    m_pack.reset(new scan_pack(kernel, l, n_groups, group));

    const size_t side      = (size_t) l.side;
    const size_t chunk     = (size_t) l.width / side;  // bytes of one state in a vector
    const size_t n_lanes   = (size_t) l.lanes();
    const size_t per_state = (size_t) l.per_state();
    for (size_t g = 0; g < n_groups; g++) {
        for (size_t s = 0; s < (size_t) l.bundles * side; s++) {
            const size_t   at           = g * (size_t) l.bundles + s / side;
            const size_t   first        = s % side;
            int8_t *       h            = m_pack->h.data() + at * side * group;
            const bool     live         = s < n_states;  // dead ones are zeros
            const int8_t * q            = live ? x.q.data() + (s * n_groups + g) * group : nullptr;
            const float    d            = live ? x.d[s * n_groups + g] : 0.0f;
            int32_t        sums[64 / 4] = {};
            for (size_t i = 0; i < group; i++) {
                const int8_t value                                          = live ? q[i] : int8_t(0);
                h[i / chunk * (size_t) l.width + first * chunk + i % chunk] = value;
                sums[i % chunk / 4] += value;
            }
            for (size_t i = 0; i < per_state; i++) {
                const size_t lane         = at * n_lanes + first * per_state + i;
                m_pack->d.data()[lane]    = d;
                m_pack->bias.data()[lane] = -m_format.offset * sums[i];
                m_pack->sums.data()[lane] = d * (float) sums[i];
            }
        }
    }
}

scan_states::~scan_states() = default;

float scan_states::margin(size_t state, double max_row_norm) const {
    // The terms t of a logit are (exact integer) * (scale * scale), those of scaled quants and those of minima; by
    // Cauchy-Schwarz sum |t| <= (norm of quants + norm of minima) * |state| for every way of splitting them. A float
    // result differs from the true sum by at most gamma_k * sum |t|, k = most roundings met by one term.
    //   own:  2 per group at most (quants, minima), and 2 scale products, 1 conversion, 1 sum of a lane, 3 folds
    //   ggml: its kernels add 4 products of integers per lane at least, so there are <= n_embd / 4 terms of quants and as
    //         many of minima, any order of adding them has fewer adds, plus a few products and conversions
    const double parts    = m_format.mins ? 2.0 : 1.0;
    const double n_groups = (double) (m_n_embd / (size_t) m_format.group);
    const double u        = 0x1p-24;
    const auto   gamma    = [u](double k) { return k * u / (1.0 - k * u); };
    const double own      = gamma(parts * n_groups + 8.0);
    const double ggmls    = gamma(parts * (double) m_n_embd / 4.0 + 8.0);
    const double m        = (own + ggmls) * max_row_norm * m_norms[state];
    if (!(m < (double) std::numeric_limits<float>::max())) {
        return std::numeric_limits<float>::infinity();
    }
    // one step up covers the rounding to float and that of the doubles above
    return std::nextafter((float) (m * (1.0 + 0x1p-40)), std::numeric_limits<float>::infinity());
}

double scan_max_row_norm(const scan_matrix & m, int32_t n_threads) {
    std::vector<double> most(static_cast<size_t>(std::max(n_threads, 1)), 0.0);
    for_each_piece(m, n_threads, [&](size_t thread, const scan_job & job) {
        for (int64_t r = 0; r < job.n_rows; r++) {
            const double norm = scan_norm(job, r);
            most[thread]      = norm <= most[thread] ? most[thread] : std::isnan(norm) ? INFINITY : norm;
        }
    });
    return norm_up(*std::max_element(most.begin(), most.end()));
}

void scan_emit(void * hits, int64_t row, int state, float value) {
    static_cast<std::vector<scan_hit> *>(hits)->push_back({(int32_t) row, state, value});
}

void scan(const scan_matrix & m, const scan_states & states, const float * thresholds, int32_t n_threads, std::vector<scan_hit> & hits) {
    if (m.n_rows < 0 || m.n_rows > std::numeric_limits<int32_t>::max()) {
        throw error(VT_ERROR_ARGUMENT, "scan: n_rows out of range");
    }
    if (n_threads < 1) {
        throw error(VT_ERROR_ARGUMENT, "scan: n_threads must be positive");
    }
    const scan_pack &   pack      = states.pack();
    const scan_layout & l         = pack.layout;
    const int           per_state = l.per_state();

    // dead lanes sum to 0 (or NaN) and can not reach +inf
    aligned_array<float> lanes((size_t) (l.bundles * l.lanes()));
    for (int i = 0; i < l.bundles * l.lanes(); i++) {
        const size_t s    = (size_t) (i / per_state);
        const bool   live = i % per_state == 0 && s < states.n_states();
        lanes.data()[i]   = live ? thresholds[s] : std::numeric_limits<float>::infinity();
    }

    std::vector<std::vector<scan_hit>> found(static_cast<size_t>(n_threads));
    for_each_piece(m, n_threads, [&](size_t thread, scan_job job) {
        job.layout     = l;
        job.h          = pack.h.data();
        job.d          = pack.d.data();
        job.bias       = pack.bias.data();
        job.sums       = pack.sums.data();
        job.thresholds = lanes.data();
        job.hits       = &found[thread];
        pack.kernel->run(job);
    });

    const size_t n_before = hits.size();
    for (const std::vector<scan_hit> & f : found) {
        hits.insert(hits.end(), f.begin(), f.end());
    }
    std::sort(hits.begin() + (std::ptrdiff_t) n_before, hits.end(),
              [](const scan_hit & a, const scan_hit & b) { return a.row != b.row ? a.row < b.row : a.state < b.state; });
}

}  // namespace vt
