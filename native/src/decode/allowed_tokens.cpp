#include "decode/allowed_tokens.h"

#include "base/parallel.h"
#include "vocab/piece_of.h"
#include "vocab/utf8.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string_view>

namespace vt {

namespace {

constexpr size_t MIN_PART = 2048;  // tokens that a thread is worth

// those of some tokens that a grammar allows, in their order
std::vector<int32_t> ask(llama_sampler & grammar, const std::vector<int32_t> & ids, int32_t n_threads) {
    const size_t                      n_parts = std::min(static_cast<size_t>(std::max(n_threads, 1)), ids.size() / MIN_PART + 1);
    std::vector<std::vector<int32_t>> allowed(n_parts);
    const auto                        ask_part = [&](size_t part) {  // nothing of a grammar changes
        if (part >= n_parts) {
            return;
        }
        candidates c;
        for (size_t i = ids.size() * part / n_parts; i < ids.size() * (part + 1) / n_parts; i++) {
            c.push_back({ids[i], 0.0f, 0.0f});
        }
        llama_token_data_array cur = view(c);
        if (!c.empty()) {
            llama_sampler_apply(&grammar, &cur);
        }
        for (const llama_token_data & x : c) {
            if (x.logit > -INFINITY) {
                allowed[part].push_back(x.id);
            }
        }
    };
    if (n_parts == 1) {
        ask_part(0);
    } else {
        parallel(static_cast<int32_t>(n_parts), ask_part);
    }
    std::vector<int32_t> all;
    for (const std::vector<int32_t> & part : allowed) {
        all.insert(all.end(), part.begin(), part.end());
    }
    return all;
}

struct characters {
    bool are_valid;
    bool are_whole;  // the last one does not go on in another token
};

characters read(const std::string & text) {
    for (size_t at = 0; at < text.size();) {
        const utf8_char c = read_utf8(text, at);
        if (c.n == 0 || c.is_cut) {
            return {c.n > 0, false};
        }
        at += c.n;
    }
    return {!text.empty(), true};
}

}  // namespace

void allowed_tokens::make_tree() {
    struct entry {
        uint64_t head;  // its first bytes, so that most are sorted by these
        size_t   at, n;
        int32_t  id;
        bool     is_whole;
    };
    const size_t       n_vocab = static_cast<size_t>(llama_vocab_n_tokens(&m_vocab));
    std::string        texts;
    std::vector<entry> entries;
    for (size_t i = 0; i < n_vocab; i++) {
        const int32_t     id   = static_cast<int32_t>(i);
        const std::string text = piece_of(m_vocab, id, true);  // as a grammar reads it
        const characters  c    = read(text);
        // an end is allowed where the grammar ends, whatever its text
        if (!c.are_valid || llama_vocab_is_eog(&m_vocab, id)) {
            m_others.push_back(id);
            continue;
        }
        uint64_t head = 0;
        for (size_t j = 0; j < sizeof(head); j++) {
            head = head << 8 | (j < text.size() ? static_cast<uint8_t>(text[j]) : 0);
        }
        entries.push_back({head, texts.size(), text.size(), id, c.are_whole});
        texts += text;
    }
    const auto text_of = [&](const entry & e) { return std::string_view(texts).substr(e.at, e.n); };
    std::sort(entries.begin(), entries.end(),
              [&](const entry & a, const entry & b) { return a.head != b.head ? a.head < b.head : text_of(a) < text_of(b); });

    std::vector<const entry *> open;  // those that the text begins with
    std::vector<size_t>        parents;
    std::vector<uint32_t>      counts(n_vocab + 1, 0);
    for (const entry & e : entries) {
        while (!open.empty() && text_of(e).substr(0, open.back()->n) != text_of(*open.back())) {
            open.pop_back();
        }
        parents.push_back(open.empty() ? n_vocab : static_cast<size_t>(open.back()->id));
        counts[parents.back()]++;
        if (e.is_whole) {
            open.push_back(&e);
        }
    }
    m_ends.resize(n_vocab + 1);
    std::partial_sum(counts.begin(), counts.end(), m_ends.begin());
    m_children.resize(entries.size());
    for (size_t i = 0; i < entries.size(); i++) {
        m_children[m_ends[parents[i]] - counts[parents[i]]] = entries[i].id;
        counts[parents[i]]--;
    }
}

void allowed_tokens::add_children(size_t token, std::vector<int32_t> & ids) const {
    const auto at = [&](size_t i) { return m_children.begin() + static_cast<std::ptrdiff_t>(i); };
    ids.insert(ids.end(), at(token == 0 ? 0 : m_ends[token - 1]), at(m_ends[token]));
}

std::vector<int32_t> allowed_tokens::find(llama_sampler & grammar, int32_t last, bool is_text, int32_t n_threads) {
    const size_t         n_vocab = static_cast<size_t>(llama_vocab_n_tokens(&m_vocab));
    std::vector<int32_t> ids;
    if (!is_text || last < 0 || !read(piece_of(m_vocab, last, true)).are_whole) {
        ids.resize(n_vocab);
        std::iota(ids.begin(), ids.end(), 0);
        return ask(grammar, ids, n_threads);
    }
    if (m_ends.empty()) {
        make_tree();
    }
    std::vector<int32_t> found;
    ids = m_others;
    add_children(n_vocab, ids);
    while (!ids.empty()) {
        const std::vector<int32_t> allowed = ask(grammar, ids, n_threads);
        found.insert(found.end(), allowed.begin(), allowed.end());
        ids.clear();
        for (const int32_t id : allowed) {
            add_children(static_cast<size_t>(id), ids);
        }
    }
    std::sort(found.begin(), found.end());
    return found;
}

}  // namespace vt
