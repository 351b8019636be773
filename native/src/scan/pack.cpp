#include "pack.h"

#include <iterator>
#include <limits>

namespace vt {

namespace {

size_t all_lanes(const scan_format & f, const scan_layout & l, size_t n_embd) {
    return f.floats ? 0 : n_embd / static_cast<size_t>(f.group) * static_cast<size_t>(l.bundles * l.lanes());
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
        using F = decltype(t);
        if constexpr (scan_is_float<F>::value) {
            static const scan_format format = {F::TYPE, F::VALUES, F::BYTES, 0, 0, false, false, true};
            found                           = &format;
        } else {
            static const scan_format format = {F::TYPE, F::VALUES, F::BYTES, F::GROUP, F::OFFSET, F::MINS, F::APART, false};
            found                           = &format;
        }
    });
    return found;
}

size_t scan_tile_bytes(const scan_format & f, size_t n_embd) {
    if (f.floats) {
        return 0;
    }
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
    job.n_values  = static_cast<int>(m.n_embd);
    job.n_groups  = m.format->floats ? 0 : job.n_values / m.format->group;
    job.tile      = tile;
    return job;
}

scan_pack::scan_pack(const scan_kernel & kernel, const scan_format & format, size_t n_embd, const scan_quants & x, size_t n_states)
    : m_kernel(kernel), m_format(format), m_n_embd(n_embd), m_layout(kernel.layout(static_cast<int>(n_states), format.group)), m_n_states(n_states),
      m_h(format.floats ? 0 : n_embd * static_cast<size_t>(m_layout.bundles * m_layout.side)), m_d(all_lanes(format, m_layout, n_embd)),
      m_bias(all_lanes(format, m_layout, n_embd)), m_sums(all_lanes(format, m_layout, n_embd)),
      m_states(format.floats ? n_embd * static_cast<size_t>(m_layout.bundles) : 0) {
    if (format.floats) {
        pack_floats(x);
    } else {
        pack_groups(x);
    }
}

// kernels take the values of BF16 two lanes of a vector at a time, those with even places first
void scan_pack::pack_floats(const scan_quants & x) {
    const size_t n_lanes = static_cast<size_t>(m_layout.lanes());
    std::fill_n(m_states.data(), m_n_embd * static_cast<size_t>(m_layout.bundles), 0.0f);
    for (size_t i = 0; i < m_n_states * m_n_embd; i++) {
        const size_t k  = i % (2 * n_lanes);
        const size_t at = m_format.type == scan_type::bf16 ? i - k + k / 2 + k % 2 * n_lanes : i;

        m_states.data()[at] = x.f[i];
    }
}

void scan_pack::pack_groups(const scan_quants & x) {
    const size_t group     = static_cast<size_t>(m_format.group);
    const size_t n_groups  = m_n_embd / group;
    const size_t bundles   = static_cast<size_t>(m_layout.bundles);
    const size_t side      = static_cast<size_t>(m_layout.side);
    const size_t width     = static_cast<size_t>(m_layout.width);
    const size_t chunk     = width / side;  // bytes of one state in a vector
    const size_t n_lanes   = static_cast<size_t>(m_layout.lanes());
    const size_t per_state = static_cast<size_t>(m_layout.per_state());
    for (size_t g = 0; g < n_groups; g++) {
        for (size_t s = 0; s < bundles * side; s++) {
            const bool   live     = s < m_n_states;  // dead ones are zeros
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
                m_bias.data()[lane] = -m_format.offset * sums[i];
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
        out.lanes[m_format.floats ? s : s * static_cast<size_t>(m_layout.per_state())] = thresholds[s];
    }
    return out;
}

void scan_emit(void * hits, int64_t row, int state, float value) {
    static_cast<std::vector<scan_hit> *>(hits)->push_back({static_cast<int32_t>(row), state, value});
}

void scan_pack::run(scan_job job, const scan_thresholds & thresholds, std::vector<scan_hit> & hits, float * values) const {
    job.layout     = m_layout;
    job.h          = m_h.data();
    job.d          = m_d.data();
    job.bias       = m_bias.data();
    job.sums       = m_sums.data();
    job.states     = m_states.data();
    job.thresholds = thresholds.lanes;
    job.hits       = &hits;
    job.values     = values;
    m_kernel.run(job);
}

}  // namespace vt
