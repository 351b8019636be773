// A llama_context of the core, one sequence of tokens in it, and the hidden states of its last batch.
//
// The hidden state is taken where llama.cpp multiplies it with its own (32-row) head: the eval callback sees that node
// and copies its second operand. So it is the head's input in every architecture, whatever lies between the final norm
// and the head, and the graph is the one that llama.cpp would build for the same outputs of the unsplit model. The other
// way, llama_set_embeddings, forces every token of a batch to be an output, which is another graph.
#pragma once

#include "decode/attention_by_token.h"
#include "decode/lookups.h"
#include "decode/states.h"
#include "head/head.h"
#include "store/store.h"

#include <llama.h>

#include <cstdint>
#include <exception>
#include <memory>
#include <vector>

namespace vt {

class session {
  public:
    // without a store the context takes token ids itself (an unsplit model)
    session(store * s, head * h, llama_seq_id seq) : m_store(s), m_head(h), m_seq(seq) {}

    // notes what no context tells, before one is made
    void prepare(const llama_context_params & params);
    void attach(llama_context * ctx);

    // tokens in the context's memory
    int32_t n_past() const;

    // whether the last tokens can be dropped, and what follows is as if they had never been
    bool can_truncate() const;

    // drop the tokens from pos on, and the hidden states with them
    void truncate(int32_t pos);

    // throws what decode would throw before it does anything
    void check(const int32_t * tokens, size_t n, int32_t pos, const int8_t * outputs) const;

    // drops what lies at pos and beyond. After a failure that is all, or everything where the memory cannot do that.
    void decode(const int32_t * tokens, size_t n, int32_t pos, const int8_t * outputs);

    // a small batch in one pass of the core, each token an output and its attention that of a batch of it alone. Where
    // probe_together allows so many, the hidden states have the bits of single decodes.
    void decode_together(const int32_t * tokens, size_t n, int32_t pos);

    // tokens from pos on that decode_together can take
    size_t most_together(int32_t pos) const;

    // llama_decode of a batch of token ids, whatever its sequences are
    void decode_batch(const llama_batch & batch);

    // (n_outputs, n_embd)
    const std::vector<float> & hidden() const { return m_hidden; }
    size_t                     n_outputs() const { return m_n_embd ? m_hidden.size() / m_n_embd : 0; }

    // outputs that were multiplied with the head at once, in order
    std::vector<uint64_t> group_sizes() const;

    // of the last output and of those that were multiplied with the head at once with it, itself the last: (n, n_embd)
    std::vector<float> last_hidden() const;

    // makes such states the only outputs, as if their tokens had just been decoded
    void restore(std::vector<float> hidden);

    // which hidden states stay by position
    void keep(vt_kept_states kept) { m_kept = kept; }

    // whether the context gives embeddings, so that every token is an output
    bool makes_embeddings() const { return m_embeddings; }

    // of the text, and beyond it of what was cut or drafted
    states_by_position & states() { return m_states; }

    // ids by position, of the text and beyond it of what was cut or drafted; negative where they are not known
    const std::vector<int32_t> & text() const { return m_text; }

    llama_context * context() const { return m_ctx; }
    head *          get_head() const { return m_head; }
    store *         get_store() const { return m_store; }

    const float *    logits(size_t i);
    int32_t          sample(llama_sampler * chain, size_t i);
    vt_session_stats stats() const;
    void             forget_stats() { m_stats = {}; }

    // true when the node is wanted; never throws
    bool on_node(ggml_tensor * t, bool ask);

  private:
    // outputs of one micro-batch: llama.cpp multiplies them with the head at once, so we do too
    struct group {
        size_t first;
        size_t n;
        bool   prefill;
    };

    store *                       m_store;
    head *                        m_head;
    llama_seq_id                  m_seq;
    llama_context *               m_ctx           = nullptr;
    bool                          m_is_prepared   = false;
    bool                          m_keeps_all     = false;  // beyond a sliding window
    bool                          m_embeddings    = false;  // of tokens, so every token is an output
    size_t                        m_n_outputs_max = 0;      // of a batch
    size_t                        m_n_embd        = 0;
    std::unique_ptr<lookups>      m_lookups;
    std::vector<int32_t>          m_tokens;  // (n_batch,)
    std::vector<int32_t>          m_pos;     // (n_batch,)
    std::vector<int32_t>          m_n_seq;   // (n_batch,)
    std::vector<llama_seq_id *>   m_seqs;    // (n_batch,)
    std::vector<int8_t>           m_output;  // (n_batch,)
    std::vector<float>            m_hidden;  // (n_outputs, n_embd)
    std::vector<group>            m_groups;
    vt_kept_states                m_kept     = VT_KEPT_NONE;
    bool                          m_together = false;  // in decode_together
    attention_by_token            m_attention;
    std::vector<int32_t>          m_text;
    states_by_position            m_states;
    std::exception_ptr            m_node_error;          // of the callback
    std::vector<float>            m_logits;              // (outputs, n_rows)
    size_t                        m_logits_first   = 0;  // output whose logits come first
    size_t                        m_logits_n       = 0;
    uint64_t                      m_logits_version = 0;
    std::vector<llama_token_data> m_candidates;  // (n_rows,)
    vt_session_stats              m_stats = {};

    void          check_pair(const llama_model * model) const;
    void          check_outputs(const int8_t * outputs, size_t n) const;
    void          clear_hidden();
    bool          has_before(int32_t pos) const;
    void          drop(int32_t pos);
    void          decode_part(const int32_t * tokens, size_t n, int32_t pos, const int8_t * outputs);
    int32_t       run(llama_batch batch, size_t n_expected);
    void          capture(const ggml_tensor * input);
    void          decode_marked(const int32_t * tokens, size_t n, int32_t pos, const int8_t * outputs);
    void          keep_states(int32_t pos, const int8_t * outputs);
    void          keep_text(int32_t pos, const int32_t * tokens, size_t n);
    const group & find_group(size_t i) const;
};

}  // namespace vt
