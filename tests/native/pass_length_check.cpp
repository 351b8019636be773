// What pass_length settles on when matches and costs are as given.
#include "decode/pass_length.h"

#include <cstdio>
#include <random>

using namespace vt;

struct world {
    double right;      // share of tokens that followed a match and are the text's
    double per_token;  // what one more token adds to a pass, in passes
};

// tokens of a pass at the end
static double live(const world & w) {
    pass_length                            p(8);
    std::mt19937                           random(1);
    std::uniform_real_distribution<double> uniform(0.0, 1.0);
    double                                 total = 0.0;
    const int                              n_all = 2000;
    for (int i = 0; i < n_all; i++) {
        const size_t n = p.next(pass_length::source::match_3, 8).n;
        if (n < 1 || n > 8) {
            return -1.0;
        }
        const double noise = 1.0 + 0.1 * uniform(random);
        p.record_pass(n, static_cast<int64_t>(1000.0 * noise * (1.0 + static_cast<double>(n - 1) * w.per_token)));
        for (size_t j = 0; j < n; j++) {
            const bool right = uniform(random) < w.right;
            p.record_guess(pass_length::source::match_3, right);
            if (!right) {
                break;
            }
        }
        total += i >= n_all / 2 ? static_cast<double>(n) : 0.0;
    }
    return total / (n_all / 2);
}

// tokens of all passes but the first, of a text that gets long when passes of several tokens were cheap so far
static double live_long() {
    pass_length p(8);
    size_t      n_more = 0;
    for (size_t i = 0; i < 600; i++) {
        const bool is_long = i >= 300;
        p.set_depth(is_long ? 2400 : 100);
        const size_t n = p.next(pass_length::source::match_9, 8).n;
        p.record_pass(n,
                      static_cast<int64_t>(is_long ? 40000.0 * (1.0 + 1.7 * static_cast<double>(n - 1)) : 5000.0 + 500.0 * static_cast<double>(n)));
        p.record_guess(pass_length::source::match_9, true);
        n_more += is_long ? n - 1 : 0;
    }
    return static_cast<double>(n_more);
}

static int expect(const char * what, bool right, double found) {
    printf("%s %s: %.2f tokens\n", right ? "ok  " : "FAIL", what, found);
    return right ? 0 : 1;
}

int main() {
    int          n_failed = 0;
    const double sure = live({0.98, 0.1}), never = live({0.02, 0.3}), dear = live({0.9, 1.0}), middling = live({0.6, 0.15});
    n_failed += expect("cheap and right", sure > 6.0, sure);
    n_failed += expect("never right", never < 1.2, never);
    n_failed += expect("as dear as single tokens", dear < 1.6, dear);
    n_failed += expect("middling", middling > 1.5 && middling < 6.0, middling);
    const double wasted = live_long();
    n_failed += expect("dear behind a long text", wasted < 8.0, wasted);
    const pass_length alone(1);
    n_failed += expect("only single tokens", alone.max() == 1 && alone.next(pass_length::source::match_more, 8).n == 1, 1.0);
    return n_failed;
}
