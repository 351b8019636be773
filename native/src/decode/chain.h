// A sampler chain whose decision on a few candidates is known to be its decision on all.
//
// A chain begins with modifiers, which change the logits of tokens one by one (penalties, grammar, logit bias), and goes
// on with a selector. What reaches the rest of the chain is what the selector keeps: the best token (greedy), the best k
// (top-k), or those near enough to the best (min-p). So candidates below a threshold, which follows from any subset of
// the candidates, cannot change the decision. What top-p keeps depends on all candidates, but of those that are unlikely to
// be kept it is enough to know about how much they weigh together (decode/nucleus.h). With another selector (typical,
// mirostat, a plain draw) the chain needs the whole vocabulary.
//
// It works on a clone, so that a decision can be taken back. Where a sampler is not llama.cpp's, or its clone does not go
// on as it would itself, the chain is borrowed: it decides on the whole vocabulary with the caller's own samplers.
#pragma once

#include "decode/nucleus.h"
#include "decode/samplers.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace vt {

class chain {
  public:
    // clones the samplers, or borrows them, which then must outlive this and its copies
    explicit chain(const llama_sampler * samplers);

    // a copy of a borrowed chain is the same chain, and a copy of a failed one has failed
    chain(const chain & other);
    chain & operator=(chain &&) = default;
    chain(chain &&)             = default;

    // ids whose logits a bias may raise; where tails are needed, all whose logits a modifier changes
    std::vector<int32_t> raised(int32_t n_vocab) const;

    // whether decisions on a part of the candidates are possible at all
    bool can_decide_on_part() const { return m_plan->select != selector::other; }

    // whether decisions need to know what the candidates below a threshold weigh
    bool needs_tail() const { return m_plan->select == selector::top_p; }

    // candidates that its selector keeps at least, where it can decide on a part
    size_t n_best() const { return m_plan->select == selector::top_k ? m_plan->k : 1; }

    // whether the best candidate is taken
    bool is_greedy() const { return m_plan->select == selector::greedy; }

    // whether the state after a decision depends on the chosen token and the number of decisions alone
    bool is_replayable() const { return m_plan->is_replayable; }

    // whether the caller's own samplers decide: what they have decided or accepted cannot be taken back
    bool is_borrowed() const { return m_owned == nullptr; }

    // the grammar that is asked about the best candidates alone; NULL where there is none
    llama_sampler * late_grammar() const;

    // the token that it has accepted last, -1 before the first
    int32_t last() const { return m_last; }

    // whether it forbade most of the best candidates of those that were modified last
    bool allows_few() const { return m_allows_few; }

    // its first grammar, of those that are cloned; NULL where there is none
    const llama_sampler * grammar() const;

    // The decision in three steps, none of which accepts a token. Modifiers change single logits, so candidates may be
    // modified in parts. A grammar that comes last is asked about the best alone, and candidates that the selector cannot keep
    // are dropped. After an error that a sampler has thrown, here or in accept, its state is unknown: all further steps are
    // errors, and a copy from before has to go on.
    void modify(candidates & c);

    // keeps those that the selector may keep, by id, and gives the logit from which on another candidate could matter;
    // false where only the whole vocabulary can tell
    bool select(candidates & c, float & threshold) const;

    // the same where tails are needed: keeps those that the selector is likely to keep, sorted; weight: of all in c
    bool select(candidates & c, float & threshold, double & weight) const;

    // The same where c are all that late_grammar allows of n_vocab tokens: no other candidate matters. Of as many as the selector
    // keeps on the whole vocabulary, those that are forbidden are any such, with logits of -INFINITY.
    bool select_allowed(candidates & c, size_t n_vocab) const;

    // the rest of the chain on what was selected
    int32_t choose(candidates c, bool is_sorted = false);

    // the likely choice among what was selected, where candidates in the set weigh so much
    int32_t guess(const candidates & c, float threshold, double weight);

    // The choice among all; c: all that reach the threshold. False where only the whole vocabulary can tell: the chain's
    // state is not what it was then.
    bool settle(candidates & c, float threshold, const tail & others, int32_t & token);

    // all at once; c: the whole vocabulary by id
    int32_t decide_on_all(candidates & c);

    // is_end: an end-of-generation token; where a grammar forbids it that is an error, and nothing has accepted it
    void accept(int32_t token, bool is_end = true);

  private:
    enum class selector { greedy, top_k, min_p, top_p, other };

    // found once, shared by copies
    struct plan {
        int              n_modifiers = 0;
        int              n_decided   = 0;  // samplers before those that are applied to what was selected
        selector         select      = selector::other;
        size_t           k           = 0;        // of top-k
        float            reach       = 0.0f;     // of min-p: how far below the best logit it keeps tokens
        vt::nucleus      nucleus;                // of top-p
        bool             is_ordered    = true;   // what follows top-p cuts and draws in order,
        bool             ends_in_order = false;  // and the last one draws;
        float            sharpness     = 1.0f;   // one over its temperatures; 0 where one is above 1
        bool             is_replayable = true;
        std::vector<int> biases;  // of the modifiers
        bool             has_grammar = false;
        int              grammar     = -1;     // sampler of a cloned chain
        bool             is_late     = false;  // a grammar is the last modifier, and the selector keeps the best few
        bool             has_failed  = false;  // the caller's samplers, which all copies share
        candidates       by_id;  // every token at the place of its id, as biases want them; what a copy leaves here is of no use to others
    };

    sampler_ptr           m_owned;
    llama_sampler *       m_samplers;  // m_owned, or the caller's
    std::shared_ptr<plan> m_plan;
    bool                  m_has_failed = false;  // the clone
    int32_t               m_last       = -1;
    bool                  m_allows_few = false;

    void                       find_selector(const known_samplers & known);
    void                       follow_top_p(const llama_sampler * s, sampler_kind kind, bool is_next);
    void                       add_changed(const llama_sampler * s, size_t n, std::vector<int32_t> & ids) const;
    void                       make_places(size_t n) const;
    void                       apply_modifier(int i, candidates & c);
    void                       apply_bias(llama_sampler * bias, candidates & c) const;
    template <typename F> void attempt(F && step);
};

}  // namespace vt
