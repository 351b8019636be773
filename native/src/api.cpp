// The C API: arguments checked, exceptions turned into statuses, one thread at a time in each object.

#include "vocabtailor.h"

#include "error.h"
#include "gguf.h"
#include "head.h"
#include "hook.h"
#include "quantize.h"
#include "store.h"
#include "vocab.h"

#include <atomic>
#include <cstring>
#include <memory>
#include <new>
#include <string>

#if defined(_WIN32)
#    define VT_EXPORT __declspec(dllexport)
#else
#    define VT_EXPORT __attribute__((visibility("default")))
#endif

struct vt_gguf {
    vt::gguf impl;
};

struct vt_store {
    vt::store         impl;
    std::atomic<bool> busy{false};

    explicit vt_store(const char * path) : impl(path) {}
};

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

namespace {

// marks an object as in use; a NULL object is not locked
class lock {
  public:
    template <typename T> explicit lock(T * object) : m_busy(object ? &object->busy : nullptr) {
        if (m_busy && m_busy->exchange(true)) {
            m_busy = nullptr;
            throw vt::error(VT_ERROR_BUSY, "another thread is using this object");
        }
    }

    ~lock() {
        if (m_busy) {
            m_busy->store(false);
        }
    }

    lock(const lock &)             = delete;
    lock & operator=(const lock &) = delete;

  private:
    std::atomic<bool> * m_busy;
};

vt_status report(vt_status status, const char * text, char * err, size_t n_err) {
    if (err != nullptr && n_err > 0) {
        snprintf(err, n_err, "%s", text);
    }
    return status;
}

template <typename F> vt_status guard(char * err, size_t n_err, F && body) {
    try {
        body();
        return VT_OK;
    } catch (const vt::error & e) {
        return report(e.status(), e.what(), err, n_err);
    } catch (const std::bad_alloc &) {
        return report(VT_ERROR_MEMORY, "out of memory", err, n_err);
    } catch (const std::exception & e) {
        return report(VT_ERROR_INTERNAL, e.what(), err, n_err);
    } catch (...) {
        return report(VT_ERROR_INTERNAL, "unknown error", err, n_err);
    }
}

void require(bool ok, const char * what) {
    if (!ok) {
        throw vt::error(VT_ERROR_ARGUMENT, what);
    }
}

}  // namespace

extern "C" {

// ---- library ----

VT_EXPORT const char * vt_build_info(void) {
    return "llama-cpp-python " VT_LLAMA_CPP_PYTHON_VERSION ", llama " VT_LLAMA_VERSION ", ggml " VT_GGML_VERSION;
}

VT_EXPORT vt_status vt_check_runtime(char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        if (strcmp(llama_version(), VT_LLAMA_VERSION) != 0 || strcmp(ggml_version(), VT_GGML_VERSION) != 0) {
            throw vt::error(VT_ERROR_VERSION, vt::format("this process has llama %s and ggml %s, but libvocabtailor was built for %s; "
                                                         "install that version of llama-cpp-python or build vocabtailor_gguf again",
                                                         llama_version(), ggml_version(), vt_build_info()));
        }
    });
}

// ---- GGUF headers ----

VT_EXPORT vt_status vt_gguf_open(const char * path, vt_gguf ** out, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(path != nullptr && out != nullptr, "path and out must not be NULL");
        *out = nullptr;
        *out = new vt_gguf{vt::gguf(path)};
    });
}

VT_EXPORT void vt_gguf_free(vt_gguf * g) {
    delete g;
}

VT_EXPORT uint64_t vt_gguf_n_keys(const vt_gguf * g) {
    return g ? g->impl.keys().size() : 0;
}

VT_EXPORT uint64_t vt_gguf_n_tensors(const vt_gguf * g) {
    return g ? g->impl.tensors().size() : 0;
}

VT_EXPORT uint64_t vt_gguf_alignment(const vt_gguf * g) {
    return g ? g->impl.alignment() : 0;
}

VT_EXPORT uint64_t vt_gguf_data_offset(const vt_gguf * g) {
    return g ? g->impl.data_offset() : 0;
}

VT_EXPORT uint64_t vt_gguf_file_size(const vt_gguf * g) {
    return g ? g->impl.data_file().size() : 0;
}

VT_EXPORT vt_status vt_gguf_get_key(const vt_gguf * g, uint64_t i, vt_gguf_key * out) {
    if (g == nullptr || out == nullptr || i >= g->impl.keys().size()) {
        return VT_ERROR_ARGUMENT;
    }
    const vt::gguf::key & k    = g->impl.keys()[i];
    const uint8_t *       base = g->impl.header().data();
    out->name                  = k.name.c_str();
    out->type                  = static_cast<int32_t>(k.type);
    out->element_type          = k.type == vt::gguf_type::array ? static_cast<int32_t>(k.element_type) : -1;
    out->n                     = k.n;
    out->value                 = base + k.value;
    out->n_bytes               = k.n_bytes;
    out->record                = base + k.record;
    out->n_record              = k.n_record;
    return VT_OK;
}

VT_EXPORT vt_status vt_gguf_get_tensor(const vt_gguf * g, uint64_t i, vt_gguf_tensor * out) {
    if (g == nullptr || out == nullptr || i >= g->impl.tensors().size()) {
        return VT_ERROR_ARGUMENT;
    }
    const vt::gguf::tensor & t = g->impl.tensors()[i];
    out->name                  = t.name.c_str();
    out->type                  = t.type;
    out->n_dims                = t.n_dims;
    memcpy(out->ne, t.ne, sizeof(out->ne));
    out->offset  = t.offset;
    out->n_bytes = t.n_bytes;
    return VT_OK;
}

// ---- vocabulary store ----

VT_EXPORT vt_status vt_store_open(const char * path, vt_store ** out, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(path != nullptr && out != nullptr, "path and out must not be NULL");
        *out = nullptr;
        *out = new vt_store(path);
    });
}

VT_EXPORT void vt_store_free(vt_store * s) {
    delete s;
}

VT_EXPORT vt_status vt_store_get_info(const vt_store * s, vt_store_info * out) {
    if (s == nullptr || out == nullptr) {
        return VT_ERROR_ARGUMENT;
    }
    *out = s->impl.info();
    return VT_OK;
}

VT_EXPORT vt_status vt_store_rows(vt_store * s, const int32_t * ids, size_t n, float * out, size_t n_out, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(s != nullptr && (n == 0 || (ids != nullptr && out != nullptr)), "store, ids and out must not be NULL");
        require(n_out / static_cast<size_t>(s->impl.info().n_embd) >= n, "out is too small");
        const lock l(s);
        s->impl.check_ids(ids, n);
        s->impl.embedding_rows(ids, n, out);
    });
}

VT_EXPORT vt_status vt_store_raw_rows(vt_store * s, vt_table table, const int32_t * ids, size_t n, uint8_t * out, size_t n_out, char * err,
                                      size_t n_err) {
    return guard(err, n_err, [&] {
        require(s != nullptr && (n == 0 || (ids != nullptr && out != nullptr)), "store, ids and out must not be NULL");
        require(table == VT_TABLE_EMBEDDING || table == VT_TABLE_HEAD, "no such table");
        const vt::table & t = s->impl.get_table(table);
        require(n_out / t.row_bytes >= n, "out is too small");
        const lock l(s);
        s->impl.check_ids(ids, n);
        s->impl.read_rows(t, ids, n, out);
    });
}

VT_EXPORT uint64_t vt_store_n_read(const vt_store * s) {
    return s ? s->impl.n_read() : 0;
}

VT_EXPORT vt_status vt_store_validate_data(vt_store * s, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(s != nullptr, "store must not be NULL");
        const lock l(s);
        s->impl.validate_data();
    });
}

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

// ---- vocabulary ----

VT_EXPORT vt_status vt_vocab_always_on(const struct llama_vocab * vocab, int32_t * ids, size_t n_ids, size_t * n, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(vocab != nullptr && n != nullptr && (n_ids == 0 || ids != nullptr), "vocab, ids and n must not be NULL");
        const std::vector<int32_t> found = vt::always_on(vocab);
        *n                               = found.size();
        for (size_t i = 0; i < found.size() && i < n_ids; i++) {
            ids[i] = found[i];
        }
    });
}

// ---- table types ----

VT_EXPORT vt_status vt_type_info(int32_t type, const char ** name, int64_t * block_size, uint64_t * type_size, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(name != nullptr && block_size != nullptr && type_size != nullptr, "name and sizes must not be NULL");
        vt::check_row_type(type);
        *name       = ggml_type_name(static_cast<ggml_type>(type));
        *block_size = ggml_blck_size(static_cast<ggml_type>(type));
        *type_size  = ggml_type_size(static_cast<ggml_type>(type));
    });
}

VT_EXPORT vt_status vt_requantize(int32_t src_type, const uint8_t * src, size_t n_src, int32_t dst_type, uint8_t * dst, size_t n_dst, int64_t n_rows,
                                  int64_t n_per_row, int32_t n_threads, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(src != nullptr && dst != nullptr, "src and dst must not be NULL");
        vt::requantize(src_type, src, n_src, dst_type, dst, n_dst, n_rows, n_per_row, n_threads);
    });
}

}  // extern "C"
