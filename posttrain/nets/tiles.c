// Products of small matrices, and how numbers are laid out for them.  A part of kernels.c.
//
// Numbers go by words of 32 bits: one of fp32, or two of bf16 that a processor multiplies, and adds, at once.  Each sum
// goes from its first word to its last by `plus`, whatever it is computed with.

#include "words.h"

#define PAIR (BF16 ? 2 : 1)  // numbers in a word
#define WORDS (HEAD / PAIR)
#define UP(n, to) (((n) + (to) - 1) / (to) * (to))
#define LATER 64  // how many rows later those lie that are fetched into the cache

typedef uint32_t __attribute__((may_alias)) Word;

// a + x y in every lane; in bf16, x y is the sum of the products of a word's two numbers
static inline V plus(V a, Words x, Words y) {
#if BF16 && defined(__AVX512BF16__)
    return (V)_mm512_dpbf16_ps((__m512)a, (__m512bh)x, (__m512bh)y);
#elif BF16
    return FUSED(FUSED(a, (V)(x & 0xffff0000), (V)(y & 0xffff0000)), (V)(x << 16), (V)(y << 16));
#else
    return FUSED(a, (V)x, (V)y);
#endif
}

static inline Words everywhere(Word x) { return x - (Words){}; }

static inline void fetch(const T *x) { __builtin_prefetch(x, 0, 2); }

// Steps `across` from row to row, or from LANES columns to the next ones, and `along` a sum: of a left factor it is 1.
typedef struct { const Word *at; I across, along; } Factor;

#if TILED
#define STEP (SIDE * PAIR)  // numbers of a sum that are added at once: those beyond its last must be zeros

// Many rows: WHOLE tiles, sums in 0 to 3, left factors in 4 and 5, right ones in 6 and 7.  The GROUP rows of one token:
// its sums of keys or values in 0 to 3, its weights of them in 4; the others are whole.
static const Tiles ONE = {1, 0, {0}, {64, 64, 64, 64, 64, 64, 64, 64},
                          {GROUP, GROUP, GROUP, GROUP, GROUP, 16, 16, 16}};

// One or two tiles of rows and of columns of x y
INLINE void tile(const int down, const int wide, I steps, Factor x, Factor y, int more, float *out, I out_row) {
    const I row = out_row * sizeof *out, left = x.across * sizeof(Word), right = y.along * sizeof(Word);
    float *below = out + SIDE * out_row;
    if (more) {
        _tile_loadd(0, out, row);
        if (wide > 1) _tile_loadd(1, out + SIDE, row);
        if (down > 1) _tile_loadd(2, below, row);
        if (down > 1 && wide > 1) _tile_loadd(3, below + SIDE, row);
    } else {
        _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
    }
    for (; steps > 0; steps -= SIDE, x.at += SIDE, y.at += SIDE * y.along) {
        _tile_loadd(4, x.at, left); _tile_loadd(6, y.at, right);
        _tile_dpbf16ps(0, 4, 6);
        if (wide > 1) { _tile_loadd(7, y.at + y.across, right); _tile_dpbf16ps(1, 4, 7); }
        if (down > 1) { _tile_loadd(5, x.at + SIDE * x.across, left); _tile_dpbf16ps(2, 5, 6); }
        if (down > 1 && wide > 1) _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, out, row);
    if (wide > 1) _tile_stored(1, out + SIDE, row);
    if (down > 1) _tile_stored(2, below, row);
    if (down > 1 && wide > 1) _tile_stored(3, below + SIDE, row);
}

// out [rows filled up to SIDE, wide LANES] = x y, or out + x y where there is `more`; zeros fill up both factors' steps
static __attribute__((noinline)) void multiply(I rows, I wide, I steps, Factor x, Factor y, int more, float *out,
                                               I out_row) {
    __asm__ volatile("" ::: "memory");  // the compiler does not know that tiles are loaded from memory
    for (I c = 0; c < wide; c += 2) for (I r = 0; r < rows; r += 2 * SIDE) {
        Factor left = {x.at + r * x.across, x.across, 1}, right = {y.at + c * y.across, y.across, y.along};
        float *to = out + r * out_row + c * LANES;
        if (rows - r > SIDE && wide - c > 1) tile(2, 2, steps, left, right, more, to, out_row);
        else if (rows - r > SIDE) tile(2, 1, steps, left, right, more, to, out_row);
        else if (wide - c > 1) tile(1, 2, steps, left, right, more, to, out_row);
        else tile(1, 1, steps, left, right, more, to, out_row);
    }
}
#else
#define STEP PAIR
typedef struct { char nothing; } Tiles;
static const Tiles WHOLE, ONE;
static inline void use(const Tiles *shape, Tiles *before) { (void)shape; (void)before; }

// ROWS rows and `wide` times LANES columns of x y
INLINE void tile(const int wide, I steps, Factor x, Factor y, int more, float *out, I out_row) {
    V a[ROWS][WIDE] = {};
    if (more) for (int r = 0; r < ROWS; r++)
        for (int c = 0; c < wide; c++) memcpy(&a[r][c], out + r * out_row + c * LANES, sizeof(V));
    for (; steps; steps--, x.at++, y.at += y.along) {
        Words column[WIDE];
        for (int c = 0; c < wide; c++) memcpy(column + c, y.at + c * y.across, sizeof(V));
        for (int r = 0; r < ROWS; r++) {
            Words row = everywhere(x.at[r * x.across]);
            for (int c = 0; c < wide; c++) a[r][c] = plus(a[r][c], row, column[c]);
        }
    }
    for (int r = 0; r < ROWS; r++)
        for (int c = 0; c < wide; c++) memcpy(out + r * out_row + c * LANES, &a[r][c], sizeof(V));
}

// out [rows filled up to ROWS, wide LANES] = x y, or out + x y where there is `more`; one step after the other
static __attribute__((noinline)) void multiply(I rows, I wide, I steps, Factor x, Factor y, int more, float *out,
                                               I out_row) {
    for (I r = 0; r < rows; r += ROWS) for (I c = 0; c < wide;) {
        Factor left = {x.at + r * x.across, x.across, 1}, right = {y.at + c * y.across, y.across, y.along};
        float *to = out + r * out_row + c * LANES;
        if (wide - c >= WIDE) tile(WIDE, steps, left, right, more, to, out_row), c += WIDE;
        else tile(1, steps, left, right, more, to, out_row), c++;
    }
}
#endif

// LANES words, of which each is a number of x and the one below it, at y
static inline Words pair(const T *x, const T *y) {
#if BF16
    typedef uint16_t Half __attribute__((vector_size(2 * LANES)));
    Half low, high;
    memcpy(&low, x, sizeof low);
    memcpy(&high, y, sizeof high);
    return __builtin_convertvector(low, Words) | __builtin_convertvector(high, Words) << 16;
#else
    (void)y;
    return (Words)load(x);
#endif
}

// The same of 2 LANES words
static inline void pairs(const T *x, const T *y, Words *to) {
#if BF16 && defined(__AVX512BW__)
    const __m512i first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), next = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
    __m512i a = _mm512_loadu_si512(x), b = _mm512_loadu_si512(y);
    __m512i low = _mm512_unpacklo_epi16(a, b), high = _mm512_unpackhi_epi16(a, b);  // four words each, in turns
    to[0] = (Words)_mm512_permutex2var_epi64(low, first, high);
    to[1] = (Words)_mm512_permutex2var_epi64(low, next, high);
#else
    to[0] = pair(x, y);
    to[1] = pair(x + LANES, y + LANES);
#endif
}

// Words of x [rows, width]: a number and the one below it; to [rows filled up to STEP / PAIR, .] with zeros
static void joined(I rows, I width, const T *x, I step, Word *to, I to_step) {
    static const T nothing[2 * LANES];
    for (I i = 0; i < UP(rows, STEP); i += PAIR, x += PAIR * step, to += to_step) {
        if (i >= rows) { memset(to, 0, width * sizeof *to); continue; }
        const int last = i + 1 == rows;
        I d = 0;
        for (; d + 2 * LANES <= width; d += 2 * LANES) {
            Words both[2];
            pairs(x + d, last ? nothing : x + step + d, both);
            memcpy(to + d, both, sizeof both);
        }
        for (; d + LANES <= width; d += LANES) {
            Words both = pair(x + d, last ? nothing : x + step + d);
            memcpy(to + d, &both, sizeof both);
        }
#if BF16
        for (; d < width; d++) to[d] = x[d] | (last ? 0 : (Word)x[step + d] << 16);
#else
        memcpy(to + d, x + d, (width - d) * sizeof(T));
#endif
    }
}

// a = the w-th word and the next ones of LANES rows of x [rows, HEAD], with a lane for each row; the last row stands in
// the lanes of those beyond it
INLINE void cross(I rows, const T *x, I step, int w, Words *a) {
    #pragma GCC unroll 16
    for (int l = 0; l < LANES; l++) {
        const T *from = x + (l < rows ? l : rows - 1) * step + w * PAIR;
        fetch(from + LATER * step);
        if (w + LANES <= WORDS) memcpy(a + l, from, sizeof *a);
        else a[l] = (Words){}, memcpy(a + l, from, WORDS % LANES * sizeof(Word));
    }
    flip(a);
}

// Words of x [rows, HEAD], with a lane for each row: to [rows / LANES, WORDS, LANES]
static void crossed(I rows, const T *x, I step, Word *to) {
    for (I i = 0; i < rows; i += LANES) for (int w = 0; w < WORDS; w += LANES) {
        Words a[LANES];
        cross(rows - i, x + i * step, step, w, a);
        for (int l = 0; l < LANES && w + l < WORDS; l++) memcpy(to + i * WORDS + (w + l) * LANES, a + l, sizeof *a);
    }
}

// Words of w [rows, width] the other way round: a number and the one below it, one step of a sum over the rows after the
// other; to [width filled up to 2 LANES, rows filled up to STEP / PAIR]
static void joined_crossed(I rows, I width, const T *w, I step, Word *to) {
    static const T nothing[2 * LANES];
    const I steps = UP(rows, STEP) / PAIR;
    for (I r = 0; r < steps; r += LANES) for (I j = 0; j < width; j += 2 * LANES) {
        const size_t size = (steps - r < LANES ? steps - r : LANES) * sizeof *to;
        Words a[2][LANES];
        for (int l = 0; l < LANES; l++) {
            I at = (r + l) * PAIR; const T *x = w + at * step + j;
            Words both[2];
            pairs(at < rows ? x : nothing, at + 1 < rows ? x + step : nothing, both);
            a[0][l] = both[0], a[1][l] = both[1];
        }
        for (int h = 0; h < 2; h++) {
            flip(a[h]);
            for (int l = 0; l < LANES; l++) memcpy(to + (j + h * LANES + l) * steps + r, a[h] + l, size);
        }
    }
}
