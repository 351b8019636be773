// What a scan has listed and weighed for a state, as a chain wants it whose decision depends on all candidates.
#pragma once

#include "decode/nucleus.h"
#include "head/whole_head.h"

#include <cstdint>
#include <vector>

namespace vt {

// a token whose logit modifiers have changed
struct moved {
    int32_t id;
    float   raw, logit;
};

// What all candidates but the known ones weigh. The scan weighs rows before modifiers, and leaves out what it lists; what is
// listed and not known is below the threshold. known: all that reach the threshold; changed: each token that modifiers have
// changed; listed: (n,) hits of the state by row.
tail weigh_others(const candidates & known, float threshold, const std::vector<moved> & changed, const std::vector<scan_hit> & listed,
                  const head_tail & found);

// those of some rows, by id, that are drawn often enough to join the active set: a nucleus may have very many
std::vector<int32_t> likely_rows(const std::vector<int32_t> & rows, const std::vector<scan_hit> & listed, float top);

}  // namespace vt
