// The scan's values against ggml's product, for rows and states of every magnitude: never further apart than the margin,
// and no row is missing. Results near zero are flushed in either, both or none.
#include "scan/scan.h"

#include <ggml-cpu.h>
#include <ggml.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <iterator>
#include <random>
#include <string>
#if defined(__x86_64__)
#    include <immintrin.h>
#endif

using namespace vt;

static std::mt19937_64 rng(5);

static int random_int(int n) {
    return static_cast<int>(rng() % static_cast<uint64_t>(n));
}

static double uniform() {
    return static_cast<double>(rng() >> 11) * 0x1p-53;
}

static double normal() {
    static std::normal_distribution<double> n;
    return n(rng);
}

// results and inputs below the smallest normal number become zero
static void flush(bool on) {
#if defined(__x86_64__)
    _mm_setcsr(on ? 0x1f80 | 0x8040 : 0x1f80);
#else
    (void) on;
#endif
}

struct table_type {
    ggml_type type;
    int       values, bytes;
    int       scales[2];  // where halves lie in a block; of floats nowhere
    int       n_scales;
};

static const table_type TYPES[] = {
    {GGML_TYPE_Q8_0, 32, 34, {0, 0}, 1},     {GGML_TYPE_Q4_0, 32, 18, {0, 0}, 1},   {GGML_TYPE_Q5_0, 32, 22, {0, 0}, 1},
    {GGML_TYPE_IQ4_NL, 32, 18, {0, 0}, 1},   {GGML_TYPE_Q4_K, 256, 144, {0, 2}, 2}, {GGML_TYPE_Q5_K, 256, 176, {0, 2}, 2},
    {GGML_TYPE_Q6_K, 256, 210, {208, 0}, 1}, {GGML_TYPE_F16, 32, 64, {}, 0},        {GGML_TYPE_BF16, 32, 64, {}, 0},
};

static double random_scale(int kind) {
    switch (kind) {
    case 0: return 0.01 * (0.5 + uniform());
    case 1: return std::ldexp(1 + random_int(3), -24 + random_int(10));
    case 2: return 60000.0 * uniform();
    case 3: return std::ldexp(random_int(2) ? 1 : -1, random_int(30) - 15);
    default: return 0.02 * normal();
    }
}

static const char * const STATES[] = {"normal",       "1e-20 to 1e-30", "1e-30 to 1e-37", "1e-37 to 1e-43", "1e20 to 1e30",
                                      "1e30 to 1e37", "spikes",         "constant",       "alternating",    "one zero"};

static float random_value(int kind, double size, int64_t i) {
    switch (kind) {
    case 6: return static_cast<float>(random_int(64) ? 1e-3 * normal() : 100.0 * normal());
    case 7: return 1.0f;
    case 8: return static_cast<float>((i & 1 ? 1.0 : -1.0) * (1.0 + 1e-3 * uniform()));
    default: return static_cast<float>(size * normal());
    }
}

static double random_size(int kind) {
    const double low[]  = {0, -30, -37, -43, 20, 30, 0, 0, 0, 0};
    const double high[] = {0, -20, -30, -37, 30, 37, 0, 0, 0, 0};
    return std::pow(10.0, low[kind] + (high[kind] - low[kind]) * uniform());
}

static int n_wrong = 0;

static void check(bool flush_ggml, bool flush_scan) {
    const table_type &   t        = TYPES[random_int(static_cast<int>(std::size(TYPES)))];
    const int64_t        n_blocks = 1 + random_int(t.values == 32 ? 40 : 8);
    const int64_t        n_embd   = n_blocks * t.values;
    const int64_t        n_rows   = 1 + random_int(20);
    const size_t         n_states = static_cast<size_t>(1 + random_int(16));
    const int            weights  = random_int(5);
    const int            kind     = random_int(10);
    std::vector<uint8_t> rows(static_cast<size_t>(n_rows * n_blocks * t.bytes));
    for (uint8_t & x : rows) {
        x = static_cast<uint8_t>(rng());
    }
    for (int64_t b = 0; b < n_rows * n_blocks; b++) {
        for (int i = 0; i < t.n_scales; i++) {
            const ggml_fp16_t h = ggml_fp32_to_fp16(static_cast<float>(random_scale(weights)));
            memcpy(rows.data() + b * t.bytes + t.scales[i], &h, 2);
        }
    }
    if (t.n_scales == 0) {
        std::vector<float> values(rows.size() / 2);
        for (float & x : values) {
            x = static_cast<float>(random_scale(weights));
        }
        ggml_get_type_traits_cpu(t.type)->from_float(values.data(), rows.data(), static_cast<int64_t>(values.size()));
    }
    std::vector<float> hidden;
    for (size_t s = 0; s < n_states; s++) {
        const double size = kind == 9 && s == 0 ? 0.0 : random_size(kind);
        for (int64_t i = 0; i < n_embd; i++) {
            hidden.push_back(random_value(kind, size, i));
        }
    }

    flush(flush_ggml);
    const ggml_type_traits_cpu * cpu = ggml_get_type_traits_cpu(t.type);
    std::vector<uint8_t>         quants(ggml_row_size(cpu->vec_dot_type, n_embd));
    std::vector<float>           expected(static_cast<size_t>(n_rows) * n_states);
    for (size_t s = 0; s < n_states; s++) {
        ggml_get_type_traits_cpu(cpu->vec_dot_type)->from_float(hidden.data() + s * static_cast<size_t>(n_embd), quants.data(), n_embd);
        for (int64_t r = 0; r < n_rows; r++) {
            float * out = &expected[static_cast<size_t>(r) * n_states + s];
            cpu->vec_dot(static_cast<int>(n_embd), out, 0, rows.data() + r * n_blocks * t.bytes, 0, quants.data(), 0, 1);
        }
    }
    flush(flush_scan);
    const scan_matrix        m    = {find_scan_format(t.type), rows.data(), n_rows, static_cast<size_t>(n_embd)};
    const double             norm = scan_max_row_norm(m, 1);
    const std::vector<float> everything(n_states, -INFINITY);
    for (const scan_kernel * k : scan_kernels()) {
        const scan_states     states(*m.format, m.n_embd, hidden.data(), n_states, k);
        std::vector<scan_hit> hits;
        scan(m, states, everything.data(), 1, hits);
        bool   ok    = hits.size() == expected.size();
        double worst = 0.0;
        for (size_t i = 0; ok && i < hits.size(); i++) {
            const size_t state  = static_cast<size_t>(hits[i].state);
            const float  margin = states.margin(state, norm);
            const double apart  = std::fabs(static_cast<double>(hits[i].value) - static_cast<double>(expected[i]));
            ok    = static_cast<size_t>(hits[i].row) * n_states + state == i && (std::isinf(margin) || apart <= static_cast<double>(margin));
            // a bound that lists everything would be of no use
            ok    = ok && (kind >= 4 || !std::isinf(margin));
            worst = std::max(worst, apart);
        }
        if (!ok) {
            printf("%s, %s, states %s, weights %d, flushed %d %d: %zu hits of %zu, up to %g apart\n", ggml_type_name(t.type), k->name, STATES[kind],
                   weights, flush_ggml, flush_scan, hits.size(), expected.size(), worst);
            n_wrong++;
        }
    }
    flush(false);
}

int main(int argc, char ** argv) {
    ggml_cpu_init();
    const int n = argc > 1 ? atoi(argv[1]) : 1000;
    for (int i = 0; i < n; i++) {
        check((i & 1) != 0, (i & 2) != 0);
    }
    return n_wrong > 0;
}
