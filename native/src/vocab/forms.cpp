#include "vocab/forms.h"

#include "base/error.h"
#include "vocab/letters.h"
#include "vocab/utf8.h"
#include "vocab/vocab.h"

#include <algorithm>
#include <functional>
#include <string>
#include <unordered_set>

namespace vt {

namespace {

// false where text is not UTF-8, as in pieces that are cut inside a character
bool decode_utf8(const std::string & text, std::vector<uint32_t> & out) {
    out.clear();
    for (size_t i = 0; i < text.size();) {
        const utf8_char c = read_utf8(text, i);
        if (c.n == 0 || c.is_cut) {
            return false;
        }
        out.push_back(c.first);
        i += c.n;
    }
    return true;
}

void append_utf8(std::string & text, uint32_t c) {
    const auto put = [&](uint32_t byte) { text.push_back(static_cast<char>(byte)); };
    if (c < 0x80) {
        put(c);
    } else if (c < 0x800) {
        put(0xC0 | c >> 6);
        put(0x80 | (c & 0x3F));
    } else if (c < 0x10000) {
        put(0xE0 | c >> 12);
        put(0x80 | (c >> 6 & 0x3F));
        put(0x80 | (c & 0x3F));
    } else {
        put(0xF0 | c >> 18);
        put(0x80 | (c >> 12 & 0x3F));
        put(0x80 | (c >> 6 & 0x3F));
        put(0x80 | (c & 0x3F));
    }
}

// the word as it is, in lower case, capitalised, in upper case; equal ones are left in
std::vector<std::string> cases(const std::string & word) {
    std::vector<std::string> forms = {word};
    std::vector<uint32_t>    letters;
    if (!decode_utf8(word, letters)) {
        return forms;
    }
    std::string lower, capitalised, upper;
    for (size_t i = 0; i < letters.size(); i++) {
        append_utf8(lower, to_lower(letters[i]));
        append_utf8(upper, to_upper(letters[i]));
        append_utf8(capitalised, i == 0 ? to_upper(letters[i]) : to_lower(letters[i]));
    }
    if (lower != upper) {
        forms.insert(forms.end(), {lower, capitalised, upper});
    }
    return forms;
}

}  // namespace

forms::forms(const llama_vocab * vocab) : m_vocab(vocab), m_id_mask(0) {
    require_tokenizer(vocab);
    const int32_t n_vocab = llama_vocab_n_tokens(vocab);
    size_t        n_slots = 64;
    while (n_slots < static_cast<size_t>(n_vocab) / 4 * 5) {
        n_slots *= 2;
    }
    while (m_id_mask < n_vocab - 1) {
        m_id_mask = m_id_mask << 1 | 1;
    }
    m_slots.assign(n_slots, -1);
    buffer buf;
    for (int32_t id = 0; id < n_vocab; id++) {
        // tokens of one byte are always on, and would hide the letter of the same text
        if (llama_vocab_get_attr(vocab, id) & LLAMA_TOKEN_ATTR_BYTE) {
            continue;
        }
        const std::string_view text = piece(id, buf);
        if (!text.empty()) {
            const place at = place_of(text);
            if (m_slots[at.slot] < 0) {
                m_slots[at.slot] = at.mark | id;
            }
        }
    }
}

// the text of a token, in buf
std::string_view forms::piece(int32_t id, buffer & buf) const {
    const int32_t n = llama_token_to_piece(m_vocab, id, buf, sizeof(buf), 0, false);
    return {buf, n > 0 ? static_cast<size_t>(n) : 0};  // longer texts are no words
}

// where a text is, or would be
forms::place forms::place_of(std::string_view text) const {
    const uint64_t hash = std::hash<std::string_view>{}(text);
    const size_t   mask = m_slots.size() - 1;
    const int32_t  mark = static_cast<int32_t>(hash >> 32 & INT32_MAX) & ~m_id_mask;  // spares looking most other texts up
    size_t         slot = hash & mask;
    buffer         buf;
    while (m_slots[slot] >= 0 && ((m_slots[slot] & ~m_id_mask) != mark || piece(m_slots[slot] & m_id_mask, buf) != text)) {
        slot = (slot + 1) & mask;
    }
    return {slot, mark};
}

std::vector<int32_t> forms::find(const int32_t * ids, size_t n) const {
    const int32_t               n_vocab = llama_vocab_n_tokens(m_vocab);
    std::unordered_set<int32_t> seen;
    for (size_t i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= n_vocab) {
            throw error(VT_ERROR_TOKEN, format("token id %d, expected 0 to %d", ids[i], n_vocab - 1));
        }
        seen.insert(ids[i]);
    }
    const std::vector<int32_t> unique(seen.begin(), seen.end());
    std::vector<int32_t>       found;
    buffer                     buf;
    for (const int32_t id : unique) {
        const std::string text(piece(id, buf));
        const std::string word = text.substr(!text.empty() && text[0] == ' ');
        if (word.empty()) {
            continue;
        }
        for (const std::string & form : cases(word)) {
            for (const std::string & spelled : {form, ' ' + form}) {
                const int32_t slot = m_slots[place_of(spelled).slot];
                if (slot >= 0 && seen.insert(slot & m_id_mask).second) {
                    found.push_back(slot & m_id_mask);
                }
            }
        }
    }
    std::sort(found.begin(), found.end());
    return found;
}

}  // namespace vt
