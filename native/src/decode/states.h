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

    // room is taken for n_ctx positions, and memory as they come
    void start(size_t n_ctx, size_t n_embd);

    // n positions from `pos` on have no state any more
    void begin(size_t pos, size_t n);

    void put(size_t pos, const float * hidden, place where);

    // n positions from `pos` on; hidden: (n, n_embd), or NULL
    void get(size_t pos, size_t n, float * hidden, place * where) const;

    size_t n_embd() const { return m_n_embd; }
    size_t n_bytes() const { return m_hidden.size() * sizeof(float) + m_places.size() * sizeof(place); }

  private:
    size_t             m_n_embd = 0;
    std::vector<float> m_hidden;  // (positions, n_embd)
    std::vector<place> m_places;  // (positions,)
};

}  // namespace vt
