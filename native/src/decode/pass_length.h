// How many tokens the core is given in one pass: one that was chosen, and some that followed the same words before.
//
// What a pass of n tokens takes and how often a guess was the text's are measured all the time, that of a match where nothing
// is risked, too. The length with the least expected time per token that stays is taken. Behind a long text passes of several
// tokens may cost many single ones, since their attention is computed one by one, so times are told apart by its length.
// All this changes how fast tokens come, never which.
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

    size_t max() const { return m_passes[0].us.size() - 1; }

    // passes come behind so many tokens
    void set_depth(size_t n_tokens);

    // what a guess comes from
    enum class source { match_2, match_3, match_5, match_9, match_more, grammar, given };
    static constexpr size_t N_SOURCES = 7;

    // whether the chain draws: a text that is drawn repeats itself less, and what a greedy one does tells nothing of it
    void set_drawn(bool is_drawn) { m_is_drawn = is_drawn; }

    // of a match of so many tokens, 2 or more
    static source source_of(size_t match_length);

    struct choice {
        size_t n  = 1;    // tokens of a pass
        double us = 0.0;  // expected, for each token that stays; 0 where nothing was measured yet
    };

    // the best next pass of 1 to `limit` tokens, all but the first of them from a source
    choice next(source s, size_t limit) const;

    void record_pass(size_t n, int64_t us);

    // whether a token of a source was the text's
    void record_guess(source s, bool was_right);

  private:
    using shares = std::array<double, N_SOURCES>;

    // of a length, by tokens
    struct times {
        std::vector<double>   us;  // 0 where not measured yet
        std::vector<uint64_t> n;
    };
    static constexpr size_t N_DEPTHS = 8;

    std::array<times, N_DEPTHS> m_passes;  // behind less than 512 tokens, 1,024, 2,048, ...
    size_t                      m_depth = 0;
    shares                      m_right[2];  // of guesses, that of a greedy text and that of one that is drawn
    bool                        m_is_drawn = false;
    size_t                      m_warming;  // passes that are not measured: pages are read for the first time

    double pass_us(size_t n) const;
};

}  // namespace vt
