// What top-p keeps, where only the best candidates are known and what all others weigh together lies between bounds.
//
// llama.cpp divides weights exp(logit - best) by their sum Z, which it adds up in floats by id, sorts, and adds up
// probabilities in floats until they reach p. A division and a sum of floats that are not negative never fall where an
// operand grows, so a larger Z never ends that sooner: where two bounds of Z end it at the same candidate, Z does. A wide
// nucleus often ends anywhere in a range. The rest of the chain may choose the same token for its first and for its last
// place, and if it only cuts and draws in order, it does so for every place between. The last place may lie among candidates
// that are not known: as many of the threshold's logit stand for them as weigh no less.
#pragma once

#include "decode/samplers.h"

#include <cstddef>

namespace vt {

// A logit's weight here is exp(logit - top).
struct tail {
    float  top;
    double low, high;  // what candidates that are not known weigh
    double capped;     // no less than the sum of their min(weight, cap)
    float  cap;
};

class nucleus {
  public:
    // sizes of what is kept; 0 where that cannot be said. n_beyond: candidates beyond the known ones, of the threshold's logit
    // or below, that are kept at most, counted as if all had that logit
    struct cuts {
        size_t least, most, n_beyond;
    };

    nucleus() = default;
    nucleus(const llama_sampler * top_p, size_t n_least);

    // nothing so far below the best is kept by what follows
    void set_reach(float reach) { m_reach = reach; }

    // p of top-p was found, and it may keep few
    bool is_known() const { return m_n_least > 0; }

    // a cap for tails of a draft that weighs so much
    static float cap(double weight);

    // c: all known candidates of this logit and above, sorted
    cuts find(const candidates & c, float threshold, const tail & others) const;

    // drops candidates that are unlikely to be kept, sorts the others, and gives the logit below which nothing is likely to
    // be; weight: of all that were there, the best one's being 1
    float narrow(candidates & c, double & weight) const;

  private:
    size_t   m_n_least = 0;
    p_bounds m_p       = {};
    float    m_reach;
};

}  // namespace vt
