#include "vocab/script_of.h"

#include "vocab/utf8.h"

#include <algorithm>
#include <iterator>

namespace vt {

namespace {

struct range {
    uint32_t  first;
    uint32_t  last;
    script_id script;
};

// of Unicode's Blocks.txt those with letters
constexpr script_id GREEK = 0, CYRILLIC = 1, ARMENIAN = 2, HEBREW = 3, ARABIC = 4, SYRIAC = 5, THAANA = 6, THAI = 7, LAO = 8, TIBETAN = 9,
                    MYANMAR = 10, GEORGIAN = 11, HANGUL = 12, ETHIOPIC = 13, CHEROKEE = 14, KHMER = 15, MONGOLIAN = 16, KANA = 17, BOPOMOFO = 18,
                    HAN = 19, YI = 20;
constexpr script_id INDIC = 32;  // and on, one for each block of 128 from Devanagari to Sinhala

const range RANGES[] = {
    {0x0370, 0x03FF, GREEK},    {0x0400, 0x052F, CYRILLIC}, {0x0531, 0x058F, ARMENIAN}, {0x0591, 0x05FF, HEBREW},   {0x0600, 0x06FF, ARABIC},
    {0x0700, 0x074F, SYRIAC},   {0x0750, 0x077F, ARABIC},   {0x0780, 0x07BF, THAANA},   {0x0860, 0x086F, SYRIAC},   {0x0870, 0x08FF, ARABIC},
    {0x0E00, 0x0E7F, THAI},     {0x0E80, 0x0EFF, LAO},      {0x0F00, 0x0FFF, TIBETAN},  {0x1000, 0x109F, MYANMAR},  {0x10A0, 0x10FF, GEORGIAN},
    {0x1100, 0x11FF, HANGUL},   {0x1200, 0x139F, ETHIOPIC}, {0x13A0, 0x13FF, CHEROKEE}, {0x1780, 0x17FF, KHMER},    {0x1800, 0x18AF, MONGOLIAN},
    {0x1C80, 0x1C8F, CYRILLIC}, {0x1C90, 0x1CBF, GEORGIAN}, {0x1F00, 0x1FFF, GREEK},    {0x2D00, 0x2D2F, GEORGIAN}, {0x2D80, 0x2DDF, ETHIOPIC},
    {0x2DE0, 0x2DFF, CYRILLIC}, {0x2E80, 0x2FDF, HAN},      {0x3005, 0x3007, HAN},      {0x3040, 0x30FF, KANA},     {0x3100, 0x312F, BOPOMOFO},
    {0x3130, 0x318F, HANGUL},   {0x31A0, 0x31BF, BOPOMOFO}, {0x31F0, 0x31FF, KANA},     {0x3400, 0x4DBF, HAN},      {0x4E00, 0x9FFF, HAN},
    {0xA000, 0xA4CF, YI},       {0xA640, 0xA69F, CYRILLIC}, {0xA960, 0xA97F, HANGUL},   {0xAC00, 0xD7FF, HANGUL},   {0xF900, 0xFAFF, HAN},
    {0xFB50, 0xFDFF, ARABIC},   {0xFE70, 0xFEFE, ARABIC},   {0xFF66, 0xFF9F, KANA},     {0x20000, 0x323AF, HAN},
};

}  // namespace

script_id script_of(uint32_t c) {
    if (c >= 0x0900 && c <= 0x0DFF) {
        return INDIC + static_cast<script_id>((c - 0x0900) / 0x80);
    }
    const range * after = std::upper_bound(std::begin(RANGES), std::end(RANGES), c, [](uint32_t x, const range & r) { return x < r.first; });
    return after != std::begin(RANGES) && c <= (after - 1)->last ? (after - 1)->script : NO_SCRIPT;
}

script_id script_of(const std::string & text) {
    for (size_t at = 0; at < text.size();) {
        const utf8_char c      = read_utf8(text, at);
        const script_id script = c.n == 0 ? NO_SCRIPT : script_of(c.first);
        if (script != NO_SCRIPT && script == script_of(c.last)) {
            return script;
        }
        at += std::max<size_t>(c.n, 1);
    }
    return NO_SCRIPT;
}

}  // namespace vt
