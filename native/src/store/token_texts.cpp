#include "store/token_texts.h"

#include "base/checked.h"
#include "base/error.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace vt {

namespace {

struct text {
    uint64_t         hash;
    std::string_view value;
    uint64_t         id;
};

// FNV-1a; texts that collide cost a comparison
uint64_t hash_of(std::string_view s) {
    uint64_t h = 14695981039346656037u;
    for (const char c : s) {
        h = (h ^ static_cast<unsigned char>(c)) * 1099511628211u;
    }
    return h;
}

std::string printable(std::string_view s) {
    std::string out;
    for (const char c : s.substr(0, 32)) {
        out += c >= 0x20 && c <= 0x7e ? std::string(1, c) : format("\\x%02x", static_cast<unsigned char>(c));
    }
    return out + (s.size() > 32 ? "..." : "");
}

}  // namespace

// src/llama-vocab.cpp, impl::load: a C string each, "[EMPTY_<id>]" where it is empty, and as many different ones as tokens,
// whatever the tokenizer
void check_token_texts(const gguf & g, const gguf::key & tokens) {
    const size_t             n = to_size(tokens.n);
    std::vector<std::string> names;  // of the empty ones
    std::vector<size_t>      empty;
    std::vector<text>        texts(n);
    const char *             p = reinterpret_cast<const char *>(g.header().data()) + tokens.value;
    for (size_t i = 0; i < n; i++) {
        uint64_t length;
        memcpy(&length, p, sizeof(length));
        p += sizeof(length);
        const void * end  = memchr(p, 0, to_size(length));
        const size_t size = end != nullptr ? static_cast<size_t>(static_cast<const char *>(end) - p) : to_size(length);
        if (size == 0) {
            empty.push_back(i);
            names.push_back("[EMPTY_" + std::to_string(i) + "]");
        }
        texts[i] = {0, std::string_view(p, size), i};
        p += length;
    }
    for (size_t i = 0; i < empty.size(); i++) {
        texts[empty[i]].value = names[i];
    }
    for (text & t : texts) {
        t.hash = hash_of(t.value);
    }
    std::sort(texts.begin(), texts.end(), [](const text & a, const text & b) {
        if (a.hash != b.hash) {
            return a.hash < b.hash;
        }
        const int order = a.value.compare(b.value);
        return order != 0 ? order < 0 : a.id < b.id;
    });
    for (size_t i = 1; i < n; i++) {
        if (texts[i].hash == texts[i - 1].hash && texts[i].value == texts[i - 1].value) {
            g.fail(format("key %s: tokens %llu and %llu have one text, \"%s\"", tokens.name.c_str(), static_cast<unsigned long long>(texts[i - 1].id),
                          static_cast<unsigned long long>(texts[i].id), printable(texts[i].value).c_str()));
        }
    }
}

}  // namespace vt
