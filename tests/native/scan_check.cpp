// Every kernel of this CPU against the portable one, over all types, state counts and sizes. Needs no ggml, so that it
// can be built for another processor and run under an emulator.
#include "scan/pack.h"
#include "scan/tails.h"

#include <cmath>
#include <cstdio>
#include <map>
#include <random>
#include <utility>

using namespace vt;

using values = std::map<std::pair<int32_t, int32_t>, float>;

static std::mt19937 rng(1);

static int random_int(int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(rng);
}

// any quants, and scales near 2^-6 of either sign; floats that are not far from 1
static std::vector<uint8_t> random_rows(const scan_format & f, int64_t n_rows, size_t n_embd) {
    const size_t         n_blocks = static_cast<size_t>(n_rows) * n_embd / static_cast<size_t>(f.values);
    std::vector<uint8_t> rows(n_blocks * static_cast<size_t>(f.bytes));
    for (uint8_t & x : rows) {
        x = static_cast<uint8_t>(random_int(0, 255));
    }
    for (size_t i = 1; f.floats && i < rows.size(); i += 2) {
        rows[i] = static_cast<uint8_t>((0x3c + random_int(0, 3)) | random_int(0, 1) << 7);
    }
    for (size_t b = 0; b < n_blocks && !f.floats; b++) {
        uint8_t * block = rows.data() + b * static_cast<size_t>(f.bytes);
        uint8_t * scale = f.type == scan_type::q6_k ? block + 208 : block;
        scale[1]        = static_cast<uint8_t>(0x24 | random_int(0, 1) << 7);
        if (f.mins) {
            scale[3] = 0x24;
        }
    }
    return rows;
}

// results of all rows hold what was listed, and what was not is weighed
static bool weighs_the_rest(const scan_pack & pack, const scan_thresholds & lanes, const std::vector<float> & all, const std::vector<scan_hit> & hits,
                            size_t n_states, size_t n_rows) {
    const float            scale = 0.25f;
    const size_t           width = pack.n_lanes();
    bool                   ok    = true;
    std::vector<bool>      is_listed(n_rows * n_states, false);
    std::vector<scan_tail> tails, expected;
    for (const scan_hit & h : hits) {
        const size_t row = static_cast<size_t>(h.row), state = static_cast<size_t>(h.state);
        is_listed[row * n_states + state] = true;
        ok                                = ok && all[row * width + state * pack.per_state()] == h.value;
    }
    for (size_t s = 0; s < n_states; s++) {
        float top = -INFINITY;
        for (size_t row = 0; row < n_rows; row++) {
            top = std::max(top, scale * all[row * width + s * pack.per_state()]);
        }
        tails.push_back({top, 0.01f});
        expected.push_back(tails.back());
        for (size_t row = 0; row < n_rows; row++) {
            const float  x = all[row * width + s * pack.per_state()];
            const double w = is_listed[row * n_states + s] ? 0.0 : std::exp(static_cast<double>(scale * x) - static_cast<double>(top));
            expected[s].weight += w;
            expected[s].capped += std::min(w, static_cast<double>(0.01f));
        }
    }
    add_tails({width, pack.per_state(), lanes.lanes, scale}, all.data(), n_rows, tails.data(), n_states);
    for (size_t s = 0; s < n_states; s++) {
        ok = ok && std::fabs(tails[s].weight - expected[s].weight) <= 1e-4 * expected[s].weight + 1e-30;
        ok = ok && std::fabs(tails[s].capped - expected[s].capped) <= 1e-4 * expected[s].capped + 1e-30;
    }
    return ok;
}

static values run(const scan_kernel & k, const scan_matrix & m, const scan_quants & x, size_t n_states, float threshold, int & n_wrong) {
    const scan_pack          pack(k, *m.format, m.n_embd, x, n_states);
    const std::vector<float> thresholds(n_states, threshold);
    aligned_array<uint8_t>   tile(scan_tile_bytes(*m.format, m.n_embd));
    std::vector<scan_hit>    hits, same;
    std::vector<float>       all(static_cast<size_t>(m.n_rows) * pack.n_lanes());
    const scan_thresholds    lanes = pack.lanes(thresholds.data());
    pack.run(scan_rows(m, 0, m.n_rows, tile.data()), lanes, hits, all.data());
    pack.run(scan_rows(m, 0, m.n_rows, tile.data()), lanes, same);
    n_wrong += hits.size() != same.size() || !weighs_the_rest(pack, lanes, all, hits, n_states, static_cast<size_t>(m.n_rows));
    values out;
    for (const scan_hit & h : hits) {
        out[{h.row, h.state}] = h.value;
    }
    return out;
}

static int check(const scan_kernel & k, const scan_format & f, size_t n_embd, size_t n_states) {
    const int64_t              n_rows = 45;
    const std::vector<uint8_t> rows   = random_rows(f, n_rows, n_embd);
    const scan_matrix          m      = {&f, rows.data(), n_rows, n_embd};
    scan_quants                x;
    for (size_t i = 0; i < n_states * n_embd && f.floats; i++) {
        x.f.push_back(static_cast<float>(random_int(-1000, 1000)) / 256.0f);
    }
    for (size_t i = 0; i < n_states * n_embd && !f.floats; i++) {
        x.q.push_back(static_cast<int8_t>(random_int(-127, 127)));
        if (i % static_cast<size_t>(f.group) == 0) {
            x.d.push_back(static_cast<float>(random_int(1, 100)) / 1024.0f);
        }
    }
    int          n_wrong  = 0;
    const values expected = run(scan_kernel_scalar, m, x, n_states, -INFINITY, n_wrong);
    const values found    = run(k, m, x, n_states, -INFINITY, n_wrong);
    double       largest  = 0.0;
    for (const auto & e : expected) {
        largest = std::max(largest, std::fabs(static_cast<double>(e.second)));
    }
    n_wrong += found.size() != static_cast<size_t>(n_rows) * n_states || expected.size() != found.size();
    for (const auto & e : expected) {
        const auto at = found.find(e.first);
        n_wrong += at == found.end() || !(std::fabs(at->second - e.second) <= 1e-5 * largest);
    }
    values above;
    for (const auto & v : found) {
        if (v.second >= 1.0f) {
            above.insert(v);
        }
    }
    const values reaching = run(k, m, x, n_states, 1.0f, n_wrong);
    n_wrong += reaching != above;
    if (n_wrong > 0) {
        printf("%s: type %d, %zu values, %zu states: %d differ\n", k.name, static_cast<int>(f.type), n_embd, n_states, n_wrong);
    }
    return n_wrong;
}

int main() {
    int n_wrong = 0;
    for (const scan_kernel * k : scan_kernels()) {
        for (scan_type type : {scan_type::q8_0, scan_type::q4_0, scan_type::q5_0, scan_type::iq4_nl, scan_type::q4_k, scan_type::q5_k,
                               scan_type::q6_k, scan_type::f16, scan_type::bf16}) {
            const scan_format & f = *scan_format_of(type);
            for (size_t n_states = 1; n_states <= 16; n_states++) {
                for (size_t blocks : {1u, 3u, 5u}) {
                    n_wrong += check(*k, f, blocks * static_cast<size_t>(f.values), n_states);
                }
            }
        }
        printf("%s\n", k->name);
    }
    return n_wrong > 0;
}
