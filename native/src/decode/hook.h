// Ties a llama_context of the core, a store and a head.
//
// The hidden state is taken where llama.cpp multiplies it with its own (32-row) head: the eval callback sees that node
// and copies its second operand. So it is the head's input in every architecture, whatever lies between the final norm
// and the head, and the graph is the one that llama.cpp would build for the same outputs of the unsplit model. The other
// way, llama_set_embeddings, forces every token of a batch to be an output, which is another graph.
//
// Rows are put in where llama.cpp looks them up. The batch holds ids of the core's stub rows; the callback sees each lookup
// in a table by token id and overwrites the rows with the store's. So whatever the graph does with token batches, such as
// scaling them, it does, and tables of rows for each layer are served as well.
#pragma once

#include "head/head.h"
#include "store/store.h"

#include <llama.h>

#include <cstdint>
#include <string>
#include <vector>

namespace vt {

class hook {
  public:
    hook(store * s, head * h) : m_store(s), m_head(h) {}

    void attach(llama_context * ctx);
    void decode(const int32_t * tokens, size_t n, int32_t pos0, const int8_t * outputs);

    // (n_outputs, n_embd)
    const std::vector<float> & hidden() const { return m_hidden; }
    size_t                     n_outputs() const { return m_n_embd ? m_hidden.size() / m_n_embd : 0; }

    // makes one state the only output, as if its token had just been decoded
    void restore(const float * hidden);

    llama_context * context() const { return m_ctx; }
    head *          get_head() const { return m_head; }
    store *         get_store() const { return m_store; }

    const float * logits(size_t i);
    int32_t       sample(llama_sampler * chain, size_t i);
    vt_hook_stats stats() const;

    // true when the node is wanted; never throws
    bool on_node(ggml_tensor * t, bool ask);

  private:
    // outputs of one micro-batch: llama.cpp multiplies them with the head at once, so we do too
    struct group {
        size_t first;
        size_t n;
        bool   prefill;
    };

    // a table of the core that the graph looks rows up in by token id
    struct lookup {
        const char *  weight;
        const table * rows;
        size_t        n_done;  // tokens of the batch whose rows have been put in
    };

    store *                       m_store;
    head *                        m_head;
    llama_context *               m_ctx     = nullptr;
    size_t                        m_n_embd  = 0;
    size_t                        m_n_stubs = 1;  // rows that the core has
    std::vector<lookup>           m_lookups;
    size_t                        m_first   = 0;  // token of the batch that the micro-batch begins with
    size_t                        m_n_micro = 0;  // tokens of the micro-batch, 0 before its first lookup
    std::vector<int32_t>          m_tokens;       // (n_batch,)
    std::vector<int32_t>          m_stubs;        // (n_batch,) what llama.cpp sees in their place
    std::vector<int32_t>          m_pos;          // (n_batch,)
    std::vector<int32_t>          m_n_seq;        // (n_batch,)
    std::vector<llama_seq_id *>   m_seq;          // (n_batch,)
    std::vector<int8_t>           m_output;       // (n_batch,)
    llama_seq_id                  m_seq0 = 0;
    std::vector<float>            m_hidden;  // (n_outputs, n_embd)
    std::vector<group>            m_groups;
    std::string                   m_node_error;
    std::vector<float>            m_logits;  // (group.n, n_rows)
    size_t                        m_logits_group   = SIZE_MAX;
    uint64_t                      m_logits_version = 0;
    std::vector<llama_token_data> m_candidates;  // (n_rows,)
    vt_hook_stats                 m_stats = {};

    void          check_pair(const llama_model * model) const;
    void          decode_batch(const int32_t * tokens, size_t n, int32_t pos, const int8_t * outputs);
    lookup *      find_lookup(const char * weight);
    void          replace_rows(lookup & l, ggml_tensor * t);
    void          end_micro_batch();
    void          capture(const ggml_tensor * input, int64_t n_tokens);
    const group & find_group(size_t i, size_t & index) const;
};

}  // namespace vt
