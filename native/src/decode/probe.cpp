#include "decode/probe.h"

#include "base/error.h"

#include <algorithm>
#include <cstring>
#include <random>
#include <vector>

namespace vt {

namespace {

// tokens before: with flash attention ggml cuts memories of 512 cells and more, which 257 tokens have, into parts. One text
// grows from each place to the next; what follows it there is drawn anew.
constexpr size_t PLACES[] = {40, 40, 300, 300};

// the largest n so that the first 2, 3, ... n tokens at position `before` are together as they are alone
size_t probe_after(session & s, const std::vector<int32_t> & tokens, size_t before) {
    std::vector<float> alone;
    for (size_t i = 0; i < tokens.size(); i++) {
        s.decode(&tokens[i], 1, static_cast<int32_t>(before + i), nullptr);
        alone.insert(alone.end(), s.hidden().begin(), s.hidden().end());
    }
    for (size_t n = 2; n <= tokens.size(); n++) {
        s.decode_together(tokens.data(), n, static_cast<int32_t>(before));
        if (memcmp(s.hidden().data(), alone.data(), s.hidden().size() * sizeof(float)) != 0) {
            return n - 1;
        }
    }
    return tokens.size();
}

}  // namespace

size_t probe_together(session & s, size_t max) {
    if (s.context() == nullptr || s.n_past() != 0 || s.get_store() == nullptr) {
        throw error(VT_ERROR_ARGUMENT, "only a session with a store, a context and no text can be probed");
    }
    max = s.can_truncate() && !s.makes_embeddings() ? std::min(max, s.most_together(0)) : 1;
    std::mt19937                           random(1);
    std::uniform_int_distribution<int32_t> any(0, static_cast<int32_t>(s.get_store()->info().n_vocab) - 1);
    const auto                             draw      = [&] { return any(random); };
    size_t                                 found     = std::max<size_t>(max, 1);
    // beyond its training a model may have no positions
    const int32_t                          n_trained = llama_model_n_ctx_train(llama_get_model(s.context()));
    const size_t                           n_most    = std::min<size_t>(llama_n_ctx_seq(s.context()), static_cast<size_t>(std::max(n_trained, 0)));
    if (n_most <= found) {
        return 1;
    }
    std::vector<int32_t> before;
    try {
        for (size_t place : PLACES) {
            if (found == 1) {
                break;
            }
            const size_t n_old = before.size();
            before.resize(std::min(place, n_most - found));
            if (before.size() > n_old) {
                std::generate(before.begin() + static_cast<std::ptrdiff_t>(n_old), before.end(), draw);
                s.decode(before.data() + n_old, before.size() - n_old, static_cast<int32_t>(n_old), nullptr);
            }
            std::vector<int32_t> tokens(found);
            std::generate(tokens.begin(), tokens.end(), draw);
            found = probe_after(s, tokens, before.size());
        }
    } catch (const error &) {
        found = 1;  // attention lies in another way than it is known here, or a token's state is not finite
    }
    s.truncate(0);
    s.forget_stats();
    return found;
}

}  // namespace vt
