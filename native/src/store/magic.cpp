#include "store/magic.h"

#include "base/error.h"

#include <algorithm>
#include <cctype>
#include <cstring>

namespace vt {

namespace {

struct kind {
    size_t       at;
    const char * magic;
    size_t       n;
    const char * words;
};

constexpr kind KINDS[] = {
    {0, "version https://git-lfs", 23, "a Git LFS pointer: fetch the file itself with git lfs pull"},
    {0, "PK\3\4", 4, "a ZIP archive, perhaps a PyTorch checkpoint"},
    {0, "PK\5\6", 4, "an empty ZIP archive"},
    {0, "\x80\2", 2, "a Python pickle, perhaps a PyTorch checkpoint"},
    {0, "\x80\4", 2, "a Python pickle"},
    {0, "\x1f\x8b", 2, "a gzip archive"},
    {0, "\x28\xb5\x2f\xfd", 4, "a Zstandard archive"},
    {0, "\xfd\x37zXZ", 5, "an xz archive"},
    {0, "BZh", 3, "a bzip2 archive"},
    {0, "7z\xbc\xaf\x27\x1c", 6, "a 7-Zip archive"},
    {0, "Rar!", 4, "a RAR archive"},
    {257, "ustar", 5, "a tar archive"},
    {0, "lmgg", 4, "a GGML file from before GGUF: convert it anew"},
    {0, "fmgg", 4, "a GGML file from before GGUF: convert it anew"},
    {0, "tjgg", 4, "a GGML file from before GGUF: convert it anew"},
    {0, "algg", 4, "a GGML file from before GGUF: convert it anew"},
    {0, "FUGG", 4, "a GGUF file with its bytes swapped"},
    {0, "\x89HDF", 4, "an HDF5 file"},
    {4, "TFL3", 4, "a TensorFlow Lite model"},
    {0, "\x93NUMPY", 6, "a NumPy array"},
    {0, "PAR1", 4, "a Parquet file"},
    {0, "%PDF", 4, "a PDF document"},
    {0,
     "\x7f"
     "ELF",
     4, "a program"},
    {0, "\xff\xfe", 2, "a text in UTF-16"},
    {0, "\xfe\xff", 2, "a text in UTF-16"},
};

// whether n bytes begin with a text in lower case, whatever their own case
bool begins(const uint8_t * p, size_t n, const char * text) {
    for (size_t i = 0; text[i] != 0; i++) {
        if (i == n || std::tolower(p[i]) != text[i]) {
            return false;
        }
    }
    return true;
}

// u64 size of a JSON header, then the header
bool is_safetensors(const uint8_t * head, size_t n, uint64_t size) {
    uint64_t n_json = 0;
    for (size_t i = 0; n > 8 && i < 8; i++) {
        n_json |= static_cast<uint64_t>(head[i]) << (8 * i);
    }
    return n > 8 && n_json >= 2 && n_json <= size - 8 && head[8] == '{';
}

std::string text_of(const uint8_t * head, size_t n) {
    std::string out;
    for (size_t i = 0; i < n && out.size() < 40; i++) {
        if (head[i] == '\n' || head[i] == '\r') {
            break;
        }
        if (head[i] < 0x20 || head[i] > 0x7e) {
            return std::string();
        }
        out += static_cast<char>(head[i]);
    }
    return out;
}

}  // namespace

std::string describe_bytes(const uint8_t * head, size_t n, uint64_t size) {
    for (const kind & k : KINDS) {
        if (n >= k.at + k.n && memcmp(head + k.at, k.magic, k.n) == 0) {
            return k.words;
        }
    }
    if (is_safetensors(head, n, size)) {
        return "a safetensors file: convert it with llama.cpp's convert_hf_to_gguf.py";
    }
    if (std::all_of(head, head + n, [](uint8_t b) { return b == 0; })) {
        return "zeros, perhaps a download that was not finished";
    }
    size_t at = n >= 3 && memcmp(head, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
    while (at < n && (head[at] == ' ' || head[at] == '\t' || head[at] == '\n' || head[at] == '\r')) {
        at++;
    }
    const uint8_t * text = head + at;
    if (begins(text, n - at, "<!doctype html") || begins(text, n - at, "<html")) {
        return "an HTML page, perhaps the error page of a download";
    }
    if (begins(text, n - at, "<?xml")) {
        return "an XML document, perhaps the error of a download";
    }
    const std::string line = text_of(text, n - at);
    if (!line.empty()) {
        return format("a text that begins with \"%s\"", line.c_str());
    }
    std::string bytes;
    for (size_t i = 0; i < std::min<size_t>(n, 4); i++) {
        bytes += format(" %02x", head[i]);
    }
    return "a file that begins with the bytes" + bytes;
}

}  // namespace vt
