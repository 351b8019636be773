// Attention of a small batch, computed again for each token alone.
//
// ggml sums attention of one token in another order than that of several: with flash attention it cuts a long memory into one
// part for each thread, without it products of several columns go through other kernels. Nearly everything else is computed
// row by row. So once ggml has computed such a node for a batch, each token's part is computed as a batch of that token alone
// would: with the same operation, shapes and threads. What other products do to the bits is found by trying.
#pragma once

#include <ggml.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace vt {

class attention_by_token {
  public:
    // cells of the memory that llama.cpp looks at come in such steps, and a token must see as many as it would alone
    static constexpr int32_t CELLS = 256;

    // whether a node is of attention, over keys, over values, or both, and a token's part may have other bits than it alone
    static bool wants(const ggml_tensor * t);

    // t: computed, of one sequence
    void redo(ggml_tensor * t, int32_t n_threads);

  private:
    std::vector<uint8_t> m_tensors;  // memory of ggml's context
    std::vector<uint8_t> m_work;     // of its graph
    std::vector<float>   m_values;   // operands and results, where a token's are not in one piece

    void redo_flash(ggml_tensor * t, int32_t n_threads);
    void redo_product(ggml_tensor * t, int32_t n_threads);
    void compute(ggml_context * ctx, const std::vector<ggml_tensor *> & nodes, int32_t n_threads);
};

}  // namespace vt
