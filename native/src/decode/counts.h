// How often tokens were needed that the active set lacked, and how often those that are watched.
#pragma once

#include <cstdint>
#include <map>

namespace vt {

using id_counts = std::map<int32_t, uint64_t>;

class token_counts {
  public:
    // these are watched from now on; counts of those that were watched before go on
    void watch(const int32_t * tokens, size_t n) {
        id_counts now;
        for (size_t i = 0; i < n; i++) {
            const auto before = m_watched.find(tokens[i]);
            now[tokens[i]]    = before == m_watched.end() ? 0 : before->second;
        }
        m_watched = std::move(now);
    }

    void count(int32_t token, bool was_missed) {
        if (was_missed) {
            m_missed[token]++;
            return;
        }
        const auto found = m_watched.find(token);
        if (found != m_watched.end()) {
            found->second++;
        }
    }

    const id_counts & missed() const { return m_missed; }
    const id_counts & watched() const { return m_watched; }

  private:
    id_counts m_missed;
    id_counts m_watched;
};

}  // namespace vt
