#include "decode/exact.h"

#include "base/error.h"

#include <algorithm>

namespace vt {

exact::exact(hook & k, const llama_vocab & vocab, vt_placement placement, size_t max_block)
    : m_hook(k), m_whole(*k.get_store(), placement, llama_n_threads(k.context())), m_extra(*k.get_store()),
      m_max_block(std::min(max_block, SCAN_MAX_STATES)) {
    m_is_end.resize(static_cast<size_t>(k.get_store()->info().n_vocab));
    for (size_t i = 0; i < m_is_end.size(); i++) {
        const int32_t id = static_cast<int32_t>(i);
        m_is_end[i]      = id < llama_vocab_n_tokens(&vocab) && llama_vocab_is_eog(&vocab, id);
    }
}

int32_t exact::n_threads() const {
    return llama_n_threads(m_hook.context());
}

void exact::watch(const int32_t * tokens, size_t n) {
    m_hook.get_store()->check_ids(tokens, n);
    std::map<int32_t, uint64_t> now;
    for (size_t i = 0; i < n; i++) {
        const auto before = m_watched.find(tokens[i]);
        now[tokens[i]]    = before == m_watched.end() ? 0 : before->second;
    }
    m_watched = std::move(now);
}

void exact::begin(const llama_sampler * samplers) {
    std::unique_ptr<chain>     c(new chain(samplers));
    const std::vector<int32_t> ids = c->raised(static_cast<int32_t>(m_hook.get_store()->info().n_vocab));
    m_hook.get_head()->append(ids.data(), ids.size());
    if (!c->can_decide_on_part()) {
        m_whole.expect_logits();
    }
    m_chain  = std::move(c);
    m_n_base = m_hook.get_head()->ids().size();
    m_steps.clear();
    m_n_given = 0;
}

// forget drafts that were not given, and put the chain where the text is
void exact::drop_block() {
    if (m_n_given < m_steps.size()) {
        *m_chain = chain(m_steps[m_n_given].before);
    }
    m_steps.clear();
    m_n_given = 0;
}

void exact::fill(head & h, chain & c, const float * hidden, candidates & out) {
    const std::vector<int32_t> & ids = h.ids();
    m_logits.resize(ids.size());
    h.compute(hidden, 1, n_threads(), m_logits.data());
    out.resize(ids.size());
    for (size_t i = 0; i < ids.size(); i++) {
        out[i] = {ids[i], m_logits[i], 0.0f};
    }
    c.modify(out);
}

int32_t exact::decide_again(chain & c, step & s, const std::vector<int32_t> & rows) {
    m_extra.set_static(rows.data(), rows.size());
    fill(m_extra, c, s.hidden.data(), m_candidates);
    s.kept.insert(s.kept.end(), m_candidates.begin(), m_candidates.end());
    if (c.select(s.kept, s.threshold)) {
        return c.choose(s.kept);
    }
    c = chain(s.before);
    return decide_on_all(c, s.hidden.data());
}

int32_t exact::decide_on_all(chain & c, const float * hidden) {
    const size_t n_vocab = static_cast<size_t>(m_hook.get_store()->info().n_vocab);
    m_logits.resize(n_vocab);
    m_whole.logits(hidden, n_threads(), m_logits.data());
    m_candidates.resize(n_vocab);
    for (size_t i = 0; i < n_vocab; i++) {
        m_candidates[i] = {static_cast<int32_t>(i), m_logits[i], 0.0f};
    }
    m_stats.n_whole++;
    return c.decide_on_all(m_candidates);
}

// at the state of the last token that was decoded
exact::step exact::new_step() const {
    const float * hidden = m_hook.hidden().data() + (m_hook.n_outputs() - 1) * n_embd();
    return {std::vector<float>(hidden, hidden + n_embd()), chain(*m_chain), {}};
}

void exact::decode(const int32_t * tokens, size_t n, int32_t pos) {
    const int64_t start = ggml_time_us();
    m_hook.decode(tokens, n, pos, nullptr);
    if (n == 1) {
        m_decode_us += ggml_time_us() - start;
        m_length.record_decode(ggml_time_us() - start);
    }
}

void exact::draft(int32_t n_tokens, size_t n) {
    for (size_t i = 0; i < n; i++) {
        step    s     = new_step();
        int32_t token = -1;
        try {
            fill(*m_hook.get_head(), *m_chain, s.hidden.data(), m_candidates);
            if (!m_chain->select(m_candidates, s.threshold)) {
                break;
            }
            s.kept.assign(m_candidates.begin(), m_candidates.end());
            token = m_chain->choose(s.kept);
            m_chain->accept(token, is_end(token));
        } catch (const error &) {
            // the whole vocabulary may have a token that the chain takes
            *m_chain = chain(s.before);
            break;
        }
        s.token = token;
        m_steps.push_back(std::move(s));
        if (i + 1 == n || is_end(token)) {
            break;
        }
        decode(&token, 1, n_tokens + static_cast<int32_t>(i));
    }
}

// makes the steps true, drops those after a change, returns how many drafted tokens were true
size_t exact::verify() {
    const size_t       n = m_steps.size();
    std::vector<float> hidden, thresholds;
    for (const step & s : m_steps) {
        hidden.insert(hidden.end(), s.hidden.begin(), s.hidden.end());
        thresholds.push_back(s.threshold);
    }
    m_whole.find(hidden.data(), n, thresholds.data(), n_threads(), m_hits);

    head &                            h = *m_hook.get_head();
    std::vector<std::vector<int32_t>> outside(n);
    for (const scan_hit & hit : m_hits) {
        if (!h.contains(hit.row)) {
            outside[static_cast<size_t>(hit.state)].push_back(hit.row);
        }
    }
    for (size_t i = 0; i < n; i++) {
        const std::vector<int32_t> & ids = outside[i];
        step &                       s   = m_steps[i];
        if (ids.empty()) {
            continue;
        }
        h.append(ids.data(), ids.size());
        chain         again(s.before);
        const int32_t token = decide_again(again, s, ids);
        again.accept(token, is_end(token));
        h.append(&token, 1);  // penalties may raise what was accepted
        if (token == s.token && again.is_replayable()) {
            continue;  // the drafted chain is in the same state
        }
        const size_t n_true = token == s.token ? i + 1 : i;
        m_stats.n_rejected += token == s.token ? 0 : 1;
        s.token  = token;
        *m_chain = std::move(again);
        m_steps.erase(m_steps.begin() + static_cast<std::ptrdiff_t>(i + 1), m_steps.end());
        return n_true;
    }
    return n;
}

// draft a block and verify it; without a step where the chain cannot decide on a part of the vocabulary
void exact::run_block(int32_t n_tokens, size_t n) {
    const int64_t start = ggml_time_us();
    m_decode_us         = 0;
    try {
        draft(n_tokens, n);
        if (m_steps.empty()) {
            return;
        }
        const int64_t drafted   = ggml_time_us();
        const size_t  n_drafted = m_steps.size();
        const size_t  n_true    = verify();
        const int64_t verified  = ggml_time_us();
        m_length.record_block(n_drafted, n_true, drafted - start - m_decode_us, verified - drafted);
        m_stats.n_blocks++;
        m_stats.n_drafted += n_drafted;
        m_stats.t_draft_us += drafted - start;
        m_stats.t_verify_us += verified - drafted;
    } catch (...) {
        if (!m_steps.empty()) {
            m_hook.restore(m_steps[0].hidden.data());
            drop_block();
        }
        throw;
    }
    m_hook.restore(m_steps[0].hidden.data());  // the text is not further yet
}

// whether the active set was without a token when the chain began; what it lacked has joined its end since, if anything
bool exact::lacked(int32_t token) const {
    const head &                 h   = *m_hook.get_head();
    const std::vector<int32_t> & ids = h.ids();
    return !h.contains(token) || std::find(ids.begin() + static_cast<std::ptrdiff_t>(std::min(m_n_base, ids.size())), ids.end(), token) != ids.end();
}

void exact::count_watched(int32_t token) {
    const auto found = m_watched.find(token);
    if (found != m_watched.end()) {
        found->second++;
    }
}

int32_t exact::sample(int32_t n_tokens, size_t max_block) {
    if (!m_chain) {
        throw error(VT_ERROR_ARGUMENT, "no chain: call vt_exact_begin first");
    }
    if (m_hook.n_outputs() == 0) {
        throw error(VT_ERROR_ARGUMENT, "nothing has been decoded yet");
    }
    if (m_n_given == m_steps.size() || n_tokens != m_pos + static_cast<int32_t>(m_n_given)) {
        drop_block();
        m_pos               = n_tokens;
        const int32_t room  = static_cast<int32_t>(llama_n_ctx(m_hook.context())) - n_tokens;
        const size_t  limit = std::min({m_max_block, std::max<size_t>(max_block, 1), static_cast<size_t>(std::max(room, 1))});
        const size_t  n     = m_chain->can_decide_on_part() ? m_length.next(limit, m_whole.has_logits()) : 0;
        if (n > 0) {
            run_block(n_tokens, n);
        }
        if (m_steps.empty()) {
            const int64_t start = ggml_time_us();
            step          s     = new_step();
            try {
                s.token = decide_on_all(*m_chain, s.hidden.data());
                m_length.record_whole(ggml_time_us() - start);
                m_chain->accept(s.token, is_end(s.token));
            } catch (...) {
                *m_chain = chain(s.before);
                throw;
            }
            if (m_chain->can_decide_on_part()) {  // penalties may raise what was accepted
                m_hook.get_head()->append(&s.token, 1);
            }
            m_steps.push_back(std::move(s));
        }
    }
    m_stats.n_tokens++;
    const int32_t token = m_steps[m_n_given++].token;
    if (lacked(token)) {
        m_missed[token]++;
    } else {
        count_watched(token);
    }
    return token;
}

void exact::eval(const int32_t * tokens, size_t n, int32_t pos) {
    const bool drafted = n == 1 && m_n_given > 0 && pos == m_pos + static_cast<int32_t>(m_n_given) - 1 && m_steps[m_n_given - 1].token == tokens[0];
    if (drafted && m_n_given < m_steps.size()) {
        m_hook.restore(m_steps[m_n_given].hidden.data());
        return;
    }
    if (!drafted && m_chain) {
        drop_block();
    }
    llama_memory_seq_rm(llama_get_memory(m_hook.context()), 0, pos, -1);
    decode(tokens, n, pos);
}

int32_t exact::audit(const llama_sampler * samplers) {
    if (m_hook.n_outputs() == 0) {
        throw error(VT_ERROR_ARGUMENT, "nothing has been decoded yet");
    }
    const float * hidden = m_hook.hidden().data() + (m_hook.n_outputs() - 1) * n_embd();
    const head &  h      = *m_hook.get_head();
    step          s      = {std::vector<float>(hidden, hidden + n_embd()), chain(samplers), {}};
    if (s.before.is_borrowed()) {
        throw error(VT_ERROR_ARGUMENT, "a sampler of the chain cannot be cloned, which an audit needs");
    }
    chain                c(s.before);
    std::vector<int32_t> rows    = c.raised(static_cast<int32_t>(m_hook.get_store()->info().n_vocab));
    const auto           is_here = [&](int32_t id) { return h.contains(id); };
    rows.erase(std::remove_if(rows.begin(), rows.end(), is_here), rows.end());

    int32_t token = -1;
    fill(*m_hook.get_head(), c, hidden, s.kept);
    if (c.select(s.kept, s.threshold)) {
        m_whole.find(hidden, 1, &s.threshold, n_threads(), m_hits);
        for (const scan_hit & hit : m_hits) {
            if (!h.contains(hit.row) && std::find(rows.begin(), rows.end(), hit.row) == rows.end()) {
                rows.push_back(hit.row);
            }
        }
        token = rows.empty() ? c.choose(s.kept) : decide_again(c, s, rows);
    } else {
        c     = chain(s.before);
        token = decide_on_all(c, hidden);
    }
    m_stats.n_audited++;
    if (!h.contains(token)) {
        m_stats.n_outside++;
        m_missed[token]++;
    } else {
        count_watched(token);
    }
    return token;
}

vt_exact_stats exact::stats() const {
    vt_exact_stats s = m_stats;
    s.acceptance     = m_length.acceptance();
    s.n_bytes        = m_whole.n_bytes() + m_extra.n_bytes();
    s.own_kernel     = m_whole.uses_kernel() ? 1 : 0;
    return s;
}

}  // namespace vt
