/*
 * generate.c - greedy text generation from a core and its vocabulary store, in plain C.
 *
 *   generate CORE VOCAB TOKENS PROMPT N [THREADS]
 *
 *   CORE, VOCAB  NAME.core.gguf and NAME.vocab.gguf of one split model
 *   TOKENS       the static set besides the always-on tokens: a text file of token ids, - for none, full for every id;
 *                exact for none, with every token verified against the whole head
 *   PROMPT       text; its tokens join the set
 *   N            tokens to generate at most
 *
 * The text goes to stdout, messages go to stderr. Exit code: 0 done, 1 failed, 2 wrong usage.
 * docs/c-api.md tells how to compile it.
 */
#include <vocabtailor.h>

#include <llama.h>

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef __GLIBC__
#    include <malloc.h>
#endif

// everything that has to be freed, in the order in which it is made
struct program {
    vt_store *                 store;      // rows of VOCAB
    struct llama_model *       tokenizer;  // VOCAB once more, loaded by llama.cpp as a vocabulary without weights
    const struct llama_vocab * vocab;      // part of the tokenizer; NULL when it was freed
    vt_pieces *                pieces;     // texts of its tokens
    vt_head *                  head;       // uses the store
    vt_session *               session;    // uses the store and the head
    int32_t *                  tokens;     // (n_tokens,) the prompt
    size_t                     n_tokens;
    struct llama_model *       core;  // CORE: the transformer blocks
    struct llama_context *     ctx;   // calls the session while it decodes
    struct llama_sampler *     chain;
    vt_whole_head *            whole;     // uses the store; NULL without verification
    vt_verifier *              verifier;  // uses the session and the whole head; NULL without verification
    char                       err[512];
};

// the library's texts name the file and what is wrong with it
static bool ok(const struct program * s, vt_status status) {
    if (status != VT_OK) {
        fprintf(stderr, "generate: %s\n", s->err);
    }
    return status == VT_OK;
}

static bool fail(const char * subject, const char * what) {
    fprintf(stderr, "generate: %s: %s\n", subject, what);
    return false;
}

// here llama.cpp tells why it cannot load a file
static void log_errors(enum ggml_log_level level, const char * text, void * user_data) {
    (void) user_data;
    if (level == GGML_LOG_LEVEL_ERROR) {
        fputs(text, stderr);
    }
}

// a number from min to max, or -1
static int parse_int(const char * text, int min, int max) {
    char * end       = NULL;
    errno            = 0;
    const long value = strtol(text, &end, 10);
    return end == text || *end != '\0' || errno != 0 || value < min || value > max ? -1 : (int) value;
}

// ---- the vocabulary ----

// the store comes first: it validates the header before llama.cpp reads the same file
static bool open_vocabulary(struct program * s, const char * path) {
    if (!ok(s, vt_store_open(path, &s->store, s->err, sizeof(s->err)))) {
        return false;
    }
    struct llama_model_params params = llama_model_default_params();
    params.vocab_only                = true;
    s->tokenizer                     = llama_model_load_from_file(path, params);
    if (s->tokenizer == NULL) {
        return fail(path, "llama.cpp cannot load the tokenizer");
    }
    s->vocab = llama_model_get_vocab(s->tokenizer);
    if (!ok(s, vt_head_new(s->store, &s->head, s->err, sizeof(s->err)))) {
        return false;
    }
    const vt_session_params session_params = {.struct_size = sizeof(session_params), .store = s->store, .head = s->head};
    return ok(s, vt_session_new(&session_params, &s->session, s->err, sizeof(s->err)));
}

// ids: (max,), *n of them used; whether they are below n_vocab is checked by the head
static bool read_ids(const char * path, int32_t * ids, size_t * n, size_t max) {
    FILE * file = fopen(path, "r");
    if (file == NULL) {
        return fail(path, strerror(errno));
    }
    char word[32];
    bool good = true;
    while (good && fscanf(file, "%31s", word) == 1) {
        const int id = parse_int(word, 0, INT_MAX);
        good         = id >= 0 && *n < max;
        if (good) {
            ids[(*n)++] = id;
        }
    }
    good = good && !ferror(file);
    fclose(file);
    return good || fail(path, "expected token ids, separated by white space, no more than the vocabulary has");
}

static bool choose_static_set(struct program * s, const char * tokens) {
    const size_t n_vocab = (size_t) llama_vocab_n_tokens(s->vocab);
    int32_t *    ids     = malloc(2 * n_vocab * sizeof(int32_t));  // always-on ids and as many as there are
    size_t       n       = 0;
    if (ids == NULL) {
        return fail("token ids", "out of memory");
    }
    bool good = true;
    if (strcmp(tokens, "full") == 0) {
        for (; n < n_vocab; n++) {
            ids[n] = (int32_t) n;
        }
    } else {
        good = ok(s, vt_vocab_always_on(s->vocab, ids, n_vocab, &n, s->err, sizeof(s->err))) &&
               (strcmp(tokens, "-") == 0 || strcmp(tokens, "exact") == 0 || read_ids(tokens, ids, &n, 2 * n_vocab));
    }
    // the head copies the ids and ignores repeated ones
    good = good && ok(s, vt_head_set_static(s->head, ids, n, s->err, sizeof(s->err)));
    free(ids);
    return good;
}

static bool tokenize(struct program * s, const char * prompt) {
    const size_t  length = strlen(prompt);
    // with no room for the tokens their number is returned, negated
    const int32_t n      = length > INT_MAX ? 0 : llama_tokenize(s->vocab, prompt, (int32_t) length, NULL, 0, true, true);
    if (n >= 0 || n == INT32_MIN) {
        return fail("prompt", "has no tokens, or too many");
    }
    s->n_tokens = (size_t) -n;
    s->tokens   = malloc(s->n_tokens * sizeof(int32_t));
    if (s->tokens == NULL) {
        return fail("prompt", "out of memory");
    }
    return llama_tokenize(s->vocab, prompt, (int32_t) length, s->tokens, -n, true, true) == -n || fail("prompt", "cannot be tokenized");
}

// The prompt is all that is tokenized here, and llama.cpp's tables are the largest thing beside the core: 40 MB of Gemma 3's.
// What is left to do needs the texts of tokens alone; a verifier asks the vocabulary for more.
static bool keep_pieces(struct program * s, bool verify) {
    if (!ok(s, vt_pieces_new(s->vocab, &s->pieces, s->err, sizeof(s->err)))) {
        return false;
    }
    if (!verify) {
        llama_model_free(s->tokenizer);
        s->tokenizer = NULL;
        s->vocab     = NULL;
#ifdef __GLIBC__
        malloc_trim(0);  // it was made of small pieces, whose pages glibc would keep
#endif
    }
    return true;
}

// ---- the core ----

static bool open_core(struct program * s, const char * path, int n_predict, int n_threads) {
    // before llama.cpp reads it: whether it is a core, and that of the store
    if (!ok(s, vt_core_check(path, s->store, s->err, sizeof(s->err)))) {
        return false;
    }
    struct llama_model_params model_params = llama_model_default_params();
    model_params.n_gpu_layers              = 0;                     // the LM head is computed on the CPU too
    model_params.load_mode                 = LLAMA_LOAD_MODE_NONE;  // where ggml repacks weights, mapped ones would count twice
    s->core                                = llama_model_load_from_file(path, model_params);
    if (s->core == NULL) {
        return fail(path, "llama.cpp cannot load the core");
    }
    const size_t n_ctx = s->n_tokens + (size_t) n_predict;
    if (n_ctx > (size_t) llama_model_n_ctx_train(s->core)) {
        return fail("prompt", "together with N tokens it is longer than the model's context");
    }
    struct llama_context_params params = llama_context_default_params();
    params.n_ctx                       = (uint32_t) n_ctx;
    if (n_threads > 0) {
        params.n_threads = params.n_threads_batch = n_threads;
    }
    if (!ok(s, vt_session_prepare(s->session, &params, s->err, sizeof(s->err)))) {
        return false;
    }
    s->ctx = llama_init_from_model(s->core, params);
    if (s->ctx == NULL) {
        return fail(path, "llama.cpp cannot make a context");
    }
    return ok(s, vt_session_attach(s->session, s->ctx, s->err, sizeof(s->err)));
}

// ---- generation ----

// false where writing fails; *done: the token ends the text
static bool print_piece(struct program * s, int32_t token, bool * done) {
    const char * text = NULL;
    size_t       n    = 0;
    if (!ok(s, vt_pieces_get(s->pieces, token, &text, &n, done, s->err, sizeof(s->err)))) {
        return false;
    }
    return *done || (fwrite(text, 1, n, stdout) == n && fflush(stdout) == 0) || fail("stdout", strerror(errno));
}

// without a mask the last token is the only output, so output 0 is sampled from
static bool next_token(struct program * s, const int32_t * tokens, size_t n, int32_t pos, int32_t * token) {
    if (s->verifier != NULL) {
        return ok(s, vt_verifier_decode(s->verifier, tokens, n, s->err, sizeof(s->err))) &&
               ok(s, vt_verifier_sample(s->verifier, SIZE_MAX, token, s->err, sizeof(s->err)));
    }
    return ok(s, vt_session_decode(s->session, tokens, n, pos, NULL, s->err, sizeof(s->err))) &&
           ok(s, vt_session_sample(s->session, s->chain, 0, token, s->err, sizeof(s->err)));
}

// the library decides how many tokens can be drafted at once in this context
static bool make_verifier(struct program * s) {
    const vt_whole_head_params whole_params = {.struct_size = sizeof(whole_params), .placement = VT_PLACEMENT_MAPPED};
    if (!ok(s, vt_whole_head_new(s->store, &whole_params, &s->whole, s->err, sizeof(s->err)))) {
        return false;
    }
    const vt_verifier_params params = {.struct_size = sizeof(params), .session = s->session, .whole = s->whole, .vocab = s->vocab};
    return ok(s, vt_verifier_new(&params, &s->verifier, s->err, sizeof(s->err))) &&
           ok(s, vt_verifier_begin(s->verifier, s->chain, s->err, sizeof(s->err)));
}

static bool generate(struct program * s, int n_predict, bool verify) {
    s->chain = llama_sampler_chain_init(llama_sampler_chain_default_params());
    llama_sampler_chain_add(s->chain, llama_sampler_init_greedy());  // the chain frees it

    // the prompt's tokens join the set, so that its words can be repeated
    if (!ok(s, vt_head_append(s->head, s->tokens, s->n_tokens, NULL, s->err, sizeof(s->err)))) {
        return false;
    }
    if (verify && !make_verifier(s)) {
        return false;
    }
    int32_t         token = 0;
    const int32_t * next  = s->tokens;  // (n,) tokens to decode: first the prompt, then one at a time
    size_t          n     = s->n_tokens;
    int32_t         pos   = 0;
    for (int i = 0; i < n_predict; i++) {
        if (!next_token(s, next, n, pos, &token)) {
            return false;
        }
        bool done = false;
        if (!print_piece(s, token, &done)) {
            return false;
        }
        if (done) {
            break;
        }
        pos += (int32_t) n;
        next = &token;
        n    = 1;
    }
    return true;
}

// in the opposite order; every one of these takes NULL
static void close_all(struct program * s) {
    vt_verifier_free(s->verifier);
    vt_whole_head_free(s->whole);
    llama_sampler_free(s->chain);
    llama_free(s->ctx);
    llama_model_free(s->core);
    free(s->tokens);
    vt_session_free(s->session);
    vt_head_free(s->head);
    vt_pieces_free(s->pieces);
    llama_model_free(s->tokenizer);
    vt_store_free(s->store);
}

int main(int argc, char ** argv) {
    const int n_predict = argc == 6 || argc == 7 ? parse_int(argv[5], 1, INT_MAX) : -1;
    const int n_threads = argc == 7 ? parse_int(argv[6], 1, GGML_MAX_N_THREADS) : 0;  // 0: llama.cpp's default
    if (n_predict < 0 || n_threads < 0) {
        fprintf(stderr, "usage: generate CORE VOCAB TOKENS|-|full|exact PROMPT N [THREADS]\n");
        return 2;
    }
    llama_log_set(log_errors, NULL);
    llama_backend_init();
    struct program s      = {0};
    const bool     verify = strcmp(argv[3], "exact") == 0;
    const bool     done   = ok(&s, vt_check_runtime(s.err, sizeof(s.err))) && open_vocabulary(&s, argv[2]) && choose_static_set(&s, argv[3]) &&
                            tokenize(&s, argv[4]) && keep_pieces(&s, verify) && open_core(&s, argv[1], n_predict, n_threads) &&
                            generate(&s, n_predict, verify);
    close_all(&s);
    llama_backend_free();
    return done ? 0 : 1;
}
