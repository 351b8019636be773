// How many tokens can be decoded at once without other bits.
//
// Which products of a core round a batch as they round single tokens depends on the types of its weights, on the buffers that
// ggml keeps them in, on kernels and threads. So it is tried: a few tokens after a short and after a long text, one by one and
// together.
#pragma once

#include "decode/session.h"

#include <cstddef>

namespace vt {

// the largest n <= max so that session::decode_together of 2, 3, ... n tokens gave the hidden states of single decodes, bit for
// bit; 1 where it did not, or where a session does not suit. Its text must be empty, and is empty after it.
size_t probe_together(session & s, size_t max);

}  // namespace vt
