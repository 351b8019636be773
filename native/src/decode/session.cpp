#include "decode/session.h"

#include "base/error.h"
#include "base/stopwatch.h"
#include "store/core.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <string>

namespace vt {

namespace {

constexpr size_t MAX_LOGITS = 1u << 22;  // held of several outputs

std::string meta_string(const llama_model * model, const char * key) {
    char buf[128];
    return llama_model_meta_val_str(model, key, buf, sizeof(buf)) < 0 ? std::string() : std::string(buf);
}

bool is_head(const ggml_tensor * t) {
    return t->op == GGML_OP_MUL_MAT && (strcmp(t->src[0]->name, "token_embd.weight") == 0 || strcmp(t->src[0]->name, "output.weight") == 0);
}

}  // namespace

void session::prepare(const llama_context_params & params) {
    // llama.cpp aborts on it
    if (params.n_outputs_max != 0 && params.n_outputs_max < params.n_seq_max) {
        throw error(VT_ERROR_ARGUMENT, format("n_outputs_max is %u, expected at least n_seq_max = %u", params.n_outputs_max, params.n_seq_max));
    }
    m_keeps_all     = params.swa_full;
    m_embeddings    = params.embeddings;
    m_n_outputs_max = params.n_outputs_max == 0 ? SIZE_MAX : params.n_outputs_max;
    m_is_prepared   = true;
}

void session::check_pair(const llama_model * model) const {
    const auto same = [&](const char * key, const std::string & expected) {
        const std::string found = meta_string(model, key);
        if (found != expected) {
            throw error(VT_ERROR_MISMATCH, format("core and store %s do not belong together: key %s: the core has \"%s\", expected \"%s\"",
                                                  m_store->path().c_str(), key, found.c_str(), expected.c_str()));
        }
    };
    same("vocabtailor.kind", "core");
    for (const auto & entry : pair_keys(m_store->info())) {
        same(entry.first.c_str(), entry.second);
    }
    if (llama_model_n_embd(model) != m_store->info().n_embd) {
        throw error(VT_ERROR_MISMATCH, format("the core has hidden states of %d values, the store rows of %lld", llama_model_n_embd(model),
                                              static_cast<long long>(m_store->info().n_embd)));
    }
    if (llama_vocab_n_tokens(llama_model_get_vocab(model)) != m_store->info().stub_rows) {
        throw error(VT_ERROR_MISMATCH, "the core's vocab_size differs from its stub rows");
    }
}

void session::attach(llama_context * ctx) {
    const llama_model * model = llama_get_model(ctx);
    if (!m_is_prepared) {
        throw error(VT_ERROR_ARGUMENT, "the context's parameters were not prepared: call vt_session_prepare before it is made");
    }
    if (m_seq < 0 || static_cast<uint32_t>(m_seq) >= llama_n_seq_max(ctx)) {
        throw error(VT_ERROR_ARGUMENT, format("sequence %d: the context has %u", m_seq, llama_n_seq_max(ctx)));
    }
    if (m_store != nullptr) {
        check_pair(model);
        m_lookups.reset(new lookups(*m_store, static_cast<size_t>(m_store->info().stub_rows)));
    }
    m_ctx    = ctx;
    m_n_embd = static_cast<size_t>(llama_model_n_embd(model));
    m_states.start(llama_n_ctx_seq(ctx), m_n_embd);
    m_text.clear();
    clear_hidden();
}

int32_t session::n_past() const {
    return m_ctx == nullptr ? 0 : llama_memory_seq_pos_max(llama_get_memory(m_ctx), m_seq) + 1;
}

bool session::can_truncate() const {
    if (m_ctx == nullptr) {
        return false;
    }
    const llama_model * model = llama_get_model(m_ctx);
    // a state has no last tokens; a short window has overwritten what lay before them
    return !llama_model_is_recurrent(model) && !llama_model_is_hybrid(model) && (m_keeps_all || llama_model_n_swa(model) == 0);
}

void session::clear_hidden() {
    m_hidden.clear();
    m_groups.clear();
    m_logits_n = 0;
}

void session::truncate(int32_t pos) {
    const int32_t n = n_past();
    if (pos < 0 || pos > n) {
        throw error(VT_ERROR_ARGUMENT, format("back to position %d: there are %d tokens", pos, n));
    }
    if (pos == n) {
        return;
    }
    if (!has_before(pos) || !llama_memory_seq_rm(llama_get_memory(m_ctx), m_seq, pos, -1)) {
        throw error(VT_ERROR_ARGUMENT, format("the memory of this model cannot go back from position %d to %d, only to 0", n, pos));
    }
    clear_hidden();
}

// whether a sliding window has anything before a position: once a state was loaded, llama.cpp overwrites what the window has
// left behind, even where the cache has room for the whole text
bool session::has_before(int32_t pos) const {
    const bool slides = llama_model_n_swa(llama_get_model(m_ctx)) > 0;
    return pos == 0 || !slides || llama_memory_seq_pos_min(llama_get_memory(m_ctx), m_seq) < pos;
}

// what a failed decode has left
void session::drop(int32_t pos) {
    clear_hidden();
    llama_memory_t memory = llama_get_memory(m_ctx);
    if (!llama_memory_seq_rm(memory, m_seq, pos, -1)) {
        llama_memory_seq_rm(memory, m_seq, -1, -1);
    }
}

bool session::on_node(ggml_tensor * t, bool ask) {
    const bool ends    = is_head(t);
    const bool attends = m_together && attention_by_token::wants(t);
    if (!ends && !attends && (m_lookups == nullptr || !m_lookups->wants(t))) {
        return !ask;
    }
    if (!ask && m_node_error == nullptr) {
        try {
            if (attends) {
                m_attention.redo(t, llama_n_threads(m_ctx));
                return true;
            }
            if (!ends) {
                m_lookups->replace(t);
                return true;
            }
            if (m_lookups != nullptr) {
                m_lookups->end_micro_batch();
            }
            capture(t->src[1]);
        } catch (...) {
            m_node_error = std::current_exception();
        }
    }
    return true;
}

void session::capture(const ggml_tensor * input) {
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
    if (m_together) {
        for (size_t i = 0; i < n; i++) {
            m_groups.push_back({first + i, 1, false});
        }
    } else {
        m_groups.push_back({first, n, m_tokens.size() > 1});
    }
    for (size_t i = 0; i < n * m_n_embd; i++) {
        if (!std::isfinite(dst[i])) {
            throw error(VT_ERROR_COMPUTE, format("the hidden state of output %zu is not finite at %zu", first + i / m_n_embd, i % m_n_embd));
        }
    }
}

// a batch whose token ids are real; returns what llama_decode does
int32_t session::run(llama_batch batch, size_t n_expected) {
    const size_t  n        = static_cast<size_t>(batch.n_tokens);
    const size_t  before   = n_outputs();
    const int64_t embed_us = m_lookups != nullptr ? m_lookups->time_us() : 0;
    const int64_t start    = ggml_time_us();
    m_tokens.assign(batch.token, batch.token + n);
    batch.token          = m_lookups != nullptr ? m_lookups->begin_batch(m_tokens.data(), n).data() : m_tokens.data();
    const int32_t result = llama_decode(m_ctx, batch);
    m_stats.n_passes++;
    m_stats.t_core_us += ggml_time_us() - start;
    if (m_lookups != nullptr) {
        m_stats.t_core_us -= m_lookups->time_us() - embed_us;
        m_stats.t_embed_us = m_lookups->time_us();
    }
    if (m_node_error != nullptr) {
        std::rethrow_exception(m_node_error);
    }
    if (result != 0) {
        return result;
    }
    if (n_outputs() - before != n_expected || (m_lookups != nullptr && !m_lookups->is_done())) {
        throw error(VT_ERROR_COMPUTE, format("%zu hidden states seen, expected %zu: was the context made with the parameters of vt_session_prepare?",
                                             n_outputs() - before, n_expected));
    }
    m_stats.n_decoded += n;
    return 0;
}

void session::decode_part(const int32_t * tokens, size_t n, int32_t pos, const int8_t * outputs) {
    m_pos.resize(n);
    for (size_t i = 0; i < n; i++) {
        m_pos[i] = pos + static_cast<int32_t>(i);
    }
    m_n_seq.assign(n, 1);
    m_seqs.assign(n, &m_seq);
    m_output.assign(outputs, outputs + n);

    llama_batch batch = {};
    batch.n_tokens    = static_cast<int32_t>(n);
    batch.token       = const_cast<int32_t *>(tokens);  // run copies them
    batch.pos         = m_pos.data();
    batch.n_seq_id    = m_n_seq.data();
    batch.seq_id      = m_seqs.data();
    batch.logits      = m_output.data();

    const int32_t result = run(batch, static_cast<size_t>(std::count_if(outputs, outputs + n, [](int8_t x) { return x != 0; })));
    if (result != 0) {
        throw error(VT_ERROR_COMPUTE, format("llama_decode of %zu tokens at position %d returned %d%s", n, pos, result,
                                             result == 1 ? ": no room in the KV cache" : ""));
    }
}

void session::decode_batch(const llama_batch & batch) {
    if (m_ctx == nullptr) {
        throw error(VT_ERROR_ARGUMENT, "no context is attached");
    }
    if (batch.token == nullptr || batch.n_tokens < 1 || static_cast<uint32_t>(batch.n_tokens) > llama_n_batch(m_ctx)) {
        throw error(VT_ERROR_ARGUMENT,
                    format("a batch of %d tokens: expected token ids, and up to n_batch = %u", batch.n_tokens, llama_n_batch(m_ctx)));
    }
    const size_t n = static_cast<size_t>(batch.n_tokens);
    if (m_store != nullptr) {
        m_store->check_ids(batch.token, n);
    }
    size_t n_expected = batch.logits == nullptr ? 1 : 0;
    for (size_t i = 0; batch.logits != nullptr && i < n; i++) {
        n_expected += batch.logits[i] != 0 ? 1 : 0;
    }
    n_expected = m_embeddings ? n : n_expected;
    if (n_expected > m_n_outputs_max) {
        throw error(VT_ERROR_ARGUMENT, format("%zu outputs in a batch, the context has room for n_outputs_max = %zu", n_expected, m_n_outputs_max));
    }
    clear_hidden();
    m_text.clear();
    m_node_error = nullptr;
    try {
        const int32_t result = run(batch, n_expected);
        if (result != 0) {
            throw error(VT_ERROR_COMPUTE, format("llama_decode returned %d", result));
        }
    } catch (...) {
        clear_hidden();
        throw;
    }
}

// llama.cpp aborts where a batch has more outputs than its context was made for
void session::check_outputs(const int8_t * outputs, size_t n) const {
    const size_t n_batch = llama_n_batch(m_ctx);
    size_t       count   = 0;
    for (size_t i = 0; i < n; i++) {
        count = (i % n_batch == 0 ? 0 : count) + (outputs[i] != 0 ? 1 : 0);
        if (count > m_n_outputs_max) {
            throw error(VT_ERROR_ARGUMENT, format("%zu outputs in a batch, the context has room for n_outputs_max = %zu", count, m_n_outputs_max));
        }
    }
}

void session::check(const int32_t * tokens, size_t n, int32_t pos, const int8_t * outputs) const {
    if (m_ctx == nullptr) {
        throw error(VT_ERROR_ARGUMENT, "no context is attached");
    }
    const uint64_t n_ctx = llama_n_ctx_seq(m_ctx);
    if (n == 0 || pos < 0 || n > n_ctx || static_cast<uint64_t>(pos) > n_ctx - n) {
        throw error(VT_ERROR_ARGUMENT, format("%zu tokens from position %d: expected at least one, and no more than n_ctx = %llu in all", n, pos,
                                              static_cast<unsigned long long>(n_ctx)));
    }
    if (pos > n_past()) {
        throw error(VT_ERROR_ARGUMENT, format("%zu tokens from position %d: there are %d tokens before", n, pos, n_past()));
    }
    if (m_store != nullptr) {
        m_store->check_ids(tokens, n);
    }
    if (outputs != nullptr) {
        check_outputs(outputs, n);
    }
}

void session::decode(const int32_t * tokens, size_t n, int32_t pos, const int8_t * outputs) {
    check(tokens, n, pos, outputs);
    std::vector<int8_t> marks;
    if (outputs == nullptr) {
        marks.assign(n, m_kept == VT_KEPT_ALL || m_embeddings ? 1 : 0);
        marks.back() = 1;
        outputs      = marks.data();
        check_outputs(outputs, n);
    }
    decode_marked(tokens, n, pos, outputs);
}

size_t session::most_together(int32_t pos) const {
    if (llama_n_seq_max(m_ctx) > 1) {
        return 1;  // other sequences have cells, too, so positions do not tell how many a token sees
    }
    const size_t n_cells = static_cast<size_t>(attention_by_token::CELLS - pos % attention_by_token::CELLS);
    const size_t n_left  = static_cast<size_t>(std::max<int64_t>(int64_t(llama_n_ctx_seq(m_ctx)) - pos, 0));
    return std::min({n_cells, n_left, static_cast<size_t>(llama_n_ubatch(m_ctx)), static_cast<size_t>(llama_n_batch(m_ctx)), m_n_outputs_max});
}

void session::decode_together(const int32_t * tokens, size_t n, int32_t pos) {
    check(tokens, n, pos, nullptr);
    if (n > most_together(pos)) {
        throw error(VT_ERROR_ARGUMENT, format("%zu tokens at once from position %d, expected up to %zu", n, pos, most_together(pos)));
    }
    const std::vector<int8_t> marks(n, 1);
    m_together = n > 1;
    try {
        decode_marked(tokens, n, pos, marks.data());
    } catch (...) {
        m_together = false;
        throw;
    }
    m_together = false;
}

void session::decode_marked(const int32_t * tokens, size_t n, int32_t pos, const int8_t * outputs) {
    truncate(pos);
    clear_hidden();
    m_node_error         = nullptr;
    const size_t n_batch = llama_n_batch(m_ctx);
    try {
        for (size_t i = 0; i < n; i += n_batch) {
            decode_part(tokens + i, std::min(n_batch, n - i), pos + static_cast<int32_t>(i), outputs + i);
        }
    } catch (...) {
        drop(pos);
        throw;
    }
    keep_states(pos, outputs);
    keep_text(pos, tokens, n);
}

void session::keep_text(int32_t pos, const int32_t * tokens, size_t n) {
    m_text.resize(static_cast<size_t>(pos), -1);
    m_text.insert(m_text.end(), tokens, tokens + n);
}

void session::keep_states(int32_t pos, const int8_t * outputs) {
    m_states.cut(static_cast<size_t>(pos));
    if (m_kept == VT_KEPT_NONE) {
        return;
    }
    size_t at = 0;  // position after pos
    for (const group & g : m_groups) {
        for (size_t i = 0; i < g.n; i++, at++) {
            while (outputs[at] == 0) {
                at++;
            }
            m_states.put(static_cast<size_t>(pos) + at, m_hidden.data() + (g.first + i) * m_n_embd,
                         {static_cast<int32_t>(g.n), static_cast<int32_t>(i)});
        }
    }
}

std::vector<uint64_t> session::group_sizes() const {
    std::vector<uint64_t> sizes;
    for (const group & g : m_groups) {
        sizes.push_back(g.n);
    }
    return sizes;
}

std::vector<float> session::last_hidden() const {
    if (m_hidden.empty()) {
        throw error(VT_ERROR_ARGUMENT, "nothing has been decoded yet");
    }
    return std::vector<float>(m_hidden.begin() + static_cast<std::ptrdiff_t>(m_groups.back().first * m_n_embd), m_hidden.end());
}

void session::restore(std::vector<float> hidden) {
    m_hidden   = std::move(hidden);
    m_groups   = {{0, n_outputs(), n_outputs() > 1}};
    m_logits_n = 0;
}

const session::group & session::find_group(size_t i) const {
    for (const group & g : m_groups) {
        if (i - g.first < g.n) {
            return g;
        }
    }
    throw error(VT_ERROR_ARGUMENT, format("output %zu: there are %zu", i, n_outputs()));
}

const float * session::logits(size_t i) {
    if (m_head == nullptr) {
        throw error(VT_ERROR_ARGUMENT, "the session has no head");
    }
    const group & g      = find_group(i);
    const size_t  n_rows = m_head->ids().size();
    if (i - m_logits_first >= m_logits_n || m_logits_version != m_head->version()) {
        stopwatch     watch(m_stats.t_head_us);
        const int32_t n_threads = g.prefill ? llama_n_threads_batch(m_ctx) : llama_n_threads(m_ctx);
        const float * hidden    = m_hidden.data() + g.first * m_n_embd;
        const size_t  room      = std::max<size_t>(1, MAX_LOGITS / std::max<size_t>(1, n_rows));
        const size_t  first     = g.n <= room ? 0 : i - g.first;  // of the group
        const size_t  n         = std::min(g.n - first, room);
        m_logits_n              = 0;
        m_logits.resize(n * n_rows);
        if (n == g.n) {
            m_head->compute(hidden, g.n, n_threads, m_logits.data());
        } else {
            std::vector<size_t> which(n);
            std::iota(which.begin(), which.end(), first);
            m_head->compute_some(hidden, g.n, which.data(), n, n_threads, m_logits.data());
        }
        m_logits_first   = g.first + first;
        m_logits_n       = n;
        m_logits_version = m_head->version();
        m_stats.n_head += g.n;
    }
    return m_logits.data() + (i - m_logits_first) * n_rows;
}

int32_t session::sample(llama_sampler * chain, size_t i) {
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

vt_session_stats session::stats() const {
    vt_session_stats s = m_stats;
    s.n_bytes_hidden   = m_hidden.capacity() * sizeof(float) + m_states.n_bytes();
    s.n_bytes_logits   = m_logits.capacity() * sizeof(float) + m_candidates.capacity() * sizeof(llama_token_data);
    return s;
}

}  // namespace vt
