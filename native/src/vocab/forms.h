// Finds the tokens that write a token's word in another form: with or without a leading space, in another case.
//
// A prompt that says "cats" asks for answers with "Cats" and " cats", which are other tokens.
#pragma once

#include <llama.h>

#include <cstdint>
#include <string>
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
    std::vector<int32_t> m_slots;  // token ids by the hash of their text, open addressing, -1 where free

    std::string piece(int32_t id) const;
    size_t      slot_of(const std::string & text) const;
};

}  // namespace vt
