// What is known of llama.cpp's own samplers. A sampler is known by its functions: a name can be anybody's.
#pragma once

#include <llama.h>

#include <memory>
#include <vector>

namespace vt {

struct sampler_free {
    void operator()(llama_sampler * s) const { llama_sampler_free(s); }
};

using sampler_ptr = std::unique_ptr<llama_sampler, sampler_free>;

enum class sampler_kind {
    modifier,     // changes logits one by one, and leaves every candidate at its place
    penalties,    // a modifier of tokens that it has accepted
    bias,         // a modifier that looks for a token at the place of its id first, and elsewhere applies one entry of several
    grammar,      // a modifier that can refuse a token
    greedy,       // keeps the best
    top_k,        // keeps the best k, sorted
    min_p,        // keeps those near the best
    top_p,        // keeps the best whose probabilities reach p, sorted
    temperature,  // divides logits
    draw,         // picks one by its probability
    transparent,  // does nothing
    other,        // sorts, truncates, rescales or draws: needs all candidates
    unknown,      // anything may happen
};

using candidates = std::vector<llama_token_data>;

struct sampler_traits {
    sampler_kind kind;
    bool         is_cloned;    // its clone goes on as it would go on itself
    bool         is_replayed;  // its state after a decision follows from the chosen token and the number of decisions
};

class known_samplers {
  public:
    known_samplers();

    // unknown for samplers of others, and for chains inside chains
    sampler_traits find(const llama_sampler * s) const;

  private:
    std::vector<sampler_ptr> m_samples;  // one of each kind, in the order of the table
};

// as llama.cpp wants them
llama_token_data_array view(candidates & c);

// llama.cpp gives no access to parameters, so samplers are asked; each time a clone, which must be faithful

// what a sampler does to candidates of these logits, whose ids count from 0
candidates probe(const llama_sampler * sampler, const std::vector<float> & logits);

// how many a sampler keeps where logits are so far apart that it keeps as few of PROBE_SIZE as its parameters allow
constexpr size_t PROBE_SIZE = 4096;  // a top-k beyond this is not worth a shortcut
size_t           n_least_kept(const llama_sampler * sampler);

// p of top-p, between two bounds that llama.cpp's own sums of probabilities give; n_least: n_least_kept
struct p_bounds {
    float low, high;
};

p_bounds top_p_bounds(const llama_sampler * sampler, size_t n_least);

// largest distance below the best logit at which min-p still keeps a token
float min_p_reach(const llama_sampler * sampler);

}  // namespace vt
