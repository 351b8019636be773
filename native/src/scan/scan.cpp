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

// squared norm of a dequantised row; integers are exact, the double sum is not
double norm2_q8_0(const uint8_t * row, size_t n_blocks) {
    double sum = 0.0;
    for (size_t b = 0; b < n_blocks; b++) {
        const uint8_t * block = row + b * SCAN_BLOCK;
        const double    d     = (double) scan_block_scale(block);
        int             dot   = 0;
        for (int i = 0; i < SCAN_QK; i++) {
            const int q = (int8_t) block[2 + i];
            dot += q * q;
        }
        sum += d * d * dot;
    }
    return sum;
}

// covers the double rounding of norm2_q8_0 (far below 2^-40 for any real width)
double norm_up(double norm2) {
    return std::sqrt(norm2) * (1.0 + 0x1p-40);
}

}  // namespace

struct scan_pack {
    scan_pack(const scan_kernel * k, const scan_layout & l, size_t n_blocks)
        : kernel(k), layout(l), h(n_blocks * (size_t) (l.groups * l.side) * SCAN_QK), d(n_blocks * (size_t) (l.groups * l.lanes())),
          bias(n_blocks * (size_t) (l.groups * l.lanes())) {}

    const scan_kernel *    kernel;
    scan_layout            layout;
    aligned_array<int8_t>  h;
    aligned_array<float>   d;
    aligned_array<int32_t> bias;
};

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

scan_states::scan_states(size_t n_embd, const float * hidden, size_t n_states, const scan_kernel * kernel) : m_n_embd(n_embd) {
    // 2^20 keeps every index and the bound's k * 2^-24 in range
    if (n_embd == 0 || n_embd % SCAN_QK != 0 || n_embd > (1u << 20)) {
        throw error(VT_ERROR_ARGUMENT, "scan: n_embd must be a positive multiple of 32, at most 2^20");
    }
    if (n_states == 0 || n_states > SCAN_MAX_STATES) {
        throw error(VT_ERROR_ARGUMENT, "scan: n_states must be 1 to 16");
    }
    if (kernel == nullptr) {
        kernel = scan_kernels().front();
    }

    const size_t n_blocks = n_embd / SCAN_QK;
    const size_t row_size = n_blocks * SCAN_BLOCK;

    std::vector<uint8_t> quants(n_states * row_size);  // (n_states, n_blocks) as ggml makes them
    for (size_t s = 0; s < n_states; s++) {
        ggml_get_type_traits_cpu(GGML_TYPE_Q8_0)->from_float(hidden + s * n_embd, quants.data() + s * row_size, static_cast<int64_t>(n_embd));
        m_norms.push_back(norm_up(norm2_q8_0(quants.data() + s * row_size, n_blocks)));
    }

    const scan_layout l = kernel->layout((int) n_states);
    m_pack.reset(new scan_pack(kernel, l, n_blocks));

    const size_t side    = (size_t) l.side;
    const size_t chunk   = (size_t) l.width / side;  // bytes of one state in a vector
    const size_t n_lanes = (size_t) l.lanes();
    for (size_t b = 0; b < n_blocks; b++) {
        for (size_t g = 0; g < (size_t) l.groups; g++) {
            const size_t at   = b * (size_t) l.groups + g;
            int8_t *     h    = m_pack->h.data() + at * side * SCAN_QK;
            float *      d    = m_pack->d.data() + at * n_lanes;
            int32_t *    bias = m_pack->bias.data() + at * n_lanes;
            for (size_t j = 0; j < side; j++) {
                const size_t    s     = g * side + j;  // may be a dead one: zeros
                const uint8_t * block = s < n_states ? quants.data() + s * row_size + b * SCAN_BLOCK : nullptr;
                for (size_t i = 0; i < SCAN_QK; i++) {
                    const int q                                             = block ? (int8_t) block[2 + i] : 0;
                    h[i / chunk * (size_t) l.width + j * chunk + i % chunk] = (int8_t) q;
                }
                for (size_t i = 0; i < n_lanes / side; i++) {
                    int32_t sum = 0;
                    for (size_t k = 0; block && k < SCAN_QK; k++) {
                        sum += k % chunk / 4 == i ? (int8_t) block[2 + k] : 0;
                    }
                    d[j * n_lanes / side + i]    = block ? scan_block_scale(block) : 0.0f;
                    bias[j * n_lanes / side + i] = -128 * sum;
                }
            }
        }
    }
}

scan_states::~scan_states() = default;

float scan_states::margin(size_t state, double max_row_norm) const {
    // Terms t are (exact integer part of a block's dot) * (scale * scale); by Cauchy-Schwarz
    // sum |t| <= |row| * |state| for every way of splitting the dots. A float result differs
    // from the true sum by at most gamma_k * sum |t|, k = most roundings met by one term.
    //   own:  1 (scale product) + 1 (times integer, when not fused) + n_blocks adds + 3 (fold)
    //   ggml: its kernels add 4 products per lane at least, so there are <= 8 * n_blocks terms,
    //         any order of adding them has <= 8 * n_blocks - 1 adds, plus the 2 products
    const double n_blocks = (double) (m_n_embd / SCAN_QK);
    const double u        = 0x1p-24;
    const auto   gamma    = [u](double k) { return k * u / (1.0 - k * u); };

    const double m = (gamma(n_blocks + 5.0) + gamma(8.0 * n_blocks + 1.0)) * max_row_norm * m_norms[state];
    if (!(m < (double) std::numeric_limits<float>::max())) {
        return std::numeric_limits<float>::infinity();
    }
    // one step up covers the rounding to float and that of the doubles above
    return std::nextafter((float) (m * (1.0 + 0x1p-40)), std::numeric_limits<float>::infinity());
}

double scan_max_row_norm(const uint8_t * rows, int64_t n_rows, size_t n_embd) {
    const size_t n_blocks = n_embd / SCAN_QK;
    double       most     = 0.0;
    for (int64_t r = 0; r < n_rows; r++) {
        const double norm2 = norm2_q8_0(rows + (size_t) r * n_blocks * SCAN_BLOCK, n_blocks);
        if (!(norm2 <= most)) {
            most = norm2;  // also takes a NaN
        }
        if (std::isnan(most)) {
            return std::numeric_limits<double>::infinity();
        }
    }
    return norm_up(most);
}

void scan_emit(void * hits, int64_t row, int state, float value) {
    static_cast<std::vector<scan_hit> *>(hits)->push_back({(int32_t) row, state, value});
}

void scan_q8_0(const uint8_t * rows, int64_t n_rows, const scan_states & states, const float * thresholds, int n_threads,
               std::vector<scan_hit> & hits) {
    if (n_rows < 0 || n_rows > std::numeric_limits<int32_t>::max()) {
        throw error(VT_ERROR_ARGUMENT, "scan: n_rows out of range");
    }
    if (n_threads < 1) {
        throw error(VT_ERROR_ARGUMENT, "scan: n_threads must be positive");
    }
    const scan_pack & pack     = states.pack();
    const int         n_blocks = (int) (states.n_embd() / SCAN_QK);
    const int64_t     row_size = (int64_t) n_blocks * SCAN_BLOCK;
    const int64_t     chunk    = std::max<int64_t>(1, CHUNK_BYTES / row_size / CHUNK_ROWS) * CHUNK_ROWS;
    const int64_t     n_chunks = (n_rows + chunk - 1) / chunk;

    // dead lanes sum to 0 (or NaN) and can not reach +inf
    aligned_array<float> lanes((size_t) (pack.layout.groups * pack.layout.lanes()));
    for (int i = 0; i < pack.layout.groups * pack.layout.lanes(); i++) {
        const size_t s    = (size_t) (i / pack.layout.per_state());
        const bool   live = i % pack.layout.per_state() == 0 && s < states.n_states();
        lanes.data()[i]   = live ? thresholds[s] : std::numeric_limits<float>::infinity();
    }

    std::atomic<int64_t> next(0);
    const auto           work = [&](std::vector<scan_hit> & found) {
        for (int64_t c = next++; c < n_chunks; c = next++) {
            const int64_t first = c * chunk;
            scan_job      job   = {};
            job.rows            = rows + first * row_size;
            job.row_first       = first;
            job.n_rows          = std::min(chunk, n_rows - first);
            job.n_blocks        = n_blocks;
            job.layout          = pack.layout;
            job.h               = pack.h.data();
            job.d               = pack.d.data();
            job.bias            = pack.bias.data();
            job.thresholds      = lanes.data();
            job.hits            = &found;
            pack.kernel->run(job);
        }
    };

    std::vector<std::vector<scan_hit>> found(static_cast<size_t>(n_threads));
    parallel(n_threads, [&](size_t i) { work(found[i]); });

    const size_t n_before = hits.size();
    for (const std::vector<scan_hit> & f : found) {
        hits.insert(hits.end(), f.begin(), f.end());
    }
    std::sort(hits.begin() + (std::ptrdiff_t) n_before, hits.end(),
              [](const scan_hit & a, const scan_hit & b) { return a.row != b.row ? a.row < b.row : a.state < b.state; });
}

}  // namespace vt
