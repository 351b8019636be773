#include "decode/chain.h"

#include "base/error.h"
#include "decode/grammar_mask.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>

namespace vt {

namespace {

constexpr int   MAX_DEPTH   = 16;    // of chains in chains
constexpr float BUCKETS_END = 1e8f;  // llama.cpp sorts in buckets, whose numbers overflow beyond this

std::string name_of(const llama_sampler * s) {
    return s != nullptr && s->iface != nullptr && s->iface->name != nullptr ? llama_sampler_name(s) : "custom";
}

bool is_chain(llama_sampler * s) {
    return s->iface != nullptr && llama_sampler_chain_get(s, -1) != nullptr;
}

// all samplers that are not chains themselves; what llama.cpp would call although it is not there is an error
std::vector<llama_sampler *> flatten(llama_sampler * samplers, int depth) {
    if (depth > MAX_DEPTH) {
        throw error(VT_ERROR_ARGUMENT, format("the sampler chain holds chains more than %d deep", MAX_DEPTH));
    }
    std::vector<llama_sampler *> all;
    for (int i = 0; i < llama_sampler_chain_n(samplers); i++) {
        llama_sampler * s = llama_sampler_chain_get(samplers, i);
        if (s == nullptr || s->iface == nullptr) {
            throw error(VT_ERROR_ARGUMENT, format("sampler %d of the chain has no functions", i));
        }
        if (is_chain(s)) {
            const std::vector<llama_sampler *> inner = flatten(s, depth + 1);
            all.insert(all.end(), inner.begin(), inner.end());
        } else {
            all.push_back(s);
        }
    }
    return all;
}

void sort_by_id(candidates & c) {
    std::sort(c.begin(), c.end(), [](const llama_token_data & a, const llama_token_data & b) { return a.id < b.id; });
}

// llama.cpp's sort of equal logits depends on all the others
bool are_unique(const candidates & c) {
    std::vector<float> logits(c.size());
    std::transform(c.begin(), c.end(), logits.begin(), [](const llama_token_data & x) { return x.logit; });
    std::sort(logits.begin(), logits.end());
    return std::adjacent_find(logits.begin(), logits.end()) == logits.end();
}

int32_t selected(const llama_token_data_array & cur) {
    if (cur.selected < 0 || static_cast<size_t>(cur.selected) >= cur.size) {
        throw error(VT_ERROR_COMPUTE, "the sampler chain selected no token");
    }
    return cur.data[cur.selected].id;
}

}  // namespace

chain::chain(const llama_sampler * samplers) : m_samplers(const_cast<llama_sampler *>(samplers)), m_plan(new plan) {
    if (!is_chain(m_samplers)) {
        throw error(VT_ERROR_ARGUMENT, format("found the sampler %s, expected a chain", name_of(samplers).c_str()));
    }
    const std::vector<llama_sampler *> all = flatten(m_samplers, 0);
    if (all.empty()) {
        throw error(VT_ERROR_ARGUMENT, "the sampler chain is empty");
    }
    const known_samplers known;
    const int            n         = llama_sampler_chain_n(m_samplers);
    bool                 is_cloned = true;
    for (int i = 0; i < n; i++) {
        is_cloned = is_cloned && known.find(llama_sampler_chain_get(m_samplers, i)).is_cloned;
    }
    for (const llama_sampler * s : all) {
        m_plan->has_grammar = m_plan->has_grammar || known.find(s).kind == sampler_kind::grammar;
    }
    if (!is_cloned) {
        m_plan->is_replayable = false;
        return;
    }
    m_owned.reset(llama_sampler_clone(samplers));
    m_samplers = m_owned.get();
    find_selector(known);
}

chain::chain(const chain & other)
    : m_owned(other.is_borrowed() ? nullptr : llama_sampler_clone(other.m_samplers)), m_samplers(m_owned ? m_owned.get() : other.m_samplers),
      m_plan(other.m_plan), m_has_failed(other.m_has_failed), m_last(other.m_last) {
}

void chain::find_selector(const known_samplers & known) {
    bool done = false, is_next = false, is_hidden = false, is_grammar = false;
    for (int i = 0; i < llama_sampler_chain_n(m_samplers); i++) {
        llama_sampler *      s = llama_sampler_chain_get(m_samplers, i);
        const sampler_traits t = known.find(s);
        if (t.kind == sampler_kind::transparent) {
            continue;
        }
        m_plan->is_replayable = m_plan->is_replayable && t.is_replayed;
        if (t.kind == sampler_kind::grammar && m_plan->grammar < 0) {
            m_plan->grammar = i;
        }
        if (done) {
            if (m_plan->select == selector::top_p) {
                follow_top_p(s, t.kind, is_next);
                is_next = false;
            }
            // greedy marks a token and keeps the others: what follows sees all of them
            m_plan->select = m_plan->select == selector::greedy ? selector::other : m_plan->select;
            continue;
        }
        switch (t.kind) {
        case sampler_kind::bias: m_plan->biases.push_back(i); [[fallthrough]];
        case sampler_kind::modifier:
        case sampler_kind::penalties:
        case sampler_kind::grammar:
            // what a grammar rules out and DRY lowers may lie anywhere, and a tail would be too heavy
            is_hidden           = is_hidden || t.kind == sampler_kind::modifier || t.kind == sampler_kind::grammar;
            m_plan->n_modifiers = i + 1;
            m_plan->n_decided   = i + 1;
            is_grammar          = t.kind == sampler_kind::grammar;
            continue;
        case sampler_kind::greedy: m_plan->select = selector::greedy; break;
        case sampler_kind::top_k:
            m_plan->k      = n_least_kept(s);
            m_plan->select = m_plan->k < PROBE_SIZE ? selector::top_k : selector::other;
            break;
        case sampler_kind::min_p:
            // not where it must keep more than the best, and not with p > 1, which sorts and keeps one of several best
            if (n_least_kept(s) == 1 && probe(s, {0.0f, 0.0f}).size() == 2) {
                m_plan->select = selector::min_p;
                m_plan->reach  = min_p_reach(s);
            }
            break;
        case sampler_kind::top_p:
            m_plan->nucleus = nucleus(s, n_least_kept(s));
            if (m_plan->nucleus.is_known() && !is_hidden) {
                m_plan->select = selector::top_p;
                is_next        = true;
            }
            m_plan->n_decided = i + 1;  // what it has kept, it must not cut again
            break;
        default: break;
        }
        done = true;
    }
    m_plan->is_late    = is_grammar && (m_plan->select == selector::greedy || m_plan->select == selector::top_k || m_plan->select == selector::min_p);
    // an order of candidates means nothing to what draws none of them
    m_plan->is_ordered = m_plan->is_ordered && m_plan->ends_in_order;
}

void chain::follow_top_p(const llama_sampler * s, sampler_kind kind, bool is_next) {
    plan & p = *m_plan;
    if (kind == sampler_kind::min_p && is_next && n_least_kept(s) == 1) {
        p.nucleus.set_reach(min_p_reach(s));
    }
    if (kind == sampler_kind::temperature) {
        // weights that are shares of one fall the more, the smaller they are
        const float x = probe(s, {1.0f}).front().logit;
        p.sharpness   = x >= 1.0f ? p.sharpness * x : 0.0f;
    }
    const bool is_end = kind == sampler_kind::greedy || kind == sampler_kind::draw;
    p.is_ordered      = p.is_ordered && !p.ends_in_order && (is_end || kind == sampler_kind::min_p || kind == sampler_kind::temperature);
    p.ends_in_order   = is_end;
}

const llama_sampler * chain::grammar() const {
    return m_plan->grammar < 0 ? nullptr : llama_sampler_chain_get(m_samplers, m_plan->grammar);
}

llama_sampler * chain::late_grammar() const {
    return m_plan->is_late ? llama_sampler_chain_get(m_samplers, m_plan->n_modifiers - 1) : nullptr;
}

// Entries that cancel one another change a logit only by what is rounded off in between, up or down: such a token is
// raised, too.
std::vector<int32_t> chain::raised(int32_t n_vocab) const {
    std::vector<int32_t> ids;
    const size_t         n = static_cast<size_t>(n_vocab);
    for (int i = 0; i < m_plan->n_modifiers && needs_tail(); i++) {
        add_changed(llama_sampler_chain_get(m_samplers, i), n, ids);
    }
    if (needs_tail()) {
        return ids;
    }
    if (!m_plan->biases.empty()) {
        make_places(n);
    }
    for (const int i : m_plan->biases) {
        llama_sampler *   s    = llama_sampler_chain_get(m_samplers, i);
        const candidates  sums = probe(s, std::vector<float>(n, 0.0f));
        std::vector<bool> is_one(n, true);  // as if there was one entry
        for (const float base : {1.0f / 3.0f, 100.0f / 3.0f}) {
            const candidates moved = probe(s, std::vector<float>(n, base));
            for (size_t id = 0; id < n; id++) {
                is_one[id] = is_one[id] && moved[id].logit == base + sums[id].logit;
            }
        }
        for (size_t id = 0; id < n; id++) {
            if (sums[id].logit > 0.0f || !is_one[id]) {
                ids.push_back(static_cast<int32_t>(id));
            }
        }
    }
    return ids;
}

void chain::add_changed(const llama_sampler * s, size_t n, std::vector<int32_t> & ids) const {
    std::vector<bool> is_changed(n, false);
    for (const float base : {-1.0f, 1.0f, 100.0f / 3.0f}) {
        const candidates moved = probe(s, std::vector<float>(n, base));
        for (size_t id = 0; id < n; id++) {
            is_changed[id] = is_changed[id] || moved[id].logit != base;
        }
    }
    for (size_t id = 0; id < n; id++) {
        if (is_changed[id]) {
            ids.push_back(static_cast<int32_t>(id));
        }
    }
}

void chain::make_places(size_t n) const {
    candidates & by_id = m_plan->by_id;
    while (by_id.size() < n) {
        by_id.push_back({static_cast<int32_t>(by_id.size()), 0.0f, 0.0f});
    }
}

// as on the whole vocabulary, where every entry of a token counts: elsewhere llama.cpp searches, and stops at the first
void chain::apply_bias(llama_sampler * bias, candidates & c) const {
    candidates & by_id = m_plan->by_id;
    for (const llama_token_data & x : c) {
        make_places(static_cast<size_t>(x.id) + 1);
        by_id[static_cast<size_t>(x.id)].logit = x.logit;
    }
    llama_token_data_array cur = view(by_id);
    llama_sampler_apply(bias, &cur);
    for (llama_token_data & x : c) {
        x.logit = by_id[static_cast<size_t>(x.id)].logit;
    }
}

void chain::apply_modifier(int i, candidates & c) {
    const plan &    p = *m_plan;
    llama_sampler * s = llama_sampler_chain_get(m_samplers, i);
    if (std::find(p.biases.begin(), p.biases.end(), i) != p.biases.end()) {
        apply_bias(s, c);
    } else if (p.is_late && i + 1 == p.n_modifiers) {
        m_allows_few = mask_best(*s, n_best(), p.reach, c);
    } else {
        llama_token_data_array cur = view(c);
        llama_sampler_apply(s, &cur);
    }
}

template <typename F> void chain::attempt(F && step) {
    bool & has_failed = is_borrowed() ? m_plan->has_failed : m_has_failed;
    if (has_failed) {
        throw error(VT_ERROR_COMPUTE, "the sampler chain has failed before: begin again, with another one");
    }
    try {
        step();
    } catch (const std::exception & e) {
        has_failed = true;
        throw error(VT_ERROR_COMPUTE, format("the sampler chain failed: %s", e.what()));
    } catch (...) {
        has_failed = true;
        throw;
    }
}

void chain::modify(candidates & c) {
    attempt([&] {
        for (int i = 0; i < m_plan->n_modifiers; i++) {
            apply_modifier(i, c);
        }
    });
}

bool chain::select(candidates & c, float & threshold) const {
    const plan & p = *m_plan;
    if (p.select == selector::other || p.select == selector::top_p || c.empty() || (p.select == selector::top_k && c.size() < p.k)) {
        return false;
    }
    const auto  less = [](const llama_token_data & a, const llama_token_data & b) { return a.logit < b.logit; };
    const float best = std::max_element(c.begin(), c.end(), less)->logit;
    threshold        = best;
    if (p.select == selector::top_k) {
        std::vector<float> logits(c.size());
        std::transform(c.begin(), c.end(), logits.begin(), [](const llama_token_data & x) { return x.logit; });
        const auto kth = logits.begin() + static_cast<std::ptrdiff_t>(p.k - 1);
        std::nth_element(logits.begin(), kth, logits.end(), std::greater<float>());
        threshold = *kth;
        if (!(best < BUCKETS_END)) {
            return false;
        }
    } else if (p.select == selector::min_p) {
        threshold = std::nextafter(best - p.reach, -INFINITY);
    }
    if (!std::isfinite(threshold)) {  // a grammar has ruled out so much that everything matters
        return false;
    }
    // by id, as they stand in the whole vocabulary
    c.erase(std::remove_if(c.begin(), c.end(), [&](const llama_token_data & x) { return x.logit < threshold; }), c.end());
    sort_by_id(c);
    return p.select != selector::top_k || are_unique(c);
}

bool chain::select_allowed(candidates & c, size_t n_vocab) const {
    c.erase(std::remove_if(c.begin(), c.end(), [](const llama_token_data & x) { return !(x.logit > -INFINITY); }), c.end());
    const size_t n = std::min(n_best(), n_vocab);
    if (c.size() >= n) {
        float threshold = 0.0f;
        return select(c, threshold);
    }
    const auto is_bad = [](const llama_token_data & x) { return !(x.logit < BUCKETS_END); };
    if (c.empty() || std::any_of(c.begin(), c.end(), is_bad) || !are_unique(c)) {
        return false;
    }
    sort_by_id(c);
    const size_t n_allowed = c.size();
    for (int32_t id = 0; c.size() < n; id++) {
        const auto at = std::lower_bound(c.begin(), c.begin() + static_cast<std::ptrdiff_t>(n_allowed), id,
                                         [](const llama_token_data & x, int32_t i) { return x.id < i; });
        if (at == c.begin() + static_cast<std::ptrdiff_t>(n_allowed) || at->id != id) {
            c.push_back({id, -INFINITY, 0.0f});
        }
    }
    return true;
}

bool chain::select(candidates & c, float & threshold, double & weight) const {
    if (!needs_tail()) {
        weight = 0.0;
        return select(c, threshold);
    }
    const auto is_good = [](const llama_token_data & x) { return x.logit < BUCKETS_END; };
    if (c.empty() || !std::all_of(c.begin(), c.end(), is_good)) {
        return false;
    }
    threshold = m_plan->nucleus.narrow(c, weight);
    return std::isfinite(threshold);
}

int32_t chain::guess(const candidates & c, float threshold, double weight) {
    double known = 0.0;
    for (const llama_token_data & x : c) {
        known += std::exp(static_cast<double>(x.logit - c.front().logit));
    }
    const double others = std::max(0.0, weight - known);
    const tail   t      = {c.front().logit, others, others, 0.0, nucleus::cap(weight)};
    const size_t n      = m_plan->nucleus.find(c, threshold, t).least;
    return choose(candidates(c.begin(), n == 0 ? c.end() : c.begin() + static_cast<std::ptrdiff_t>(n)), true);
}

bool chain::settle(candidates & c, float threshold, const tail & others, int32_t & token) {
    const auto is_above = [](const llama_token_data & a, const llama_token_data & b) { return a.logit > b.logit; };
    std::sort(c.begin(), c.end(), is_above);
    if (c.empty() || !(c.front().logit < BUCKETS_END)) {
        return false;
    }
    const auto          is_equal = [](const llama_token_data & a, const llama_token_data & b) { return a.logit == b.logit; };
    const auto          first    = [&](size_t n) { return c.begin() + static_cast<std::ptrdiff_t>(std::min(n, c.size())); };
    const nucleus::cuts cuts     = m_plan->nucleus.find(c, threshold, others);
    if (cuts.most == 0) {
        return false;
    }
    const auto end       = first(cuts.most + 1);
    const bool is_unique = std::adjacent_find(c.begin(), end, is_equal) == end;
    if (cuts.least == cuts.most && cuts.n_beyond == 0 && is_unique) {
        token = choose(candidates(c.begin(), first(cuts.most)), true);
        return true;
    }
    if (!m_plan->is_ordered || (cuts.n_beyond > 0 && !(m_plan->sharpness >= 1.0f))) {
        return false;
    }
    chain      other(*this);
    candidates most(c.begin(), first(cuts.most));
    // Draws add weights up in doubles. Those of 2^18 candidates are off by less than one of these weighs, unless they are
    // very small: then by no more than they weigh themselves.
    const bool is_small = (c.front().logit - threshold) * m_plan->sharpness > 14.0f;
    most.resize(most.size() + (is_small ? 2 : 1) * cuts.n_beyond, {-1, threshold, 0.0f});
    token = choose(std::move(most), true);
    if (other.choose(candidates(c.begin(), first(cuts.least)), true) != token) {
        return false;
    }
    const auto chosen = std::find_if(c.begin(), c.end(), [&](const llama_token_data & x) { return x.id == token; });
    return chosen != c.end() && std::count_if(c.begin(), c.end(), [&](const llama_token_data & x) { return is_equal(x, *chosen); }) == 1;
}

int32_t chain::choose(candidates c, bool is_sorted) {
    llama_token_data_array cur = view(c);
    cur.sorted                 = is_sorted;
    attempt([&] {
        for (int i = m_plan->n_decided; i < llama_sampler_chain_n(m_samplers); i++) {
            llama_sampler_apply(llama_sampler_chain_get(m_samplers, i), &cur);
        }
    });
    return selected(cur);
}

int32_t chain::decide_on_all(candidates & c) {
    llama_token_data_array cur = view(c);
    attempt([&] { llama_sampler_apply(m_samplers, &cur); });
    const int32_t token = selected(cur);
    if (token < 0 || static_cast<size_t>(token) >= c.size()) {
        throw error(VT_ERROR_COMPUTE, format("the sampler chain selected token %d of %zu", token, c.size()));
    }
    return token;
}

void chain::accept(int32_t token, bool is_end) {
    if (is_end && m_plan->has_grammar) {
        // llama.cpp's grammar aborts when it is given an end that it has ruled out
        const known_samplers known;
        for (llama_sampler * s : flatten(m_samplers, 0)) {
            candidates             one = {{token, 0.0f, 0.0f}};
            llama_token_data_array cur = view(one);
            if (known.find(s).kind == sampler_kind::grammar) {
                attempt([&] { llama_sampler_apply(s, &cur); });
            }
            if (one[0].logit < 0.0f) {
                throw error(VT_ERROR_COMPUTE, format("the sampler chain chose token %d, which its grammar forbids", token));
            }
        }
    }
    attempt([&] { llama_sampler_accept(m_samplers, token); });
    m_last = token;
}

}  // namespace vt
