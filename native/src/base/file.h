// A file read by position. The only code here that knows an operating system.
//
// pread, not mmap: a table that shrinks under a map is a SIGBUS, under pread a short read and so an error; pages that
// pread touches stay in the page cache and do not count as ours; and at 1 us a row it is not seen in a decode step.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace vt {

class file {
  public:
    explicit file(const std::string & path);
    ~file();

    file(const file &)             = delete;
    file & operator=(const file &) = delete;

    uint64_t            size() const { return m_size; }
    const std::string & path() const { return m_path; }

    // exactly n bytes at offset, or an error
    void read_at(uint64_t offset, void * dst, size_t n) const;

    // tell the kernel that reads will jump about, so that it does not read ahead
    void advise_random() const;

  private:
    friend class mapping;

    std::string m_path;
    uint64_t    m_size = 0;
#if defined(_WIN32)
    void * m_handle = nullptr;
#else
    int m_fd = -1;
#endif
};

// Bytes of an open file as memory that the page cache backs. A file that shrinks meanwhile kills the process, as it does with
// any mapped model, so this is only for the tables that exact mode reads whole at every step.
class mapping {
  public:
    mapping(const file & f, uint64_t offset, uint64_t n);
    ~mapping();

    mapping(const mapping &)             = delete;
    mapping & operator=(const mapping &) = delete;

    const uint8_t * data() const { return m_data; }

  private:
    void *          m_base = nullptr;
    size_t          m_size = 0;
    const uint8_t * m_data = nullptr;
};

}  // namespace vt
