// The texts of a vocabulary, before llama.cpp sees them.
#pragma once

#include "store/gguf.h"

namespace vt {

// an error that names two tokens of one text: llama.cpp aborts when it loads them
void check_token_texts(const gguf & g, const gguf::key & tokens);

}  // namespace vt
