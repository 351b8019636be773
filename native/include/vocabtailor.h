/*
 * vocabtailor.h - a vocabulary store, an active-set LM head and sessions on llama.cpp contexts, in plain C.
 *
 *   NAME.vocab.gguf -> vt_store         embedding rows, read when they are needed           shared, never changes
 *   vt_store        -> vt_whole_head    the LM head over the whole vocabulary, for proofs   shared, never changes
 *   vt_store        -> vt_head          the LM head over the active set; static rows can be shared
 *   llama_context of NAME.core.gguf + vt_store + vt_head -> vt_session    decode, logits, sample   one for each text
 *   vt_session + vt_whole_head -> vt_verifier    the whole vocabulary's tokens, request by request
 *
 * Conventions
 *   - Functions that can fail return a vt_status; 0 is success. On failure a one-line text is written to
 *     err[0 .. n_err), always terminated; err may be NULL when n_err is 0. A refused call changes nothing.
 *   - Every vt_*_open / vt_*_new is paired with vt_*_free, and free(NULL) is allowed.
 *   - Parameter structs begin with struct_size, which is sizeof of the struct. What is 0 has its default.
 *   - A vt_store, a vt_whole_head and a vt_gguf may be used by any number of threads. A head, a session and a verifier are
 *     used by one thread at a time, with those they were made of: a second concurrent call fails with VT_ERROR_BUSY.
 *   - Pointers that an object hands out stay valid until its next call or its free.
 *   - Nothing keeps what it was made from alive: free verifier, then session, then head and whole head, then store.
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

struct llama_context;
struct llama_batch;
struct llama_context_params;
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
    const char *    name;
    int32_t         type; /* enum ggml_type */
    int32_t         n_dims;
    int64_t         ne[4];
    uint64_t        offset; /* from the start of the file, bytes */
    uint64_t        n_bytes;
    const uint8_t * record; /* what the header says of it, from the name's length to the offset */
    uint64_t        n_record;
} vt_gguf_tensor;

/* read and validate the header of path; tensor data is not read */
vt_status vt_gguf_open(const char * path, vt_gguf ** out, char * err, size_t n_err);
/* the same for a model to be split, which may be as odd as llama.cpp lets it be: version 2, names of any bytes (here cut at
   a NUL, whole in their records), bools that are neither 0 nor 1, any alignment, bytes after the last tensor */
vt_status vt_gguf_open_source(const char * path, vt_gguf ** out, char * err, size_t n_err);
void      vt_gguf_free(vt_gguf * g);

uint64_t vt_gguf_n_keys(const vt_gguf * g);
uint64_t vt_gguf_n_tensors(const vt_gguf * g);
uint32_t vt_gguf_version(const vt_gguf * g);
uint64_t vt_gguf_alignment(const vt_gguf * g);
uint64_t vt_gguf_data_offset(const vt_gguf * g);
uint64_t vt_gguf_file_size(const vt_gguf * g);

vt_status vt_gguf_get_key(const vt_gguf * g, uint64_t i, vt_gguf_key * out);
vt_status vt_gguf_get_tensor(const vt_gguf * g, uint64_t i, vt_gguf_tensor * out);

/* whether ggml keeps an (n_cols, n_rows) weight of a ggml_type in a layout of its own here: then a copy of it lies in memory, whatever is mapped */
vt_status vt_is_repacked(int32_t type, int64_t n_cols, int64_t n_rows, bool * out, char * err, size_t n_err);

/* ---- vocabulary store ---- */

typedef struct vt_store vt_store;

typedef struct vt_store_info {
    char     architecture[64];
    char     pair_id[65];
    char     source_sha256[65];
    char     tokenizer_sha256[65]; /* fingerprint of the tokenizer */
    int64_t  n_vocab;
    int64_t  n_embd;
    int32_t  tied; /* 1: the head is the embedding table */
    int32_t  has_bias;
    int32_t  stub_rows;      /* of the core */
    int32_t  embedding_type; /* enum ggml_type */
    int32_t  head_type;
    uint64_t embedding_row_bytes;
    uint64_t head_row_bytes;
    int64_t  n_per_layer; /* values of a row of per_layer_token_embd.weight, 0 without such a table */
    int32_t  per_layer_type;
    uint64_t per_layer_row_bytes;
    float    logit_scale;   /* factor on logits, 1 for none */
    float    logit_softcap; /* cap * tanh(logit / cap), 0 for none */
} vt_store_info;

vt_status vt_store_open(const char * path, vt_store ** out, char * err, size_t n_err);
void      vt_store_free(vt_store * s);
vt_status vt_store_get_info(const vt_store * s, vt_store_info * out);

/* another scale and soft cap than the file's, such as a user's overrides of the model's keys; before anything is made of the store */
vt_status vt_store_set_logits(vt_store * s, float logit_scale, float logit_softcap, char * err, size_t n_err);

/* out: (n, n_embd) f32, row-major; n_out is its size in floats */
vt_status vt_store_rows(vt_store * s, const int32_t * ids, size_t n, float * out, size_t n_out, char * err, size_t n_err);

/* rows read from the file so far */
uint64_t vt_store_n_read(const vt_store * s);

/* check every row's data (finite scales) with ggml */
vt_status vt_store_validate_data(vt_store * s, char * err, size_t n_err);

/* check that path is a core before llama.cpp loads it, and where store is not NULL that it is the store's. llama.cpp allocates
 * by a file's vocab_size before it looks at the tensors. */
vt_status vt_core_check(const char * path, const vt_store * store, char * err, size_t n_err);

/* ---- active-set LM head ---- */

typedef struct vt_head vt_head;

typedef struct vt_head_info {
    size_t   n_static;
    size_t   n_rows;
    uint64_t n_bytes; /* memory held for rows, ids and logits, shared rows included */
} vt_head_info;

/* store must outlive the head */
vt_status vt_head_new(vt_store * store, vt_head ** out, char * err, size_t n_err);

/* a head with the static rows of another one, in the same memory; rows that are appended to either are its own. A head that
 * replaces static rows which others have takes a copy first. */
vt_status vt_head_share(vt_head * h, vt_head ** out, char * err, size_t n_err);
void      vt_head_free(vt_head * h);

/* replace the whole set by these ids, in this order, duplicates ignored; they become the static rows.
 * Static rows that are already in memory at the same place are not read again. */
vt_status vt_head_set_static(vt_head * h, const int32_t * ids, size_t n, char * err, size_t n_err);

/* add ids that are not in the set yet, in order of first appearance, after the rows that are there */
vt_status vt_head_append(vt_head * h, const int32_t * ids, size_t n, size_t * n_added, char * err, size_t n_err);

/* back to the static rows; reads nothing */
vt_status vt_head_reset(vt_head * h, char * err, size_t n_err);

vt_status vt_head_get_info(vt_head * h, vt_head_info * out, char * err, size_t n_err);

/* ids in row order, static rows, then appended ones; writes up to n_ids, *n is their number in any case */
vt_status vt_head_get_ids(vt_head * h, int32_t * ids, size_t n_ids, size_t * n, char * err, size_t n_err);

/* hidden: (n_hidden, n_embd) f32; logits: (n_hidden, n_rows) f32, transformed as the model does */
vt_status vt_head_compute(vt_head * h, const float * hidden, size_t n_hidden, int32_t n_threads, float * logits, size_t n_logits, char * err,
                          size_t n_err);

/* name of ggml's buffer type for a (n_rows, n_embd) LM head of a ggml_type on this machine, such as CPU, CPU_REPACK, AMX */
vt_status vt_weight_buffer(int32_t type, int64_t n_embd, int64_t n_rows, char * name, size_t n_name, char * err, size_t n_err);

/* ---- softmax over the tokens of a head, without a logit for each of them in memory ---- */

/* The probability of a token is exp(logit - max) / sum. Memory grows with the rows of a chunk and the states of a group, not with
 * the vocabulary times n_hidden. */
typedef struct vt_softmax_params {
    size_t          struct_size;
    const float *   hidden; /* (n_hidden, n_embd) f32 */
    size_t          n_hidden;
    const size_t *  groups; /* (n_groups,) states that are multiplied at once, as llama.cpp does with the outputs of a micro-batch: so the
                               logits are its bits. Their sum is n_hidden. NULL: one group. */
    size_t          n_groups;
    int32_t         n_threads;
    const int32_t * targets; /* (n_targets,) token ids whose logits are wanted */
    const int32_t * states;  /* (n_targets,) of which hidden state */
    size_t          n_targets;
    size_t          n_top; /* tokens of each state with the highest logits, of equal ones those with the highest ids */
} vt_softmax_params;

typedef struct vt_softmax {
    size_t    struct_size;
    float *   max;           /* (n_hidden,) */
    double *  sum;           /* (n_hidden,) */
    float *   target_logits; /* (n_targets,); -inf for tokens that the head has not */
    int32_t * top_ids;       /* (n_hidden, n_top), best first; -1 where the head has fewer tokens */
    float *   top_logits;    /* (n_hidden, n_top) */
} vt_softmax;

/* over the active set; out is the caller's memory */
vt_status vt_head_softmax(vt_head * h, const vt_softmax_params * params, const vt_softmax * out, char * err, size_t n_err);

/* some of vt_head_compute's rows: which, (n_which,), of the states that are multiplied at once; logits: (n_which, n_rows) f32 */
vt_status vt_head_logits(vt_head * h, const float * hidden, size_t n_hidden, const size_t * which, size_t n_which, int32_t n_threads, float * logits,
                         size_t n_logits, char * err, size_t n_err);

/* ---- session: one llama_context of the core, a sequence in it, and the hidden states of its last batch ---- */

typedef struct vt_session vt_session;

typedef struct vt_session_params {
    size_t     struct_size;
    vt_store * store;  /* NULL where the context takes token ids itself (an unsplit model) */
    vt_head *  head;   /* NULL where only hidden states are wanted */
    int32_t    seq_id; /* of the tokens in the context's memory */
} vt_session_params;

typedef struct vt_session_stats {
    uint64_t n_decoded; /* tokens */
    uint64_t n_head;    /* hidden states multiplied with the head */
    uint64_t n_passes;  /* of the core: calls of llama_decode */
    int64_t  t_embed_us;
    int64_t  t_core_us;
    int64_t  t_head_us;
    int64_t  t_sample_us;
    uint64_t n_bytes_hidden; /* memory held for hidden states */
    uint64_t n_bytes_logits; /* memory held for logits and sampling candidates */
} vt_session_stats;

/* store and head must outlive the session */
vt_status vt_session_new(const vt_session_params * params, vt_session ** out, char * err, size_t n_err);
void      vt_session_free(vt_session * s);

/* complete the parameters of the context: the session becomes its eval callback, and notes swa_full and n_outputs_max. The
 * session must outlive the context. */
vt_status vt_session_prepare(vt_session * s, struct llama_context_params * params, char * err, size_t n_err);

/* ctx: made with those parameters, from the core of the store. It belongs to one session. */
vt_status vt_session_attach(vt_session * s, struct llama_context * ctx, char * err, size_t n_err);

/* decode n tokens at positions pos .. pos + n, after dropping what lies at pos and beyond. outputs: (n,) 0 or 1 per token, or
 * NULL for the last one only. Earlier outputs are dropped. The batch is cut at the context's n_batch. After VT_ERROR_COMPUTE or
 * VT_ERROR_IO the text ends at pos, at 0 where the memory cannot go back. */
vt_status vt_session_decode(vt_session * s, const int32_t * tokens, size_t n, int32_t pos, const int8_t * outputs, char * err, size_t n_err);

/* as vt_session_decode, in one pass of the core: every token is an output, and its attention is computed as in a batch of it
 * alone. Up to as many tokens as vt_session_probe allows have the hidden states of single decodes, bit for bit. A batch must not
 * go beyond a position that is a multiple of 256, and is of one token where the context has room for several sequences. */
vt_status vt_session_decode_together(vt_session * s, const int32_t * tokens, size_t n, int32_t pos, char * err, size_t n_err);

/* tries up to which n, at most max, 2, 3, ... n tokens have the same hidden states together as one by one, after a short and a
 * long text; 1 where they never have. It takes some hundred tokens of time. The session must be without a text, and is after it. */
vt_status vt_session_probe(vt_session * s, size_t max, size_t * n, char * err, size_t n_err);

/* llama_decode of a batch of token ids, with whatever sequences, positions and outputs it says; what it does to the memory is the
 * caller's to know. Its outputs take the place of earlier ones. Batches that llama.cpp cuts otherwise than into consecutive parts
 * fail (several sequences of a recurrent model). */
vt_status vt_session_decode_batch(vt_session * s, const struct llama_batch * batch, char * err, size_t n_err);

/* tokens in the context's memory */
vt_status vt_session_n_past(vt_session * s, int32_t * n, char * err, size_t n_err);

/* whether the last tokens can be dropped so that what follows is as if they had never been: not in recurrent and hybrid models,
 * nor behind a sliding window without swa_full */
vt_status vt_session_can_truncate(vt_session * s, bool * can, char * err, size_t n_err);

/* drop the tokens from pos on, and the outputs; an error where the memory refuses, and nothing has changed then */
vt_status vt_session_truncate(vt_session * s, int32_t pos, char * err, size_t n_err);

/* the input of the LM head for each output, (n_outputs, n_embd) f32; writes up to n_hidden floats, *n_outputs in any case */
vt_status vt_session_get_hidden(vt_session * s, float * hidden, size_t n_hidden, size_t * n_outputs, char * err, size_t n_err);

/* how many outputs llama.cpp multiplied at once with the head: sizes of consecutive groups, whose sum is n_outputs; writes up to
 * n_sizes, *n_groups in any case */
vt_status vt_session_get_groups(vt_session * s, uint64_t * sizes, size_t n_sizes, size_t * n_groups, char * err, size_t n_err);

/* logits of output i over the head's rows; *logits is (n_rows,) f32 in the order of vt_head_get_ids, until the next call. Where a
 * micro-batch has many outputs, they are read fastest in order. */
vt_status vt_session_logits(vt_session * s, size_t i, const float ** logits, char * err, size_t n_err);

/* apply chain to the candidates of output i, accept the choice, return its token id */
vt_status vt_session_sample(vt_session * s, struct llama_sampler * chain, size_t i, int32_t * token, char * err, size_t n_err);

vt_status vt_session_get_stats(vt_session * s, vt_session_stats * out, char * err, size_t n_err);

typedef enum vt_kept_states {
    VT_KEPT_NONE    = 0, /* as at first */
    VT_KEPT_OUTPUTS = 1,
    VT_KEPT_ALL     = 2, /* and a decode without marks makes an output of each of its tokens, not of the last one only, as
                            llama-cpp-python's logits_all does. n_outputs_max must have room for them. */
} vt_kept_states;

/* which hidden states stay from here on, by position, until a token is decoded there or before; kept: enum vt_kept_states */
vt_status vt_session_keep_states(vt_session * s, int32_t kept, char * err, size_t n_err);

/* those of positions pos .. pos + n:
 * hidden: (n, n_embd) f32, or NULL; sizes: (n,) how many states llama.cpp multiplied at once with the head, 0 where none is kept;
 * places: (n,) which one of them it was. What lies beyond the text may be of a draft, or of a text that was cut. */
vt_status vt_session_get_states(vt_session * s, int32_t pos, size_t n, float * hidden, size_t n_hidden, int32_t * sizes, int32_t * places, char * err,
                                size_t n_err);

/* the same back, after the context's memory was given a text that was saved; those of positions beyond go */
vt_status vt_session_set_states(vt_session * s, int32_t pos, size_t n, const float * hidden, size_t n_hidden, const int32_t * sizes,
                                const int32_t * places, char * err, size_t n_err);

/* ---- the whole head ---- */

typedef struct vt_whole_head vt_whole_head;

/* where it lies */
typedef enum vt_placement {
    VT_PLACEMENT_MEMORY   = 0, /* read once, kept in memory */
    VT_PLACEMENT_MAPPED   = 1, /* pages of the store's file, which must not shrink; in memory on Windows */
    VT_PLACEMENT_STREAMED = 2  /* read through a buffer of some MB at each verification */
} vt_placement;

typedef struct vt_whole_head_params {
    size_t  struct_size;
    int32_t placement; /* a vt_placement */
    int32_t n_threads; /* while it is made; 0 for one */
} vt_whole_head_params;

typedef struct vt_whole_head_info {
    uint64_t n_bytes;    /* memory held; mapped pages are not counted */
    int32_t  own_kernel; /* 1: scanned by our own kernel, 0: by ggml's product */
} vt_whole_head_info;

/* store must outlive it */
vt_status vt_whole_head_new(vt_store * store, const vt_whole_head_params * params, vt_whole_head ** out, char * err, size_t n_err);
void      vt_whole_head_free(vt_whole_head * w);
vt_status vt_whole_head_get_info(vt_whole_head * w, vt_whole_head_info * out, char * err, size_t n_err);

/* of the whole vocabulary; as vt_head_softmax and vt_head_logits, whose rows are the token ids. Threads wait for one another. */
vt_status vt_whole_head_softmax(vt_whole_head * w, const vt_softmax_params * params, const vt_softmax * out, char * err, size_t n_err);
vt_status vt_whole_head_logits(vt_whole_head * w, const float * hidden, size_t n_hidden, const size_t * which, size_t n_which, int32_t n_threads,
                               float * logits, size_t n_logits, char * err, size_t n_err);

/* instruction families that this CPU can scan with, the best first; NULL beyond the last */
const char * vt_scan_kernel(size_t i);

/* ---- verifier: the whole vocabulary's tokens at nearly the active set's cost ---- */

typedef struct vt_verifier vt_verifier;

typedef struct vt_verifier_params {
    size_t                     struct_size;
    vt_session *               session;   /* attached, with a store and a head */
    vt_whole_head *            whole;     /* of the same store */
    const struct llama_vocab * vocab;     /* of the store; drafts end at its end-of-generation tokens */
    size_t                     max_block; /* tokens drafted before they are verified, at most 16; 0 for 16. 1 where the session cannot truncate. */
    size_t                     max_pass;  /* tokens that one pass of the core takes while drafting: one that the active set chose, and others that
                                           * followed it earlier in the text, that a grammar forces, or of vt_verifier_expect. 0 and 1 for one. Up to vt_session_probe's,
                                           * it changes no bit. */
    bool                       no_drafts; /* decide each token on the whole vocabulary */
} vt_verifier_params;

typedef struct vt_verifier_stats {
    uint64_t n_tokens; /* given */
    uint64_t n_drafted;
    uint64_t n_rejected; /* drafted tokens that were not the whole vocabulary's */
    uint64_t n_blocks;   /* times that the whole head was scanned */
    uint64_t n_whole;    /* decisions on logits of the whole vocabulary */
    int64_t  t_draft_us; /* decoding, active head and chain */
    int64_t  t_verify_us;
    int64_t  t_head_us;   /* products and scans of both heads, in drafts and verification */
    int64_t  t_sample_us; /* the chain, in drafts and verification */
    double   acceptance;  /* share of drafted tokens that were confirmed, lately */
    uint64_t n_bytes;     /* memory held */
    uint64_t n_audited;   /* tokens of vt_verifier_audit */
    uint64_t n_outside;   /* of them outside the active set */
    uint64_t n_ahead;     /* tokens that passes of the core decoded before they were chosen */
    uint64_t n_agreed;    /* of them those that the active set then chose */
} vt_verifier_stats;

/* session and whole must outlive it. It serves one request after the other; block lengths and counts go on. Rows that drafts will
 * want join the session's head while it samples: those that a verification has listed or nearly, and tokens of the text's scripts.
 * vt_head_reset drops them. */
vt_status vt_verifier_new(const vt_verifier_params * params, vt_verifier ** out, char * err, size_t n_err);
void      vt_verifier_free(vt_verifier * v);

/* a request: its text is what the session holds, and goes on by these functions alone; one that lasts is ended. The chain is
 * cloned, and the clone goes on. Where it holds samplers that are not llama.cpp's own, chains, or adaptive-p, no clone would go
 * on as it does: then the chain itself decides each token on the whole vocabulary, accepts it, and must outlive the request.
 * Tokens that the chain has accepted before must be in the head's set, or its penalties must not raise logits. */
vt_status vt_verifier_begin(vt_verifier * v, const struct llama_sampler * chain, char * err, size_t n_err);

/* whether grammars of chains name no tokens by id or as a whole (<[1000]>, <think>), only texts; false at first. What they allow
 * is found sooner then, where that is little. */
vt_status vt_verifier_text_grammars(vt_verifier * v, bool are, char * err, size_t n_err);

/* drop the chain, and drafts that were not given: session and text are as if there had been none */
vt_status vt_verifier_end(vt_verifier * v, char * err, size_t n_err);

/* tokens of the text */
vt_status vt_verifier_n_past(vt_verifier * v, int32_t * n, char * err, size_t n_err);

/* back to a text of pos tokens, the only way back; the chain stays as it is, and tokens must be decoded before the next sample */
vt_status vt_verifier_rewind(vt_verifier * v, int32_t pos, char * err, size_t n_err);

/* the session was attached again, to a context with a text of its own, such as one that llama_state_set_data brought: go on from its
 * end. The chain stays as it is, and tokens must be decoded before the next sample. */
vt_status vt_verifier_resume(vt_verifier * v, char * err, size_t n_err);

/* the token that the chain chooses from the whole vocabulary after the text. The chain accepts it; the text has it once it is
 * decoded. n_left: tokens that will be asked for at most, this one included. */
vt_status vt_verifier_sample(vt_verifier * v, size_t n_left, int32_t * token, char * err, size_t n_err);

/* Tokens that may follow from position pos on, as a draft model or a template says, in the place of those of the call before. Where they are
 * right, passes of the core take several at once (max_pass); where they are wrong that costs time and changes nothing. To be told before
 * the token in front of them is decoded. What follows an id that the vocabulary has not is ignored. */
vt_status vt_verifier_expect(vt_verifier * v, const int32_t * tokens, size_t n, int32_t pos, char * err, size_t n_err);

/* the text goes on with n tokens; that is free for the token that was just given where its draft is there already */
vt_status vt_verifier_decode(vt_verifier * v, const int32_t * tokens, size_t n, char * err, size_t n_err);

/* the token that chain would choose now from the whole vocabulary; neither chain, text nor active set change. A chain that
 * cannot be cloned (see vt_verifier_begin) is refused. */
vt_status vt_verifier_audit(vt_verifier * v, const struct llama_sampler * chain, int32_t * token, char * err, size_t n_err);

/* count from now on how often these tokens are given although the active set has them; counts of those that were watched before go on */
vt_status vt_verifier_watch(vt_verifier * v, const int32_t * tokens, size_t n, char * err, size_t n_err);

/* tokens that were given, or found by an audit, although the active set lacked them, ascending, and how often; writes up to n_ids, *n is their
 * number in any case */
vt_status vt_verifier_missed(vt_verifier * v, int32_t * ids, uint64_t * counts, size_t n_ids, size_t * n, char * err, size_t n_err);

/* the same of watched tokens, those that were never given included */
vt_status vt_verifier_watched(vt_verifier * v, int32_t * ids, uint64_t * counts, size_t n_ids, size_t * n, char * err, size_t n_err);

vt_status vt_verifier_get_stats(vt_verifier * v, vt_verifier_stats * out, char * err, size_t n_err);

/* ---- loading ---- */

/* from here on ggml does alone in the calling thread what it shares out by itself at load, where it has a say in that: for a
 * thread that loads a core while another one loads the vocabulary, and that ends then */
void vt_load_alone(void);

/* ---- vocabulary ---- */

/* tokens that stay in every active set: special and end-of-generation tokens, tokens of one byte, and white space.
 * Unused slots are left out. Writes up to n_ids ids, ascending; *n is their number in any case. */
vt_status vt_vocab_always_on(const struct llama_vocab * vocab, int32_t * ids, size_t n_ids, size_t * n, char * err, size_t n_err);

/* the first n_ids ordinary tokens, or all of them where there are fewer. Ids follow the order in which a tokenizer was
 * trained, so these are its most frequent ones. *n is how many were written, ascending. */
vt_status vt_vocab_common(const struct llama_vocab * vocab, int32_t * ids, size_t n_ids, size_t * n, char * err, size_t n_err);

/* forms of words: with or without a leading space, in lower case, capitalised, in upper case */
typedef struct vt_forms vt_forms;

/* vocab must outlive it; it holds some 8 bytes for each token */
vt_status vt_forms_new(const struct llama_vocab * vocab, vt_forms ** out, char * err, size_t n_err);
void      vt_forms_free(vt_forms * v);
uint64_t  vt_forms_n_bytes(const vt_forms * v);

/* tokens that write the words of ids in another form, without ids themselves. Writes up to n_out, ascending;
 * *n_found is their number in any case. A form that is no single token is left out. */
vt_status vt_forms_find(const vt_forms * v, const int32_t * ids, size_t n, int32_t * out, size_t n_out, size_t * n_found, char * err, size_t n_err);

/* texts of all tokens, in a tenth of the memory of llama.cpp's tables: enough for output, once all prompts are tokenized */
typedef struct vt_pieces vt_pieces;

/* vocab may be freed afterwards */
vt_status vt_pieces_new(const struct llama_vocab * vocab, vt_pieces ** out, char * err, size_t n_err);
void      vt_pieces_free(vt_pieces * p);
uint64_t  vt_pieces_n_bytes(const vt_pieces * p);

/* *text: *n bytes without a NUL behind them, as llama_token_to_piece gives them without special tokens, valid until it is
 * freed; *is_eog: whether the token ends a generation */
vt_status vt_pieces_get(const vt_pieces * p, int32_t token, const char ** text, size_t * n, bool * is_eog, char * err, size_t n_err);

/* ---- table types ---- */

/* name and geometry of a ggml type that can be decoded by row; VT_ERROR_ARGUMENT for others */
vt_status vt_type_info(int32_t type, const char ** name, int64_t * block_size, uint64_t * type_size, char * err, size_t n_err);

/* quantise n_rows rows of n_per_row values from one type to another through f32, with ggml */
vt_status vt_requantize(int32_t src_type, const uint8_t * src, size_t n_src, int32_t dst_type, uint8_t * dst, size_t n_dst, int64_t n_rows,
                        int64_t n_per_row, int32_t n_threads, char * err, size_t n_err);

/* -- end of declarations -- */

#ifdef __cplusplus
}
#endif

#endif
