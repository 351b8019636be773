#include "head/head.h"

#include "base/error.h"

#include <ggml-cpu.h>
#include <ggml.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

namespace vt {

namespace {

constexpr size_t SPARE_ROWS  = 512;  // room for a prompt before the buffer must grow
constexpr size_t GRAPH_NODES = 32;

}  // namespace

head::head(store & s)
    : m_store(s), m_backend(ggml_backend_cpu_init()),
      m_layout(pick_weight_layout(static_cast<ggml_type>(s.get_table(table_id::head).type), s.get_table(table_id::head).n_cols,
                                  s.get_table(table_id::head).n_rows)),
      m_static(std::make_shared<head_rows>(s, m_layout)), m_appended(s, m_layout) {
    if (!m_backend) {
        throw error(VT_ERROR_COMPUTE, "ggml's CPU backend cannot be started");
    }
    m_member.resize((static_cast<size_t>(s.info().n_vocab) + 63) / 64);
}

head::head(head & other, share_rows)
    : m_store(other.m_store), m_backend(ggml_backend_cpu_init()), m_layout(other.m_layout), m_static(other.m_static), m_appended(m_store, m_layout) {
    if (!m_backend) {
        throw error(VT_ERROR_COMPUTE, "ggml's CPU backend cannot be started");
    }
    m_member.resize(other.m_member.size());
    push_new(other.m_ids.data(), other.m_n_static);
    m_n_static = other.m_n_static;
    m_static->set_shared();
}

// what was built for the old rows may point to where they were
void head::changed() {
    m_graph = graph();
    m_version++;
}

// drop rows from n on
void head::shrink(size_t n) {
    for (size_t i = n; i < m_ids.size(); i++) {
        flip_member(m_ids[i]);
    }
    m_ids.resize(n);
}

void head::push_new(const int32_t * ids, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (!is_member(ids[i])) {
            m_ids.push_back(ids[i]);
            flip_member(ids[i]);
        }
    }
}

void head::set_static(const int32_t * ids, size_t n) {
    m_store.check_ids(ids, n);
    if (n == 0) {
        throw error(VT_ERROR_ARGUMENT, "the active set is empty");
    }
    size_t same = 0;
    while (same < n && same < m_n_static && m_ids[same] == ids[same]) {
        same++;
    }
    // the rest may be no more than repeated ids, or nothing
    const bool is_same = same == m_n_static && same == n;
    if (m_static->is_shared() && !is_same) {
        m_static = std::make_shared<head_rows>(*m_static, same, n);
    }
    shrink(same);
    changed();
    try {
        push_new(ids + same, n - same);
        if (!is_same) {
            m_static->place(m_ids.data(), m_ids.size(), same, 0);
        }
    } catch (...) {
        // a half-written set must not be computed with
        shrink(same);
        m_n_static = same;
        throw;
    }
    m_n_static = m_ids.size();
}

void head::set_all(bool mapped) {
    const size_t         n_vocab = static_cast<size_t>(m_store.info().n_vocab);
    std::vector<int32_t> ids(n_vocab);
    std::iota(ids.begin(), ids.end(), 0);
    const std::shared_ptr<head_rows> rows = std::make_shared<head_rows>(m_store, m_layout);
    if (!mapped || !rows->map_all()) {
        set_static(ids.data(), n_vocab);
        return;
    }
    shrink(0);
    push_new(ids.data(), n_vocab);
    m_static   = rows;
    m_n_static = n_vocab;
    changed();
}

size_t head::append(const int32_t * ids, size_t n) {
    m_store.check_ids(ids, n);
    const size_t before = m_ids.size();
    try {
        push_new(ids, n);
        if (m_ids.size() != before) {
            changed();
            m_appended.place(m_ids.data() + m_n_static, m_ids.size() - m_n_static, before - m_n_static, SPARE_ROWS);
        }
    } catch (...) {
        shrink(before);
        throw;
    }
    return m_ids.size() - before;
}

void head::reset() {
    if (m_ids.size() != m_n_static) {
        shrink(m_n_static);
        changed();
    }
}

size_t head::n_bytes() const {
    return m_static->n_bytes() + m_appended.n_bytes() + m_ids.capacity() * sizeof(int32_t) + m_member.capacity() * sizeof(uint64_t) +
           m_work.capacity() * sizeof(float);
}

// what the model does after the product, in place
ggml_tensor * head::transform(ggml_context * ctx, ggml_tensor * cur) const {
    const vt_store_info & info = m_store.info();
    if (info.logit_scale != 1.0f) {
        cur = ggml_scale_inplace(ctx, cur, info.logit_scale);
    }
    if (info.logit_softcap != 0.0f) {
        cur = ggml_scale_inplace(ctx, cur, 1.0f / info.logit_softcap);
        cur = ggml_tanh_inplace(ctx, cur);
        cur = ggml_scale_inplace(ctx, cur, info.logit_softcap);
    }
    return cur;
}

void head::build_graph(std::vector<part> parts, size_t n_hidden) {
    const size_t n_embd = static_cast<size_t>(m_store.info().n_embd);
    m_graph             = graph();
    graph                  g;
    const ggml_init_params params = {ggml_tensor_overhead() * GRAPH_NODES + ggml_graph_overhead_custom(GRAPH_NODES, false), nullptr, true};
    g.ctx.reset(ggml_init(params));
    ggml_context * ctx = g.ctx.get();

    size_t n_out = 0;
    for (part & p : parts) {
        p.n_padded = p.rows->n_computed(p.first, p.n);
        n_out += p.n_padded * n_hidden;
    }
    m_work.resize(n_embd * n_hidden + n_out);
    g.input       = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, static_cast<int64_t>(n_embd), static_cast<int64_t>(n_hidden));
    g.input->data = m_work.data();
    g.gf          = ggml_new_graph_custom(ctx, GRAPH_NODES, false);
    float * out   = m_work.data() + n_embd * n_hidden;
    for (part & p : parts) {
        ggml_tensor * product = ggml_mul_mat(ctx, p.rows->bind(ctx, p.first, p.n_padded), g.input);
        ggml_tensor * cur     = product;
        if (float * b = p.rows->bias(p.first)) {
            ggml_tensor * bias = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, static_cast<int64_t>(p.n_padded));
            bias->data         = b;
            cur                = ggml_add_inplace(ctx, cur, bias);
        }
        p.output      = transform(ctx, cur);
        // every op after the product works in place, so one array serves them all
        product->data = out;
        for (ggml_tensor * x = p.output; x != product; x = x->src[0]) {
            x->data = out;
        }
        out += p.n_padded * n_hidden;
        ggml_build_forward_expand(g.gf, p.output);
    }
    g.n_hidden = n_hidden;
    g.parts    = std::move(parts);
    m_graph    = std::move(g);
}

void head::compute(const float * hidden, size_t n_hidden, int32_t n_threads, float * logits) {
    if (m_ids.empty()) {
        throw error(VT_ERROR_ARGUMENT, "the active set is empty");
    }
    std::vector<part> parts;
    if (m_n_static > 0) {
        parts.push_back({m_static.get(), 0, m_n_static});
    }
    if (m_ids.size() > m_n_static) {
        parts.push_back({&m_appended, 0, m_ids.size() - m_n_static});
    }
    compute_parts(hidden, n_hidden, n_threads, std::move(parts), logits);
}

void head::compute_range(const float * hidden, size_t n_hidden, int32_t n_threads, size_t first, size_t n, float * logits) {
    compute_parts(hidden, n_hidden, n_threads, {{m_static.get(), first, n}}, logits);
}

void head::run_graph(const float * hidden, size_t n_hidden, int32_t n_threads, std::vector<part> parts) {
    if (n_threads < 1 || n_threads > GGML_MAX_N_THREADS) {
        throw error(VT_ERROR_ARGUMENT, format("%d threads, expected 1 to %d", n_threads, GGML_MAX_N_THREADS));
    }
    const size_t n_embd = static_cast<size_t>(m_store.info().n_embd);
    for (size_t i = 0; i < n_hidden * n_embd; i++) {
        if (!std::isfinite(hidden[i])) {
            throw error(VT_ERROR_COMPUTE, format("hidden state %zu is not finite at %zu", i / n_embd, i % n_embd));
        }
    }
    const auto is = [](const part & a, const part & b) { return a.is(b); };
    if (m_graph.gf == nullptr || m_graph.n_hidden != n_hidden ||
        !std::equal(parts.begin(), parts.end(), m_graph.parts.begin(), m_graph.parts.end(), is)) {
        build_graph(std::move(parts), n_hidden);
    }
    memcpy(m_graph.input->data, hidden, n_hidden * n_embd * sizeof(float));
    ggml_backend_cpu_set_n_threads(m_backend.get(), n_threads);
    if (ggml_backend_graph_compute(m_backend.get(), m_graph.gf) != GGML_STATUS_SUCCESS) {
        throw error(VT_ERROR_COMPUTE, "the LM head product failed");
    }
}

void head::compute_parts(const float * hidden, size_t n_hidden, int32_t n_threads, std::vector<part> parts, float * logits) {
    run_graph(hidden, n_hidden, n_threads, std::move(parts));
    for (size_t i = 0; i < n_hidden; i++) {
        for (const part & p : m_graph.parts) {
            memcpy(logits, static_cast<const float *>(p.output->data) + i * p.n_padded, p.n * sizeof(float));
            logits += p.n;
        }
    }
}

template <typename F> void head::for_each_part(size_t n, F && use) {
    const size_t step = m_layout.has_groups ? n / GROUP * GROUP : m_ids.size();
    const auto   cut  = [&](head_rows & rows, size_t n_rows) {
        for (size_t first = 0; first < n_rows;) {
            // the last piece takes what is left, so that no product reads past the last row
            const size_t n_part = n_rows - first < 2 * step ? n_rows - first : step;
            use(part{&rows, first, n_part});
            first += n_part;
        }
    };
    cut(*m_static, m_n_static);
    cut(m_appended, m_ids.size() - m_n_static);
}

void head::compute_some(const float * hidden, size_t n_hidden, const size_t * which, size_t n_which, int32_t n_threads, float * logits) {
    const size_t n_rows = m_ids.size();
    for_each_part(chunk_rows_of(n_hidden, GROUP), [&](const part & p) {
        run_graph(hidden, n_hidden, n_threads, {p});
        const part &  done = m_graph.parts[0];
        const float * from = static_cast<const float *>(done.output->data);
        const size_t  at   = p.first + (p.rows == &m_appended ? m_n_static : 0);
        for (size_t i = 0; i < n_which; i++) {
            memcpy(logits + i * n_rows + at, from + which[i] * done.n_padded, p.n * sizeof(float));
        }
    });
}

void head::compute_softmax(softmax & s, size_t first) {
    const vt_softmax_params & params = s.params();
    const size_t              n_embd = static_cast<size_t>(m_store.info().n_embd);
    for_each_part(s.chunk_rows(GROUP), [&](const part & p) {
        const size_t at    = first + p.first + (p.rows == &m_appended ? m_n_static : 0);
        size_t       state = 0;
        for (const size_t n : s.groups()) {
            run_graph(params.hidden + state * n_embd, n, params.n_threads, {p});
            const part & done = m_graph.parts[0];
            s.add(state, n, at, p.n, static_cast<const float *>(done.output->data), done.n_padded);
            state += n;
        }
    });
}

}  // namespace vt
