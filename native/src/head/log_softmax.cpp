#include "head/log_softmax.h"

#include "base/parallel.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

namespace vt {

namespace {

constexpr size_t BLOCK = 256;  // summed in floats before a double takes them

// exp(x) for x <= 0, to 2e-7 of its value: a loop over it has no call and no branch, so compilers make vectors of it
float exp_not_above_one(float x) {
    x              = x < -87.0f ? -87.0f : x;
    const float t  = x * 1.44269504f;
    const float up = t + 12582912.0f;  // 1.5 * 2^23: the integer part ends up in the low bits
    int32_t     k;
    memcpy(&k, &up, 4);
    const float r = up - 12582912.0f;
    const float f = (x - r * 0.693145752f) - r * 1.42860677e-6f;  // x - r * ln 2, in two parts
    const float p = 1.0f + f * (1.0f + f * (0.5f + f * (0.166666657f + f * (0.0416666195f + f * (0.00833345205f + f * 0.00138932967f)))));
    int32_t     bits;
    memcpy(&bits, &p, 4);
    bits = static_cast<int32_t>(static_cast<uint32_t>(bits) + (static_cast<uint32_t>(k) << 23));
    float out;
    memcpy(&out, &bits, 4);
    return out;
}

// whether a comes before b among the best
bool is_better(const log_softmax::entry & a, const log_softmax::entry & b) {
    return a.logit != b.logit ? a.logit > b.logit : a.row < b.row;
}

}  // namespace

void log_softmax::keep(state & s, const float * logits, size_t first, size_t n) const {
    for (size_t i = 0; i < n; i++) {
        if (s.heap.size() == m_n_top && !(logits[i] > s.heap.front().logit)) {
            continue;  // rows come in order, so an equal one is behind
        }
        s.heap.push_back({logits[i], static_cast<int32_t>(first + i)});
        std::push_heap(s.heap.begin(), s.heap.end(), is_better);
        if (s.heap.size() > m_n_top) {
            std::pop_heap(s.heap.begin(), s.heap.end(), is_better);
            s.heap.pop_back();
        }
    }
}

void log_softmax::add_to(state & s, const float * logits, size_t first, size_t n) const {
    const float most = *std::max_element(logits, logits + n);
    if (most > s.max) {
        s.sum *= std::exp(static_cast<double>(s.max) - static_cast<double>(most));
        s.max = most;
    }
    for (size_t i = 0; i < n; i += BLOCK) {
        const size_t end     = std::min(n, i + BLOCK);
        float        lane[8] = {};
        size_t       j       = i;
        for (; j + 8 <= end; j += 8) {
            for (size_t l = 0; l < 8; l++) {
                lane[l] += exp_not_above_one(logits[j + l] - s.max);
            }
        }
        double sum = 0.0;
        for (const float x : lane) {
            sum += static_cast<double>(x);
        }
        for (; j < end; j++) {
            sum += static_cast<double>(exp_not_above_one(logits[j] - s.max));
        }
        s.sum += sum;
    }
    if (m_n_top > 0) {
        keep(s, logits, first, n);
    }
}

void log_softmax::add(const float * logits, size_t first, size_t n, int32_t n_threads) {
    std::atomic<size_t> next(0);
    parallel(n_threads, [&](size_t) {
        for (size_t i = next++; i < m_states.size(); i = next++) {
            add_to(m_states[i], logits + i * n, first, n);
        }
    });
}

double log_softmax::log_sum(size_t i) const {
    return static_cast<double>(m_states[i].max) + std::log(m_states[i].sum);
}

std::vector<log_softmax::entry> log_softmax::top(size_t i) const {
    std::vector<entry> best = m_states[i].heap;
    std::sort(best.begin(), best.end(), is_better);
    return best;
}

}  // namespace vt
