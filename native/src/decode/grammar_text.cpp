#include "decode/grammar_text.h"

#include "decode/samplers.h"
#include "vocab/piece_of.h"

#include <cmath>

namespace vt {

namespace {

constexpr size_t BYTES_PER_TOKEN = 16;  // of a forced text that is worth looking for

bool is_blank(char c) {
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

bool is_ascii(char c) {
    return static_cast<unsigned char>(c) < 128;
}

}  // namespace

// until something else is seen, as most programs write JSON
grammar_text::grammar_text(const llama_vocab & vocab) : m_vocab(vocab) {
    m_blank_after[':'] = m_blank_after[','] = ' ';
}

void grammar_text::find_letters() {
    std::array<bool, 128> found = {};
    for (int32_t id = 0; id < llama_vocab_n_tokens(&m_vocab); id++) {
        const std::string p = piece_of(m_vocab, id, false);
        if (p.size() != 1 || !is_ascii(p[0]) || (p[0] < ' ' && !is_blank(p[0])) || found[static_cast<size_t>(p[0])]) {
            continue;
        }
        found[static_cast<size_t>(p[0])] = true;
        m_letters.push_back({id, 0.0f, 0.0f});
        m_bytes += p;
    }
}

// bytes that a grammar takes next
std::string grammar_text::allowed(llama_sampler & grammar, std::vector<llama_token_data> & letters) const {
    letters                    = m_letters;
    llama_token_data_array cur = view(letters);
    llama_sampler_apply(&grammar, &cur);
    std::string out;
    for (size_t i = 0; i < letters.size(); i++) {
        if (std::isfinite(letters[i].logit)) {
            out += m_bytes[i];
        }
    }
    return out;
}

// the byte that follows; 0 where there is more than one, blanks aside
char grammar_text::choose(const std::string & allowed, char before) const {
    char other = '\0', usual = '\0';
    for (const char c : allowed) {
        if (is_ascii(before) && m_blank_after[static_cast<size_t>(before)] == c) {
            usual = c;
        }
        if (!is_blank(c)) {
            if (other != '\0') {
                return '\0';
            }
            other = c;
        }
    }
    return other != '\0' && is_blank(usual) && !is_blank(before) ? usual : other;
}

std::string grammar_text::forced(const llama_sampler & grammar, char before, size_t most) const {
    const sampler_ptr             clone(llama_sampler_clone(&grammar));
    std::vector<llama_token_data> letters;
    std::string                   text;
    while (text.size() < most) {
        const char c = choose(allowed(*clone, letters), text.empty() ? before : text.back());
        if (c == '\0') {
            break;
        }
        llama_sampler_accept(clone.get(), m_letters[m_bytes.find(c)].id);
        text += c;
    }
    return text;
}

std::vector<int32_t> grammar_text::tokens_of(const std::string & text) const {
    std::vector<int32_t> tokens(text.size() + 2);
    const int32_t        n =
        llama_tokenize(&m_vocab, text.data(), static_cast<int32_t>(text.size()), tokens.data(), static_cast<int32_t>(tokens.size()), false, false);
    tokens.resize(static_cast<size_t>(n > 0 ? n : 0));
    return tokens;
}

std::vector<int32_t> grammar_text::after(const llama_sampler & grammar, int32_t token, size_t most) {
    if (m_letters.empty()) {
        find_letters();
    }
    const std::string before = piece_of(m_vocab, token, false);
    const std::string text   = forced(grammar, before.empty() ? m_last : before.back(), most * BYTES_PER_TOKEN);
    if (text.empty()) {
        return {};
    }
    // in its place: tokenizers may treat a text's begin in another way
    std::vector<int32_t> tokens = tokens_of(before + text);
    if (!tokens.empty() && tokens[0] == token) {
        tokens.erase(tokens.begin());
    } else {
        tokens = tokens_of(text);
    }
    tokens.resize(std::min(tokens.size(), most));
    return tokens;
}

void grammar_text::follow(int32_t token) {
    for (const char c : piece_of(m_vocab, token, false)) {
        if (is_ascii(m_last)) {
            m_blank_after[static_cast<size_t>(m_last)] = c;
        }
        m_last = c;
    }
}

}  // namespace vt
