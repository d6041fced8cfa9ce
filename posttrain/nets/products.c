// Products of bf16 numbers, by the processor's own dot products of pairs; compiled by products.py where it has them.
//
// The second factor is laid out in panels of WIDE columns, each pair of whose numbers along the sum lie side by side,
// WIDE pairs one after the other.  A panel stays in the processor's own cache while all rows pass, ROWS at a time, and
// the next one is fetched from memory meanwhile: many rows take as long as their multiplications, few as it takes to
// read the weights.

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define LANES 16  // sums of a vector
#define WIDE (2 * LANES)
#define ROWS 12  // with two vectors of sums each: 24 of the 32 registers
#define SPAN (20 * ROWS)  // rows that pass at a time, since they stay in that cache too
#define LINE 64  // bytes that memory hands over at a time

typedef int64_t I;
typedef uint16_t T;
typedef __m512 V;

// Sums begin anew after so many numbers and are added in order, as oneDNN does: both give the same to the last bit.
static inline I chunk(I in) { return in <= 1024 ? 512 : 1024; }

// to [⌈width / WIDE⌉ panels, in / 2 pairs, WIDE, 2] = w [width, in], zeros beyond; in is even
void lay_out(I in, I width, const T *w, T *to) {
    #pragma omp parallel for
    for (I first = 0; first < width; first += WIDE) {
        T *panel = to + first * in;
        I count = width - first < WIDE ? width - first : WIDE;
        if (count < WIDE) memset(panel, 0, in * WIDE * sizeof *to);
        for (I k = 0; k < in; k += 2) for (I n = 0; n < count; n++)
            memcpy(panel + k * WIDE + 2 * n, w + (first + n) * in + k, 2 * sizeof *to);
    }
}

// Two numbers of a row, in every lane
static inline __m512bh twice(const T *x) {
    int32_t pair; memcpy(&pair, x, 4);
    return (__m512bh)_mm512_set1_epi32(pair);
}

// total [R, 2 vectors] = x [R, in] times a panel; `ahead` is fetched meanwhile, `step` bytes a pair
static inline __attribute__((always_inline)) void block(const int R, I in, const T *x, const T *panel,
                                                        const T *ahead, I step, V total[ROWS][2]) {
    for (I first = 0, end; first < in; first = end) {
        V sum[ROWS][2];
        end = first + chunk(in) < in ? first + chunk(in) : in;
        #pragma GCC unroll 12
        for (int r = 0; r < R; r++) sum[r][0] = sum[r][1] = _mm512_setzero_ps();
        for (I k = first; k < end; k += 2, ahead += step / 2) {
            __m512bh low = (__m512bh)_mm512_loadu_si512(panel + k * WIDE);
            __m512bh high = (__m512bh)_mm512_loadu_si512(panel + k * WIDE + WIDE);
            _mm_prefetch(ahead, _MM_HINT_T1);
            if (step > LINE) _mm_prefetch(ahead + LINE / 2, _MM_HINT_T1);
            #pragma GCC unroll 12
            for (int r = 0; r < R; r++) {
                __m512bh two = twice(x + r * in + k);
                sum[r][0] = _mm512_dpbf16_ps(sum[r][0], low, two);
                sum[r][1] = _mm512_dpbf16_ps(sum[r][1], high, two);
            }
        }
        #pragma GCC unroll 12
        for (int r = 0; r < R; r++)
            #pragma GCC unroll 2
            for (int h = 0; h < 2; h++) if (first) total[r][h] += sum[r][h]; else total[r][h] = sum[r][h];
    }
}

// Of some lanes
static inline V widened(__mmask16 lanes, const T *x) {
    return (V)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, x)), 16);
}

// out [rows, width] = x [rows, in] times one panel, and its next to be fetched
static void past(I rows, I in, I width, const T *x, const T *panel, const __mmask16 *lanes, const V *offset, T *out) {
    I blocks = (rows + ROWS - 1) / ROWS, each = blocks > 1 ? LINE : 2 * LINE;  // two blocks fetch, or the only one
    for (I b = 0, first = 0, count; b < blocks; b++, first += count) {
        const T *from = x + first * in, *next = panel + in * WIDE + b * in * LANES;
        V total[ROWS][2];
        count = rows * (b + 1) / blocks - first;  // all blocks alike
        switch (count) {
#define CASE(R) case R: block(R, in, from, panel, b > 1 ? from : next, b > 1 ? 0 : each, total); break;
            CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12)
        }
        for (I r = 0; r < count; r++) for (int h = 0; h < 2; h++)
            _mm256_mask_storeu_epi16(out + (first + r) * width + h * LANES, lanes[h],
                                     (__m256i)_mm512_cvtneps_pbh(total[r][h] + offset[h]));
    }
}

// out [rows, width] = x [rows, in] wᵀ + bias, w [width, in] as it was laid out; bias may be null; no room is needed
void multiply(I rows, I in, I width, const T *x, const T *w, const T *bias, T *room, T *out) {
    (void)room;
    for (I first = 0; first < rows; first += SPAN) {
        I count = rows - first < SPAN ? rows - first : SPAN;
        #pragma omp parallel for
        for (I at = 0; at < width; at += WIDE) {
            __mmask16 lanes[2]; V offset[2];
            for (int h = 0; h < 2; h++) {
                I left = width - at - h * LANES;
                lanes[h] = left <= 0 ? 0 : left < LANES ? (1 << left) - 1 : 0xffff;
                offset[h] = bias ? widened(lanes[h], bias + at + h * LANES) : _mm512_setzero_ps();
            }
            past(count, in, width, x + first * in, w + at * in, lanes, offset, out + first * width + at);
        }
    }
}
