// From the bytes of rows to the tiles that the kernels multiply, 16 bytes at a time. The includer defines TARGET, load_fp16,
// and look_up(table, indices) for 16 bytes.

#if defined(__GNUC__)

typedef uint8_t bytes __attribute__((vector_size(16)));

#else

struct bytes {
    uint8_t x[16];
};

static inline bytes operator&(bytes a, int mask) {
    for (uint8_t & x : a.x) {
        x = (uint8_t) (x & mask);
    }
    return a;
}

static inline bytes operator&(bytes a, bytes b) {
    for (int i = 0; i < 16; i++) {
        a.x[i] = (uint8_t) (a.x[i] & b.x[i]);
    }
    return a;
}

// all bits where it holds
static inline bytes operator!=(bytes a, int value) {
    for (uint8_t & x : a.x) {
        x = x != value ? 0xff : 0;
    }
    return a;
}

static inline bytes operator<<(bytes a, int n) {
    for (uint8_t & x : a.x) {
        x = (uint8_t) (x << n);
    }
    return a;
}

static inline bytes operator>>(bytes a, int n) {
    for (uint8_t & x : a.x) {
        x = (uint8_t) (x >> n);
    }
    return a;
}

static inline bytes operator|(bytes a, bytes b) {
    for (int i = 0; i < 16; i++) {
        a.x[i] = (uint8_t) (a.x[i] | b.x[i]);
    }
    return a;
}

#endif

TARGET static inline bytes load_bytes(const uint8_t * p) {
    bytes x;
    memcpy(&x, p, 16);
    return x;
}

template <class T> TARGET static inline void store(uint8_t * at, T value) {
    memcpy(at, &value, sizeof(value));
}

// one row; quants, scales and minima are where those of its first group go, step bytes before those of the next
TARGET static inline void expand_row(scan_q8_0, const uint8_t * p, int n_groups, uint8_t * quants, uint8_t * scales, uint8_t *, int step) {
    for (int g = 0; g < n_groups; g++, p += scan_q8_0::BYTES, quants += step, scales += step) {
        store(quants, load_bytes(p + 2));
        store(quants + 16, load_bytes(p + 18));
        store(scales, load_fp16(p));
    }
}

TARGET static inline void expand_row(scan_q4_0, const uint8_t * p, int n_groups, uint8_t * quants, uint8_t * scales, uint8_t *, int step) {
    for (int g = 0; g < n_groups; g++, p += scan_q4_0::BYTES, quants += step, scales += step) {
        const bytes nibbles = load_bytes(p + 2);
        store(quants, nibbles & 0x0f);
        store(quants + 16, nibbles >> 4);
        store(scales, load_fp16(p));
    }
}

// 16 for each of 16 bits that is set, those of bytes FIRST and FIRST + 1
template <int FIRST> TARGET static inline bytes spread_bits(bytes bits) {
    static const uint8_t at[16]  = {FIRST,     FIRST,     FIRST,     FIRST,     FIRST,     FIRST,     FIRST,     FIRST,
                                    FIRST + 1, FIRST + 1, FIRST + 1, FIRST + 1, FIRST + 1, FIRST + 1, FIRST + 1, FIRST + 1};
    static const uint8_t bit[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    return (bytes) ((look_up(bits, load_bytes(at)) & load_bytes(bit)) != 0) & 0x10;
}

TARGET static inline void expand_row(scan_q5_0, const uint8_t * p, int n_groups, uint8_t * quants, uint8_t * scales, uint8_t *, int step) {
    for (int g = 0; g < n_groups; g++, p += scan_q5_0::BYTES, quants += step, scales += step) {
        const bytes high    = load_bytes(p + 2);  // the first four
        const bytes nibbles = load_bytes(p + 6);
        store(quants, (nibbles & 0x0f) | spread_bits<0>(high));
        store(quants + 16, nibbles >> 4 | spread_bits<2>(high));
        store(scales, load_fp16(p));
    }
}

TARGET static inline void expand_row(scan_iq4_nl, const uint8_t * p, int n_groups, uint8_t * quants, uint8_t * scales, uint8_t *, int step) {
    static const int8_t values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
    const bytes         table      = load_bytes((const uint8_t *) values);
    for (int g = 0; g < n_groups; g++, p += scan_iq4_nl::BYTES, quants += step, scales += step) {
        const bytes nibbles = load_bytes(p + 2);
        store(quants, look_up(table, nibbles & 0x0f));
        store(quants + 16, look_up(table, nibbles >> 4));
        store(scales, load_fp16(p));
    }
}

// eight scales of 6 bits and as many minima, packed in 12 bytes, four at a time
TARGET static inline void unpack_6_bits(const uint8_t * p, uint8_t * scales, uint8_t * minima) {
    uint32_t a, b, c;
    memcpy(&a, p, 4);
    memcpy(&b, p + 4, 4);
    memcpy(&c, p + 8, 4);
    store(scales, a & 0x3f3f3f3fu);
    store(minima, b & 0x3f3f3f3fu);
    store(scales + 4, (c & 0x0f0f0f0fu) | (a >> 2 & 0x30303030u));
    store(minima + 4, (c >> 4 & 0x0f0f0f0fu) | (b >> 2 & 0x30303030u));
}

// those of a block of Q4_K or Q5_K
TARGET static inline void scales_and_minima(const uint8_t * p, uint8_t * scales, uint8_t * minima, int step) {
    const float d     = load_fp16(p);
    const float least = load_fp16(p + 2);
    uint8_t     s[8];
    uint8_t     m[8];
    unpack_6_bits(p + 4, s, m);
    for (int j = 0; j < 8; j++, scales += step, minima += step) {
        store(scales, d * (float) s[j]);
        store(minima, least * (float) m[j]);
    }
}

TARGET static inline void expand_row(scan_q4_k, const uint8_t * p, int n_groups, uint8_t * quants, uint8_t * scales, uint8_t * minima, int step) {
    for (int g = 0; g < n_groups; g += 8, p += scan_q4_k::BYTES, scales += 8 * step, minima += 8 * step) {
        for (int j = 0; j < 8; j += 2, quants += 2 * step) {
            const bytes low  = load_bytes(p + 16 + 16 * j);
            const bytes high = load_bytes(p + 32 + 16 * j);
            store(quants, low & 0x0f);
            store(quants + 16, high & 0x0f);
            store(quants + step, low >> 4);
            store(quants + step + 16, high >> 4);
        }
        scales_and_minima(p, scales, minima, step);
    }
}

// bit j of each byte, as 16
template <int J> TARGET static inline bytes high_bit(bytes x) {
    if constexpr (J < 4) {
        return (x << (4 - J)) & 0x10;
    } else {
        return (x >> (J - 4)) & 0x10;
    }
}

template <int J> TARGET static inline void expand_two_groups(const uint8_t * p, uint8_t * quants, int step) {
    const bytes low0  = load_bytes(p + 48 + 16 * J);
    const bytes low1  = load_bytes(p + 64 + 16 * J);
    const bytes high0 = load_bytes(p + 16);
    const bytes high1 = load_bytes(p + 32);
    store(quants + J * step, (low0 & 0x0f) | high_bit<J>(high0));
    store(quants + J * step + 16, (low1 & 0x0f) | high_bit<J>(high1));
    store(quants + J * step + step, low0 >> 4 | high_bit<J + 1>(high0));
    store(quants + J * step + step + 16, low1 >> 4 | high_bit<J + 1>(high1));
}

TARGET static inline void expand_row(scan_q5_k, const uint8_t * p, int n_groups, uint8_t * quants, uint8_t * scales, uint8_t * minima, int step) {
    for (int g = 0; g < n_groups; g += 8, p += scan_q5_k::BYTES, quants += 8 * step, scales += 8 * step, minima += 8 * step) {
        expand_two_groups<0>(p, quants, step);
        expand_two_groups<2>(p, quants, step);
        expand_two_groups<4>(p, quants, step);
        expand_two_groups<6>(p, quants, step);
        scales_and_minima(p, scales, minima, step);
    }
}

TARGET static inline void expand_row(scan_q6_k, const uint8_t * p, int n_groups, uint8_t * quants, uint8_t * scales, uint8_t *, int step) {
    for (int g = 0; g < n_groups; g += 16, p += scan_q6_k::BYTES) {
        const float    d = load_fp16(p + 208);
        const int8_t * s = (const int8_t *) p + 192;
        for (int half = 0; half < 2; half++, s += 8, quants += 8 * step, scales += 8 * step) {
            for (int i = 0; i < 2; i++) {  // every other group of eight
                const bytes low0 = load_bytes(p + 64 * half + 16 * i);
                const bytes low1 = load_bytes(p + 64 * half + 16 * i + 32);
                const bytes high = load_bytes(p + 128 + 32 * half + 16 * i);
                uint8_t *   q    = quants + i * step;
                store(q, (low0 & 0x0f) | (high & 0x03) << 4);
                store(q + 2 * step, (low1 & 0x0f) | (high & 0x0c) << 2);
                store(q + 4 * step, low0 >> 4 | (high & 0x30));
                store(q + 6 * step, low1 >> 4 | (high & 0xc0) >> 2);
            }
            for (int j = 0; j < 8; j++) {
                store(scales + j * step, d * (float) s[j]);
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
