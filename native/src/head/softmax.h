// What a softmax needs of logits that come chunk by chunk: the maximum and the sum of exponentials of each state, the logits
// of given tokens, the best tokens. The logits of a chunk are forgotten, so memory does not grow with the vocabulary.
#pragma once

#include "vocabtailor.h"

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace vt {

// rows of a chunk so that the logits of n_hidden states stay small: a multiple of `unit`
size_t chunk_rows_of(size_t n_hidden, size_t unit);

class softmax {
  public:
    // arguments as the caller of the C interface gave them, checked here. ids: token ids of the head's rows, NULL where they are
    // the row numbers; they must outlive it
    softmax(const vt_softmax_params & p, const vt_softmax & out, size_t n_vocab, const std::vector<int32_t> * ids);

    const vt_softmax_params &   params() const { return m_params; }
    const std::vector<size_t> & groups() const { return m_groups; }

    // of the largest group
    size_t chunk_rows(size_t unit) const;

    // rows first .. first + n of the head, n_states states from `state` on; logits: (n_states, stride), of which n count
    void add(size_t state, size_t n_states, size_t first, size_t n, const float * logits, size_t stride);

    // writes what the caller asked for
    void finish();

  private:
    struct target {
        size_t  state;
        int32_t row;
        size_t  index;  // of the caller's
    };

    using best = std::vector<std::pair<float, int32_t>>;  // logits and ids, a heap with the worst in front

    vt_softmax_params            m_params;
    vt_softmax                   m_out;
    const std::vector<int32_t> * m_ids;
    std::vector<size_t>          m_groups;
    std::vector<target>          m_targets;  // by state, then row
    std::vector<size_t>          m_begin;    // (n_hidden + 1,) where those of a state begin
    std::vector<best>            m_best;     // (n_hidden,)

    void take_groups();
    void take_targets(size_t n_vocab);
    void add_state(size_t state, size_t first, size_t n, const float * logits);
    void keep_best(best & b, size_t first, size_t n, const float * logits) const;
};

}  // namespace vt
