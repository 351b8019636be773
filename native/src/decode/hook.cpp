#include "decode/hook.h"

#include "base/error.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace vt {

namespace {

constexpr const char * EMBEDDING = "token_embd.weight";

std::string meta_string(const llama_model * model, const char * key) {
    char buf[128];
    return llama_model_meta_val_str(model, key, buf, sizeof(buf)) < 0 ? std::string() : std::string(buf);
}

// adds the time it lives to a counter
class stopwatch {
  public:
    explicit stopwatch(int64_t & total) : m_total(total), m_start(ggml_time_us()) {}
    ~stopwatch() { m_total += ggml_time_us() - m_start; }

    stopwatch(const stopwatch &)             = delete;
    stopwatch & operator=(const stopwatch &) = delete;

  private:
    int64_t & m_total;
    int64_t   m_start;
};

}  // namespace

void hook::check_pair(const llama_model * model) const {
    const vt_store_info & info = m_store->info();
    const auto            same = [&](const char * key, const std::string & expected) {
        const std::string found = meta_string(model, key);
        if (found != expected) {
            throw error(VT_ERROR_MISMATCH, format("core and store %s do not belong together: key %s: the core has \"%s\", expected \"%s\"",
                                                  m_store->path().c_str(), key, found.c_str(), expected.c_str()));
        }
    };
    same("vocabtailor.kind", "core");
    same("vocabtailor.pair_id", info.pair_id);
    same("general.architecture", info.architecture);
    same("vocabtailor.n_vocab", std::to_string(info.n_vocab));
    same("vocabtailor.n_embd", std::to_string(info.n_embd));
    same("vocabtailor.tied", info.tied ? "true" : "false");
    if (llama_model_n_embd(model) != info.n_embd) {
        throw error(VT_ERROR_MISMATCH, format("the core has hidden states of %d values, the store rows of %lld", llama_model_n_embd(model),
                                              static_cast<long long>(info.n_embd)));
    }
    const std::string stubs = meta_string(model, "vocabtailor.stub_rows");
    if (std::to_string(llama_vocab_n_tokens(llama_model_get_vocab(model))) != stubs) {
        throw error(VT_ERROR_MISMATCH, "the core's vocab_size differs from its stub rows");
    }
}

void hook::attach(llama_context * ctx) {
    const llama_model * model = llama_get_model(ctx);
    if (m_store != nullptr) {
        check_pair(model);
        m_n_stubs = static_cast<size_t>(llama_vocab_n_tokens(llama_model_get_vocab(model)));
        m_lookups = {{EMBEDDING, &m_store->get_table(VT_TABLE_EMBEDDING), 0}};
        if (const table * t = m_store->per_layer()) {
            m_lookups.push_back({"per_layer_token_embd.weight", t, 0});
        }
    }
    m_ctx    = ctx;
    m_n_embd = static_cast<size_t>(llama_model_n_embd(model));
    m_hidden.clear();
    m_groups.clear();
    m_logits_group = SIZE_MAX;
}

bool hook::on_node(ggml_tensor * t, bool ask) {
    const bool is_head   = t->op == GGML_OP_MUL_MAT && (strcmp(t->src[0]->name, EMBEDDING) == 0 || strcmp(t->src[0]->name, "output.weight") == 0);
    lookup *   looked_up = t->op == GGML_OP_GET_ROWS ? find_lookup(t->src[0]->name) : nullptr;
    if (!is_head && looked_up == nullptr) {
        return !ask;
    }
    if (!ask && m_node_error.empty()) {
        try {
            if (is_head) {
                end_micro_batch();
                capture(t->src[1], static_cast<int64_t>(m_tokens.size()));
            } else {
                replace_rows(*looked_up, t);
            }
        } catch (const std::exception & e) {
            m_node_error = e.what();
        }
    }
    return true;
}

hook::lookup * hook::find_lookup(const char * weight) {
    for (lookup & l : m_lookups) {
        if (strcmp(l.weight, weight) == 0) {
            return &l;
        }
    }
    return nullptr;
}

// llama.cpp has looked up stub rows: put in what the unsplit model would have found
void hook::replace_rows(lookup & l, ggml_tensor * t) {
    stopwatch           watch(m_stats.t_embed_us);
    const ggml_tensor * ids  = t->src[1];
    const size_t        n    = static_cast<size_t>(ggml_nelements(ids));
    const table &       rows = *l.rows;
    if (t->type != GGML_TYPE_F32 || t->ne[0] != rows.n_cols || static_cast<size_t>(ggml_nrows(t)) != n || !ggml_is_contiguous(t) ||
        ids->type != GGML_TYPE_I32 || !ggml_is_contiguous(ids) || !ggml_backend_buffer_is_host(t->buffer) ||
        !ggml_backend_buffer_is_host(ids->buffer)) {
        throw error(VT_ERROR_COMPUTE, format("rows of %s are looked up in an unexpected layout", l.weight));
    }
    // micro-batches are consecutive parts of a batch of one sequence; the ids tell if that should ever change
    const int32_t * found = static_cast<const int32_t *>(ids->data);
    bool            same  = n <= m_tokens.size() - m_first && (m_n_micro == 0 || n == m_n_micro);
    for (size_t i = 0; same && i < n; i++) {
        same = found[i] == m_stubs[m_first + i];
    }
    if (!same) {
        throw error(VT_ERROR_COMPUTE, format("rows of %s are looked up for other tokens than those of the batch", l.weight));
    }
    m_store->rows(rows, m_tokens.data() + m_first, n, static_cast<float *>(t->data));
    m_n_micro = n;
    l.n_done  = m_first + n;
}

// every graph ends with the LM head, even that of a micro-batch without an output
void hook::end_micro_batch() {
    m_first += m_n_micro;
    m_n_micro = 0;
    for (const lookup & l : m_lookups) {
        if (l.n_done != m_first) {
            throw error(VT_ERROR_COMPUTE, format("rows of %s are not looked up by token id", l.weight));
        }
    }
}

void hook::capture(const ggml_tensor * input, int64_t n_tokens) {
    const size_t n = static_cast<size_t>(input->ne[1]);
    if (input->type != GGML_TYPE_F32 || static_cast<size_t>(input->ne[0]) != m_n_embd || input->ne[2] != 1 || input->ne[3] != 1 ||
        !ggml_is_contiguous(input)) {
        throw error(VT_ERROR_COMPUTE, "the LM head's input has an unexpected layout");
    }
    if (n == 0) {
        return;
    }
    const size_t first = n_outputs();
    m_hidden.resize((first + n) * m_n_embd);
    float * dst = m_hidden.data() + first * m_n_embd;
    ggml_backend_tensor_get(input, dst, 0, n * m_n_embd * sizeof(float));
    m_groups.push_back({first, n, n_tokens > 1});
    for (size_t i = 0; i < n * m_n_embd; i++) {
        if (!std::isfinite(dst[i])) {
            throw error(VT_ERROR_COMPUTE, format("the hidden state of output %zu is not finite at %zu", first + i / m_n_embd, i % m_n_embd));
        }
    }
}

void hook::decode_batch(const int32_t * tokens, size_t n, int32_t pos, const int8_t * outputs) {
    m_tokens.assign(tokens, tokens + n);
    m_stubs = m_tokens;
    m_pos.resize(n);
    for (size_t i = 0; i < n; i++) {
        m_pos[i] = pos + static_cast<int32_t>(i);
        if (m_store != nullptr) {
            m_stubs[i] = static_cast<int32_t>(i % m_n_stubs);
        }
    }
    m_n_seq.assign(n, 1);
    m_seq.assign(n, &m_seq0);
    m_output.assign(outputs, outputs + n);
    m_first = m_n_micro = 0;
    for (lookup & l : m_lookups) {
        l.n_done = 0;
    }

    llama_batch batch = {};
    batch.n_tokens    = static_cast<int32_t>(n);
    batch.token       = m_stubs.data();
    batch.pos         = m_pos.data();
    batch.n_seq_id    = m_n_seq.data();
    batch.seq_id      = m_seq.data();
    batch.logits      = m_output.data();

    const size_t  before   = n_outputs();
    const size_t  expected = static_cast<size_t>(std::count_if(outputs, outputs + n, [](int8_t x) { return x != 0; }));
    const int64_t embed_us = m_stats.t_embed_us;
    const int64_t start    = ggml_time_us();
    const int32_t result   = llama_decode(m_ctx, batch);
    m_stats.t_core_us += ggml_time_us() - start - (m_stats.t_embed_us - embed_us);
    if (!m_node_error.empty()) {
        throw error(VT_ERROR_COMPUTE, m_node_error);
    }
    if (result != 0) {
        throw error(VT_ERROR_COMPUTE, format("llama_decode of %zu tokens at position %d returned %d%s", n, pos, result,
                                             result == 1 ? ": no room in the KV cache" : ""));
    }
    if (n_outputs() - before != expected || (m_store != nullptr && m_first != n)) {
        throw error(VT_ERROR_COMPUTE, format("%zu hidden states seen, expected %zu: was the context created with vt_hook_eval_callback?",
                                             n_outputs() - before, expected));
    }
    m_stats.n_decoded += n;
}

void hook::decode(const int32_t * tokens, size_t n, int32_t pos0, const int8_t * outputs) {
    if (m_ctx == nullptr) {
        throw error(VT_ERROR_ARGUMENT, "no context is attached");
    }
    const uint64_t n_ctx = llama_n_ctx(m_ctx);
    if (n == 0 || pos0 < 0 || static_cast<uint64_t>(pos0) + n > n_ctx) {
        throw error(VT_ERROR_ARGUMENT, format("%zu tokens from position %d: expected at least one, and no more than n_ctx = %llu in all", n, pos0,
                                              static_cast<unsigned long long>(n_ctx)));
    }
    if (m_store != nullptr) {
        m_store->check_ids(tokens, n);
    }
    std::vector<int8_t> last_only;
    if (outputs == nullptr) {
        last_only.assign(n, 0);
        last_only.back() = 1;
        outputs          = last_only.data();
    }
    m_hidden.clear();
    m_groups.clear();
    m_node_error.clear();
    m_logits_group = SIZE_MAX;

    const size_t n_batch = llama_n_batch(m_ctx);
    for (size_t i = 0; i < n; i += n_batch) {
        decode_batch(tokens + i, std::min(n_batch, n - i), pos0 + static_cast<int32_t>(i), outputs + i);
    }
}

void hook::restore(const float * hidden) {
    const std::vector<float> copy(hidden, hidden + m_n_embd);  // it may be ours
    m_hidden       = copy;
    m_groups       = {{0, 1, false}};
    m_logits_group = SIZE_MAX;
}

const hook::group & hook::find_group(size_t i, size_t & index) const {
    for (index = 0; index < m_groups.size(); index++) {
        if (i - m_groups[index].first < m_groups[index].n) {
            return m_groups[index];
        }
    }
    throw error(VT_ERROR_ARGUMENT, format("output %zu: there are %zu", i, n_outputs()));
}

const float * hook::logits(size_t i) {
    if (m_head == nullptr) {
        throw error(VT_ERROR_ARGUMENT, "the hook has no head");
    }
    size_t        index  = 0;
    const group & g      = find_group(i, index);
    const size_t  n_rows = m_head->ids().size();
    if (m_logits_group != index || m_logits_version != m_head->version()) {
        stopwatch     watch(m_stats.t_head_us);
        const int32_t n_threads = g.prefill ? llama_n_threads_batch(m_ctx) : llama_n_threads(m_ctx);
        m_logits.resize(g.n * n_rows);
        m_logits_group = SIZE_MAX;
        m_head->compute(m_hidden.data() + g.first * m_n_embd, g.n, n_threads, m_logits.data());
        m_logits_group   = index;
        m_logits_version = m_head->version();
        m_stats.n_head += g.n;
    }
    return m_logits.data() + (i - g.first) * n_rows;
}

int32_t hook::sample(llama_sampler * chain, size_t i) {
    const float *                l   = logits(i);
    const std::vector<int32_t> & ids = m_head->ids();

    stopwatch watch(m_stats.t_sample_us);
    m_candidates.resize(ids.size());
    for (size_t j = 0; j < ids.size(); j++) {
        m_candidates[j] = {ids[j], l[j], 0.0f};
    }
    llama_token_data_array cur = {m_candidates.data(), m_candidates.size(), -1, false};
    llama_sampler_apply(chain, &cur);
    if (cur.selected < 0 || static_cast<size_t>(cur.selected) >= cur.size) {
        throw error(VT_ERROR_COMPUTE, "the sampler chain selected no token");
    }
    const int32_t token = cur.data[cur.selected].id;
    llama_sampler_accept(chain, token);
    return token;
}

vt_hook_stats hook::stats() const {
    vt_hook_stats s  = m_stats;
    s.n_bytes_hidden = m_hidden.capacity() * sizeof(float);
    s.n_bytes_logits = m_logits.capacity() * sizeof(float) + m_candidates.capacity() * sizeof(llama_token_data);
    return s;
}

}  // namespace vt
