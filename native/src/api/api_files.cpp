// The C API: the library, files, and the types of tables.

#include "api/api.h"
#include "base/parallel.h"
#include "head/weight_layout.h"
#include "store/core.h"
#include "store/gguf.h"
#include "store/quantize.h"

#include <cstring>
#include <llama.h>

struct vt_gguf {
    vt::gguf impl;
};

using namespace vt;

extern "C" {

// ---- library ----

VT_EXPORT const char * vt_build_info(void) {
    return "llama-cpp-python " VT_LLAMA_CPP_PYTHON_VERSION ", llama " VT_LLAMA_VERSION ", ggml " VT_GGML_VERSION;
}

VT_EXPORT vt_status vt_check_runtime(char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        if (strcmp(llama_version(), VT_LLAMA_VERSION) != 0 || strcmp(ggml_version(), VT_GGML_VERSION) != 0) {
            throw error(VT_ERROR_VERSION, format("this process has llama %s and ggml %s, but libvocabtailor was built for %s; "
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

VT_EXPORT vt_status vt_gguf_open_source(const char * path, vt_gguf ** out, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(path != nullptr && out != nullptr, "path and out must not be NULL");
        *out = nullptr;
        *out = new vt_gguf{vt::gguf(path, vt::gguf_rules::source)};
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

VT_EXPORT uint32_t vt_gguf_version(const vt_gguf * g) {
    return g ? g->impl.version() : 0;
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
    const uint8_t *       base = g->impl.header();
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
    out->offset   = t.offset;
    out->n_bytes  = t.n_bytes;
    out->record   = g->impl.header() + t.record;
    out->n_record = t.n_record;
    return VT_OK;
}

VT_EXPORT vt_status vt_is_repacked(int32_t type, int64_t n_cols, int64_t n_rows, bool * out, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(out != nullptr, "out must not be NULL");
        require(type >= 0 && type < GGML_TYPE_COUNT && ggml_blck_size(static_cast<ggml_type>(type)) > 0, "there is no such ggml_type");
        require(n_cols > 0 && n_rows > 0 && n_cols % ggml_blck_size(static_cast<ggml_type>(type)) == 0, "n_cols is not a number of blocks");
        *out = !pick_weight_layout(static_cast<ggml_type>(type), n_cols, n_rows).is_plain;
    });
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

VT_EXPORT vt_status vt_store_set_logits(vt_store * s, float logit_scale, float logit_softcap, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(s != nullptr, "store must not be NULL");
        s->impl.set_logits(logit_scale, logit_softcap);
    });
}

VT_EXPORT vt_status vt_store_rows(vt_store * s, const int32_t * ids, size_t n, float * out, size_t n_out, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(s != nullptr && (n == 0 || (ids != nullptr && out != nullptr)), "store, ids and out must not be NULL");
        require(n_out / static_cast<size_t>(s->impl.info().n_embd) >= n, "out is too small");
        s->impl.check_ids(ids, n);
        s->impl.rows(s->impl.get_table(table_id::embedding), ids, n, out);
    });
}

VT_EXPORT uint64_t vt_store_n_read(const vt_store * s) {
    return s ? s->impl.n_read() : 0;
}

VT_EXPORT vt_status vt_store_validate_data(vt_store * s, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(s != nullptr, "store must not be NULL");
        s->impl.validate_data();
    });
}

// ---- core ----

VT_EXPORT vt_status vt_core_check(const char * path, const vt_store * store, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(path != nullptr, "path must not be NULL");
        vt::check_core(path, store ? &store->impl : nullptr);
    });
}

VT_EXPORT void vt_load_alone(void) {
    vt::work_alone();
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
