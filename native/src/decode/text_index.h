// The tokens of a text, and what followed its last tokens where they stood before.
//
// Each token links back to the last place where its n-gram ended, so a token is added or taken away in constant time.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <vector>

namespace vt {

class text_index {
  public:
    static constexpr size_t MAX_LENGTH = 16;  // of a match that is looked for

    struct match {
        size_t next   = 0;  // place of the token that followed
        size_t length = 0;  // tokens before it that are those of the text's end; 0: there is none
    };

    // the text is these n tokens; what it has in common with them is not looked at again
    void assign(const int32_t * tokens, size_t n);

    void append(int32_t token);
    void truncate(size_t n);

    size_t          size() const { return m_tokens.size(); }
    int32_t         operator[](size_t i) const { return m_tokens[i]; }
    const int32_t * data() const { return m_tokens.data(); }

    // the longest of the last few matches of the text's end
    match find() const;

  private:
    static constexpr size_t  N_ORDERS = 2;  // tokens of an n-gram: 2 and 3
    static constexpr size_t  N_TRIED  = 8;  // matches
    static constexpr int32_t NONE     = -1;

    struct link {
        std::array<int32_t, N_ORDERS> before;  // place where the n-gram that ends here ended before
    };

    std::vector<int32_t>                                        m_tokens;
    std::vector<link>                                           m_links;
    std::array<std::unordered_map<uint64_t, int32_t>, N_ORDERS> m_last;  // place where an n-gram ended last

    uint64_t key(size_t order, size_t end) const;
    size_t   common(size_t a, size_t b) const;
};

}  // namespace vt
