#include "store/token_texts.h"

#include "base/checked.h"
#include "base/error.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <string>
#include <string_view>
#include <vector>

namespace vt {

namespace {

struct text {
    uint64_t         hash;
    std::string_view value;
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

// ids of texts
void check_bucket(const gguf & g, const gguf::key & tokens, const std::vector<text> & texts, uint32_t * begin, uint32_t * end) {
    if (end - begin < 2) {
        return;
    }
    std::sort(begin, end, [&](uint32_t a, uint32_t b) {
        if (texts[a].hash != texts[b].hash) {
            return texts[a].hash < texts[b].hash;
        }
        const int order = texts[a].value.compare(texts[b].value);
        return order != 0 ? order < 0 : a < b;
    });
    for (const uint32_t * i = begin + 1; i < end; i++) {
        if (texts[i[0]].hash == texts[i[-1]].hash && texts[i[0]].value == texts[i[-1]].value) {
            g.fail(format("key %s: tokens %u and %u have one text, \"%s\"", tokens.name.c_str(), i[-1], i[0], printable(texts[i[0]].value).c_str()));
        }
    }
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
        texts[i] = {0, std::string_view(p, size)};
        p += length;
    }
    for (size_t i = 0; i < empty.size(); i++) {
        texts[empty[i]].value = names[i];
    }
    // by buckets first: most hold one text or two, and a file that is made to fill one costs no more than a sort
    const auto            bucket = [&](const text & t) { return to_size(t.hash % n); };
    std::vector<uint32_t> end(n, 0);
    for (text & t : texts) {
        t.hash = hash_of(t.value);
        end[bucket(t)]++;
    }
    std::partial_sum(end.begin(), end.end(), end.begin());
    std::vector<uint32_t> order(n);
    for (size_t i = 0; i < n; i++) {
        order[--end[bucket(texts[i])]] = static_cast<uint32_t>(i);  // from here on the bucket's begin
    }
    for (size_t b = 0; b < n; b++) {
        check_bucket(g, tokens, texts, order.data() + end[b], order.data() + (b + 1 < n ? end[b + 1] : n));
    }
}

}  // namespace vt
