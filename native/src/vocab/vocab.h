// Which tokens of a vocabulary stay in every active set, and which are frequent.
#pragma once

#include <llama.h>

#include <cstdint>
#include <vector>

namespace vt {

// llama.cpp aborts when it is asked for the tokens of a core; throws instead
void require_tokenizer(const llama_vocab * vocab);

// ascending ids
std::vector<int32_t> always_on(const llama_vocab * vocab);

// the first n ordinary tokens
std::vector<int32_t> common(const llama_vocab * vocab, size_t n);

}  // namespace vt
