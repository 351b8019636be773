/*
 * Forced into every file of a build (-include) whose compiler has a wrong _tile_loadconfig.
 *
 * GCC before 11.5, 12.4, 13.3 and 14 gives ldtilecfg an operand of 8 bytes where the instruction reads 64 (GCC PR
 * target/114098), and sttilecfg likewise. So the optimiser drops stores to the rest of the configuration, and the first
 * tile instruction after it faults. Here both have all their bytes.
 */
#ifndef VT_AMX_TILE_H
#define VT_AMX_TILE_H

#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__AMX_TILE__)

#    include <immintrin.h>

typedef struct {
    char bytes[64];
} __attribute__((may_alias)) vt_tile_config;

static inline __attribute__((always_inline, unused)) void vt_tile_loadconfig(const void * config) {
    __asm__ volatile("ldtilecfg\t%X0" : : "m"(*(const vt_tile_config *) config));
}

static inline __attribute__((always_inline, unused)) void vt_tile_storeconfig(void * config) {
    __asm__ volatile("sttilecfg\t%X0" : "=m"(*(vt_tile_config *) config));
}

#    undef _tile_loadconfig
#    undef _tile_storeconfig
#    define _tile_loadconfig  vt_tile_loadconfig
#    define _tile_storeconfig vt_tile_storeconfig

#endif
#endif
