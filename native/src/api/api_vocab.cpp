// The C API: tokens of a vocabulary.

#include "api/api.h"
#include "vocab/forms.h"
#include "vocab/pieces.h"
#include "vocab/vocab.h"

#include <algorithm>
#include <vector>

struct vt_forms {
    vt::forms impl;
};

struct vt_pieces {
    vt::pieces impl;
};

using namespace vt;

namespace {

// copies what fits, returns how many there are
size_t copy_ids(const std::vector<int32_t> & found, int32_t * ids, size_t n_ids) {
    std::copy_n(found.begin(), std::min(found.size(), n_ids), ids);
    return found.size();
}

}  // namespace

extern "C" {

// ---- vocabulary ----

VT_EXPORT vt_status vt_vocab_always_on(const struct llama_vocab * vocab, int32_t * ids, size_t n_ids, size_t * n, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(vocab != nullptr && n != nullptr && (n_ids == 0 || ids != nullptr), "vocab, ids and n must not be NULL");
        *n = copy_ids(vt::always_on(vocab), ids, n_ids);
    });
}

VT_EXPORT vt_status vt_vocab_common(const struct llama_vocab * vocab, int32_t * ids, size_t n_ids, size_t * n, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(vocab != nullptr && n != nullptr && (n_ids == 0 || ids != nullptr), "vocab, ids and n must not be NULL");
        *n = copy_ids(vt::common(vocab, n_ids), ids, n_ids);
    });
}

VT_EXPORT vt_status vt_forms_new(const struct llama_vocab * vocab, vt_forms ** out, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(vocab != nullptr && out != nullptr, "vocab and out must not be NULL");
        *out = nullptr;
        *out = new vt_forms{vt::forms(vocab)};
    });
}

VT_EXPORT void vt_forms_free(vt_forms * v) {
    delete v;
}

VT_EXPORT uint64_t vt_forms_n_bytes(const vt_forms * v) {
    return v ? v->impl.n_bytes() : 0;
}

VT_EXPORT vt_status vt_forms_find(const vt_forms * v, const int32_t * ids, size_t n, int32_t * out, size_t n_out, size_t * n_found, char * err,
                                  size_t n_err) {
    return guard(err, n_err, [&] {
        require(v != nullptr && n_found != nullptr && (n == 0 || ids != nullptr) && (n_out == 0 || out != nullptr),
                "forms, ids, out and n_found must not be NULL");
        *n_found = copy_ids(v->impl.find(ids, n), out, n_out);
    });
}

VT_EXPORT vt_status vt_pieces_new(const struct llama_vocab * vocab, vt_pieces ** out, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(vocab != nullptr && out != nullptr, "vocab and out must not be NULL");
        *out = nullptr;
        *out = new vt_pieces{vt::pieces(vocab)};
    });
}

VT_EXPORT void vt_pieces_free(vt_pieces * p) {
    delete p;
}

VT_EXPORT uint64_t vt_pieces_n_bytes(const vt_pieces * p) {
    return p ? p->impl.n_bytes() : 0;
}

VT_EXPORT vt_status vt_pieces_get(const vt_pieces * p, int32_t token, const char ** text, size_t * n, bool * is_eog, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(p != nullptr && text != nullptr && n != nullptr && is_eog != nullptr, "pieces, text, n and is_eog must not be NULL");
        const std::string_view found = p->impl.text(token);
        *is_eog                      = p->impl.is_eog(token);
        *text                        = found.data();
        *n                           = found.size();
    });
}

}  // extern "C"
