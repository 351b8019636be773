// text_index against a search of the whole text.
#include "decode/text_index.h"

#include <algorithm>
#include <cstdio>
#include <random>

using namespace vt;

static size_t common(const std::vector<int32_t> & text, size_t a, size_t b) {
    size_t n = 0;
    while (n < text_index::MAX_LENGTH && n <= a && text[a - n] == text[b - n]) {
        n++;
    }
    return n;
}

// whether a match is one: as long as it says, and there where the text has one of that order at all
static bool is_right(const std::vector<int32_t> & text, const text_index::match & m) {
    size_t longest = 0;
    for (size_t i = 0; i + 1 < text.size(); i++) {
        longest = std::max(longest, common(text, i, text.size() - 1));
    }
    if (m.length == 0) {
        return longest < 2;
    }
    return m.next < text.size() && common(text, m.next - 1, text.size() - 1) == m.length && m.length >= std::min<size_t>(longest, 3);
}

int main() {
    std::mt19937         random(1);
    std::vector<int32_t> text;
    text_index           index;
    int                  n_wrong = 0, n_found = 0;
    for (int i = 0; i < 20000; i++) {
        const uint32_t what = random() % 20;
        if (what == 0) {
            text.resize(random() % (text.size() + 1));
            index.truncate(text.size());
        } else if (what == 1 && text.size() > 4) {
            text[random() % text.size()] = static_cast<int32_t>(random() % 6);
            index.assign(text.data(), text.size());
        } else {
            text.push_back(what < 15 ? static_cast<int32_t>(random() % 6) : static_cast<int32_t>(262000 + random() % 3));
            index.append(text.back());
        }
        if (text.size() > 300) {
            text.clear();
            index.assign(text.data(), 0);
        }
        const text_index::match m    = index.find();
        bool                    same = index.size() == text.size();
        for (size_t at = 0; same && at < text.size(); at++) {
            same = index[at] == text[at];
        }
        n_wrong += !same || !is_right(text, m);
        n_found += m.length > 0;
    }
    printf("%d wrong, %d found\n", n_wrong, n_found);
    return n_wrong == 0 && n_found > 1000 ? 0 : 1;
}
