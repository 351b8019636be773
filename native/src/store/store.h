// NAME.vocab.gguf: tokenizer keys, token embedding, LM head. Rows are read one by one, when they are asked for. Nothing but
// a counter changes after opening, so threads share it.
#pragma once

#include "base/file.h"
#include "store/gguf.h"
#include "vocabtailor.h"

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace vt {

constexpr uint32_t MAX_STUB_ROWS = 4096;  // of a core

// a (n_rows, n_cols) table of some ggml type inside the file
struct table {
    int32_t  type      = 0;
    int64_t  n_cols    = 0;
    int64_t  n_rows    = 0;
    uint64_t offset    = 0;  // from the start of the file
    size_t   row_bytes = 0;
};

enum class table_id {
    embedding,  // token_embd.weight
    head        // output.weight, or token_embd.weight of a tied model
};

class store {
  public:
    explicit store(const std::string & path);

    const vt_store_info & info() const { return m_info; }
    const table &         get_table(table_id which) const { return which == table_id::head ? m_head : m_embedding; }
    const table *         per_layer() const { return m_info.n_per_layer > 0 ? &m_per_layer : nullptr; }
    const table *         bias() const { return m_info.has_bias ? &m_bias : nullptr; }
    uint64_t              n_read() const { return m_n_read; }
    const std::string &   path() const { return m_file->path(); }

    void check_ids(const int32_t * ids, size_t n) const;

    // out: (n, t.row_bytes); ids must have been checked. Runs of consecutive ids are read at once.
    void read_rows(const table & t, const int32_t * ids, size_t n, uint8_t * out);

    // rows first .. first + n, which must be there
    void read_range(const table & t, size_t first, size_t n, uint8_t * out);

    // the whole table as pages of the open file
    std::unique_ptr<mapping> map_table(const table & t) const;

    // out: (n, t.n_cols) f32; ids must have been checked
    void rows(const table & t, const int32_t * ids, size_t n, float * out);

    // another scale and soft cap than the file's, before anything is made of the store
    void set_logits(float scale, float softcap);

    // an error unless every value of every table is finite
    void validate_data() const;

  private:
    std::unique_ptr<vt::file> m_file;
    vt_store_info             m_info = {};
    table                     m_embedding, m_per_layer, m_head, m_bias;
    std::atomic<uint64_t>     m_n_read{0};

    void read_own_keys(const gguf & g);
    void check_tokenizer(const gguf & g) const;
    void find_tables(const gguf & g);
    void validate_table(const table & t, const char * name) const;
};

}  // namespace vt
