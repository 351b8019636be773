// Does this compiler, with these flags, on this CPU, load a tile configuration and multiply right?
//
// Prints one word: "sound"; "absent" where the flags or the CPU have no AMX or the system does not allow it, so that ggml
// will not use it either; "wrong" where a product is wrong. A fault ends it by a signal, which says the same.
#include <cstdint>
#include <cstdio>
#include <cstring>

#if defined(__AMX_TILE__) && defined(__AMX_INT8__) && defined(__linux__)

#    include <immintrin.h>
#    include <sys/syscall.h>
#    include <unistd.h>

namespace {

constexpr int ROWS = 16;  // of a and c
constexpr int COLS = 16;  // of b and c
constexpr int DEEP = 32;  // int8 values of a product

// the layout of ldtilecfg's operand, with initialisers: from them come the stores that an optimiser drops
struct tile_config {
    uint8_t  palette      = 0;
    uint8_t  start_row    = 0;
    uint8_t  reserved[14] = {0};
    uint16_t colsb[16]    = {0};
    uint8_t  rows[16]     = {0};
};

__attribute__((noinline)) void configure() {
    static thread_local bool done = false;
    if (done) {
        return;
    }
    alignas(64) tile_config tc = {};
    tc.palette                 = 1;
    tc.rows[0]                 = DEEP / 4;
    tc.colsb[0]                = COLS * 4;
    tc.rows[1]                 = ROWS;
    tc.colsb[1]                = DEEP;
    tc.rows[2]                 = ROWS;
    tc.colsb[2]                = COLS * 4;
    _tile_loadconfig(&tc);
    done = true;
}

// what lies on the stack must not look like a configuration by chance
__attribute__((noinline)) void dirty_stack() {
    volatile uint8_t junk[4096];
    for (volatile uint8_t & x : junk) {
        x = 0xa5;
    }
}

bool multiply(unsigned seed) {
    alignas(64) int8_t  a[ROWS][DEEP];
    alignas(64) int8_t  b[DEEP / 4][COLS][4];
    alignas(64) int32_t c[ROWS][COLS];
    const auto          next = [&] { return static_cast<int8_t>((seed = seed * 1664525u + 1013904223u) >> 24); };
    for (auto & row : a) {
        for (int8_t & x : row) {
            x = next();
        }
    }
    for (auto & row : b) {
        for (auto & column : row) {
            for (int8_t & x : column) {
                x = next();
            }
        }
    }
    _tile_zero(2);
    _tile_loadd(1, a, DEEP);
    _tile_loadd(0, b, COLS * 4);
    _tile_dpbssd(2, 1, 0);
    _tile_stored(2, c, COLS * 4);
    for (int i = 0; i < ROWS; i++) {
        for (int j = 0; j < COLS; j++) {
            int32_t sum = 0;
            for (int k = 0; k < DEEP; k++) {
                sum += a[i][k] * b[k / 4][j][k % 4];
            }
            if (sum != c[i][j]) {
                return false;
            }
        }
    }
    return true;
}

}  // namespace

int main() {
    constexpr int ARCH_REQ_XCOMP_PERM = 0x1023;
    constexpr int XFEATURE_XTILEDATA  = 18;
    if (syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) != 0) {
        puts("absent");
        return 0;
    }
    dirty_stack();
    configure();
    const bool right = multiply(1) && multiply(2);
    puts(right ? "sound" : "wrong");
    return 0;
}

#else

int main() {
    puts("absent");
    return 0;
}

#endif
