#include "store/core.h"

#include "base/error.h"
#include "store/gguf.h"

namespace vt {

namespace {

// as llama.cpp prints it, empty where the key is missing or of another kind
std::string text_of(const gguf & g, const std::string & name) {
    const gguf::key * k = g.find_key(name);
    if (k == nullptr) {
        return std::string();
    }
    switch (k->type) {
    case gguf_type::string: return g.get_string(*k);
    case gguf_type::u32: return std::to_string(g.get_u32(*k));
    case gguf_type::boolean: return g.header()[k->value] != 0 ? "true" : "false";
    default: return std::string();
    }
}

}  // namespace

std::vector<std::pair<std::string, std::string>> pair_keys(const vt_store_info & info) {
    return {
        {"general.architecture", info.architecture},
        {"vocabtailor.pair_id", info.pair_id},
        {"vocabtailor.source.sha256", info.source_sha256},
        {"vocabtailor.n_vocab", std::to_string(info.n_vocab)},
        {"vocabtailor.n_embd", std::to_string(info.n_embd)},
        {"vocabtailor.tied", info.tied ? "true" : "false"},
        {"vocabtailor.stub_rows", std::to_string(info.stub_rows)},
    };
}

// llama.cpp allocates by vocab_size before it looks at the tensors
void check_core(const std::string & path, const store * s) {
    const gguf  g(path);
    std::string kind = text_of(g, "vocabtailor.kind");
    if (kind != "core") {
        kind = g.find_key("vocabtailor.kind") == nullptr ? "an unsplit model" : format("key vocabtailor.kind is \"%.32s\"", kind.c_str());
        throw error(VT_ERROR_MISMATCH, format("%s: %s, expected the core of a split model", path.c_str(), kind.c_str()));
    }
    const std::string architecture = g.get_string(g.require("general.architecture", gguf_type::string));
    const uint32_t    stubs        = g.get_u32(g.require("vocabtailor.stub_rows", gguf_type::u32));
    const uint32_t    size         = g.get_u32(g.require(architecture + ".vocab_size", gguf_type::u32));
    int64_t           n_rows       = 0;
    for (const gguf::tensor & t : g.tensors()) {
        n_rows = t.name == "token_embd.weight" ? t.ne[1] : n_rows;
    }
    if (stubs < 1 || stubs > MAX_STUB_ROWS || stubs != size || static_cast<int64_t>(stubs) != n_rows) {
        g.fail(format("%u stub rows, vocab_size %u and %lld rows of token_embd.weight, expected the same number up to %u", stubs, size,
                      static_cast<long long>(n_rows), MAX_STUB_ROWS));
    }
    if (s == nullptr) {
        return;
    }
    for (const auto & entry : pair_keys(s->info())) {
        const std::string found = text_of(g, entry.first);
        if (found != entry.second) {
            throw error(VT_ERROR_MISMATCH, format("%s and %s do not belong together: key %s: found \"%.100s\" and \"%s\"", path.c_str(),
                                                  s->path().c_str(), entry.first.c_str(), found.c_str(), entry.second.c_str()));
        }
    }
}

}  // namespace vt
