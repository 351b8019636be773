// Finds the tokens that write a token's word in another form: with or without a leading space, in another case.
//
// A prompt that says "cats" asks for answers with "Cats" and " cats", which are other tokens.
#pragma once

#include <llama.h>

#include <cstdint>
#include <string_view>
#include <vector>

namespace vt {

class forms {
  public:
    // vocab must outlive this
    explicit forms(const llama_vocab * vocab);

    // the forms of all ids, each once, without the ids themselves
    std::vector<int32_t> find(const int32_t * ids, size_t n) const;

    size_t n_bytes() const { return m_slots.capacity() * sizeof(int32_t); }

  private:
    const llama_vocab *  m_vocab;
    std::vector<int32_t> m_slots;    // by the hash of a text, open addressing, -1 where free; else an id, and above it other bits of the hash
    int32_t              m_id_mask;  // its lower bits are those of ids

    using buffer = char[64];

    struct place {
        size_t  slot;
        int32_t mark;  // what stands above the id
    };

    std::string_view piece(int32_t id, buffer & buf) const;
    place            place_of(std::string_view text) const;
};

}  // namespace vt
