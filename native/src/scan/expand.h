// From the bytes of rows to the tiles that the kernels multiply: plain loops, which compilers vectorise for the family
// that includes them. The includer defines TARGET and load_fp16.

template <class T> TARGET static inline void store(uint8_t * at, T value) {
    memcpy(at, &value, sizeof(value));
}

// one row; quants, scales and minima are where those of its first group go, step bytes before those of the next
TARGET static inline void expand_row(scan_q8_0, const uint8_t * p, int n_groups, uint8_t * quants, uint8_t * scales, uint8_t *, int step) {
    for (int g = 0; g < n_groups; g++, p += scan_q8_0::BYTES, quants += step, scales += step) {
        for (int i = 0; i < 32; i++) {
            quants[i] = (uint8_t) (p[2 + i] ^ 0x80);
        }
        store(scales, load_fp16(p));
    }
}

TARGET static inline void expand_row(scan_q4_0, const uint8_t * p, int n_groups, uint8_t * quants, uint8_t * scales, uint8_t *, int step) {
    for (int g = 0; g < n_groups; g++, p += scan_q4_0::BYTES, quants += step, scales += step) {
        for (int i = 0; i < 16; i++) {
            quants[i]      = p[2 + i] & 0x0f;
            quants[16 + i] = (uint8_t) (p[2 + i] >> 4);
        }
        store(scales, load_fp16(p));
    }
}

TARGET static inline void expand_row(scan_q4_k, const uint8_t * p, int n_groups, uint8_t * quants, uint8_t * scales, uint8_t * minima, int step) {
    for (int g = 0; g < n_groups; g += 8, p += scan_q4_k::BYTES) {
        const float     d   = load_fp16(p);
        const float     min = load_fp16(p + 2);
        const uint8_t * s   = p + 4;
        for (int j = 0; j < 8; j++, quants += step, scales += step, minima += step) {
            const uint8_t * nibbles = p + 16 + j / 2 * 32;
            for (int i = 0; i < 32; i++) {
                quants[i] = j % 2 == 0 ? nibbles[i] & 0x0f : (uint8_t) (nibbles[i] >> 4);
            }
            const int scale = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
            const int least = j < 4 ? s[j + 4] & 63 : s[j + 4] >> 4 | (s[j] >> 6) << 4;
            store(scales, d * (float) scale);
            store(minima, min * (float) least);
        }
    }
}

TARGET static inline void expand_row(scan_q6_k, const uint8_t * p, int n_groups, uint8_t * quants, uint8_t * scales, uint8_t *, int step) {
    for (int g = 0; g < n_groups; g += 16, p += scan_q6_k::BYTES) {
        const float d = load_fp16(p + 208);
        for (int half = 0; half < 2; half++) {
            const uint8_t * low  = p + 64 * half;
            const uint8_t * high = p + 128 + 32 * half;
            const int8_t *  s    = (const int8_t *) p + 192 + 8 * half;
            uint8_t         q[128];
            for (int i = 0; i < 32; i++) {
                q[i]      = (uint8_t) ((low[i] & 0x0f) | (high[i] & 0x03) << 4);
                q[32 + i] = (uint8_t) ((low[32 + i] & 0x0f) | (high[i] & 0x0c) << 2);
                q[64 + i] = (uint8_t) (low[i] >> 4 | (high[i] & 0x30));
                q[96 + i] = (uint8_t) (low[32 + i] >> 4 | (high[i] & 0xc0) >> 2);
            }
            for (int j = 0; j < 8; j++, quants += step, scales += step) {
                memcpy(quants, q + 16 * j, 16);
                store(scales, d * (float) s[j]);
            }
        }
    }
}

template <class F, int N> TARGET static inline void expand(const scan_job & job, int64_t row) {
    using tile = scan_tile<F, N>;
    for (int r = 0; r < N; r++) {
        expand_row(F(), job.rows + (row + r) * job.row_size, job.n_groups, job.tile + r * F::GROUP, job.tile + tile::SCALES + r * 4,
                   job.tile + tile::MINIMA + r * 4, tile::STEP);
    }
}
