// How many tokens the core is given in one pass: one that was chosen, and some that followed the same words before.
//
// What a pass of n tokens takes and how often a match's next token was the text's are measured all the time, the latter
// where nothing is risked, too. The length with the least expected time per token that stays is taken. All this changes how
// fast tokens come, never which.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace vt {

class pass_length {
  public:
    // max: tokens of a pass; 1 where only single tokens keep their bits
    explicit pass_length(size_t max);

    size_t max() const { return m_pass_us.size() - 1; }

    // tokens of the next pass, 1 to `limit`, after a match of so many tokens
    size_t next(size_t match_length, size_t limit) const;

    void record_pass(size_t n, int64_t us);

    // whether the token that followed a match was the text's
    void record_match(size_t match_length, bool was_right);

  private:
    static constexpr size_t N_CLASSES = 5;  // matches of 2, 3, 4 to 5, 6 to 9, 10 and more tokens

    std::vector<double>           m_pass_us;  // by tokens, 0 where not measured yet
    std::array<double, N_CLASSES> m_right;    // share of matches
    size_t                        m_warming;  // passes that are not measured: pages are read for the first time

    static size_t class_of(size_t match_length);
    double        pass_us(size_t n) const;
};

}  // namespace vt
