#include "vocab/forms.h"

#include "base/error.h"
#include "vocab/letters.h"
#include "vocab/utf8.h"
#include "vocab/vocab.h"

#include <algorithm>
#include <functional>
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

forms::forms(const llama_vocab * vocab) : m_vocab(vocab) {
    require_tokenizer(vocab);
    const int32_t n_vocab = llama_vocab_n_tokens(vocab);
    size_t        n_slots = 64;
    while (n_slots < static_cast<size_t>(n_vocab) / 4 * 5) {
        n_slots *= 2;
    }
    m_slots.assign(n_slots, -1);
    for (int32_t id = 0; id < n_vocab; id++) {
        // tokens of one byte are always on, and would hide the letter of the same text
        if (llama_vocab_get_attr(vocab, id) & LLAMA_TOKEN_ATTR_BYTE) {
            continue;
        }
        const std::string text = piece(id);
        if (!text.empty()) {
            int32_t & slot = m_slots[slot_of(text)];
            slot           = slot < 0 ? id : slot;
        }
    }
}

std::string forms::piece(int32_t id) const {
    std::string   text(64, '\0');
    const int32_t n = llama_token_to_piece(m_vocab, id, text.data(), static_cast<int32_t>(text.size()), 0, false);
    text.resize(n > 0 ? static_cast<size_t>(n) : 0);  // longer texts are no words
    return text;
}

// where a text is, or would be
size_t forms::slot_of(const std::string & text) const {
    const size_t mask = m_slots.size() - 1;
    size_t       slot = std::hash<std::string>{}(text) &mask;
    while (m_slots[slot] >= 0 && piece(m_slots[slot]) != text) {
        slot = (slot + 1) & mask;
    }
    return slot;
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
    for (const int32_t id : unique) {
        const std::string text = piece(id);
        const std::string word = text.substr(!text.empty() && text[0] == ' ');
        if (word.empty()) {
            continue;
        }
        for (const std::string & form : cases(word)) {
            for (const std::string & spelled : {form, ' ' + form}) {
                const int32_t other = m_slots[slot_of(spelled)];
                if (other >= 0 && seen.insert(other).second) {
                    found.push_back(other);
                }
            }
        }
    }
    std::sort(found.begin(), found.end());
    return found;
}

}  // namespace vt
