// Products of bf16 numbers by the processor's tiles; compiled by products.py where it has them.
//
// A tile is 16 rows of 32 numbers.  Factors are first copied into tiles that lie whole, one after the other along the
// sum: of the left one rows as they are, of the right one, for each pair of numbers along the sum, a pair for each of
// 16 columns.  Four tiles of sums then take all four of the processor's products of two and two.

#include <immintrin.h>
#include <omp.h>
#include <stdint.h>
#include <string.h>

#define LANES 16
#define TILED 1
#include "words.h"

#define STEP 32               // numbers along the sum
#define TILE (SIDE * STEP)
#define BLOCK (2 * SIDE)      // rows and columns of sums that are computed at a time
#define NEAR (1 << 20)        // bytes of the right factor that stay in a core's own cache while rows pass
#define PASSING 8             // blocks of rows that pass at a time
#define LINE 32               // numbers that memory hands over at a time
#define SOON 2                // steps ahead that tiles are fetched into the nearest cache

typedef int64_t I;
typedef uint16_t T;

static inline I up(I n, I to) { return (n + to - 1) / to; }
static inline I least(I a, I b) { return a < b ? a : b; }

static inline __mmask32 first(I n) { return n >= 32 ? ~0u : n <= 0 ? 0 : (1u << n) - 1; }

// SIDE numbers each of a row and of the next one, a pair a column; none of rows from `rows` on, nor columns
static inline Words pairs(I rows, const T *x, I step, __mmask16 columns) {
    Words low = (Words)_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(rows > 0 ? columns : 0, x));
    Words high = (Words)_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(rows > 1 ? columns : 0, x + step));
    return low | high << 16;
}

// ---------------------------------------------------------------------- into tiles, by one thread its share of many

// A left factor [rows, in] as it is: to [⌈rows / SIDE⌉, steps, SIDE, STEP]
static void rows_in_tiles(I rows, I in, const T *x, T *to) {
    I steps = up(in, STEP);
    #pragma omp for
    for (I r = 0; r < up(rows, SIDE) * SIDE; r++) {
        T *tile = to + r / SIDE * steps * TILE + r % SIDE * STEP;
        for (I k = 0; k < steps; k++)
            _mm512_storeu_si512(tile + k * TILE, _mm512_maskz_loadu_epi16(r < rows ? first(in - k * STEP) : 0,
                                                                          x + r * in + k * STEP));
    }
}

// A left factor's other way round, x [in, rows]: to [⌈rows / SIDE⌉, steps, SIDE, STEP]
static void columns_in_tiles(I rows, I in, const T *x, T *to) {
    I steps = up(in, STEP);
    #pragma omp for
    for (I k = 0; k < steps; k++) for (I r = 0; r < rows; r += SIDE) {
        Words a[SIDE];
        #pragma GCC unroll 16
        for (int p = 0; p < SIDE; p++) {
            I at = k * STEP + 2 * p;
            a[p] = pairs(in - at, x + at * rows + r, rows, first(rows - r));
        }
        flip(a);
        T *tile = to + (r / SIDE * steps + k) * TILE;
        #pragma GCC unroll 16
        for (int p = 0; p < SIDE; p++) _mm512_storeu_si512(tile + p * STEP, (__m512i)a[p]);
    }
}

// A right factor [in, width] as it is: to [⌈width / BLOCK⌉, steps, 2, SIDE, SIDE, 2]
static void pairs_in_tiles(I in, I width, const T *w, T *to) {
    I steps = up(in, STEP);
    #pragma omp for
    for (I k = 0; k < steps; k++) for (I n = 0; n < up(width, BLOCK) * BLOCK; n += SIDE) {
        T *tile = to + (n / BLOCK * steps + k) * 2 * TILE + n % BLOCK / SIDE * TILE;
        for (int p = 0; p < SIDE; p++) {
            I at = k * STEP + 2 * p;
            _mm512_storeu_si512(tile + p * STEP, (__m512i)pairs(in - at, w + at * width + n, width, first(width - n)));
        }
    }
}

// A right factor's other way round, w [width, in]: to [⌈width / BLOCK⌉, steps, 2, SIDE, SIDE, 2]
void lay_out(I in, I width, const T *w, T *to) {
    I steps = up(in, STEP);
    #pragma omp parallel for
    for (I n = 0; n < up(width, BLOCK) * BLOCK; n += SIDE) for (I k = 0; k < steps; k++) {
        T *tile = to + (n / BLOCK * steps + k) * 2 * TILE + n % BLOCK / SIDE * TILE;
        Words a[SIDE];
        for (int p = 0; p < SIDE; p++)
            a[p] = (Words)_mm512_maskz_loadu_epi16(n + p < width ? first(in - k * STEP) : 0,
                                                   w + (n + p) * in + k * STEP);
        flip(a);
        for (int p = 0; p < SIDE; p++) _mm512_storeu_si512(tile + p * STEP, (__m512i)a[p]);
    }
}

// ---------------------------------------------------------------------- the products

static inline void fetch(const T *x) { for (int i = 0; i < TILE; i += LINE) _mm_prefetch(x + i, _MM_HINT_T0); }

// sums [BLOCK, BLOCK] of one or two tiles of rows, `down` from each other, and two of columns; meanwhile `each` lines a
// step are fetched from `ahead`
INLINE void block(const int two, I steps, const T *x, I down, const T *w, const T *ahead, I each, float *sums) {
    _tile_zero(0); _tile_zero(1);
    if (two) { _tile_zero(2); _tile_zero(3); }
    for (; steps; steps--, x += TILE, w += 2 * TILE) {
        _tile_loadd(4, x, 64); _tile_loadd(6, w, 64); _tile_loadd(7, w + TILE, 64);
        fetch(x + SOON * TILE); fetch(w + SOON * 2 * TILE); fetch(w + (SOON * 2 + 1) * TILE);
        for (I i = 0; i < each; i++, ahead += LINE) _mm_prefetch(ahead, _MM_HINT_T1);
        _tile_dpbf16ps(0, 4, 6); _tile_dpbf16ps(1, 4, 7);
        if (two) {
            _tile_loadd(5, x + down, 64);
            fetch(x + down + SOON * TILE);
            _tile_dpbf16ps(2, 5, 6); _tile_dpbf16ps(3, 5, 7);
        }
    }
    const I row = BLOCK * sizeof *sums;
    _tile_stored(0, sums, row); _tile_stored(1, sums + SIDE, row);
    if (two) { _tile_stored(2, sums + SIDE * BLOCK, row); _tile_stored(3, sums + SIDE * BLOCK + SIDE, row); }
}

// Where sums go: rounded, with a bias that may be null; or added to what is there
typedef struct { T *out; const T *bias; float *total; } To;

static inline void leave(I rows, I columns, const float *sums, To to, I width, I row, I column) {
    for (int h = 0; h < 2 && h * SIDE < columns; h++) {
        __mmask16 lanes = first(columns - h * SIDE);
        I at = row * width + column + h * SIDE;
        if (to.total) {
            for (I r = 0; r < rows; r++) {
                float *place = to.total + at + r * width;
                __m512 sum = _mm512_add_ps(_mm512_maskz_loadu_ps(lanes, place),
                                           _mm512_loadu_ps(sums + r * BLOCK + h * SIDE));
                _mm512_mask_storeu_ps(place, lanes, sum);
            }
        } else {
            __m512 offset = _mm512_setzero_ps();
            if (to.bias) offset = (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(
                _mm256_maskz_loadu_epi16(lanes, to.bias + column + h * SIDE)), 16);
            for (I r = 0; r < rows; r++)
                _mm256_mask_storeu_epi16(to.out + at + r * width, lanes, (__m256i)_mm512_cvtneps_pbh(
                    _mm512_add_ps(_mm512_loadu_ps(sums + r * BLOCK + h * SIDE), offset)));
        }
    }
}

// What to [rows, width] gets of x w, both in tiles; by one thread its share
static void multiplied(I rows, I in, I width, const T *x, const T *w, To to) {
    I steps = up(in, STEP), panels = up(width, BLOCK), blocks = up(rows, BLOCK), tiles = up(rows, SIDE);
    I near = least(up(panels, omp_get_num_threads()), 1 + NEAR / ((steps + 1) * 2 * TILE * (I)sizeof *w));
    I chunks = up(panels, near);
    I fetching = least(blocks, 4), each = 2 * TILE / LINE / (fetching + !fetching);  // the next panel, by so many blocks
    Tiles before;
    use(&WHOLE, &before);
    #pragma omp for collapse(2) schedule(dynamic)
    for (I chunk = 0; chunk < chunks; chunk++) for (I begin = 0; begin < blocks; begin += PASSING)
        for (I p = chunk * near; p < least(panels, (chunk + 1) * near); p++)
            for (I b = begin; b < least(blocks, begin + PASSING); b++) {
                float sums[BLOCK * BLOCK] __attribute__((aligned(64)));
                const T *rows_from = x + 2 * b * steps * TILE, *panel = w + p * steps * 2 * TILE;
                const T *ahead = panel + steps * 2 * TILE + b * steps * each * LINE;
                I lines = b < fetching ? each : 0;
                if (2 * b + 1 < tiles) block(1, steps, rows_from, steps * TILE, panel, ahead, lines, sums);
                else block(0, steps, rows_from, 0, panel, ahead, lines, sums);
                leave(least(BLOCK, rows - b * BLOCK), least(BLOCK, width - p * BLOCK), sums, to, width, b * BLOCK,
                      p * BLOCK);
            }
    use(&before, 0);
}

// out [rows, width] = x [rows, in] wᵀ + bias, w [width, in] as it was laid out; bias may be null; room: x in tiles
void multiply(I rows, I in, I width, const T *x, const T *w, const T *bias, T *room, T *out) {
    #pragma omp parallel
    {
        rows_in_tiles(rows, in, x, room);
        multiplied(rows, in, width, room, w, (To){out, bias, 0});
    }
}

// total [width, in] += gᵀ x, g [rows, width], x [rows, in]; rooms: g's other way round and x in tiles
void add_product(I rows, I in, I width, const T *g, const T *x, T *room, T *room_x, float *total) {
    #pragma omp parallel
    {
        columns_in_tiles(width, rows, g, room);
        pairs_in_tiles(rows, in, x, room_x);
        multiplied(width, rows, in, room, room_x, (To){0, 0, total});
    }
}
