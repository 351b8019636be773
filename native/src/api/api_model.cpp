// The C API: head and hook.

#include "api/api.h"
#include "decode/exact.h"
#include "decode/hook.h"
#include "head/head.h"

struct vt_head {
    vt_store *        store;
    vt::head          impl;
    std::atomic<bool> busy{false};

    explicit vt_head(vt_store * s) : store(s), impl(s->impl) {}
};

struct vt_hook {
    vt_store *        store;
    vt_head *         head;
    vt::hook          impl;
    std::atomic<bool> busy{false};

    vt_hook(vt_store * s, vt_head * h) : store(s), head(h), impl(s ? &s->impl : nullptr, h ? &h->impl : nullptr) {}
};

struct vt_exact {
    vt_hook *         hook;
    vt::exact         impl;
    std::atomic<bool> busy{false};

    vt_exact(vt_hook * k, const llama_vocab & vocab, vt_placement placement, size_t max_block)
        : hook(k), impl(k->impl, vocab, placement, max_block) {}
};

using namespace vt;

static void copy_counts(const std::map<int32_t, uint64_t> & from, int32_t * ids, uint64_t * counts, size_t n_ids, size_t * n) {
    require(n != nullptr && (n_ids == 0 || (ids != nullptr && counts != nullptr)), "ids, counts and n must not be NULL");
    size_t i = 0;
    for (const auto & entry : from) {
        if (i < n_ids) {
            ids[i]    = entry.first;
            counts[i] = entry.second;
        }
        i++;
    }
    *n = i;
}

extern "C" {

// ---- active-set LM head ----

VT_EXPORT vt_status vt_head_new(vt_store * store, vt_head ** out, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(store != nullptr && out != nullptr, "store and out must not be NULL");
        *out = nullptr;
        *out = new vt_head(store);
    });
}

VT_EXPORT void vt_head_free(vt_head * h) {
    delete h;
}

VT_EXPORT vt_status vt_head_set_static(vt_head * h, const int32_t * ids, size_t n, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(h != nullptr && ids != nullptr, "head and ids must not be NULL");
        const lock l(h), s(h->store);
        h->impl.set_static(ids, n);
    });
}

VT_EXPORT vt_status vt_head_append(vt_head * h, const int32_t * ids, size_t n, size_t * n_added, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(h != nullptr && (n == 0 || ids != nullptr), "head and ids must not be NULL");
        const lock   l(h), s(h->store);
        const size_t added = h->impl.append(ids, n);
        if (n_added != nullptr) {
            *n_added = added;
        }
    });
}

VT_EXPORT vt_status vt_head_reset(vt_head * h, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(h != nullptr, "head must not be NULL");
        const lock l(h);
        h->impl.reset();
    });
}

VT_EXPORT size_t vt_head_n_static(const vt_head * h) {
    return h ? h->impl.n_static() : 0;
}

VT_EXPORT size_t vt_head_n_rows(const vt_head * h) {
    return h ? h->impl.ids().size() : 0;
}

VT_EXPORT const int32_t * vt_head_ids(const vt_head * h) {
    return h ? h->impl.ids().data() : nullptr;
}

VT_EXPORT uint64_t vt_head_n_bytes(const vt_head * h) {
    return h ? h->impl.n_bytes() : 0;
}

VT_EXPORT vt_status vt_head_compute(vt_head * h, const float * hidden, size_t n_hidden, int32_t n_threads, float * logits, size_t n_logits,
                                    char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(h != nullptr && hidden != nullptr && logits != nullptr && n_hidden > 0, "head, hidden and logits must not be NULL or empty");
        const lock   l(h);
        const size_t n_rows = h->impl.ids().size();
        require(n_rows == 0 || n_logits / n_rows >= n_hidden, "logits is too small");
        h->impl.compute(hidden, n_hidden, n_threads, logits);
    });
}

// ---- hook ----

VT_EXPORT vt_status vt_hook_new(vt_store * store, vt_head * head, vt_hook ** out, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(out != nullptr, "out must not be NULL");
        require(head == nullptr || head->store == store, "the head belongs to another store");
        *out = nullptr;
        *out = new vt_hook(store, head);
    });
}

VT_EXPORT void vt_hook_free(vt_hook * k) {
    delete k;
}

VT_EXPORT bool vt_hook_eval_callback(struct ggml_tensor * t, bool ask, void * hook) {
    return hook == nullptr ? !ask : static_cast<vt_hook *>(hook)->impl.on_node(t, ask);
}

VT_EXPORT vt_status vt_hook_attach(vt_hook * k, struct llama_context * ctx, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(k != nullptr && ctx != nullptr, "hook and ctx must not be NULL");
        const lock l(k);
        k->impl.attach(ctx);
    });
}

VT_EXPORT vt_status vt_hook_decode(vt_hook * k, const int32_t * tokens, size_t n, int32_t pos0, const int8_t * outputs, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(k != nullptr && tokens != nullptr, "hook and tokens must not be NULL");
        const lock l(k), s(k->store);
        k->impl.decode(tokens, n, pos0, outputs);
    });
}

VT_EXPORT size_t vt_hook_n_outputs(const vt_hook * k) {
    return k ? k->impl.n_outputs() : 0;
}

VT_EXPORT const float * vt_hook_hidden(const vt_hook * k) {
    return k ? k->impl.hidden().data() : nullptr;
}

VT_EXPORT vt_status vt_hook_logits(vt_hook * k, size_t i, const float ** logits, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(k != nullptr && logits != nullptr, "hook and logits must not be NULL");
        const lock l(k), h(k->head);
        *logits = k->impl.logits(i);
    });
}

VT_EXPORT vt_status vt_hook_sample(vt_hook * k, struct llama_sampler * chain, size_t i, int32_t * token, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(k != nullptr && chain != nullptr && token != nullptr, "hook, chain and token must not be NULL");
        const lock l(k), h(k->head);
        *token = k->impl.sample(chain, i);
    });
}

VT_EXPORT vt_status vt_hook_get_stats(const vt_hook * k, vt_hook_stats * out) {
    if (k == nullptr || out == nullptr) {
        return VT_ERROR_ARGUMENT;
    }
    *out = k->impl.stats();
    return VT_OK;
}

// ---- exact mode ----

VT_EXPORT vt_status vt_exact_new(vt_hook * hook, const struct llama_vocab * vocab, int32_t placement, size_t max_block, vt_exact ** out, char * err,
                                 size_t n_err) {
    return guard(err, n_err, [&] {
        require(hook != nullptr && vocab != nullptr && out != nullptr, "hook, vocab and out must not be NULL");
        require(hook->store != nullptr && hook->head != nullptr, "exact mode needs a hook with a store and a head");
        require(hook->impl.context() != nullptr, "no context is attached");
        require(placement >= VT_PLACEMENT_MEMORY && placement <= VT_PLACEMENT_STREAMED, "no such placement");
        *out = nullptr;
        const lock k(hook), h(hook->head), s(hook->store);
        *out = new vt_exact(hook, *vocab, static_cast<vt_placement>(placement), max_block);
    });
}

VT_EXPORT void vt_exact_free(vt_exact * e) {
    delete e;
}

VT_EXPORT vt_status vt_exact_watch(vt_exact * e, const int32_t * tokens, size_t n, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(e != nullptr && (n == 0 || tokens != nullptr), "exact and tokens must not be NULL");
        const lock l(e);
        e->impl.watch(tokens, n);
    });
}

VT_EXPORT vt_status vt_exact_begin(vt_exact * e, const struct llama_sampler * chain, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(e != nullptr && chain != nullptr, "exact and chain must not be NULL");
        const lock l(e), k(e->hook), h(e->hook->head), s(e->hook->store);
        e->impl.begin(chain);
    });
}

VT_EXPORT vt_status vt_exact_sample(vt_exact * e, int32_t n_tokens, size_t max_block, int32_t * token, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(e != nullptr && token != nullptr, "exact and token must not be NULL");
        const lock l(e), k(e->hook), h(e->hook->head), s(e->hook->store);
        *token = e->impl.sample(n_tokens, max_block);
    });
}

VT_EXPORT vt_status vt_exact_eval(vt_exact * e, const int32_t * tokens, size_t n, int32_t pos, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(e != nullptr && tokens != nullptr, "exact and tokens must not be NULL");
        const lock l(e), k(e->hook), h(e->hook->head), s(e->hook->store);
        e->impl.eval(tokens, n, pos);
    });
}

VT_EXPORT vt_status vt_exact_audit(vt_exact * e, const struct llama_sampler * chain, int32_t * token, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(e != nullptr && chain != nullptr && token != nullptr, "exact, chain and token must not be NULL");
        const lock l(e), k(e->hook), h(e->hook->head), s(e->hook->store);
        *token = e->impl.audit(chain);
    });
}

VT_EXPORT vt_status vt_exact_missed(const vt_exact * e, int32_t * ids, uint64_t * counts, size_t n_ids, size_t * n, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(e != nullptr, "exact must not be NULL");
        copy_counts(e->impl.missed(), ids, counts, n_ids, n);
    });
}

VT_EXPORT vt_status vt_exact_watched(const vt_exact * e, int32_t * ids, uint64_t * counts, size_t n_ids, size_t * n, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(e != nullptr, "exact must not be NULL");
        copy_counts(e->impl.watched(), ids, counts, n_ids, n);
    });
}

VT_EXPORT vt_status vt_exact_get_stats(const vt_exact * e, vt_exact_stats * out) {
    if (e == nullptr || out == nullptr) {
        return VT_ERROR_ARGUMENT;
    }
    *out = e->impl.stats();
    return VT_OK;
}

}  // extern "C"
