#include "decode/chain.h"

#include "base/error.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

namespace vt {

namespace {

constexpr size_t PROBE_SIZE = 4096;  // a top-k beyond this is not worth a shortcut

bool is_one_of(const std::string & name, std::initializer_list<const char *> names) {
    return std::any_of(names.begin(), names.end(), [&](const char * n) { return name == n; });
}

// llama.cpp marks samplers that do nothing with "?", and those it has asked to run elsewhere with "+" or "-"
std::string plain_name(const llama_sampler * s) {
    const std::string name = llama_sampler_name(s);
    return name[0] == '+' || name[0] == '-' ? name.substr(1) : name;
}

// what a sampler does to candidates of the given logits; llama.cpp gives no access to its parameters
std::vector<llama_token_data> probe(llama_sampler * sampler, const std::vector<float> & logits) {
    std::vector<llama_token_data> data(logits.size());
    for (size_t i = 0; i < data.size(); i++) {
        data[i] = {static_cast<int32_t>(i), logits[i], 0.0f};
    }
    const sampler_ptr      clone(llama_sampler_clone(sampler));
    llama_token_data_array cur = {data.data(), data.size(), -1, false};
    llama_sampler_apply(clone.get(), &cur);
    return std::vector<llama_token_data>(cur.data, cur.data + cur.size);
}

// logits so far apart that every truncating sampler keeps few of them, unless its parameter switches it off
std::vector<float> steep() {
    std::vector<float> logits(PROBE_SIZE);
    for (size_t i = 0; i < logits.size(); i++) {
        logits[i] = -200.0f * static_cast<float>(i);
    }
    return logits;
}

bool keeps_all(const std::vector<llama_token_data> & data) {
    for (size_t i = 0; i < data.size(); i++) {
        if (data[i].id != static_cast<int32_t>(i)) {
            return false;
        }
    }
    return data.size() == PROBE_SIZE;
}

// largest distance below the best logit at which min-p still keeps a token
float min_p_reach(llama_sampler * sampler) {
    std::vector<float> logits(64, 0.0f);  // min-p keeps at least so many anyway
    float              low  = 0.0f;
    float              high = 128.0f;  // beyond the log of the smallest float
    for (int i = 0; i < 48; i++) {
        const float middle = 0.5f * (low + high);
        logits.push_back(-middle);
        (probe(sampler, logits).size() == logits.size() ? low : high) = middle;
        logits.pop_back();
    }
    return high;
}

int32_t selected(const llama_token_data_array & cur) {
    if (cur.selected < 0 || static_cast<size_t>(cur.selected) >= cur.size) {
        throw error(VT_ERROR_COMPUTE, "the sampler chain selected no token");
    }
    return cur.data[cur.selected].id;
}

}  // namespace

chain::chain(const llama_sampler * samplers) {
    llama_sampler * all = const_cast<llama_sampler *>(samplers);
    if (strcmp(llama_sampler_name(samplers), "chain") != 0) {
        throw error(VT_ERROR_ARGUMENT, format("found the sampler %s, expected a chain", llama_sampler_name(samplers)));
    }
    const int n = llama_sampler_chain_n(all);
    if (n == 0) {
        throw error(VT_ERROR_ARGUMENT, "the sampler chain is empty");
    }
    for (int i = 0; i < n; i++) {
        const llama_sampler * s        = llama_sampler_chain_get(all, i);
        // llama.cpp would call what is not there
        const bool            has_name = s->iface != nullptr && s->iface->name != nullptr;
        if (!has_name || (s->iface->clone == nullptr && s->ctx != nullptr)) {
            throw error(VT_ERROR_ARGUMENT, format("sampler %d of the chain (%s) cannot be cloned, which exact mode needs", i,
                                                  has_name ? llama_sampler_name(s) : "custom"));
        }
    }
    m_samplers.reset(llama_sampler_clone(samplers));
    find_selector();
}

chain::chain(const chain & other)
    : m_samplers(llama_sampler_clone(other.m_samplers.get())), m_n_modifiers(other.m_n_modifiers), m_selector(other.m_selector), m_k(other.m_k),
      m_reach(other.m_reach), m_replayable(other.m_replayable) {
}

void chain::find_selector() {
    const int n    = llama_sampler_chain_n(m_samplers.get());
    bool      done = false;
    for (int i = 0; i < n; i++) {
        llama_sampler *   s    = llama_sampler_chain_get(m_samplers.get(), i);
        const std::string name = plain_name(s);
        if (name[0] == '?') {
            continue;
        }
        m_replayable = m_replayable &&
                       is_one_of(name, {"penalties", "dry", "logit-bias", "grammar", "greedy", "top-k", "top-p", "min-p", "typical", "temp", "dist"});
        if (done) {
            continue;
        }
        if (is_one_of(name, {"penalties", "dry", "logit-bias", "grammar"})) {
            m_n_modifiers = i + 1;
            continue;
        }
        if (is_one_of(name, {"top-k", "top-p", "min-p", "typical"}) && keeps_all(probe(s, steep()))) {
            continue;  // switched off
        }
        done = true;
        if (name == "greedy") {
            m_selector = selector::greedy;
        } else if (name == "top-k") {
            m_selector = selector::top_k;
            m_k        = probe(s, steep()).size();
        } else if (name == "min-p" && probe(s, steep()).size() == 1) {  // not where it must keep more than the best
            m_selector = selector::min_p;
            m_reach    = min_p_reach(s);
        }
        if (m_selector == selector::top_k && m_k >= PROBE_SIZE) {
            m_selector = selector::other;
        }
    }
}

std::vector<int32_t> chain::raised(int32_t n_vocab) const {
    std::vector<int32_t> ids;
    for (int i = 0; i < m_n_modifiers; i++) {
        llama_sampler * s = llama_sampler_chain_get(m_samplers.get(), i);
        if (plain_name(s) != "logit-bias") {
            continue;
        }
        for (const llama_token_data & d : probe(s, std::vector<float>(static_cast<size_t>(n_vocab), 0.0f))) {
            if (d.logit > 0.0f) {
                ids.push_back(d.id);
            }
        }
    }
    return ids;
}

void chain::modify(candidates & c) {
    llama_token_data_array cur = {c.data(), c.size(), -1, false};
    for (int i = 0; i < m_n_modifiers; i++) {
        llama_sampler_apply(llama_sampler_chain_get(m_samplers.get(), i), &cur);
    }
    c.resize(cur.size);
}

bool chain::select(candidates & c, float & threshold) const {
    if (m_selector == selector::other || c.empty() || (m_selector == selector::top_k && c.size() < m_k)) {
        return false;
    }
    if (m_selector == selector::top_k) {
        std::vector<float> logits(c.size());
        std::transform(c.begin(), c.end(), logits.begin(), [](const llama_token_data & x) { return x.logit; });
        const auto kth = logits.begin() + static_cast<std::ptrdiff_t>(m_k - 1);
        std::nth_element(logits.begin(), kth, logits.end(), std::greater<float>());
        threshold = *kth;
    } else {
        const auto less = [](const llama_token_data & a, const llama_token_data & b) { return a.logit < b.logit; };
        threshold       = std::max_element(c.begin(), c.end(), less)->logit;
        if (m_selector == selector::min_p) {
            threshold = std::nextafter(threshold - m_reach, -INFINITY);
        }
    }
    if (!std::isfinite(threshold)) {  // a grammar has ruled out so much that everything matters
        return false;
    }
    // by id, as they stand in the whole vocabulary
    c.erase(std::remove_if(c.begin(), c.end(), [&](const llama_token_data & x) { return x.logit < threshold; }), c.end());
    std::sort(c.begin(), c.end(), [](const llama_token_data & a, const llama_token_data & b) { return a.id < b.id; });
    if (m_selector == selector::top_k) {
        // llama.cpp's sort of equal logits depends on all the others
        std::vector<float> logits(c.size());
        std::transform(c.begin(), c.end(), logits.begin(), [](const llama_token_data & x) { return x.logit; });
        std::sort(logits.begin(), logits.end());
        return std::adjacent_find(logits.begin(), logits.end()) == logits.end();
    }
    return true;
}

int32_t chain::choose(candidates c) {
    llama_token_data_array cur = {c.data(), c.size(), -1, false};
    const int              n   = llama_sampler_chain_n(m_samplers.get());
    for (int i = m_n_modifiers; i < n; i++) {
        llama_sampler_apply(llama_sampler_chain_get(m_samplers.get(), i), &cur);
    }
    return selected(cur);
}

int32_t chain::decide_on_all(candidates & c) {
    llama_token_data_array cur = {c.data(), c.size(), -1, false};
    llama_sampler_apply(m_samplers.get(), &cur);
    return selected(cur);
}

}  // namespace vt
