// The one reader of GGUF headers. Nothing here trusts the file.
//
//   1. magic "GGUF", u32 version (3), u64 n_tensors, u64 n_keys
//   2. n_keys    times: string name, u32 type, value
//   3. n_tensors times: string name, u32 n_dims, u64 ne[n_dims], u32 type, u64 offset
//   4. padding to the alignment, then the tensors in the order of 3, each padded to the alignment
//
// Stricter than libggml's reader: no holes, no overlap, no trailing bytes, no duplicate, every count bounded by the
// bytes that are left. A source, which others wrote, may be as odd as llama.cpp lets it be: version 2, names of any
// bytes, a bool of 2, any power of two as alignment, bytes after the last tensor. Bounds stay as they are.
// Source: ggml/docs/gguf.md, ggml/src/gguf.cpp.
#pragma once

#include "base/bytes.h"
#include "base/file.h"

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

namespace vt {

enum class gguf_type : int32_t {
    u8      = 0,
    i8      = 1,
    u16     = 2,
    i16     = 3,
    u32     = 4,
    i32     = 5,
    f32     = 6,
    boolean = 7,
    string  = 8,
    array   = 9,
    u64     = 10,
    i64     = 11,
    f64     = 12,
};

// whose file it is: one that this library's users wrote, or a model to be split
enum class gguf_rules { own, source };

class gguf {
  public:
    struct key {
        std::string name;
        gguf_type   type;
        gguf_type   element_type;  // of an array, else type
        uint64_t    n;
        size_t      value, n_bytes;    // into header()
        size_t      record, n_record;  // into header()
    };

    struct tensor {
        std::string name;
        int32_t     type;
        int32_t     n_dims;
        int64_t     ne[4];
        uint64_t    offset;  // from the start of the file
        uint64_t    n_bytes;
        size_t      record, n_record;  // into header()
    };

    explicit gguf(const std::string & path, gguf_rules rules = gguf_rules::own);

    const vt::file &            data_file() const { return *m_file; }
    const uint8_t *             header() const { return m_header.data(); }
    const std::vector<key> &    keys() const { return m_keys; }
    const std::vector<tensor> & tensors() const { return m_tensors; }
    uint64_t                    alignment() const { return m_alignment; }
    uint64_t                    data_offset() const { return m_data_offset; }
    uint32_t                    version() const { return m_version; }

    const key * find_key(const std::string & name) const;

    // values of keys; a missing key or another type is an error that names it
    const key & require(const std::string & name, gguf_type type) const;
    const key & require_array(const std::string & name, gguf_type element_type) const;
    std::string get_string(const key & k) const;
    uint32_t    get_u32(const key & k) const;
    float       get_f32(const key & k) const;

    // an error that starts with the file's name
    [[noreturn]] void fail(const std::string & what) const;

    // hand over the file and drop the header
    std::unique_ptr<vt::file> release_file() { return std::move(m_file); }

  private:
    std::unique_ptr<vt::file>               m_file;
    bool                                    m_lenient;
    uint32_t                                m_version = 0;
    bytes                                   m_header;
    size_t                                  m_pos = 0;
    std::vector<key>                        m_keys;
    std::vector<tensor>                     m_tensors;
    std::unordered_map<std::string, size_t> m_key_index;
    std::unordered_map<std::string, size_t> m_tensor_index;
    uint64_t                                m_alignment   = 32;
    uint64_t                                m_data_offset = 0;

    void            need(uint64_t n, const char * where);
    const uint8_t * take(uint64_t n, const char * where);
    uint32_t        take_u32(const char * where);
    uint64_t        take_u64(const char * where);
    std::string     take_name(size_t min, size_t max, bool any_byte, const char * where);
    uint64_t        left() const;

    void check_magic();
    void read_prefix(uint64_t & n_tensors, uint64_t & n_keys);
    void read_key();
    void skip_elements(const std::string & name, gguf_type type, uint64_t n);
    void read_alignment();
    void read_tensor();
    void place_tensors();
};

}  // namespace vt
