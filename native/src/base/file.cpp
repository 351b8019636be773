#include "base/file.h"

#include "base/error.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#if defined(_WIN32)
#    define WIN32_LEAN_AND_MEAN
#    include <windows.h>
#else
#    include <fcntl.h>
#    include <sys/mman.h>
#    include <sys/stat.h>
#    include <sys/types.h>
#    include <unistd.h>
#endif

namespace vt {

#if defined(_WIN32)

file::file(const std::string & path) : m_path(path) {
    const int    n = MultiByteToWideChar(CP_UTF8, 0, path.c_str(), -1, nullptr, 0);
    std::wstring wide(static_cast<size_t>(std::max(n, 1)), L'\0');
    MultiByteToWideChar(CP_UTF8, 0, path.c_str(), -1, &wide[0], n);
    m_handle = CreateFileW(wide.c_str(), GENERIC_READ, FILE_SHARE_READ, nullptr, OPEN_EXISTING, FILE_FLAG_RANDOM_ACCESS, nullptr);
    if (m_handle == INVALID_HANDLE_VALUE) {
        throw error(VT_ERROR_IO, format("%s: cannot be opened: error %lu", path.c_str(), GetLastError()));
    }
    LARGE_INTEGER size;
    if (GetFileType(m_handle) != FILE_TYPE_DISK || !GetFileSizeEx(m_handle, &size)) {
        CloseHandle(m_handle);
        throw error(VT_ERROR_IO, format("%s: not a regular file", path.c_str()));
    }
    m_size = static_cast<uint64_t>(size.QuadPart);
}

file::~file() {
    CloseHandle(m_handle);
}

void file::read_at(uint64_t offset, void * dst, size_t n) const {
    uint8_t * p = static_cast<uint8_t *>(dst);
    while (n > 0) {
        OVERLAPPED at = {};
        at.Offset     = static_cast<DWORD>(offset);
        at.OffsetHigh = static_cast<DWORD>(offset >> 32);
        DWORD got     = 0;
        if (!ReadFile(m_handle, p, static_cast<DWORD>(std::min<size_t>(n, 1u << 30)), &got, &at) || got == 0) {
            throw error(VT_ERROR_IO, format("%s: read at byte %llu failed: the file is shorter than when it was opened", m_path.c_str(),
                                            static_cast<unsigned long long>(offset)));
        }
        p += got;
        offset += got;
        n -= got;
    }
}

void file::advise_random() const {
}

mapping::mapping(const file & f, uint64_t offset, uint64_t n) {
    (void) offset;
    (void) n;
    throw error(VT_ERROR_IO, format("%s: mapped tables are not available on Windows", f.path().c_str()));
}

mapping::~mapping() = default;

#else

file::file(const std::string & path) : m_path(path) {
    m_fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (m_fd < 0) {
        throw error(VT_ERROR_IO, format("%s: cannot be opened: %s", path.c_str(), errno == ENOENT ? "no such file" : strerror(errno)));
    }
    struct stat st = {};
    if (fstat(m_fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        close(m_fd);
        throw error(VT_ERROR_IO, format("%s: %snot a regular file", path.c_str(), S_ISDIR(st.st_mode) ? "a folder, " : ""));
    }
    m_size = static_cast<uint64_t>(st.st_size);
}

file::~file() {
    close(m_fd);
}

void file::read_at(uint64_t offset, void * dst, size_t n) const {
    uint8_t * p = static_cast<uint8_t *>(dst);
    while (n > 0) {
        const ssize_t got = pread(m_fd, p, std::min<size_t>(n, size_t(1) << 30), static_cast<off_t>(offset));
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            throw error(VT_ERROR_IO,
                        format("%s: read at byte %llu failed: %s", m_path.c_str(), static_cast<unsigned long long>(offset), strerror(errno)));
        }
        if (got == 0) {
            throw error(VT_ERROR_IO, format("%s: ends at byte %llu, expected %zu bytes more: it shrank after it was opened", m_path.c_str(),
                                            static_cast<unsigned long long>(offset), n));
        }
        p += got;
        offset += static_cast<uint64_t>(got);
        n -= static_cast<size_t>(got);
    }
}

void file::advise_random() const {
#    if defined(POSIX_FADV_RANDOM)
    posix_fadvise(m_fd, 0, 0, POSIX_FADV_RANDOM);
#    endif
}

// through the descriptor that the header was read from: another file may have the path by now
mapping::mapping(const file & f, uint64_t offset, uint64_t n) {
    const uint64_t page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
    const uint64_t skip = offset % page;
    struct stat    st;
    if (fstat(f.m_fd, &st) != 0 || static_cast<uint64_t>(st.st_size) < n || static_cast<uint64_t>(st.st_size) - n < offset) {
        throw error(VT_ERROR_IO, format("%s: cannot be mapped: it is shorter than when it was opened", f.path().c_str()));
    }
    m_size = static_cast<size_t>(n + skip);
    m_base = mmap(nullptr, m_size, PROT_READ, MAP_SHARED, f.m_fd, static_cast<off_t>(offset - skip));
    if (m_base == MAP_FAILED) {
        m_base = nullptr;
        throw error(VT_ERROR_IO, format("%s: cannot be mapped: %s", f.path().c_str(), strerror(errno)));
    }
    m_data = static_cast<const uint8_t *>(m_base) + skip;
}

mapping::~mapping() {
    if (m_base != nullptr) {
        munmap(m_base, m_size);
    }
}

#endif

}  // namespace vt
