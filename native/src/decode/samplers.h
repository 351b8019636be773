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
    bias,         // a modifier that looks for a token at the place of its id first, and elsewhere applies one entry of several
    grammar,      // a modifier that can refuse a token
    greedy,       // keeps the best
    top_k,        // keeps the best k, sorted
    min_p,        // keeps those near the best
    transparent,  // does nothing
    other,        // sorts, truncates, rescales or draws: needs all candidates
    unknown,      // anything may happen
};

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

}  // namespace vt
