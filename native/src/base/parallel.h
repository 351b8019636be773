// Work shared among ggml's own threads. After a product they spin for a while, waiting for the next one, so threads of
// our own would begin by contending with them for the cores.
#pragma once

#include <cstdint>
#include <functional>

namespace vt {

// an error unless ggml can have so many; before anything is allocated for each of them
void check_threads(int32_t n_threads);

// lets ggml do alone in this thread what it shares out by itself (OpenMP), such as laying weights out anew at load
void work_alone();

// calls work(i) once on each of at most n_threads threads, i < n_threads, and throws what any of them threw
void parallel(int32_t n_threads, const std::function<void(size_t)> & work);

}  // namespace vt
