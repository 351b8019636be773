// A sampler chain whose decision on a few candidates is known to be its decision on all.
//
// A chain begins with modifiers, which change the logits of tokens one by one (penalties, grammar, logit bias), and goes
// on with a selector. What reaches the rest of the chain is what the selector keeps: the best token (greedy), the best k
// (top-k), or those near enough to the best (min-p). So candidates below a threshold, which follows from any subset of
// the candidates, cannot change the decision. With another selector (top-p, typical, mirostat, a plain draw) they can,
// and the chain needs the whole vocabulary.
#pragma once

#include <llama.h>

#include <cstdint>
#include <memory>
#include <vector>

namespace vt {

struct sampler_free {
    void operator()(llama_sampler * s) const { llama_sampler_free(s); }
};

using sampler_ptr = std::unique_ptr<llama_sampler, sampler_free>;

using candidates = std::vector<llama_token_data>;

class chain {
  public:
    // clones the samplers; throws where one cannot be cloned
    explicit chain(const llama_sampler * samplers);

    chain(const chain & other);
    chain & operator=(chain &&) = default;
    chain(chain &&)             = default;

    // ids whose logits a bias may raise
    std::vector<int32_t> raised(int32_t n_vocab) const;

    // whether decisions on a part of the candidates are possible at all
    bool can_decide_on_part() const { return m_selector != selector::other; }

    // whether the state after a decision depends on the chosen token and the number of decisions alone
    bool is_replayable() const { return m_replayable; }

    // The decision in three steps, none of which accepts a token. Modifiers change single logits, so candidates may be
    // modified in parts.
    void modify(candidates & c);

    // keeps those that the selector may keep, by id, and gives the logit from which on another candidate could matter;
    // false where only the whole vocabulary can tell
    bool select(candidates & c, float & threshold) const;

    // the rest of the chain on what was selected
    int32_t choose(candidates c);

    // all at once; c: the whole vocabulary by id
    int32_t decide_on_all(candidates & c);

    void accept(int32_t token) { llama_sampler_accept(m_samplers.get(), token); }

  private:
    enum class selector { greedy, top_k, min_p, other };

    sampler_ptr m_samplers;
    int         m_n_modifiers = 0;
    selector    m_selector    = selector::other;
    size_t      m_k           = 0;     // of top-k
    float       m_reach       = 0.0f;  // of min-p: how far below the best logit it keeps tokens
    bool        m_replayable  = true;

    void find_selector();
};

}  // namespace vt
