#include "decode/verifier.h"

#include "base/error.h"
#include "base/stopwatch.h"

#include <algorithm>
#include <cmath>
#include <iterator>

namespace vt {

namespace {

constexpr size_t FIRST_BLOCK = 1;  // of a request: somebody waits for its first token, and another costs a pass of the core

constexpr size_t MOST_JOINING = 8192;  // of one state: more take longer than all logits, at every token that follows

}  // namespace

verifier::verifier(session & s, whole_head & whole, const llama_vocab & vocab, const limits & l)
    : m_session(s), m_whole(whole), m_vocab(vocab), m_max_block(s.can_truncate() ? std::min(std::max<size_t>(l.max_block, 1), SCAN_MAX_STATES) : 1),
      m_no_drafts(l.no_drafts), m_grammar_text(vocab), m_passes(s, s.can_truncate() ? std::min(l.max_pass, SCAN_MAX_STATES) : 1),
      m_growth(vocab, *s.get_head()), m_decider(s, whole, vocab, m_stats) {
}

bool verifier::ends(int32_t token) const {
    return token < llama_vocab_n_tokens(&m_vocab) && llama_vocab_is_eog(&m_vocab, token);
}

// ---- the text ----

void verifier::begin(const llama_sampler * samplers) {
    std::unique_ptr<chain> c(new chain(samplers));
    std::vector<int32_t>   ids = c->raised(static_cast<int32_t>(m_session.get_store()->info().n_vocab));
    active().append(ids.data(), ids.size());
    if (m_no_drafts || !m_decider.can_draft(*c)) {
        m_whole.expect_logits();
    }
    end();
    m_pos    = m_session.n_past();
    m_chain  = std::move(c);
    m_raised = std::move(ids);
    m_n_base = active().ids().size();
    if (m_chain->can_decide_on_part() && !m_no_drafts) {
        m_growth.read(m_session.text(), static_cast<size_t>(std::max(m_pos, 0)));
    }
    m_passes.set_drawn(!m_chain->is_greedy());
    m_is_first = true;
}

void verifier::end() {
    drop_block();
    m_chain.reset();
}

// forget tokens of the last pass that nobody chose
void verifier::drop_ahead() {
    const bool is_ahead = m_passes.end() > m_pos;
    m_passes.forget();
    if (is_ahead && m_chain && m_session.n_past() > m_pos) {
        std::vector<float> hidden = m_session.last_hidden();
        m_session.truncate(m_pos);
        m_session.restore(std::move(hidden));
    }
}

// forget drafts that were not given, and put memory, hidden state and chain where the text is
void verifier::drop_block() {
    const size_t at = static_cast<size_t>(m_pos - m_base);
    if (at < m_steps.size() && m_session.n_past() >= m_pos) {
        m_session.truncate(m_pos);
        m_session.restore(m_steps[at].hidden);
    }
    drop_ahead();
    if (m_steps.empty()) {
        return;
    }
    if (m_n_given < m_steps.size()) {
        *m_chain = chain(m_steps[m_n_given].before);
    }
    m_steps.clear();
    m_n_given = 0;
}

void verifier::expect(const int32_t * tokens, size_t n, int32_t pos) {
    if (pos < 0) {
        throw error(VT_ERROR_ARGUMENT, format("tokens are expected from position %d on", pos));
    }
    const int32_t n_vocab = static_cast<int32_t>(m_session.get_store()->info().n_vocab);
    const auto    valid   = [&](int32_t id) { return id >= 0 && id < n_vocab; };
    m_passes.expect(tokens, static_cast<size_t>(std::find_if_not(tokens, tokens + n, valid) - tokens), pos);
}

void verifier::rewind(int32_t pos) {
    const int32_t n = n_past();
    if (pos < 0 || pos > n) {
        throw error(VT_ERROR_ARGUMENT, format("back to position %d: the text has %d tokens", pos, n));
    }
    if (pos == n && m_chain) {
        drop_block();
        return;
    }
    m_session.truncate(std::min(pos, m_session.n_past()));
    move_to(pos);
}

void verifier::resume() {
    move_to(m_session.n_past());
}

// the text ends there now; drafts that were not given are none
void verifier::move_to(int32_t pos) {
    m_passes.forget();
    if (m_chain) {
        if (m_n_given < m_steps.size()) {
            *m_chain = chain(m_steps[m_n_given].before);
        }
        m_steps.clear();
        m_n_given = 0;
        m_pos     = pos;
    }
}

void verifier::decode(const int32_t * tokens, size_t n) {
    const int32_t pos = n_past();
    m_session.check(tokens, n, pos, nullptr);
    const bool waits = m_n_given > 0 && m_pos == m_base + static_cast<int32_t>(m_n_given) - 1;
    const bool given = waits && n == 1 && m_steps[m_n_given - 1].token == tokens[0];
    if (given && m_n_given < m_steps.size()) {
        m_session.restore(m_steps[m_n_given].hidden);  // the draft has decoded it
        m_pos++;
        return;
    }
    if (!given) {
        drop_block();
    }
    try {
        if (given) {
            m_passes.begin(pos);
            advance(tokens[0], pos, m_left > m_n_given ? m_left - m_n_given : 1);
        } else {
            m_session.decode(tokens, n, pos, nullptr);
        }
    } catch (...) {
        m_steps.clear();
        m_passes.forget();
        m_n_given = 0;
        m_pos     = m_session.n_past();
        throw;
    }
    m_pos = pos + static_cast<int32_t>(n);
}

// ---- blocks ----

// the active set's choice; false where only the whole vocabulary can tell, and the chain is as it was before
bool verifier::choose_draft(step & s) {
    try {
        if (m_decider.select(*m_chain, s)) {
            // what a grammar forbids is near without being of use
            s.near  = m_chain->grammar() == nullptr && !m_chain->needs_tail() ? m_growth.near_logit(m_decider.logits()) : INFINITY;
            s.token = m_decider.choose(*m_chain, s);
            if (s.token >= 0) {
                m_chain->accept(s.token, ends(s.token));
                m_length.record_draft(s.lead, !m_chain->is_greedy());
                return true;
            }
        }
    } catch (const error &) {
        // the whole vocabulary may have a token that the chain takes
    }
    *m_chain = chain(s.before);
    return false;
}

// the chain has accepted the token
void verifier::advance(int32_t token, int32_t pos, size_t room) {
    std::vector<int32_t> ruled;
    if (m_passes.take_guesses() && m_chain->grammar() != nullptr) {
        m_grammar_text.follow(token);
        if (!m_passes.has(token, pos)) {
            ruled = m_grammar_text.after(*m_chain->grammar(), token, m_passes.max() - 1);
            active().append(ruled.data(), ruled.size());  // else their first letters would be drafted
        }
    }
    const int64_t us = m_passes.advance(token, pos, ruled, room);
    m_decode_us += us;
    m_length.record_decode(us);
}

void verifier::draft(size_t n) {
    active().append(m_raised.data(), m_raised.size());  // the caller may have dropped them
    m_passes.begin(m_base);
    m_length.begin_block();
    active().append(m_passes.given().data(), m_passes.given().size());  // else they could not be drafted
    for (size_t i = 0; i < n; i++) {
        m_steps.push_back({m_session.last_hidden(), chain(*m_chain), {}});
        step & s = m_steps.back();
        // logits of several states have other bits, which a threshold does not allow for
        if (m_decider.n_states(s) > 1 || !choose_draft(s)) {
            m_steps.pop_back();
            break;
        }
        const int32_t pos = m_base + static_cast<int32_t>(i);
        if (i + 1 == n || ends(s.token) || !m_length.pays(m_passes.has(s.token, pos)) || m_passes.wants_more(s.token, pos)) {
            break;
        }
        advance(s.token, pos, m_left - std::min(m_left, i + 1));
    }
}

// whether a row was there when a step was drafted: later ones may have brought more
bool verifier::had(const step & s, int32_t row) const {
    const std::vector<int32_t> & ids = active().ids();
    return active().contains(row) && std::find(ids.begin() + static_cast<std::ptrdiff_t>(s.n_rows), ids.end(), row) == ids.end();
}

// makes the steps true, drops those after a change, returns how many drafted tokens were true
size_t verifier::verify() {
    const size_t                      n     = m_steps.size();
    const std::vector<finding>        found = m_decider.find(m_steps);
    std::vector<std::vector<int32_t>> outside(n);
    m_near_hits.clear();
    std::vector<int32_t> joining;  // all at once: each time that rows join takes as long as a small product
    for (size_t i = 0; i < n; i++) {
        const step & s = m_steps[i];
        for (const scan_hit & hit : found[i].hits) {
            if (!had(s, hit.row) && !s.is_all) {
                outside[i].push_back(hit.row);
            }
        }
        m_near_hits.insert(m_near_hits.end(), found[i].near.begin(), found[i].near.end());
        if (outside[i].size() > MOST_JOINING) {
            continue;
        }
        const std::vector<int32_t> likely = s.before.needs_tail() ? likely_rows(outside[i], found[i].hits, found[i].tail.top) : outside[i];
        joining.insert(joining.end(), likely.begin(), likely.end());
    }
    active().append(joining.data(), joining.size());
    for (size_t i = 0; i < n; i++) {
        step & s = m_steps[i];
        if (outside[i].empty() && !s.before.needs_tail()) {
            continue;
        }
        chain         again(s.before);
        const bool    are_few = outside[i].size() <= MOST_JOINING || s.before.needs_tail();
        const int32_t token   = are_few ? m_decider.decide_again(again, s, outside[i], found[i]) : m_decider.decide_on_all(again, s);
        again.accept(token, ends(token));
        if (token == s.token && again.is_replayable()) {
            continue;  // the drafted chain is in the same state
        }
        const size_t n_true = token == s.token ? i + 1 : i;
        m_stats.n_rejected += token == s.token ? 0 : 1;
        const int32_t drafted = s.token;
        s.token               = token;
        *m_chain              = std::move(again);
        m_steps.erase(m_steps.begin() + static_cast<std::ptrdiff_t>(i + 1), m_steps.end());
        if (i + 1 < n || token != drafted) {
            m_passes.forget();  // it goes another way
        }
        return n_true;
    }
    return n;
}

// rows that came near the first states join
void verifier::grow(size_t n_states) {
    const auto is_of_no_use = [&](const scan_hit & h) { return static_cast<size_t>(h.state) >= n_states || active().contains(h.row); };
    m_near_hits.erase(std::remove_if(m_near_hits.begin(), m_near_hits.end(), is_of_no_use), m_near_hits.end());
    m_growth.add_near(m_near_hits, n_states);
}

// draft a block and verify it; without a step where the chain cannot decide on a part of the vocabulary
void verifier::run_block(size_t n) {
    const int64_t start = ggml_time_us();
    m_decode_us         = 0;
    draft(n);
    if (m_steps.empty()) {
        return;
    }
    const int64_t drafted   = ggml_time_us();
    const size_t  n_drafted = m_steps.size();
    const size_t  n_true    = verify();
    grow(m_steps.size());
    const int64_t verified = ggml_time_us();
    m_length.record_block(n_true, drafted - start - m_decode_us, verified - drafted);
    m_stats.n_blocks++;
    m_stats.n_drafted += n_drafted;
    m_stats.t_draft_us += drafted - start;
    m_stats.t_verify_us += verified - drafted;
    if (n_true < m_steps.size() && !had(m_steps.back(), m_steps.back().token)) {
        m_growth.add_script_of(m_steps.back().token);
    }
    m_session.restore(m_steps[0].hidden);  // the text is not further yet
}

void verifier::run_whole() {
    const int64_t start = ggml_time_us();
    m_steps.push_back({m_session.last_hidden(), chain(*m_chain), {}});
    step & s = m_steps.back();
    s.token  = m_decider.decide_on_all(*m_chain, s);
    if (m_decider.n_states(s) == 1) {
        m_length.record_whole(ggml_time_us() - start);
    }
    if (m_chain->can_decide_on_part() && !m_no_drafts && !active().contains(s.token)) {
        m_growth.add_script_of(s.token);
    }
    m_chain->accept(s.token, ends(s.token));
}

// the next steps, from the end of the text; a failure leaves everything as it was
void verifier::take_steps() {
    const int32_t room  = static_cast<int32_t>(llama_n_ctx_seq(m_session.context())) - m_pos;
    const size_t  most  = m_is_first ? std::min(FIRST_BLOCK, m_max_block) : m_max_block;
    const size_t  limit = std::min({most, m_left, static_cast<size_t>(std::max(room, 1))});
    const size_t  n     = m_decider.can_draft(*m_chain) && !m_no_drafts ? m_length.next(limit, m_whole.has_logits()) : 0;
    m_steps.clear();
    m_n_given = 0;
    m_base    = m_pos;
    try {
        if (n > 0) {
            run_block(n);
        }
        if (m_steps.empty()) {
            run_whole();
        }
        m_is_first = false;
    } catch (...) {
        if (!m_steps.empty()) {
            *m_chain = std::move(m_steps[0].before);
            if (m_session.n_past() >= m_pos) {
                m_session.truncate(m_pos);
                m_session.restore(m_steps[0].hidden);
            }
            m_steps.clear();
            m_passes.forget();
        }
        throw;
    }
}

int32_t verifier::sample(size_t left) {
    if (!m_chain) {
        throw error(VT_ERROR_ARGUMENT, "no request: call vt_verifier_begin first");
    }
    if (m_n_given > 0 && m_pos < m_base + static_cast<int32_t>(m_n_given)) {
        drop_block();  // what was given is not the text's: another token for the same place
    }
    if (m_n_given == m_steps.size()) {
        if (m_session.n_past() != std::max(m_pos, m_passes.end())) {
            throw error(VT_ERROR_ARGUMENT,
                        format("the context has %d tokens, the text %d: it was decoded or cut outside the verifier", m_session.n_past(), m_pos));
        }
        m_left = std::max<size_t>(left, 1);
        take_steps();
    }
    return give();
}

int32_t verifier::give() {
    const int32_t token = m_steps[m_n_given].token;
    // penalties that raise logits may choose it again
    if (m_decider.can_draft(*m_chain)) {
        active().append(&token, 1);
        m_raised.push_back(token);
    }
    m_n_given++;
    m_stats.n_tokens++;
    m_counts.count(token, lacked(token));
    return token;
}

// whether the active set was without a token when the request began; what it lacked has joined its end since, if anything
bool verifier::lacked(int32_t token) const {
    const head &                 h   = active();
    const std::vector<int32_t> & ids = h.ids();
    return !h.contains(token) || std::find(ids.begin() + static_cast<std::ptrdiff_t>(std::min(m_n_base, ids.size())), ids.end(), token) != ids.end();
}

int32_t verifier::audit(const llama_sampler * samplers) {
    const head & h = active();
    step         s = {m_session.last_hidden(), chain(samplers), {}};
    if (s.before.is_borrowed()) {
        throw error(VT_ERROR_ARGUMENT, "a sampler of the chain cannot be cloned, which an audit needs");
    }
    chain                c(s.before);
    std::vector<int32_t> rows    = c.raised(static_cast<int32_t>(m_session.get_store()->info().n_vocab));
    const auto           is_here = [&](int32_t id) { return h.contains(id); };
    rows.erase(std::remove_if(rows.begin(), rows.end(), is_here), rows.end());

    int32_t token = -1;
    if (m_decider.n_states(s) == 1 && m_decider.can_draft(c) && m_decider.select(c, s)) {
        std::vector<step> steps;
        steps.push_back(std::move(s));
        const finding found = m_decider.find(steps).front();
        for (const scan_hit & hit : found.hits) {
            if (!h.contains(hit.row) && std::find(rows.begin(), rows.end(), hit.row) == rows.end()) {
                rows.push_back(hit.row);
            }
        }
        token = m_decider.decide_again(c, steps.front(), rows, found);
    } else {
        c     = chain(s.before);
        token = m_decider.decide_on_all(c, s);
    }
    m_stats.n_audited++;
    m_stats.n_outside += h.contains(token) ? 0 : 1;
    m_counts.count(token, !h.contains(token));
    return token;
}

vt_verifier_stats verifier::stats() const {
    vt_verifier_stats s = m_stats;
    s.acceptance        = m_length.acceptance();
    s.n_ahead           = m_passes.n_ahead();
    s.n_agreed          = m_passes.n_agreed();
    s.n_bytes           = m_decider.n_bytes();
    return s;
}

}  // namespace vt
