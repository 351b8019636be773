// Rows of the store in the place of those that llama.cpp looks up in the core.
//
// A batch holds ids of the core's stub rows. The eval callback shows each lookup in a table by token id once it is
// computed, and its rows are overwritten with the store's. So whatever the graph does with token batches, such as scaling
// them, it does, and tables of rows for each layer are served as well.
#pragma once

#include "store/store.h"

#include <llama.h>

#include <cstdint>
#include <vector>

namespace vt {

class lookups {
  public:
    lookups(store & s, size_t n_stubs);

    // (n,) stub ids that llama.cpp gets in the place of tokens
    std::vector<int32_t> & begin_batch(const int32_t * tokens, size_t n);

    // whether a node looks up rows of the store
    bool wants(const ggml_tensor * t) const { return t->op == GGML_OP_GET_ROWS && find(t->src[0]->name) != m_tables.size(); }

    // such a node has been computed
    void replace(ggml_tensor * t);

    // the graph of a micro-batch has ended; throws where a table was left out
    void end_micro_batch();

    bool    is_done() const { return m_first == m_tokens.size(); }
    int64_t time_us() const { return m_time_us; }

  private:
    // a table of the core that the graph looks rows up in
    struct lookup {
        const char *  weight;
        const table * rows;
        size_t        n_done;  // tokens of the batch whose rows have been put in
    };

    store &              m_store;
    size_t               m_n_stubs;  // rows that the core has
    std::vector<lookup>  m_tables;
    std::vector<int32_t> m_tokens;       // (n_batch,)
    std::vector<int32_t> m_stubs;        // (n_batch,)
    size_t               m_first   = 0;  // token of the batch that the micro-batch begins with
    size_t               m_n_micro = 0;  // tokens of the micro-batch, 0 before its first lookup
    int64_t              m_time_us = 0;

    size_t find(const char * weight) const;
};

}  // namespace vt
