#include "store/store.h"

#include "base/checked.h"
#include "base/error.h"
#include "store/token_texts.h"

#include <ggml.h>

#include <algorithm>
#include <cmath>
#include <cstring>

namespace vt {

namespace {

constexpr uint32_t FORMAT_VERSION = 1;
constexpr int64_t  MAX_EMBD       = 1 << 20;   // no model is near it; every buffer for a row has a limit so
constexpr size_t   READ_CHUNK     = 1u << 20;  // bytes

template <size_t N> void copy_string(char (&dst)[N], const gguf & g, const char * name) {
    const std::string s = g.get_string(g.require(name, gguf_type::string));
    if (s.empty() || s.size() >= N) {
        g.fail(format("key %s: %zu bytes, expected 1 to %zu", name, s.size(), N - 1));
    }
    for (const char c : s) {
        if (c < 0x20 || c > 0x7e) {
            g.fail(format("key %s: byte 0x%02x, expected printable ASCII", name, static_cast<unsigned char>(c)));
        }
    }
    memcpy(dst, s.c_str(), s.size() + 1);
}

float finite_f32(const gguf & g, const char * name) {
    const float x = g.get_f32(g.require(name, gguf_type::f32));
    if (!std::isfinite(x)) {
        g.fail(format("key %s: not a finite number", name));
    }
    return x;
}

bool ends_with(const std::string & s, const char * suffix) {
    const size_t n = strlen(suffix);
    return s.size() >= n && s.compare(s.size() - n, n, suffix) == 0;
}

table make_table(const gguf & g, const gguf::tensor & t, int64_t n_cols, int64_t n_rows) {
    if (t.n_dims != 2 || t.ne[0] != n_cols || t.ne[1] != n_rows) {
        g.fail(format("tensor %s: shape (%lld, %lld), expected (%lld, %lld)", t.name.c_str(), static_cast<long long>(t.ne[0]),
                      static_cast<long long>(t.ne[1]), static_cast<long long>(n_cols), static_cast<long long>(n_rows)));
    }
    if (n_cols > MAX_EMBD) {
        g.fail(format("tensor %s: rows of %lld values, expected at most %lld", t.name.c_str(), static_cast<long long>(n_cols),
                      static_cast<long long>(MAX_EMBD)));
    }
    const ggml_type type = static_cast<ggml_type>(t.type);
    if (type != GGML_TYPE_F32 && ggml_get_type_traits(type)->to_float == nullptr) {
        g.fail(format("tensor %s: type %s cannot be decoded by row", t.name.c_str(), ggml_type_name(type)));
    }
    table r;
    r.type      = t.type;
    r.n_cols    = n_cols;
    r.n_rows    = n_rows;
    r.offset    = t.offset;
    r.row_bytes = ggml_row_size(type, n_cols);
    return r;
}

}  // namespace

store::store(const std::string & path) {
    gguf g(path);
    read_own_keys(g);
    check_tokenizer(g);
    find_tables(g);
    m_file = g.release_file();
    m_file->advise_random();
    if (m_info.has_bias) {
        validate_table(m_bias, "output.bias");  // it is small, and all of it is added to every logit
    }
}

void store::read_own_keys(const gguf & g) {
    const gguf::key * version = g.find_key("vocabtailor.format_version");
    if (version == nullptr) {
        g.fail("key vocabtailor.format_version: missing: not a vocabulary store");
    }
    const uint32_t v = g.get_u32(g.require("vocabtailor.format_version", gguf_type::u32));
    if (v != FORMAT_VERSION) {
        g.fail(format("key vocabtailor.format_version: found %u, expected %u", v, FORMAT_VERSION));
    }
    const std::string kind = g.get_string(g.require("vocabtailor.kind", gguf_type::string));
    if (kind != "vocab") {
        throw error(VT_ERROR_MISMATCH, format("%s: key vocabtailor.kind: found \"%.32s\", expected \"vocab\"%s", g.data_file().path().c_str(),
                                              kind.c_str(), kind == "core" ? ": this is the core, its store is NAME.vocab.gguf" : ""));
    }
    if (const gguf::key * split = g.find_key("split.count")) {
        g.fail(format("key %s: a store is one file", split->name.c_str()));
    }
    copy_string(m_info.architecture, g, "general.architecture");
    copy_string(m_info.pair_id, g, "vocabtailor.pair_id");
    copy_string(m_info.source_sha256, g, "vocabtailor.source.sha256");
    copy_string(m_info.tokenizer_sha256, g, "vocabtailor.tokenizer.sha256");

    m_info.n_vocab = g.get_u32(g.require("vocabtailor.n_vocab", gguf_type::u32));
    m_info.n_embd  = g.get_u32(g.require("vocabtailor.n_embd", gguf_type::u32));
    m_info.tied    = g.header()[g.require("vocabtailor.tied", gguf_type::boolean).value];
    if (m_info.n_vocab < 1 || m_info.n_vocab > INT32_MAX || m_info.n_embd < 1) {
        g.fail(
            format("key vocabtailor.n_vocab: table of %lld x %lld", static_cast<long long>(m_info.n_vocab), static_cast<long long>(m_info.n_embd)));
    }
    const uint32_t stubs = g.get_u32(g.require("vocabtailor.stub_rows", gguf_type::u32));
    if (stubs < 1 || stubs > MAX_STUB_ROWS) {
        g.fail(format("key vocabtailor.stub_rows: found %u, expected 1 to %u", stubs, MAX_STUB_ROWS));
    }
    m_info.stub_rows     = stubs;
    m_info.logit_scale   = finite_f32(g, "vocabtailor.logit_scale");
    m_info.logit_softcap = finite_f32(g, "vocabtailor.logit_softcap");
    if (m_info.logit_softcap < 0.0f) {
        g.fail("key vocabtailor.logit_softcap: negative");
    }
}

void store::set_logits(float scale, float softcap) {
    if (!std::isfinite(scale) || !std::isfinite(softcap) || softcap < 0.0f) {
        throw error(VT_ERROR_ARGUMENT, format("logit scale %g and soft cap %g: expected finite numbers, and none below 0 for the cap",
                                              static_cast<double>(scale), static_cast<double>(softcap)));
    }
    m_info.logit_scale   = scale;
    m_info.logit_softcap = softcap;
}

void store::check_tokenizer(const gguf & g) const {
    const uint64_t n_vocab = static_cast<uint64_t>(m_info.n_vocab);
    const auto     expect  = [&](const char * name, gguf_type type, bool required) {
        if (!required && g.find_key(name) == nullptr) {
            return;
        }
        const gguf::key & k = g.require_array(name, type);
        if (k.n != n_vocab) {
            g.fail(format("key %s: %llu elements, expected n_vocab = %llu", name, static_cast<unsigned long long>(k.n),
                          static_cast<unsigned long long>(n_vocab)));
        }
    };
    const std::string model = g.get_string(g.require("tokenizer.ggml.model", gguf_type::string));
    if (model == "no_vocab") {
        g.fail("key tokenizer.ggml.model: found \"no_vocab\", expected a tokenizer");
    }
    expect("tokenizer.ggml.tokens", gguf_type::string, true);
    check_token_texts(g, *g.find_key("tokenizer.ggml.tokens"));
    expect("tokenizer.ggml.scores", gguf_type::f32, false);
    expect("tokenizer.ggml.token_type", gguf_type::i32, false);

    for (const gguf::key & k : g.keys()) {
        if (k.name.compare(0, 15, "tokenizer.ggml.") != 0 || !ends_with(k.name, "_token_id")) {
            continue;
        }
        if (g.get_u32(g.require(k.name, gguf_type::u32)) >= n_vocab) {
            g.fail(format("key %s: %u, expected less than n_vocab = %llu", k.name.c_str(), g.get_u32(k), static_cast<unsigned long long>(n_vocab)));
        }
    }
    // ids that llama.cpp assumes where the keys are missing (src/llama-vocab.cpp)
    const uint64_t assumed = model == "gpt2" ? 11 : model == "llama" ? 2 : model == "bert" ? 103 : 0;
    const bool     named   = g.find_key("tokenizer.ggml.bos_token_id") && g.find_key("tokenizer.ggml.eos_token_id");
    if (!named && n_vocab <= assumed) {
        g.fail(format("key tokenizer.ggml.bos_token_id: missing, and the default of a %s tokenizer is outside n_vocab = %llu", model.c_str(),
                      static_cast<unsigned long long>(n_vocab)));
    }
}

void store::find_tables(const gguf & g) {
    const gguf::tensor * embedding = nullptr;
    const gguf::tensor * per_layer = nullptr;
    const gguf::tensor * head      = nullptr;
    const gguf::tensor * bias      = nullptr;
    for (const gguf::tensor & t : g.tensors()) {
        if (t.name == "token_embd.weight") {
            embedding = &t;
        } else if (t.name == "per_layer_token_embd.weight") {
            per_layer = &t;
        } else if (t.name == "output.weight") {
            head = &t;
        } else if (t.name == "output.bias") {
            bias = &t;
        } else {
            g.fail("tensor " + t.name + ": unexpected in a vocabulary store");
        }
    }
    if (embedding == nullptr) {
        g.fail("tensor token_embd.weight: missing");
    }
    if ((head == nullptr) != (m_info.tied != 0)) {
        g.fail(format("tensor output.weight: %s, but key vocabtailor.tied is %s", head ? "present" : "missing", m_info.tied ? "true" : "false"));
    }
    m_embedding = make_table(g, *embedding, m_info.n_embd, m_info.n_vocab);
    m_head      = head ? make_table(g, *head, m_info.n_embd, m_info.n_vocab) : m_embedding;
    if (per_layer != nullptr) {
        m_per_layer                = make_table(g, *per_layer, per_layer->ne[0], m_info.n_vocab);
        m_info.n_per_layer         = m_per_layer.n_cols;
        m_info.per_layer_type      = m_per_layer.type;
        m_info.per_layer_row_bytes = m_per_layer.row_bytes;
    }
    if (bias != nullptr) {
        if (bias->n_dims != 1 || bias->ne[0] != m_info.n_vocab || bias->type != GGML_TYPE_F32) {
            g.fail("tensor output.bias: expected (n_vocab,) of f32");
        }
        m_info.has_bias  = 1;
        m_bias.type      = GGML_TYPE_F32;
        m_bias.n_cols    = 1;
        m_bias.n_rows    = m_info.n_vocab;
        m_bias.offset    = bias->offset;
        m_bias.row_bytes = sizeof(float);
    }
    m_info.embedding_type      = m_embedding.type;
    m_info.head_type           = m_head.type;
    m_info.embedding_row_bytes = m_embedding.row_bytes;
    m_info.head_row_bytes      = m_head.row_bytes;
}

void store::check_ids(const int32_t * ids, size_t n) const {
    for (size_t i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= m_info.n_vocab) {
            throw error(VT_ERROR_TOKEN,
                        format("token id %d at index %zu: expected 0 to %lld", ids[i], i, static_cast<long long>(m_info.n_vocab - 1)));
        }
    }
}

void store::read_rows(const table & t, const int32_t * ids, size_t n, uint8_t * out) {
    const size_t max_run = std::max<size_t>(1, READ_CHUNK / t.row_bytes);
    for (size_t i = 0; i < n;) {
        size_t run = 1;
        while (i + run < n && run < max_run && ids[i + run] == ids[i + run - 1] + 1) {
            run++;
        }
        read_range(t, static_cast<size_t>(ids[i]), run, out + i * t.row_bytes);
        i += run;
    }
}

void store::read_range(const table & t, size_t first, size_t n, uint8_t * out) {
    m_file->read_at(t.offset + static_cast<uint64_t>(first) * t.row_bytes, out, n * t.row_bytes);
    m_n_read += n;
}

std::unique_ptr<mapping> store::map_table(const table & t) const {
    return std::unique_ptr<mapping>(new mapping(*m_file, t.offset, checked_mul(t.row_bytes, static_cast<uint64_t>(t.n_rows))));
}

void store::rows(const table & t, const int32_t * ids, size_t n, float * out) {
    const ggml_type      type   = static_cast<ggml_type>(t.type);
    const size_t         n_cols = static_cast<size_t>(t.n_cols);
    std::vector<uint8_t> row(t.row_bytes);
    for (size_t i = 0; i < n; i++) {
        read_rows(t, ids + i, 1, row.data());
        if (type == GGML_TYPE_F32) {
            memcpy(out + i * n_cols, row.data(), t.row_bytes);
        } else {
            ggml_get_type_traits(type)->to_float(row.data(), out + i * n_cols, t.n_cols);
        }
    }
}

void store::validate_table(const table & t, const char * name) const {
    std::vector<uint8_t> buf;
    const size_t         step = std::max<size_t>(1, READ_CHUNK / t.row_bytes);
    for (int64_t row = 0; row < t.n_rows; row += static_cast<int64_t>(step)) {
        const size_t n = std::min<size_t>(step, static_cast<size_t>(t.n_rows - row));
        buf.resize(n * t.row_bytes);
        m_file->read_at(t.offset + static_cast<uint64_t>(row) * t.row_bytes, buf.data(), buf.size());
        if (!ggml_validate_row_data(static_cast<ggml_type>(t.type), buf.data(), buf.size())) {
            throw error(VT_ERROR_FORMAT, format("%s: tensor %s: a value in rows %lld to %lld is not finite", path().c_str(), name,
                                                static_cast<long long>(row), static_cast<long long>(row + static_cast<int64_t>(n) - 1)));
        }
    }
}

void store::validate_data() const {
    validate_table(m_embedding, "token_embd.weight");
    if (per_layer() != nullptr) {
        validate_table(m_per_layer, "per_layer_token_embd.weight");
    }
    if (!m_info.tied) {
        validate_table(m_head, "output.weight");
    }
    if (m_info.has_bias) {
        validate_table(m_bias, "output.bias");
    }
}

}  // namespace vt
