// What a chain with top-p first chooses from a part of the candidates, against llama.cpp's choice among all of them.
#include "decode/chain.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

using namespace vt;

static std::mt19937 rng(1);

static double uniform(double low = 0.0, double high = 1.0) {
    return std::uniform_real_distribution<double>(low, high)(rng);
}

static int random_int(int n) {
    return std::uniform_int_distribution<int>(0, n - 1)(rng);
}

// flat, peaked, heavy tails, many that are equal, and sums that round badly: many weights near half a unit in the last place
static candidates random_logits(int kind) {
    const int    n    = random_int(4) == 0 ? 1 + random_int(1100) : 1000 + random_int(40000);
    const double size = uniform(0.5, 6.0);
    candidates   c;
    for (int i = 0; i < n; i++) {
        double x = size * std::normal_distribution<double>()(rng);
        switch (kind) {
        case 1: x = i == n / 2 ? 20.0 : x; break;
        case 2: x = -std::log(1.0 + random_int(n)) * size; break;
        case 3: x = std::floor(4.0 * x) / 4.0; break;
        case 4: x = i < 3 ? 17.0 + 0.1 * i : uniform(-0.7, 1.5); break;
        case 5: x = 30.0 * x - 400.0; break;
        default: break;
        }
        c.push_back({i, static_cast<float>(x), 0.0f});
    }
    return c;
}

static sampler_ptr random_chain() {
    sampler_ptr  chain(llama_sampler_chain_init(llama_sampler_chain_default_params()));
    const auto   add     = [&](llama_sampler * s) { llama_sampler_chain_add(chain.get(), s); };
    const double ps[]    = {0.95, 0.9, 0.5, 0.99, 0.1, 0.0, 0.9999999, uniform()};
    const size_t least[] = {1, 1, 1, 0, 2, 40};
    const double temps[] = {0.8, 1.0, 1.7, 0.2, 0.0};
    add(llama_sampler_init_top_p(static_cast<float>(ps[random_int(8)]), least[random_int(6)]));
    if (random_int(3) == 0) {
        add(llama_sampler_init_min_p(static_cast<float>(uniform(0.001, 0.2)), 1));
    }
    if (random_int(8) == 0) {
        add(llama_sampler_init_typical(0.7f, 1));  // takes other places than the first ones
    }
    add(llama_sampler_init_temp(static_cast<float>(temps[random_int(5)])));
    add(random_int(8) == 0 ? llama_sampler_init_greedy() : llama_sampler_init_dist(rng()));
    return chain;
}

static int n_settled = 0, n_sure = 0, n_all = 0, n_wrong = 0;

// what top-p itself keeps lies between the cuts
static void check_size(int kind, candidates logits, candidates known, float threshold, const tail & others, llama_sampler * top_p) {
    std::sort(known.begin(), known.end(), [](const auto & a, const auto & b) { return a.logit > b.logit; });
    const nucleus::cuts    cuts = nucleus(top_p, n_least_kept(top_p)).find(known, threshold, others);
    llama_token_data_array cur  = view(logits);
    if (cuts.most == 0) {
        return;
    }
    llama_sampler_apply(top_p, &cur);
    double beyond = 0.0;
    for (size_t i = cuts.most; i < cur.size; i++) {
        beyond += std::exp(static_cast<double>(cur.data[i].logit) - static_cast<double>(threshold));
    }
    n_sure += cuts.least == cuts.most && cuts.n_beyond == 0;
    if (cur.size < cuts.least || beyond > static_cast<double>(cuts.n_beyond)) {
        printf("kind %d: %zu are kept, expected %zu to %zu and %zu\n", kind, cur.size, cuts.least, cuts.most, cuts.n_beyond);
        n_wrong++;
    }
}

static void check() {
    const int         kind     = random_int(6);
    candidates        logits   = random_logits(kind);
    const sampler_ptr samplers = random_chain();
    const chain       before(samplers.get());
    if (!before.needs_tail()) {
        printf("top-p was not found\n");
        n_wrong++;
        return;
    }
    candidates some = logits;
    some.erase(std::remove_if(some.begin(), some.end(), [](const auto &) { return random_int(10) == 0; }), some.end());
    float  threshold = 0.0f;
    double weight    = 0.0;
    n_all++;
    if (!before.select(some, threshold, weight)) {
        n_wrong += some.empty() ? 0 : 1;
        return;
    }
    // as a scan: bounds near what they are of
    candidates  known;
    const float top  = some.front().logit;
    const float cap  = nucleus::cap(weight);
    double      rest = 0.0, capped = 0.0;
    for (const llama_token_data & x : logits) {
        const double w = std::exp(static_cast<double>(x.logit) - static_cast<double>(top));
        if (x.logit >= threshold) {
            known.push_back(x);
        } else {
            rest += w;
            capped += std::min(w, static_cast<double>(cap));
        }
    }
    // the least is what logits that are rounded before they are exponents need
    const double below = 1.0 - 2e-5 * std::pow(50.0, uniform()), above = 1.0 + 2e-5 * std::pow(50.0, uniform());
    const tail   others = {top, rest * below, rest * above, capped * 1.00002, cap};
    check_size(kind, logits, known, threshold, others, llama_sampler_chain_get(samplers.get(), 0));
    chain   c(before);
    int32_t token = -1;
    if (c.settle(known, threshold, others, token)) {
        chain         all(before);
        const int32_t expected = all.decide_on_all(logits);
        n_settled++;
        if (token != expected) {
            printf("kind %d, %zu candidates, %zu known: chose %d, expected %d\n", kind, logits.size(), known.size(), token, expected);
            n_wrong++;
        }
    }
}

int main() {
    for (int i = 0; i < 3000; i++) {
        check();
    }
    printf("%d of %d were settled, of %d the size was certain\n", n_settled, n_all, n_sure);
    return n_wrong > 0 || n_settled < n_all / 2;
}
