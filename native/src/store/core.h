// NAME.core.gguf: what must hold before llama.cpp loads it, and whether it belongs to a store.
#pragma once

#include "store/store.h"

#include <string>
#include <utility>
#include <vector>

namespace vt {

// keys of a core and the values that a store expects there, as llama.cpp prints them
std::vector<std::pair<std::string, std::string>> pair_keys(const vt_store_info & info);

// a core whose vocabulary is the stub it should be, and where there is a store, the store's
void check_core(const std::string & path, const store * s);

}  // namespace vt
