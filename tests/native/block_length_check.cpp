// What block_length settles on when drafts and costs are as given.
#include "decode/block_length.h"

#include <cstdio>
#include <random>

using namespace vt;

struct world {
    double  acceptance;  // of drafts that lie far ahead
    int64_t decode_us, draft_us, verify_us, per_state_us, whole_us;
    double  doubtful = 0.0;  // share of drafts that hardly lie ahead, of which half hold
};

struct outcome {
    double mean_length;  // of the last half, 0 for decisions on the whole vocabulary
    int    n_whole, n_blocks, n_doubted, n_ended_by_doubt;
};

static outcome live(block_length & b, const world & w, int n_steps, size_t limit = 16, bool or_none = true) {
    std::mt19937                           rng(1);
    std::uniform_real_distribution<double> uniform(0.0, 1.0);
    outcome                                out   = {};
    double                                 total = 0.0;
    for (int i = 0; i < n_steps; i++) {
        const size_t most   = b.next(limit, or_none);
        size_t       n      = 0;
        size_t       n_true = 0;
        b.begin_block();
        while (n < most) {
            const bool is_doubtful = uniform(rng) < w.doubtful;
            b.record_draft(is_doubtful ? 0.1f : 5.0f, false);
            n_true += n_true == n && uniform(rng) < (is_doubtful ? 0.5 : w.acceptance) ? 1 : 0;
            n++;
            const bool ends = n == most || !b.pays(false);
            out.n_doubted += is_doubtful && n < most;
            out.n_ended_by_doubt += is_doubtful && n < most && ends;
            if (ends) {
                break;
            }
            b.record_decode(w.decode_us);
        }
        b.record_decode(w.decode_us);
        if (n == 0) {
            b.record_whole(w.whole_us);
            out.n_whole++;
        } else {
            b.record_block(n_true, w.draft_us * static_cast<int64_t>(n), w.verify_us + w.per_state_us * static_cast<int64_t>(n));
            out.n_blocks++;
        }
        total += i >= n_steps / 2 ? static_cast<double>(n) : 0.0;
    }
    out.mean_length = total / (n_steps - n_steps / 2);
    return out;
}

static int n_failed = 0;

static void expect(bool ok, const char * what) {
    if (!ok) {
        printf("%s\n", what);
        n_failed++;
    }
}

int main() {
    const world gemma = {0.995, 6500, 100, 4000, 100, 12000};
    {
        block_length b;
        expect(b.next(16, true) == 1, "begins with one token");
        expect(live(b, gemma, 200).mean_length > 12, "grows while drafts are accepted");
        expect(b.next(3, true) == 3 && b.next(1, true) == 1, "keeps to the limit");
        world bad      = gemma;
        bad.acceptance = 0.3;
        expect(live(b, bad, 400).mean_length < 2.5, "shrinks at rejections");
        expect(live(b, gemma, 400).mean_length > 12, "grows again");
    }
    {
        // a small head beside a large core: a rejected decode costs more than verification saves
        block_length b;
        const world  w = {0.9, 9000, 100, 700, 20, 2500};
        const double n = live(b, w, 400).mean_length;
        expect(n >= 1 && n < 2, "short blocks where decodes are dear");
    }
    {
        // what is sure goes on, what is doubtful is verified before more is risked
        block_length b;
        world        w  = gemma;
        w.doubtful      = 0.2;
        const outcome o = live(b, w, 600);
        expect(o.n_ended_by_doubt > 0.8 * o.n_doubted, "doubtful drafts end blocks");
        expect(o.mean_length > 2.5, "and others do not");
    }
    {
        // drafts that never hold and cost more than what they avoid
        block_length  b;
        const world   w = {0.0, 1000, 300, 2000, 10, 1500};
        const outcome o = live(b, w, 1000);
        expect(o.n_whole > 800, "decides on the whole vocabulary where that is cheaper");
        expect(o.n_blocks > 10, "but tries drafts again");
        block_length c;
        expect(live(c, w, 1000, 16, false).n_whole == 0, "unless it must not");
        expect(live(b, gemma, 2000).mean_length > 12, "and comes back to them");
        world holds      = w;
        holds.acceptance = 0.99;
        block_length d;
        live(d, w, 400);
        live(d, holds, 800);
        expect(live(d, holds, 200).mean_length > 7, "also at the same costs");
    }
    // one disturbed measurement of a length must not rule it out for good
    for (size_t disturbed : {1, 2, 4, 8, 16}) {
        block_length b;
        for (size_t n : {1, 1, 2, 4, 8, 16}) {  // the first is for warming up
            b.begin_block();
            for (size_t i = 0; i < n; i++) {
                b.record_draft(5.0f, false);
                b.record_decode(6500);
            }
            b.record_block(n, 100, n == disturbed ? 1000000 : 4000 + 100 * static_cast<int64_t>(n));
        }
        expect(live(b, gemma, 100).mean_length > 7, "long blocks although one took long");
        world bad      = gemma;
        bad.acceptance = 0.1;
        expect(live(b, bad, 400).mean_length < 1.5, "short blocks although one took long");
    }
    return n_failed;
}
