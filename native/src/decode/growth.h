// What joins the active set of exact mode while a text grows: tokens that drafts will want.
//
// Two things tell. The scripts that a text is written in: a draft that lacks one Han character will lack others. And the
// scans that prove drafts: a token that the model nearly chose is one that it may choose soon, so they also list the rows
// that come near, among the best of the active set. Both change which drafts are made, never which tokens are given.
#pragma once

#include "head/head.h"
#include "scan/scan.h"
#include "vocab/scripts.h"

#include <cstddef>
#include <cstdint>
#include <vector>

namespace vt {

class growth {
  public:
    // both must outlive this
    growth(const llama_vocab & vocab, head & active);

    // a text begins, or goes on: scripts join that much of it is written in and that the static rows lack. Ids that are negative are
    // not known.
    void read(const std::vector<int32_t> & text, size_t n);

    // a token was given that the active set had not: more of its script join
    void add_script_of(int32_t token);

    // the logit among the active set's from which on rows outside of it are near
    float near_logit(const std::vector<float> & logits);

    // rows outside of the active set that a scan found near n_states states
    void add_near(std::vector<scan_hit> & hits, size_t n_states);

  private:
    head &               m_active;
    scripts              m_scripts;
    size_t               m_n_most;  // rows, beyond which nothing joins
    size_t               m_rank;    // of the active set's best logits, the last one that is near
    std::vector<float>   m_best;    // (m_rank,) of a state
    std::vector<int32_t> m_ids;

    bool is_full() const { return m_active.ids().size() >= m_n_most; }
    void add(std::vector<int32_t> & ids);
};

}  // namespace vt
