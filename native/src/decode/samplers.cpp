#include "decode/samplers.h"

#include <algorithm>
#include <iterator>

namespace vt {

namespace {

struct entry {
    llama_sampler * (*make)();
    sampler_traits traits;
};

using kind = sampler_kind;

llama_sampler * make_bias() {
    const llama_logit_bias bias = {0, 1.0f};
    return llama_sampler_init_logit_bias(1, 1, &bias);
}

// src/llama-sampler.cpp. Parameters only have to be such that a sampler is not switched off: those that are, are made as
// the one that does nothing.
//   not cloned:   adaptive-p restarts its random numbers and forgets the probabilities of a pending token
//   not replayed: xtc draws only where there are two candidates, mirostat and adaptive-p keep averages of probabilities
const entry TABLE[] = {
    {[] { return llama_sampler_init_temp(1.0f); }, {kind::transparent, true, true}},
    {[] { return llama_sampler_init_penalties(1, 1, 2.0f, 0.0f, 0.0f); }, {kind::penalties, true, true}},
    {[] { return llama_sampler_init_dry(nullptr, 1.0f, 1.0f, 1, 1, nullptr, 0); }, {kind::modifier, true, true}},
    {make_bias, {kind::bias, true, true}},
    {[] { return llama_sampler_init_grammar(nullptr, "", ""); }, {kind::grammar, true, true}},
    {[] { return llama_sampler_init_greedy(); }, {kind::greedy, true, true}},
    {[] { return llama_sampler_init_top_k(1); }, {kind::top_k, true, true}},
    {[] { return llama_sampler_init_min_p(0.5f, 1); }, {kind::min_p, true, true}},
    {[] { return llama_sampler_init_top_p(0.5f, 1); }, {kind::top_p, true, true}},
    {[] { return llama_sampler_init_typical(0.5f, 1); }, {kind::other, true, true}},
    {[] { return llama_sampler_init_top_n_sigma(1.0f); }, {kind::other, true, true}},
    {[] { return llama_sampler_init_temp(2.0f); }, {kind::temperature, true, true}},
    {[] { return llama_sampler_init_temp_ext(2.0f, 1.0f, 1.0f); }, {kind::other, true, true}},
    {[] { return llama_sampler_init_infill(nullptr); }, {kind::other, true, true}},
    {[] { return llama_sampler_init_dist(0); }, {kind::draw, true, true}},
    {[] { return llama_sampler_init_xtc(0.5f, 0.1f, 1, 0); }, {kind::other, true, false}},
    {[] { return llama_sampler_init_mirostat(1, 0, 1.0f, 1.0f, 1); }, {kind::other, true, false}},
    {[] { return llama_sampler_init_mirostat_v2(0, 1.0f, 1.0f); }, {kind::other, true, false}},
    {[] { return llama_sampler_init_adaptive_p(0.5f, 0.5f, 0); }, {kind::other, false, false}},
};

}  // namespace

known_samplers::known_samplers() {
    for (const entry & e : TABLE) {
        m_samples.emplace_back(e.make());
    }
}

sampler_traits known_samplers::find(const llama_sampler * s) const {
    for (size_t i = 0; i < std::size(TABLE); i++) {
        if (m_samples[i]->iface == s->iface) {
            return TABLE[i].traits;
        }
    }
    return {kind::unknown, false, false};
}

llama_token_data_array view(candidates & c) {
    return {c.data(), c.size(), -1, false};
}

candidates probe(const llama_sampler * sampler, const std::vector<float> & logits) {
    candidates data(logits.size());
    for (size_t i = 0; i < data.size(); i++) {
        data[i] = {static_cast<int32_t>(i), logits[i], 0.0f};
    }
    const sampler_ptr      clone(llama_sampler_clone(sampler));
    llama_token_data_array cur = view(data);
    llama_sampler_apply(clone.get(), &cur);
    return candidates(cur.data, cur.data + cur.size);
}

size_t n_least_kept(const llama_sampler * sampler) {
    std::vector<float> logits(PROBE_SIZE);
    for (size_t i = 0; i < logits.size(); i++) {
        logits[i] = -200.0f * static_cast<float>(i);
    }
    return probe(sampler, logits).size();
}

// Some best candidates that are equal, as many as are kept at least, and more that are equal, too: what stands before the
// others has a probability that grows with the distance, and alone is kept where that reaches p.
p_bounds top_p_bounds(const llama_sampler * sampler, size_t n_least) {
    p_bounds found = {0.0f, 1.0f};
    float    near = 0.0f, far = 128.0f;
    for (int i = 0; i < 40; i++) {
        const float        middle = 0.5f * (near + far);
        std::vector<float> logits(n_least + 64, 0.0f);
        std::fill_n(logits.begin(), n_least, middle);
        const candidates kept = probe(sampler, logits);
        float            sum  = 0.0f;
        for (size_t k = 0; k < std::min(n_least, kept.size()); k++) {
            sum += kept[k].p;
        }
        (kept.size() <= n_least ? far : near)             = middle;
        (kept.size() <= n_least ? found.high : found.low) = sum;
    }
    return found;
}

float min_p_reach(const llama_sampler * sampler) {
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

}  // namespace vt
