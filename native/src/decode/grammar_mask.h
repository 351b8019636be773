// A grammar that is asked about the best candidates only.
//
// Whether a grammar takes a token does not depend on other tokens, and to ask costs a good part of a microsecond: for the
// rows of an active set as much as the rest of a token. But a selector keeps the best few, and a model mostly wants what
// its grammar allows.
#pragma once

#include "decode/samplers.h"

#include <cstddef>

namespace vt {

// As llama_sampler_apply(grammar), but drops candidates that are neither among the n_best that it allows, nor at most
// `reach` below the best of them, nor of the same logit as one of these. The order changes. True where most of the best are
// forbidden: then those that are allowed have logits that thousands of others reach.
bool mask_best(llama_sampler & grammar, size_t n_best, float reach, candidates & c);

}  // namespace vt
