// The hidden states of a text's outputs, by position, with what is needed to get llama.cpp's bits from them again: which
// states it multiplied at once with the head.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace vt {

class states_by_position {
  public:
    struct place {
        int32_t n;      // states that were multiplied at once, 0 where there is none
        int32_t index;  // of this one among them
    };

    // forgets all; the first state will take room for n_ctx positions, and memory as they come
    void start(size_t n_ctx, size_t n_embd);

    // no position from `pos` on has a state any more
    void cut(size_t pos);

    // of a position behind all that have one
    void put(size_t pos, const float * hidden, place where);

    // n positions from `pos` on; hidden: (n, n_embd), 0 where there is none, or NULL
    void get(size_t pos, size_t n, float * hidden, place * where) const;

    size_t n_embd() const { return m_n_embd; }
    size_t n_bytes() const { return m_hidden.size() * sizeof(float) + m_entries.size() * sizeof(entry); }

  private:
    struct entry {
        place  where;
        size_t row;  // states of the positions before
    };

    size_t             m_n_ctx  = 0;
    size_t             m_n_embd = 0;
    std::vector<float> m_hidden;   // (states, n_embd), by position
    std::vector<entry> m_entries;  // (positions,)

    void take_room();
};

}  // namespace vt
