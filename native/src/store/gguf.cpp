#include "store/gguf.h"

#include "base/checked.h"
#include "base/error.h"
#include "store/magic.h"

#include <ggml.h>

#include <algorithm>
#include <cstring>

namespace vt {

namespace {

constexpr uint64_t MAX_HEADER  = 64ull << 20;
constexpr uint64_t MAX_KEYS    = 1ull << 16;
constexpr uint64_t MAX_TENSORS = 1ull << 16;
constexpr uint64_t MAX_VALUES  = 1ull << 48;         // of a tensor
constexpr uint64_t MIN_KEY     = 8 + 1 + 4 + 1;      // length, one character, type, one byte
constexpr uint64_t MIN_TENSOR  = 8 + 1 + 4 + 4 + 8;  // length, one character, n_dims, type, offset

// bytes of a scalar, 0 for strings, arrays and unknown types
size_t scalar_size(gguf_type type) {
    switch (type) {
    case gguf_type::u8:
    case gguf_type::i8:
    case gguf_type::boolean: return 1;
    case gguf_type::u16:
    case gguf_type::i16: return 2;
    case gguf_type::u32:
    case gguf_type::i32:
    case gguf_type::f32: return 4;
    case gguf_type::u64:
    case gguf_type::i64:
    case gguf_type::f64: return 8;
    default: return 0;
    }
}

template <typename T> T load(const uint8_t * p) {
    T x;
    memcpy(&x, p, sizeof(T));
    return x;
}

}  // namespace

gguf::gguf(const std::string & path, gguf_rules rules) : m_file(new vt::file(path)), m_lenient(rules == gguf_rules::source) {
    uint64_t n_tensors = 0;
    uint64_t n_keys    = 0;
    read_prefix(n_tensors, n_keys);
    m_keys.reserve(n_keys);
    for (uint64_t i = 0; i < n_keys; i++) {
        read_key();
    }
    read_alignment();
    m_tensors.reserve(n_tensors);
    for (uint64_t i = 0; i < n_tensors; i++) {
        read_tensor();
    }
    place_tensors();
    m_header.resize(m_pos);
}

void gguf::fail(const std::string & what) const {
    std::string told = what;
    std::replace_if(told.begin(), told.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; }, '?');
    throw error(VT_ERROR_FORMAT, m_file->path() + ": " + told);
}

uint64_t gguf::left() const {
    return m_file->size() - m_pos;
}

// have n more header bytes in memory
void gguf::need(uint64_t n, const char * where) {
    if (n > left()) {
        fail(format("%s: needs %llu bytes at byte %zu, only %llu are left", where, static_cast<unsigned long long>(n), m_pos,
                    static_cast<unsigned long long>(left())));
    }
    if (m_pos + n > MAX_HEADER) {
        fail(format("%s: header is larger than %llu MiB", where, static_cast<unsigned long long>(MAX_HEADER >> 20)));
    }
    if (m_pos + n > m_header.size()) {
        const size_t old  = m_header.size();
        const size_t step = std::max<size_t>(1u << 20, old / 2);
        const size_t want = to_size(std::min<uint64_t>(std::max<uint64_t>(old + step, m_pos + n), m_file->size()));
        m_header.resize(want);
        m_file->read_at(old, m_header.data() + old, want - old);
    }
}

const uint8_t * gguf::take(uint64_t n, const char * where) {
    need(n, where);
    const uint8_t * p = m_header.data() + m_pos;
    m_pos += to_size(n);
    return p;
}

uint32_t gguf::take_u32(const char * where) {
    return load<uint32_t>(take(4, where));
}

uint64_t gguf::take_u64(const char * where) {
    return load<uint64_t>(take(8, where));
}

std::string gguf::take_name(size_t min, size_t max, bool any_byte, const char * where) {
    const uint64_t n = take_u64(where);
    if (n < min || n > max) {
        fail(format("%s: length %llu, expected %zu to %zu", where, static_cast<unsigned long long>(n), min, max));
    }
    const uint8_t * p = take(n, where);
    for (uint64_t i = 0; i < n && !any_byte; i++) {
        if (p[i] < 0x20 || p[i] > 0x7e) {
            fail(format("%s: byte 0x%02x at %llu, expected printable ASCII", where, p[i], static_cast<unsigned long long>(i)));
        }
    }
    return std::string(reinterpret_cast<const char *>(p), to_size(n));
}

void gguf::check_magic() {
    uint8_t      head[512];
    const size_t n = to_size(std::min<uint64_t>(sizeof(head), m_file->size()));
    m_file->read_at(0, head, n);
    if (n >= 4 && memcmp(head, "GGUF", 4) != 0) {
        fail("magic: not a GGUF file, but " + describe_bytes(head, n, m_file->size()));
    }
    if (m_file->size() < 24) {
        fail(format("%llu bytes, expected a GGUF header of at least 24", static_cast<unsigned long long>(m_file->size())));
    }
}

void gguf::read_prefix(uint64_t & n_tensors, uint64_t & n_keys) {
    check_magic();
    take(4, "magic");
    m_version = take_u32("version");
    if (m_version != 0 && (m_version & 0xffffu) == 0) {
        fail("version: big-endian file not supported");
    }
    if (m_version != 3 && !(m_lenient && m_version == 2)) {  // 2 has the same layout
        fail(format("version: found %u, expected %s", m_version, m_lenient ? "2 or 3" : "3"));
    }
    n_tensors = take_u64("tensor count");
    n_keys    = take_u64("key count");
    if (n_keys > MAX_KEYS || n_keys > left() / MIN_KEY) {
        fail(format("key count: %llu, more than the file can hold", static_cast<unsigned long long>(n_keys)));
    }
    if (n_tensors > MAX_TENSORS || n_tensors > left() / MIN_TENSOR) {
        fail(format("tensor count: %llu, more than the file can hold", static_cast<unsigned long long>(n_tensors)));
    }
}

void gguf::read_key() {
    key k;
    k.record       = m_pos;
    k.name         = take_name(1, m_lenient ? to_size(MAX_HEADER) : 65535, m_lenient, "key name");
    k.type         = static_cast<gguf_type>(take_u32(k.name.c_str()));
    k.n            = 1;
    k.element_type = k.type;
    if (k.type == gguf_type::array) {
        k.element_type = static_cast<gguf_type>(take_u32(k.name.c_str()));
        k.n            = take_u64(k.name.c_str());
        if (k.element_type == gguf_type::array) {
            fail("key " + k.name + ": nested array");
        }
    }
    k.value = m_pos;
    skip_elements(k.name, k.element_type, k.n);
    k.n_bytes  = m_pos - k.value;
    k.n_record = m_pos - k.record;
    if (!m_key_index.emplace(k.name, m_keys.size()).second) {
        fail("key " + k.name + ": appears twice");
    }
    m_keys.push_back(std::move(k));
}

void gguf::skip_elements(const std::string & name, gguf_type type, uint64_t n) {
    const char * where = name.c_str();
    if (type == gguf_type::string) {
        if (n > left() / 8) {
            fail(format("key %s: %llu strings, more than the file can hold", where, static_cast<unsigned long long>(n)));
        }
        for (uint64_t i = 0; i < n; i++) {
            take(take_u64(where), where);
        }
        return;
    }
    const size_t size = scalar_size(type);
    if (size == 0) {
        fail(format("key %s: unknown value type %d", where, static_cast<int>(type)));
    }
    if (n > left() / size) {
        fail(format("key %s: %llu elements, more than the file can hold", where, static_cast<unsigned long long>(n)));
    }
    const uint8_t * p = take(n * size, where);
    if (type == gguf_type::boolean && !m_lenient) {
        for (uint64_t i = 0; i < n; i++) {
            if (p[i] > 1) {
                fail(format("key %s: bool with value %u, expected 0 or 1", where, p[i]));
            }
        }
    }
}

void gguf::read_alignment() {
    if (find_key("general.alignment") == nullptr) {
        return;
    }
    m_alignment      = get_u32(require("general.alignment", gguf_type::u32));
    const bool power = m_alignment != 0 && (m_alignment & (m_alignment - 1)) == 0;
    if (!power || (!m_lenient && (m_alignment < 8 || m_alignment > 65536))) {
        fail(format("key general.alignment: %llu, expected a power of two%s", static_cast<unsigned long long>(m_alignment),
                    m_lenient ? "" : " from 8 to 65536"));
    }
}

void gguf::read_tensor() {
    tensor t;
    t.record              = m_pos;
    t.name                = take_name(1, GGML_MAX_NAME - 1, m_lenient, "tensor name");
    const char *   where  = t.name.c_str();
    const uint32_t n_dims = take_u32(where);
    if ((n_dims < 1 && !m_lenient) || n_dims > GGML_MAX_DIMS) {
        fail(format("tensor %s: %u dimensions, expected 1 to %d", where, n_dims, GGML_MAX_DIMS));
    }
    t.n_dims            = static_cast<int32_t>(n_dims);
    uint64_t n_elements = 1;
    for (uint32_t i = 0; i < 4; i++) {
        const uint64_t ne = i < n_dims ? take_u64(where) : 1;
        if (ne == 0 || ne > (1ull << 40)) {
            fail(format("tensor %s: dimension %u is %llu", where, i, static_cast<unsigned long long>(ne)));
        }
        if (n_elements > MAX_VALUES / ne) {
            fail(format("tensor %s: more than 2^48 values", where));
        }
        t.ne[i] = static_cast<int64_t>(ne);
        n_elements *= ne;
    }
    const uint32_t type = take_u32(where);
    if (type >= GGML_TYPE_COUNT || ggml_type_size(static_cast<ggml_type>(type)) == 0) {
        fail(format("tensor %s: unknown type %u", where, type));
    }
    t.type               = static_cast<int32_t>(type);
    const uint64_t block = static_cast<uint64_t>(ggml_blck_size(static_cast<ggml_type>(type)));
    if (static_cast<uint64_t>(t.ne[0]) % block != 0) {
        fail(format("tensor %s: rows of %lld values, expected a multiple of %llu for type %s", where, static_cast<long long>(t.ne[0]),
                    static_cast<unsigned long long>(block), ggml_type_name(static_cast<ggml_type>(type))));
    }
    t.n_bytes  = checked_mul(n_elements / block, ggml_type_size(static_cast<ggml_type>(type)));
    t.offset   = take_u64(where);
    t.n_record = m_pos - t.record;
    if (!m_tensor_index.emplace(t.name, m_tensors.size()).second) {
        fail("tensor " + t.name + ": appears twice");
    }
    m_tensors.push_back(std::move(t));
}

// each tensor starts where the one before it ended, padded; the last one ends the file
void gguf::place_tensors() {
    m_data_offset = checked_pad(m_pos, m_alignment);
    if (m_tensors.empty() && m_file->size() == m_pos) {
        m_data_offset = m_pos;
    }
    uint64_t cursor = 0;
    uint64_t end    = m_data_offset;
    for (tensor & t : m_tensors) {
        if (t.offset != cursor) {
            fail(format("tensor %s: offset %llu, expected %llu", t.name.c_str(), static_cast<unsigned long long>(t.offset),
                        static_cast<unsigned long long>(cursor)));
        }
        t.offset = checked_add(m_data_offset, cursor);
        end      = checked_add(t.offset, t.n_bytes);
        if (end > m_file->size()) {
            fail(format("tensor %s: ends at byte %llu, the file at %llu", t.name.c_str(), static_cast<unsigned long long>(end),
                        static_cast<unsigned long long>(m_file->size())));
        }
        cursor = checked_pad(checked_add(cursor, t.n_bytes), m_alignment);
    }
    const uint64_t padded = checked_add(m_data_offset, cursor);
    if (m_file->size() != end && m_file->size() != padded && !m_lenient) {
        fail(format("%llu bytes after the last tensor", static_cast<unsigned long long>(m_file->size() - std::min(m_file->size(), end))));
    }
}

const gguf::key * gguf::find_key(const std::string & name) const {
    if (m_lenient) {  // libggml compares C strings, and takes the first
        const auto same = [&](const key & k) { return strcmp(k.name.c_str(), name.c_str()) == 0; };
        const auto k    = std::find_if(m_keys.begin(), m_keys.end(), same);
        return k == m_keys.end() ? nullptr : &*k;
    }
    const auto it = m_key_index.find(name);
    return it == m_key_index.end() ? nullptr : &m_keys[it->second];
}

const gguf::key & gguf::require(const std::string & name, gguf_type type) const {
    const key * k = find_key(name);
    if (k == nullptr) {
        fail("key " + name + ": missing");
    }
    if (k->type != type) {
        fail(format("key %s: type %d, expected %d", name.c_str(), static_cast<int>(k->type), static_cast<int>(type)));
    }
    return *k;
}

const gguf::key & gguf::require_array(const std::string & name, gguf_type element_type) const {
    const key & k = require(name, gguf_type::array);
    if (k.element_type != element_type) {
        fail(format("key %s: elements of type %d, expected %d", name.c_str(), static_cast<int>(k.element_type), static_cast<int>(element_type)));
    }
    return k;
}

std::string gguf::get_string(const key & k) const {
    return std::string(reinterpret_cast<const char *>(m_header.data() + k.value + 8), k.n_bytes - 8);
}

uint32_t gguf::get_u32(const key & k) const {
    return load<uint32_t>(m_header.data() + k.value);
}

float gguf::get_f32(const key & k) const {
    return load<float>(m_header.data() + k.value);
}

}  // namespace vt
