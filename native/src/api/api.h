// What the files of the C API share: arguments checked, exceptions turned into statuses, one thread at a time in each object.
#pragma once

#include "base/error.h"
#include "store/store.h"
#include "vocabtailor.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <new>
#include <vector>

#if defined(_WIN32)
#    define VT_EXPORT __declspec(dllexport)
#else
#    define VT_EXPORT __attribute__((visibility("default")))
#endif

struct vt_store {
    vt::store impl;

    explicit vt_store(const char * path) : impl(path) {}
};

namespace vt {

// marks an object as in use; a NULL object is not locked
class lock {
  public:
    template <typename T> explicit lock(T * object) : m_busy(object ? &object->busy : nullptr) {
        if (m_busy && m_busy->exchange(true)) {
            m_busy = nullptr;
            throw error(VT_ERROR_BUSY, "another thread is using this object");
        }
    }

    ~lock() {
        if (m_busy) {
            m_busy->store(false);
        }
    }

    lock(const lock &)             = delete;
    lock & operator=(const lock &) = delete;

  private:
    std::atomic<bool> * m_busy;
};

inline vt_status report(vt_status status, const char * text, char * err, size_t n_err) {
    if (err != nullptr && n_err > 0) {
        snprintf(err, n_err, "%s", text);
    }
    return status;
}

template <typename F> vt_status guard(char * err, size_t n_err, F && body) {
    try {
        body();
        return VT_OK;
    } catch (const error & e) {
        return report(e.status(), e.what(), err, n_err);
    } catch (const std::bad_alloc &) {
        return report(VT_ERROR_MEMORY, "out of memory", err, n_err);
    } catch (const std::exception & e) {
        return report(VT_ERROR_INTERNAL, e.what(), err, n_err);
    } catch (...) {
        return report(VT_ERROR_INTERNAL, "unknown error", err, n_err);
    }
}

inline void require(bool ok, const char * what) {
    if (!ok) {
        throw error(VT_ERROR_ARGUMENT, what);
    }
}

// the caller's parameters, who may know fewer of them
template <typename T> T read_params(const T * params) {
    require(params != nullptr, "params must not be NULL");
    require(params->struct_size >= sizeof(size_t) && params->struct_size <= sizeof(T), "struct_size is not that of the parameters");
    T copy = {};
    memcpy(&copy, params, params->struct_size);
    return copy;
}

// copies what fits, and how many there are
template <typename T> void copy_out(const std::vector<T> & from, T * out, size_t n_out, size_t * n) {
    require(n != nullptr && (n_out == 0 || out != nullptr), "out and n must not be NULL");
    std::copy_n(from.begin(), std::min(from.size(), n_out), out);
    *n = from.size();
}

}  // namespace vt
