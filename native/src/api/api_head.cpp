// The C API: heads.

#include "api/api_objects.h"
#include "scan/scan.h"
#include "store/quantize.h"

using namespace vt;

// the states, and which of them are wanted, as head and whole head take them
static void check_some(const float * hidden, size_t n_hidden, const size_t * which, size_t n_which, size_t n_rows, const float * logits,
                       size_t n_logits) {
    require(hidden != nullptr && which != nullptr && logits != nullptr && n_hidden > 0, "hidden, which and logits must not be NULL or empty");
    require(n_rows == 0 || n_logits / n_rows >= n_which, "logits is too small");
    require(std::all_of(which, which + n_which, [&](size_t i) { return i < n_hidden; }), "there is no such hidden state");
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

VT_EXPORT vt_status vt_head_share(vt_head * h, vt_head ** out, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(h != nullptr && out != nullptr, "head and out must not be NULL");
        *out = nullptr;
        const lock l(h);
        *out = new vt_head(*h);
    });
}

VT_EXPORT void vt_head_free(vt_head * h) {
    delete h;
}

VT_EXPORT vt_status vt_head_set_static(vt_head * h, const int32_t * ids, size_t n, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(h != nullptr && ids != nullptr, "head and ids must not be NULL");
        const lock l(h);
        h->impl.set_static(ids, n);
    });
}

VT_EXPORT vt_status vt_head_append(vt_head * h, const int32_t * ids, size_t n, size_t * n_added, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(h != nullptr && (n == 0 || ids != nullptr), "head and ids must not be NULL");
        const lock   l(h);
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

VT_EXPORT vt_status vt_head_get_info(vt_head * h, vt_head_info * out, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(h != nullptr && out != nullptr, "head and out must not be NULL");
        const lock l(h);
        *out = {h->impl.n_static(), h->impl.ids().size(), h->impl.n_bytes()};
    });
}

VT_EXPORT vt_status vt_head_get_ids(vt_head * h, int32_t * ids, size_t n_ids, size_t * n, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(h != nullptr, "head must not be NULL");
        const lock l(h);
        copy_out(h->impl.ids(), ids, n_ids, n);
    });
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

VT_EXPORT vt_status vt_head_softmax(vt_head * h, const vt_softmax_params * params, const vt_softmax * out, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(h != nullptr, "head must not be NULL");
        const lock l(h);
        require(!h->impl.ids().empty(), "the active set is empty");
        softmax s(read_params(params), read_params(out), static_cast<size_t>(h->store->impl.info().n_vocab), &h->impl.ids());
        h->impl.compute_softmax(s, 0);
        s.finish();
    });
}

VT_EXPORT vt_status vt_head_logits(vt_head * h, const float * hidden, size_t n_hidden, const size_t * which, size_t n_which, int32_t n_threads,
                                   float * logits, size_t n_logits, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(h != nullptr, "head must not be NULL");
        const lock l(h);
        check_some(hidden, n_hidden, which, n_which, h->impl.ids().size(), logits, n_logits);
        h->impl.compute_some(hidden, n_hidden, which, n_which, n_threads, logits);
    });
}

VT_EXPORT vt_status vt_weight_buffer(int32_t type, int64_t n_embd, int64_t n_rows, char * name, size_t n_name, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(name != nullptr && n_name > 0, "name must not be NULL or empty");
        check_row_type(type);
        const int64_t block = ggml_blck_size(static_cast<ggml_type>(type));
        require(n_embd > 0 && n_embd % block == 0 && n_embd <= INT32_MAX && n_rows > 0 && n_rows <= INT32_MAX,
                "n_embd and n_rows must be positive, n_embd a multiple of the type's block");
        const weight_layout layout = pick_weight_layout(static_cast<ggml_type>(type), n_embd, n_rows);
        snprintf(name, n_name, "%s", ggml_backend_buft_name(layout.buft));
    });
}

// ---- the whole head ----

VT_EXPORT vt_status vt_whole_head_new(vt_store * store, const vt_whole_head_params * params, vt_whole_head ** out, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(store != nullptr && out != nullptr, "store and out must not be NULL");
        *out                         = nullptr;
        const vt_whole_head_params p = read_params(params);
        require(p.placement >= VT_PLACEMENT_MEMORY && p.placement <= VT_PLACEMENT_STREAMED, "no such placement");
        require(p.n_threads >= 0 && p.n_threads <= GGML_MAX_N_THREADS, "n_threads is out of range");
        *out = new vt_whole_head(store, static_cast<vt_placement>(p.placement), std::max(p.n_threads, 1));
    });
}

VT_EXPORT void vt_whole_head_free(vt_whole_head * w) {
    delete w;
}

VT_EXPORT vt_status vt_whole_head_get_info(vt_whole_head * w, vt_whole_head_info * out, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(w != nullptr && out != nullptr, "whole head and out must not be NULL");
        *out = {w->impl.n_bytes(), w->impl.uses_kernel() ? 1 : 0};
    });
}

VT_EXPORT vt_status vt_whole_head_softmax(vt_whole_head * w, const vt_softmax_params * params, const vt_softmax * out, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(w != nullptr, "whole head must not be NULL");
        softmax s(read_params(params), read_params(out), static_cast<size_t>(w->store->impl.info().n_vocab), nullptr);
        w->impl.compute_softmax(s);
        s.finish();
    });
}

VT_EXPORT vt_status vt_whole_head_logits(vt_whole_head * w, const float * hidden, size_t n_hidden, const size_t * which, size_t n_which,
                                         int32_t n_threads, float * logits, size_t n_logits, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(w != nullptr, "whole head must not be NULL");
        check_some(hidden, n_hidden, which, n_which, static_cast<size_t>(w->store->impl.info().n_vocab), logits, n_logits);
        w->impl.compute_some(hidden, n_hidden, which, n_which, n_threads, logits);
    });
}

VT_EXPORT const char * vt_scan_kernel(size_t i) {
    const std::vector<const scan_kernel *> kernels = scan_kernels();
    return i < kernels.size() ? kernels[i]->name : nullptr;
}

}  // extern "C"
