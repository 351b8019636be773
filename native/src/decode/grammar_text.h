// What a text goes on with where its grammar leaves hardly a choice: names of JSON's members, quotes, colons, braces.
//
// A grammar is asked with one-letter tokens, so nothing of the model runs. Letters that it forces cannot be wrong; how a model
// cuts them into tokens, and which blanks it writes where the grammar allows some, is guessed from what it did before.
#pragma once

#include <llama.h>

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace vt {

class grammar_text {
  public:
    explicit grammar_text(const llama_vocab & vocab);

    // the tokens that follow `token`, which the grammar has accepted already; none where anything may follow
    std::vector<int32_t> after(const llama_sampler & grammar, int32_t token, size_t most);

    // the text goes on with a token
    void follow(int32_t token);

  private:
    const llama_vocab &           m_vocab;
    std::vector<llama_token_data> m_letters;             // tokens of one byte, printable ASCII and blanks
    std::string                   m_bytes;               // theirs
    char                          m_last        = '\0';  // byte of the text
    std::array<char, 128>         m_blank_after = {};    // what followed a byte last

    void        find_letters();
    std::string allowed(llama_sampler & grammar, std::vector<llama_token_data> & letters) const;
    char        choose(const std::string & allowed, char before) const;
    std::string forced(const llama_sampler & grammar, char before, size_t most) const;

    std::vector<int32_t> tokens_of(const std::string & text) const;
};

}  // namespace vt
