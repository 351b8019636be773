#include "pack.h"

#include <iterator>
#include <limits>

namespace vt {

namespace {

size_t n_vectors(const scan_layout & l, size_t n_groups) {
    return n_groups * static_cast<size_t>(l.bundles);
}

}  // namespace

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

const scan_format * scan_format_of(scan_type type) {
    const scan_format * found = nullptr;
    for_scan_type(type, [&](auto t) {
        using F                         = decltype(t);
        static const scan_format format = {F::TYPE, F::VALUES, F::BYTES, F::GROUP, F::OFFSET, F::MINS, F::APART};
        found                           = &format;
    });
    return found;
}

size_t scan_tile_bytes(const scan_format & f, size_t n_embd) {
    const size_t group = static_cast<size_t>(f.group);
    return n_embd / group * SCAN_MAX_TILE_ROWS * (group + (f.mins ? 8 : 4));
}

scan_job scan_rows(const scan_matrix & m, int64_t first, int64_t n, uint8_t * tile) {
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

scan_pack::scan_pack(const scan_kernel & kernel, const scan_format & format, size_t n_embd, const scan_quants & x, size_t n_states)
    : m_kernel(kernel), m_layout(kernel.layout(static_cast<int>(n_states), format.group)), m_n_states(n_states),
      m_h(n_embd * static_cast<size_t>(m_layout.bundles * m_layout.side)),
      m_d(n_vectors(m_layout, n_embd / static_cast<size_t>(format.group)) * static_cast<size_t>(m_layout.lanes())),
      m_bias(n_vectors(m_layout, n_embd / static_cast<size_t>(format.group)) * static_cast<size_t>(m_layout.lanes())),
      m_sums(n_vectors(m_layout, n_embd / static_cast<size_t>(format.group)) * static_cast<size_t>(m_layout.lanes())) {
    const size_t group     = static_cast<size_t>(format.group);
    const size_t n_groups  = n_embd / group;
    const size_t bundles   = static_cast<size_t>(m_layout.bundles);
    const size_t side      = static_cast<size_t>(m_layout.side);
    const size_t width     = static_cast<size_t>(m_layout.width);
    const size_t chunk     = width / side;  // bytes of one state in a vector
    const size_t n_lanes   = static_cast<size_t>(m_layout.lanes());
    const size_t per_state = static_cast<size_t>(m_layout.per_state());
    for (size_t g = 0; g < n_groups; g++) {
        for (size_t s = 0; s < bundles * side; s++) {
            const bool   live     = s < n_states;  // dead ones are zeros
            const size_t at       = g * bundles + s / side;
            int8_t *     h        = m_h.data() + at * side * group + s % side * chunk;
            const float  d        = live ? x.d[s * n_groups + g] : 0.0f;
            int32_t      sums[16] = {};
            for (size_t i = 0; i < group; i++) {
                const int8_t q                   = live ? x.q[(s * n_groups + g) * group + i] : int8_t(0);
                h[i / chunk * width + i % chunk] = q;
                sums[i % chunk / 4] += q;
            }
            for (size_t i = 0; i < per_state; i++) {
                const size_t lane   = at * n_lanes + s % side * per_state + i;
                m_d.data()[lane]    = d;
                m_bias.data()[lane] = -format.offset * sums[i];
                m_sums.data()[lane] = d * static_cast<float>(sums[i]);
            }
        }
    }
}

// nothing reaches NaN: dead lanes must not, and of the lanes that hold one sum only the first one must
scan_thresholds scan_pack::lanes(const float * thresholds) const {
    scan_thresholds out;
    std::fill(std::begin(out.lanes), std::end(out.lanes), std::numeric_limits<float>::quiet_NaN());
    for (size_t s = 0; s < m_n_states; s++) {
        out.lanes[s * static_cast<size_t>(m_layout.per_state())] = thresholds[s];
    }
    return out;
}

void scan_emit(void * hits, int64_t row, int state, float value) {
    static_cast<std::vector<scan_hit> *>(hits)->push_back({static_cast<int32_t>(row), state, value});
}

void scan_pack::run(scan_job job, const scan_thresholds & thresholds, std::vector<scan_hit> & hits) const {
    job.layout     = m_layout;
    job.h          = m_h.data();
    job.d          = m_d.data();
    job.bias       = m_bias.data();
    job.sums       = m_sums.data();
    job.thresholds = thresholds.lanes;
    job.hits       = &hits;
    m_kernel.run(job);
}

}  // namespace vt
