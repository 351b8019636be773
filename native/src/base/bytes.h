// Bytes that grow. Unlike those of a vector they are neither cleared nor copied page by page when they do: for a header of
// some MB most of the time of reading it would go there.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace vt {

class bytes {
  public:
    const uint8_t * data() const { return m_data.get(); }
    uint8_t *       data() { return m_data.get(); }
    size_t          size() const { return m_size; }

    // what was there stays, what is new holds anything
    void resize(size_t n) {
        void * p = std::realloc(m_data.get(), n > 0 ? n : 1);
        if (p == nullptr) {
            throw std::bad_alloc();
        }
        (void) m_data.release();
        m_data.reset(static_cast<uint8_t *>(p));
        m_size = n;
    }

  private:
    struct deleter {
        void operator()(uint8_t * p) const { std::free(p); }
    };

    std::unique_ptr<uint8_t, deleter> m_data;
    size_t                            m_size = 0;
};

}  // namespace vt
