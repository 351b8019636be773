// The LM head over the active set of token ids.
//
// Row order: static rows as given, then appended ones. Static rows are shared by all heads that were made from one
// another, appended ones are a head's own: two blocks, each a product in one graph. A head that replaces shared rows takes
// a copy, so the others keep theirs.
#pragma once

#include "head/rows.h"
#include "head/softmax.h"
#include "store/store.h"

#include <ggml-backend.h>
#include <ggml-cpp.h>

#include <cstdint>
#include <memory>
#include <vector>

namespace vt {

struct share_rows {};

class head {
  public:
    explicit head(store & s);

    // a head with the static rows of another one, and none of its appended ones
    head(head & other, share_rows);

    void   set_static(const int32_t * ids, size_t n);
    size_t append(const int32_t * ids, size_t n);
    void   reset();

    size_t                       n_static() const { return m_n_static; }
    const std::vector<int32_t> & ids() const { return m_ids; }
    bool                         contains(int32_t id) const { return is_member(id); }
    size_t                       n_bytes() const;
    uint64_t                     version() const { return m_version; }

    // every row of the vocabulary, in order, as static rows; mapped: as pages of the file where the layout allows it
    void set_all(bool mapped);

    const weight_layout & layout() const { return m_layout; }

    // the static rows where they lie as in the file, or NULL
    const uint8_t * plain_rows() const { return m_static->plain(); }

    // logits: (n_hidden, n_rows)
    void compute(const float * hidden, size_t n_hidden, int32_t n_threads, float * logits);

    // of static rows first .. first + n only, first a multiple of GROUP, n too unless these are the last rows; first is 0
    // where the layout has no groups
    void compute_range(const float * hidden, size_t n_hidden, int32_t n_threads, size_t first, size_t n, float * logits);

    // logits of some states, `which`, of those that are multiplied at once: (n_which, n_rows), without those of the others in memory
    void compute_some(const float * hidden, size_t n_hidden, const size_t * which, size_t n_which, int32_t n_threads, float * logits);

    // what a softmax over the rows needs, whose numbers begin at `first`
    void compute_softmax(softmax & s, size_t first);

    static constexpr size_t GROUP = weight_layout::GROUP;

  private:
    // n rows of a block from `first` on
    struct part {
        head_rows *   rows;
        size_t        first;
        size_t        n;
        size_t        n_padded = 0;        // rows computed
        ggml_tensor * output   = nullptr;  // (n_padded, n_hidden) f32

        bool is(const part & other) const { return rows == other.rows && first == other.first && n == other.n; }
    };

    struct graph {
        ggml_context_ptr  ctx;
        ggml_cgraph *     gf       = nullptr;
        ggml_tensor *     input    = nullptr;  // (n_embd, n_hidden) f32
        size_t            n_hidden = 0;
        std::vector<part> parts;
    };

    store &                    m_store;
    ggml_backend_ptr           m_backend;
    weight_layout              m_layout;
    std::shared_ptr<head_rows> m_static;
    head_rows                  m_appended;
    std::vector<int32_t>       m_ids;
    std::vector<uint64_t>      m_member;  // one bit for each token id
    std::vector<float>         m_work;    // graph inputs and outputs
    size_t                     m_n_static = 0;
    uint64_t                   m_version  = 0;  // grows with every change of the set
    graph                      m_graph;

    bool is_member(int32_t id) const { return (m_member[static_cast<size_t>(id) >> 6] >> (id & 63)) & 1; }
    void flip_member(int32_t id) { m_member[static_cast<size_t>(id) >> 6] ^= 1ull << (id & 63); }

    // calls use(part) for all rows, in pieces of at most n rows where the layout allows it
    template <typename F> void for_each_part(size_t n, F && use);

    void          changed();
    void          shrink(size_t n);
    void          push_new(const int32_t * ids, size_t n);
    void          compute_parts(const float * hidden, size_t n_hidden, int32_t n_threads, std::vector<part> parts, float * logits);
    void          run_graph(const float * hidden, size_t n_hidden, int32_t n_threads, std::vector<part> parts);
    void          build_graph(std::vector<part> parts, size_t n_hidden);
    ggml_tensor * transform(ggml_context * ctx, ggml_tensor * cur) const;
};

}  // namespace vt
