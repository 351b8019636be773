// Adds the time it lives to a counter.
#pragma once

#include <ggml.h>

#include <cstdint>

namespace vt {

class stopwatch {
  public:
    explicit stopwatch(int64_t & total) : m_total(total), m_start(ggml_time_us()) {}
    ~stopwatch() { m_total += ggml_time_us() - m_start; }

    stopwatch(const stopwatch &)             = delete;
    stopwatch & operator=(const stopwatch &) = delete;

  private:
    int64_t & m_total;
    int64_t   m_start;
};

}  // namespace vt
