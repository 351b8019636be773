#include "decode/decider.h"

#include "base/stopwatch.h"

#include <algorithm>
#include <cmath>
#include <iterator>

namespace vt {

namespace {

// decisions on the whole vocabulary for which its rows need not be laid out anew, and one of how many tokens is often
constexpr uint64_t FEW_WHOLE = 2, OFTEN = 16;

// candidates to keep of an active set of any size, and of one of how many rows
constexpr size_t FEW_BEST = 64, ROWS_PER_BEST = 20;

constexpr size_t MOST_ALLOWED = 4096;  // by a grammar: more take longer than all logits

// how far the best logit is ahead of the next one; infinite where it is the only one
float lead(const candidates & c) {
    float best = -INFINITY, next = -INFINITY;
    for (const llama_token_data & d : c) {
        next = std::max(next, std::min(best, d.logit));
        best = std::max(best, d.logit);
    }
    return best - next;
}

// how far a token's logit is behind the best one
float behind(const candidates & c, int32_t token) {
    float best = -INFINITY, logit = -INFINITY;
    for (const llama_token_data & d : c) {
        best  = std::max(best, d.logit);
        logit = d.id == token ? d.logit : logit;
    }
    return best - logit;
}

}  // namespace

decider::decider(session & s, whole_head & whole, const llama_vocab & vocab, vt_verifier_stats & stats)
    : m_session(s), m_whole(whole), m_stats(stats), m_extra(*s.get_store()), m_allowed(vocab) {
}

// The worst of many that are kept from the active set is far worse than of all tokens: thousands of rows reach it.
bool decider::can_draft(const chain & c) const {
    const size_t n_rows = m_session.get_head()->ids().size();
    return c.can_decide_on_part() && (!c.needs_tail() || m_whole.can_weigh()) && c.n_best() <= std::max(FEW_BEST, n_rows / ROWS_PER_BEST);
}

size_t decider::n_states(const step & s) const {
    return s.hidden.size() / static_cast<size_t>(m_session.get_store()->info().n_embd);
}

// logits of rows of a head for one state, modified by a chain
void decider::fill(head & h, chain & c, const float * hidden) {
    const std::vector<int32_t> & ids = h.ids();
    {
        stopwatch watch(m_stats.t_head_us);
        m_logits.resize(ids.size());
        h.compute(hidden, 1, n_threads(), m_logits.data());
    }
    stopwatch watch(m_stats.t_sample_us);
    m_candidates.resize(ids.size());
    for (size_t i = 0; i < ids.size(); i++) {
        m_candidates[i] = {ids[i], m_logits[i], 0.0f};
    }
    c.modify(m_candidates);
}

// which of the logits that were filled in last modifiers have changed
void decider::note_changes(step & s, const std::vector<int32_t> & ids) const {
    for (size_t i = 0; i < ids.size(); i++) {
        if (m_candidates[i].logit != m_logits[i]) {
            s.changed.push_back({ids[i], m_logits[i], m_candidates[i].logit});
        }
    }
}

bool decider::select(chain & c, step & s) {
    head & h = *m_session.get_head();
    s.n_rows = h.ids().size();
    fill(h, c, s.hidden.data());
    if (c.allows_few()) {
        if (select_allowed(c, s)) {
            return true;
        }
        fill(h, c, s.hidden.data());
    }
    stopwatch watch(m_stats.t_sample_us);
    s.lead = lead(m_candidates);
    if (c.needs_tail()) {
        note_changes(s, h.ids());
    }
    if (!c.select(m_candidates, s.threshold, s.weight)) {
        return false;
    }
    s.kept.assign(m_candidates.begin(), m_candidates.end());
    return true;
}

// Where a grammar allows few tokens at all, nothing else has to be known of the vocabulary.
bool decider::select_allowed(chain & c, step & s) {
    const std::vector<int32_t> ids = [&] {
        stopwatch watch(m_stats.t_sample_us);
        return m_allowed.find(*c.late_grammar(), c.last(), m_are_text, n_threads());
    }();
    if (ids.empty() || ids.size() > MOST_ALLOWED) {
        return false;
    }
    m_extra.set_static(ids.data(), ids.size());
    fill(m_extra, c, s.hidden.data());
    stopwatch watch(m_stats.t_sample_us);
    s.lead = lead(m_candidates);
    if (!c.select_allowed(m_candidates, n_vocab())) {
        return false;
    }
    s.kept.assign(m_candidates.begin(), m_candidates.end());
    s.threshold = INFINITY;
    s.is_all    = true;
    return true;
}

int32_t decider::choose(chain & c, step & s) {
    stopwatch     watch(m_stats.t_sample_us);
    const int32_t token = c.needs_tail() ? c.guess(s.kept, s.threshold, s.weight) : c.choose(s.kept);
    const float   miss  = behind(s.kept, token);
    s.lead              = miss > 0.0f ? -miss : s.lead;
    return std::isinf(miss) ? -1 : token;  // one that is forbidden may stand for another one
}

std::vector<finding> decider::find(const std::vector<step> & steps) {
    std::vector<finding>   found(steps.size());
    std::vector<float>     hidden, thresholds, near;
    std::vector<head_tail> tails;
    for (const step & s : steps) {
        hidden.insert(hidden.end(), s.hidden.begin(), s.hidden.end());
        thresholds.push_back(s.threshold);
        near.push_back(s.near);
        if (s.before.needs_tail()) {
            tails.push_back({s.kept.front().logit, nucleus::cap(s.weight)});
        }
    }
    {
        stopwatch watch(m_stats.t_head_us);
        m_near_hits.clear();
        if (tails.empty()) {
            m_whole.find(hidden.data(), steps.size(), thresholds.data(), near.data(), n_threads(), m_hits, m_near_hits);
        } else {
            m_whole.find(hidden.data(), steps.size(), thresholds.data(), n_threads(), m_hits, tails.data());
        }
    }
    for (const scan_hit & hit : m_hits) {
        found[static_cast<size_t>(hit.state)].hits.push_back(hit);
    }
    for (const scan_hit & hit : m_near_hits) {
        found[static_cast<size_t>(hit.state)].near.push_back(hit);
    }
    for (size_t i = 0; i < tails.size(); i++) {
        found[i].tail = tails[i];
    }
    return found;
}

int32_t decider::decide_again(chain & c, step & s, const std::vector<int32_t> & rows, const finding & found) {
    int32_t token = -1;
    if (c.needs_tail()) {
        if (settle(c, s, rows, found, token)) {
            return token;
        }
        m_whole.expect_logits();  // it will happen again
    } else if (rows.empty() || s.is_all) {
        if ((token = choose(c, s)) >= 0) {
            return token;
        }
    } else {
        m_extra.set_static(rows.data(), rows.size());
        fill(m_extra, c, s.hidden.data());
        s.kept.insert(s.kept.end(), m_candidates.begin(), m_candidates.end());
        if (c.select(s.kept, s.threshold, s.weight) && (token = choose(c, s)) >= 0) {
            return token;
        }
    }
    c = chain(s.before);
    return decide_on_all(c, s);
}

// as far as the weight of what the scan does not list lets the chain decide
bool decider::settle(chain & c, step & s, const std::vector<int32_t> & rows, const finding & found, int32_t & token) {
    candidates all = s.kept;
    if (!rows.empty()) {
        m_extra.set_static(rows.data(), rows.size());
        fill(m_extra, c, s.hidden.data());
        note_changes(s, rows);
        std::copy_if(m_candidates.begin(), m_candidates.end(), std::back_inserter(all),
                     [&](const llama_token_data & x) { return x.logit >= s.threshold; });
    }
    stopwatch watch(m_stats.t_sample_us);
    return c.settle(all, s.threshold, weigh_others(all, s.threshold, s.changed, found.hits, found.tail), token);
}

int32_t decider::decide_on_all(chain & c, const step & s) {
    const size_t n = n_states(s);
    m_stats.n_whole++;
    if (m_stats.n_whole > FEW_WHOLE && m_stats.n_whole * OFTEN > m_stats.n_tokens) {
        m_whole.expect_logits();
    }
    {
        stopwatch watch(m_stats.t_head_us);
        m_logits.resize(n_vocab());
        if (n == 1) {
            m_whole.logits(s.hidden.data(), n_threads(), m_logits.data());
        } else {
            const size_t last = n - 1;
            m_whole.compute_some(s.hidden.data(), n, &last, 1, llama_n_threads_batch(m_session.context()), m_logits.data());
        }
    }
    stopwatch watch(m_stats.t_sample_us);
    if (c.late_grammar() != nullptr) {
        float  threshold = 0.0f;
        double weight    = 0.0;
        list_all();
        c.modify(m_candidates);
        if (m_candidates.size() == n_vocab()) {  // the grammar was asked about all of them
            const auto is_before = [](const llama_token_data & a, const llama_token_data & b) { return a.id < b.id; };
            std::sort(m_candidates.begin(), m_candidates.end(), is_before);
            return c.choose(m_candidates);
        }
        if (c.select(m_candidates, threshold, weight)) {
            return c.choose(m_candidates);
        }
    }
    list_all();
    return c.decide_on_all(m_candidates);
}

// candidates of all logits
void decider::list_all() {
    m_candidates.resize(n_vocab());
    for (size_t i = 0; i < n_vocab(); i++) {
        m_candidates[i] = {static_cast<int32_t>(i), m_logits[i], 0.0f};
    }
}

}  // namespace vt
