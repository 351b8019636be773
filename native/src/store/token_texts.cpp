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

// the texts of a key, by token
class texts {
  public:
    texts(const gguf & g, const gguf::key & tokens) : m_header(reinterpret_cast<const char *>(g.header())), m_at(to_size(tokens.n)) {
        size_t at = tokens.value;
        for (uint32_t & one : m_at) {
            one = static_cast<uint32_t>(at);  // a header has 64 MiB at most
            at += sizeof(uint64_t) + length(at);
        }
    }

    size_t size() const { return m_at.size(); }

    // as llama.cpp has it: up to a NUL, and named where it is empty; the name is kept in name
    std::string_view get(uint32_t id, std::string & name) const {
        const char *     p = m_header + m_at[id] + sizeof(uint64_t);
        std::string_view s(p, length(m_at[id]));
        const size_t     end = s.find('\0');
        s                    = s.substr(0, end);
        if (s.empty()) {
            name = "[EMPTY_" + std::to_string(id) + "]";
            return name;
        }
        return s;
    }

  private:
    const char *          m_header;
    std::vector<uint32_t> m_at;  // (n,) where each begins, with its length

    size_t length(size_t at) const {
        uint64_t n;
        memcpy(&n, m_header + at, sizeof(n));
        return to_size(n);
    }
};

// ids of texts whose hashes fall together; hashes: (n,) by id
void check_bucket(const gguf & g, const gguf::key & tokens, const texts & all, const std::vector<uint64_t> & hashes, uint32_t * begin,
                  uint32_t * end) {
    if (end - begin < 2) {
        return;
    }
    std::string name_a, name_b;
    const auto  compare = [&](uint32_t a, uint32_t b) { return all.get(a, name_a).compare(all.get(b, name_b)); };
    std::sort(begin, end, [&](uint32_t a, uint32_t b) {
        if (hashes[a] != hashes[b]) {
            return hashes[a] < hashes[b];
        }
        const int order = compare(a, b);
        return order != 0 ? order < 0 : a < b;
    });
    for (const uint32_t * i = begin + 1; i < end; i++) {
        if (hashes[i[0]] == hashes[i[-1]] && compare(i[0], i[-1]) == 0) {
            g.fail(
                format("key %s: tokens %u and %u have one text, \"%s\"", tokens.name.c_str(), i[-1], i[0], printable(all.get(i[0], name_a)).c_str()));
        }
    }
}

}  // namespace

// src/llama-vocab.cpp, impl::load: a C string each, "[EMPTY_<id>]" where it is empty, and as many different ones as tokens,
// whatever the tokenizer
void check_token_texts(const gguf & g, const gguf::key & tokens) {
    const texts  all(g, tokens);
    const size_t n = all.size();
    if (n == 0) {
        return;
    }
    // by buckets first: most hold one text or two, and a file that is made to fill one costs no more than a sort
    std::string           name;
    std::vector<uint64_t> hashes(n);
    std::vector<uint32_t> end(n, 0), order(n);
    const auto            bucket = [&](uint32_t id) { return to_size(hashes[id] % n); };
    for (uint32_t i = 0; i < n; i++) {
        hashes[i] = hash_of(all.get(i, name));
        end[bucket(i)]++;
    }
    std::partial_sum(end.begin(), end.end(), end.begin());
    for (uint32_t i = 0; i < n; i++) {
        order[--end[bucket(i)]] = i;  // from here on the bucket's begin
    }
    for (size_t b = 0; b < n; b++) {
        check_bucket(g, tokens, all, hashes, order.data() + end[b], order.data() + (b + 1 < n ? end[b + 1] : n));
    }
}

}  // namespace vt
