// Log-probabilities over rows of logits that come in pieces: a running maximum and sum, and the best rows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace vt {

class log_softmax {
  public:
    // the n_top best rows of each state are kept
    log_softmax(size_t n_states, size_t n_top) : m_n_top(n_top), m_states(n_states) {}

    // logits: (n_states, n) of rows first .. first + n
    void add(const float * logits, size_t first, size_t n, int32_t n_threads);

    // log of the sum of exponentials
    double log_sum(size_t state) const;

    struct entry {
        float   logit;
        int32_t row;
    };

    // of a state, the best first; equal ones by row
    std::vector<entry> top(size_t state) const;

  private:
    struct state {
        float              max = -1.0f / 0.0f;
        double             sum = 0.0;
        std::vector<entry> heap;  // the worst of the kept in front
    };

    size_t             m_n_top;
    std::vector<state> m_states;

    void add_to(state & s, const float * logits, size_t first, size_t n) const;
    void keep(state & s, const float * logits, size_t first, size_t n) const;
};

}  // namespace vt
