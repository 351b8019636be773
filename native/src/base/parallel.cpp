#include "base/parallel.h"

#include "base/error.h"

#include <ggml-cpp.h>
#include <ggml-cpu.h>
#include <ggml.h>

#include <algorithm>
#include <exception>
#include <vector>

// of the OpenMP that ggml is built with, where it is built with one
#if defined(__ELF__)
extern "C" __attribute__((weak)) void omp_set_num_threads(int n_threads);
#endif

namespace vt {

namespace {

struct job {
    const std::function<void(size_t)> & work;
    std::vector<std::exception_ptr>     failed;
};

void run(ggml_tensor *, int ith, int, void * userdata) {
    job & j = *static_cast<job *>(userdata);
    try {
        j.work(static_cast<size_t>(ith));
    } catch (...) {
        j.failed[static_cast<size_t>(ith)] = std::current_exception();
    }
}

}  // namespace

void check_threads(int32_t n_threads) {
    if (n_threads < 1 || n_threads > GGML_MAX_N_THREADS) {
        throw error(VT_ERROR_ARGUMENT, format("%d threads, expected 1 to %d", n_threads, GGML_MAX_N_THREADS));
    }
}

void parallel(int32_t n_threads, const std::function<void(size_t)> & work) {
    check_threads(n_threads);
    constexpr size_t       N_NODES = 1;
    const ggml_init_params params  = {ggml_tensor_overhead() + ggml_graph_overhead_custom(N_NODES, false), nullptr, true};
    const ggml_context_ptr ctx(ggml_init(params));
    job                    j    = {work, std::vector<std::exception_ptr>(static_cast<size_t>(n_threads))};
    ggml_tensor *          node = ggml_custom_4d(ctx.get(), GGML_TYPE_F32, 1, 1, 1, 1, nullptr, 0, run, GGML_N_TASKS_MAX, &j);
    ggml_cgraph *          gf   = ggml_new_graph_custom(ctx.get(), N_NODES, false);
    ggml_build_forward_expand(gf, node);
    ggml_cplan           plan = ggml_graph_plan(gf, n_threads, nullptr);
    std::vector<uint8_t> space(plan.work_size);
    plan.work_data = space.data();
    if (ggml_graph_compute(gf, &plan) != GGML_STATUS_SUCCESS) {
        throw error(VT_ERROR_COMPUTE, "ggml cannot start its threads");
    }
    for (const std::exception_ptr & e : j.failed) {
        if (e) {
            std::rethrow_exception(e);
        }
    }
}

void work_alone() {
#if defined(__ELF__)
    if (omp_set_num_threads != nullptr) {
        omp_set_num_threads(1);  // of this thread
    }
#endif
}

}  // namespace vt
