/*
 * vocabtailor.h - a vocabulary store, an active-set LM head and a hook for llama.cpp contexts, in plain C.
 *
 *   NAME.vocab.gguf -> vt_store            embedding rows, read when they are needed
 *   vt_store        -> vt_head             the LM head over the active set of token ids
 *   llama_context of NAME.core.gguf + vt_store + vt_head -> vt_hook   decode, logits, sample
 *
 * Conventions
 *   - Functions that can fail return a vt_status; 0 is success. On failure a one-line text is written to
 *     err[0 .. n_err), always terminated; err may be NULL when n_err is 0.
 *   - Every vt_*_open / vt_*_new is paired with vt_*_free, and free(NULL) is allowed.
 *   - An object is used by one thread at a time; a second concurrent call fails with VT_ERROR_BUSY.
 *   - Pointers that an object hands out stay valid until its next call or its free.
 *   - Nothing keeps what it was made from alive: free vt_exact, then hook, then head, then store.
 */
#ifndef VOCABTAILOR_H
#define VOCABTAILOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* -- declarations: plain C, read as they stand by the Python binding -- */

struct ggml_tensor;
struct llama_context;
struct llama_sampler;
struct llama_vocab;

typedef enum vt_status {
    VT_OK             = 0,
    VT_ERROR_ARGUMENT = 1, /* a bad argument: NULL, a size that does not fit, a wrong state */
    VT_ERROR_IO       = 2, /* the file system said no, or the file changed under us */
    VT_ERROR_FORMAT   = 3, /* a malformed file */
    VT_ERROR_MISMATCH = 4, /* two files or objects that do not belong together */
    VT_ERROR_TOKEN    = 5, /* a token id outside [0, n_vocab) */
    VT_ERROR_MEMORY   = 6, /* out of memory */
    VT_ERROR_COMPUTE  = 7, /* llama.cpp or ggml failed, or a hidden state is not finite */
    VT_ERROR_VERSION  = 8, /* another llama.cpp than the one this library was built for */
    VT_ERROR_BUSY     = 9, /* another thread is inside this object */
    VT_ERROR_INTERNAL = 10
} vt_status;

/* ---- library ---- */

/* what this library was built against, e.g. "llama-cpp-python 0.3.36, llama 0.5.0-dev, ggml 0.25.3" */
const char * vt_build_info(void);

/* VT_ERROR_VERSION unless the llama and ggml in this process are the ones this library was built for */
vt_status vt_check_runtime(char * err, size_t n_err);

/* ---- GGUF headers, the one reader of untrusted bytes ---- */

typedef struct vt_gguf vt_gguf;

typedef struct vt_gguf_key {
    const char *    name;
    int32_t         type;         /* enum gguf_type */
    int32_t         element_type; /* of an array, else -1 */
    uint64_t        n;            /* elements of an array, else 1 */
    const uint8_t * value;        /* encoded value; of an array: its first element */
    uint64_t        n_bytes;      /* encoded size of all elements */
    const uint8_t * record;       /* the whole record, from the key's length on */
    uint64_t        n_record;
} vt_gguf_key;

typedef struct vt_gguf_tensor {
    const char * name;
    int32_t      type; /* enum ggml_type */
    int32_t      n_dims;
    int64_t      ne[4];
    uint64_t     offset; /* from the start of the file, bytes */
    uint64_t     n_bytes;
} vt_gguf_tensor;

/* read and validate the header of path; tensor data is not read */
vt_status vt_gguf_open(const char * path, vt_gguf ** out, char * err, size_t n_err);
void      vt_gguf_free(vt_gguf * g);

uint64_t vt_gguf_n_keys(const vt_gguf * g);
uint64_t vt_gguf_n_tensors(const vt_gguf * g);
uint64_t vt_gguf_alignment(const vt_gguf * g);
uint64_t vt_gguf_data_offset(const vt_gguf * g);
uint64_t vt_gguf_file_size(const vt_gguf * g);

vt_status vt_gguf_get_key(const vt_gguf * g, uint64_t i, vt_gguf_key * out);
vt_status vt_gguf_get_tensor(const vt_gguf * g, uint64_t i, vt_gguf_tensor * out);

/* ---- vocabulary store ---- */

typedef struct vt_store vt_store;

typedef enum vt_table {
    VT_TABLE_EMBEDDING = 0, /* token_embd.weight */
    VT_TABLE_HEAD      = 1  /* output.weight, or token_embd.weight of a tied model */
} vt_table;

typedef struct vt_store_info {
    char     architecture[64];
    char     pair_id[65];
    char     source_sha256[65];
    char     tokenizer_sha256[65]; /* fingerprint of the tokenizer */
    int64_t  n_vocab;
    int64_t  n_embd;
    int32_t  tied; /* 1: the head is the embedding table */
    int32_t  has_bias;
    int32_t  embedding_type; /* enum ggml_type */
    int32_t  head_type;
    uint64_t embedding_row_bytes;
    uint64_t head_row_bytes;
    int64_t  n_per_layer; /* values of a row of per_layer_token_embd.weight, 0 without such a table */
    int32_t  per_layer_type;
    uint64_t per_layer_row_bytes;
    float    logit_scale;     /* factor on logits, 1 for none */
    float    logit_softcap;   /* cap * tanh(logit / cap), 0 for none */
} vt_store_info;

vt_status vt_store_open(const char * path, vt_store ** out, char * err, size_t n_err);
void      vt_store_free(vt_store * s);
vt_status vt_store_get_info(const vt_store * s, vt_store_info * out);

/* out: (n, n_embd) f32, row-major; n_out is its size in floats */
vt_status vt_store_rows(vt_store * s, const int32_t * ids, size_t n, float * out, size_t n_out, char * err, size_t n_err);

/* out: (n, row_bytes) as stored */
vt_status vt_store_raw_rows(vt_store * s, vt_table table, const int32_t * ids, size_t n, uint8_t * out, size_t n_out, char * err, size_t n_err);

/* rows read from the file so far */
uint64_t vt_store_n_read(const vt_store * s);

/* check every row's data (finite scales) with ggml */
vt_status vt_store_validate_data(vt_store * s, char * err, size_t n_err);

/* ---- active-set LM head ---- */

typedef struct vt_head vt_head;

/* store must outlive the head */
vt_status vt_head_new(vt_store * store, vt_head ** out, char * err, size_t n_err);
void      vt_head_free(vt_head * h);

/* replace the whole set by these ids, in this order, duplicates ignored; they become the static rows.
 * Rows that are already in memory at the same place are not read again. */
vt_status vt_head_set_static(vt_head * h, const int32_t * ids, size_t n, char * err, size_t n_err);

/* add ids that are not in the set yet, in order of first appearance, after the rows that are there */
vt_status vt_head_append(vt_head * h, const int32_t * ids, size_t n, size_t * n_added, char * err, size_t n_err);

/* back to the static rows; reads nothing */
vt_status vt_head_reset(vt_head * h, char * err, size_t n_err);

size_t          vt_head_n_static(const vt_head * h);
size_t          vt_head_n_rows(const vt_head * h);
const int32_t * vt_head_ids(const vt_head * h);     /* (n_rows,) row order: static rows, then appended ones */
uint64_t        vt_head_n_bytes(const vt_head * h); /* memory held for rows, ids and logits */

/* hidden: (n_hidden, n_embd) f32; logits: (n_hidden, n_rows) f32, transformed as the model does */
vt_status vt_head_compute(vt_head * h, const float * hidden, size_t n_hidden, int32_t n_threads, float * logits, size_t n_logits, char * err,
                          size_t n_err);

/* ---- hook: one llama_context of the core, a store and a head ---- */

typedef struct vt_hook vt_hook;

/* store and head must outlive the hook; head may be NULL when only hidden states are wanted,
 * store too when the context takes token ids itself (an unsplit model) */
vt_status vt_hook_new(vt_store * store, vt_head * head, vt_hook ** out, char * err, size_t n_err);
void      vt_hook_free(vt_hook * k);

/* goes into llama_context_params.cb_eval, with the hook as cb_eval_user_data; it notes the LM head's input */
bool vt_hook_eval_callback(struct ggml_tensor * t, bool ask, void * hook);

/* ctx must have been created with the callback above */
vt_status vt_hook_attach(vt_hook * k, struct llama_context * ctx, char * err, size_t n_err);

/* decode n tokens of sequence 0 at positions pos0 .. pos0 + n. outputs: (n,) 0 or 1 per token, or NULL for the
 * last one only. Earlier outputs are dropped. The batch is cut at the context's n_batch. */
vt_status vt_hook_decode(vt_hook * k, const int32_t * tokens, size_t n, int32_t pos0, const int8_t * outputs, char * err, size_t n_err);

size_t        vt_hook_n_outputs(const vt_hook * k);
const float * vt_hook_hidden(const vt_hook * k); /* (n_outputs, n_embd) f32: the input of the LM head */

/* logits of output i over the head's rows; *logits is (n_rows,) f32 in the order of vt_head_ids */
vt_status vt_hook_logits(vt_hook * k, size_t i, const float ** logits, char * err, size_t n_err);

/* apply chain to the candidates of output i, accept the choice, return its token id */
vt_status vt_hook_sample(vt_hook * k, struct llama_sampler * chain, size_t i, int32_t * token, char * err, size_t n_err);

typedef struct vt_hook_stats {
    uint64_t n_decoded; /* tokens */
    uint64_t n_head;    /* hidden states multiplied with the head */
    int64_t  t_embed_us;
    int64_t  t_core_us;
    int64_t  t_head_us;
    int64_t  t_sample_us;
    uint64_t n_bytes_hidden; /* memory held for embedding rows and hidden states */
    uint64_t n_bytes_logits; /* memory held for logits and sampling candidates */
} vt_hook_stats;

vt_status vt_hook_get_stats(const vt_hook * k, vt_hook_stats * out);

/* ---- scan of a quantised matrix, the kernel under exact mode ---- */

typedef struct vt_scan_hit {
    int32_t row;
    int32_t state;
    float   value; /* logit */
} vt_scan_hit;

/* instruction families that this CPU can run, the best first; NULL beyond the last */
const char * vt_scan_kernel(size_t i);

/* every (row, state) whose logit is at least thresholds[state], by row, then state; writes up to n_hits, *n is their number
 * in any case. type: a ggml_type, Q8_0, Q4_0, Q4_K or Q6_K; rows: (n_rows, n_embd) of that type; hidden: (n_hidden, n_embd)
 * f32, at most 16 states; kernel: a name of vt_scan_kernel, or NULL for the best. margins: (n_hidden,), NULL or the bound of
 * each state on |value - ggml's logit|. */
vt_status vt_scan(const char * kernel, int32_t type, const uint8_t * rows, int64_t n_rows, int64_t n_embd, const float * hidden, size_t n_hidden,
                  const float * thresholds, int32_t n_threads, vt_scan_hit * hits, size_t n_hits, size_t * n, float * margins, char * err,
                  size_t n_err);

/* ---- exact mode: the whole vocabulary's tokens at nearly the active set's cost ---- */

typedef struct vt_exact vt_exact;

/* where the whole head lies */
typedef enum vt_placement {
    VT_PLACEMENT_MEMORY   = 0, /* read once, kept in memory */
    VT_PLACEMENT_MAPPED   = 1, /* pages of the store's file, which must not shrink; in memory on Windows */
    VT_PLACEMENT_STREAMED = 2  /* read through a buffer of some MB at each verification */
} vt_placement;

typedef struct vt_exact_stats {
    uint64_t n_tokens; /* given */
    uint64_t n_drafted;
    uint64_t n_rejected; /* drafted tokens that were not the whole vocabulary's */
    uint64_t n_blocks;   /* times that the whole head was scanned */
    uint64_t n_whole;    /* decisions on logits of the whole vocabulary */
    int64_t  t_draft_us; /* decoding, active head and chain */
    int64_t  t_verify_us;
    double   acceptance; /* share of drafted tokens that were confirmed, lately */
    uint64_t n_bytes;    /* memory held for the whole head; mapped pages are not counted */
    uint64_t n_audited;  /* tokens of vt_exact_audit */
    uint64_t n_outside;  /* of them outside the active set */
    int32_t  own_kernel; /* 1: the head is scanned by our own kernel, 0: by ggml's product */
} vt_exact_stats;

/* hook must have a store and a head, be attached, and outlive this. vocab: of the store; drafts end at its end-of-generation tokens. placement: a
 * vt_placement. max_block: tokens drafted before they are verified, at most 16; 1 where the context's memory cannot drop its last tokens (recurrent
 * models, a sliding window without swa_full). */
vt_status vt_exact_new(vt_hook * hook, const struct llama_vocab * vocab, int32_t placement, size_t max_block, vt_exact ** out, char * err,
                       size_t n_err);
void      vt_exact_free(vt_exact * e);

/* count from now on how often these tokens are given although the active set has them; counts of those that were watched before go on */
vt_status vt_exact_watch(vt_exact * e, const int32_t * tokens, size_t n, char * err, size_t n_err);

/* start with a chain; it is cloned, and the clone goes on. Where it holds samplers that are not llama.cpp's own, chains, or
 * adaptive-p, no clone would go on as it does: then the chain itself decides each token on the whole vocabulary, accepts
 * it, and must outlive the text. Tokens that the chain has accepted before must be in the head's set, or its penalties must
 * not raise logits. */
vt_status vt_exact_begin(vt_exact * e, const struct llama_sampler * chain, char * err, size_t n_err);

/* the token that the chain chooses from the whole vocabulary after the n_tokens of the text, all of which were decoded with
 * vt_exact_eval. The chain accepts it. */
vt_status vt_exact_sample(vt_exact * e, int32_t n_tokens, size_t max_block, int32_t * token, char * err, size_t n_err);

/* decode n tokens at position pos, unless they are the token that was just given and its draft is there already. The
 * context's memory beyond them is removed. */
vt_status vt_exact_eval(vt_exact * e, const int32_t * tokens, size_t n, int32_t pos, char * err, size_t n_err);

/* the token that chain would choose now from the whole vocabulary; neither chain, text nor active set change. A chain that
 * cannot be cloned (see vt_exact_begin) is refused. */
vt_status vt_exact_audit(vt_exact * e, const struct llama_sampler * chain, int32_t * token, char * err, size_t n_err);

/* tokens that were given, or found by an audit, although the active set lacked them, ascending, and how often; writes up to n_ids, *n is their
 * number in any case */
vt_status vt_exact_missed(const vt_exact * e, int32_t * ids, uint64_t * counts, size_t n_ids, size_t * n, char * err, size_t n_err);

/* the same of watched tokens, those that were never given included */
vt_status vt_exact_watched(const vt_exact * e, int32_t * ids, uint64_t * counts, size_t n_ids, size_t * n, char * err, size_t n_err);

vt_status vt_exact_get_stats(const vt_exact * e, vt_exact_stats * out);

/* ---- vocabulary ---- */

/* tokens that stay in every active set: special and end-of-generation tokens, tokens of one byte, and white space.
 * Unused slots are left out. Writes up to n_ids ids, ascending; *n is their number in any case. */
vt_status vt_vocab_always_on(const struct llama_vocab * vocab, int32_t * ids, size_t n_ids, size_t * n, char * err, size_t n_err);

/* forms of words: with or without a leading space, in lower case, capitalised, in upper case */
typedef struct vt_variants vt_variants;

/* vocab must outlive it; it holds some 8 bytes for each token */
vt_status vt_variants_new(const struct llama_vocab * vocab, vt_variants ** out, char * err, size_t n_err);
void      vt_variants_free(vt_variants * v);
uint64_t  vt_variants_n_bytes(const vt_variants * v);

/* tokens that write the words of ids in another form, without ids themselves. Writes up to n_out, ascending;
 * *n_found is their number in any case. A form that is no single token is left out. */
vt_status vt_variants_find(const vt_variants * v, const int32_t * ids, size_t n, int32_t * out, size_t n_out, size_t * n_found, char * err,
                           size_t n_err);

/* ---- table types ---- */

/* name and geometry of a ggml type that can be decoded by row; VT_ERROR_ARGUMENT for others */
vt_status vt_type_info(int32_t type, const char ** name, int64_t * block_size, uint64_t * type_size, char * err, size_t n_err);

/* name of the buffer type that llama.cpp takes here for a (n_rows, n_embd) weight of a ggml type, such as "CPU" or "CPU_REPACK" */
vt_status vt_weight_buffer(int32_t type, int64_t n_embd, int64_t n_rows, char * name, size_t n_name, char * err, size_t n_err);

/* quantise n_rows rows of n_per_row values from one type to another through f32, with ggml */
vt_status vt_requantize(int32_t src_type, const uint8_t * src, size_t n_src, int32_t dst_type, uint8_t * dst, size_t n_dst, int64_t n_rows,
                        int64_t n_per_row, int32_t n_threads, char * err, size_t n_err);

/* -- end of declarations -- */

#ifdef __cplusplus
}
#endif

#endif
