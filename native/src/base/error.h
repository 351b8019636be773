// The one exception of this library. It never leaves api.cpp.
#pragma once

#include "vocabtailor.h"

#include <cstdarg>
#include <cstdio>
#include <stdexcept>
#include <string>

namespace vt {

class error : public std::runtime_error {
  public:
    error(vt_status status, const std::string & text) : std::runtime_error(text), m_status(status) {}

    vt_status status() const { return m_status; }

  private:
    vt_status m_status;
};

#if defined(__GNUC__)
__attribute__((format(printf, 1, 2)))
#endif
inline std::string format(const char * fmt, ...) {
    char    buf[1024];
    va_list args;
    va_start(args, fmt);
    const int n = vsnprintf(buf, sizeof(buf), fmt, args);
    va_end(args);
    return n < 0 ? std::string(fmt) : std::string(buf);
}

}  // namespace vt
