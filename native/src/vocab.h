// Which tokens of a vocabulary stay in every active set.
#pragma once

#include <llama.h>

#include <cstdint>
#include <vector>

namespace vt {

// ascending ids
std::vector<int32_t> always_on(const llama_vocab * vocab);

}  // namespace vt
