// Perceptrons in fp32, forwards and backwards, one call each; compiled by perceptron.py.
//
// An ensemble goes through member by member, so that all that one member needs stays in the processor's own cache.
// One product serves layers, their gradients and their weights': C = A B, whatever way A and B lie.  B goes through in
// panels of WIDE columns, packed so that its rows follow each other; a panel stays in that cache while A's rows pass,
// ROWS at a time, whose sums stay in registers.  Each sum is taken in an order that its length alone decides, so a
// row's numbers do not depend on what other rows there are.

#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "elementary.h"

typedef int64_t I;

#if defined(__AVX512F__)
#define LANES 16  // numbers of a vector
#define ROUNDS 4  // its logarithm
#define ROWS 12   // two vectors of sums each: 24 of 32 registers
#elif defined(__AVX__)
#define LANES 8
#define ROUNDS 3
#define ROWS 6    // 12 of 16
#else
#define LANES 4
#define ROUNDS 2
#define ROWS 6
#endif
#define WIDE (2 * LANES)
#define SPAN (40 * ROWS)  // rows that one thread takes at a time
#define CHUNK 512         // numbers of each sum that are taken at a time
#define WORTH 500000      // multiplications for which threads are woken

typedef float V __attribute__((vector_size(4 * LANES)));
typedef float U __attribute__((vector_size(4 * LANES), aligned(4)));  // wherever it lies
typedef int32_t N __attribute__((vector_size(4 * LANES)));

enum { NONE, RELU, TANH, ELU };

static inline void activate(I n, int activation, float *y) {  // what is not a number stays none
    if (activation == RELU) for (I j = 0; j < n; j++) y[j] = y[j] <= 0 ? 0 : y[j];
    if (activation == TANH) for (I j = 0; j < n; j++) y[j] = hyperbolic_tangent(y[j]);
    if (activation == ELU) for (I j = 0; j < n; j++) {
        float below = exponential(y[j] < 0 ? y[j] : 0) - 1;
        y[j] = y[j] <= 0 ? below : y[j];
    }
}

// g times the slope of the activation that said y
static inline void slope(I n, int activation, const float *y, float *g) {
    if (activation == RELU) for (I j = 0; j < n; j++) g[j] = y[j] <= 0 ? 0 : g[j];
    if (activation == TANH) for (I j = 0; j < n; j++) g[j] *= 1 - y[j] * y[j];
    if (activation == ELU) for (I j = 0; j < n; j++) g[j] *= y[j] <= 0 ? y[j] + 1 : 1;
}

typedef struct {  // what becomes of a product before it is kept
    int adds;           // to what is there already
    const float *bias;  // to be added to each row, or null
    const float *said;  // what an activation said, in the product's own shape, by whose slope it is multiplied; or null
    int activation;     // of `said`, or of the product itself where there is none
} After;

// total [R, H vectors] = A's R rows from `a` on times a panel [inner, WIDE], whose rows lie `step` apart
static inline __attribute__((always_inline)) void block(const int R, const int H, I inner, const float *a, I row,
                                                        I column, const float *panel, I step, V total[ROWS][2]) {
    const float *third[4] = {a, a + 3 * row, a + 6 * row, a + 9 * row};  // so that few registers reach all rows
    V sum[ROWS][2];
    #pragma GCC unroll 12
    for (int r = 0; r < R; r++) sum[r][0] = sum[r][1] = (V){0};
    for (I k = 0; k < inner; k++, panel += step) {
        V low = *(const U *)panel, high = *(const U *)(panel + LANES);
        __asm__("" : "+r"(third[0]), "+r"(third[1]), "+r"(third[2]), "+r"(third[3]));  // and no compiler undoes that
        #pragma GCC unroll 12
        for (int r = 0; r < R; r++) {
            float one = third[r / 3][r % 3 * row];
            sum[r][0] += one * low;
            if (H > 1) sum[r][1] += one * high;
        }
        #pragma GCC unroll 4
        for (int t = 0; t < 4; t++) third[t] += column;
    }
    #pragma GCC unroll 12
    for (int r = 0; r < R; r++) { total[r][0] = sum[r][0]; total[r][1] = sum[r][1]; }
}

// C's rows from `first` on, of so many sums
static inline __attribute__((always_inline)) void finish(I count, const I width, float sums[ROWS][WIDE], I first,
                                                         const After *after, float *c, I step) {
    for (I r = 0; r < count; r++) {
        float *to = c + (first + r) * step, *y = sums[r];
        if (after->adds) for (I j = 0; j < width; j++) y[j] += to[j];
        if (after->bias) for (I j = 0; j < width; j++) y[j] += after->bias[j];
        if (after->said) slope(width, after->activation, after->said + (first + r) * step, y);
        else activate(width, after->activation, y);
        memcpy(to, y, width * sizeof *to);
    }
}

// `rows` rows of C's `width` columns, at most WIDE, which lie `step` apart
static void past(I rows, I inner, I width, const float *a, I row, I column, const float *panel, I beside,
                 const After *after, float *c, I step) {
    I blocks = (rows + ROWS - 1) / ROWS;
    for (I b = 0, first = 0, count; b < blocks; b++, first += count) {
        const float *from = a + first * row;
        float sums[ROWS][WIDE] __attribute__((aligned(64)));
        V (*total)[2] = (V (*)[2])sums;
        count = rows * (b + 1) / blocks - first;  // all blocks alike
        switch (2 * count + (width > LANES)) {
#define CASE(R) case 2 * R: block(R, 1, inner, from, row, column, panel, beside, total); break; \
                case 2 * R + 1: block(R, 2, inner, from, row, column, panel, beside, total); break;
            CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6)
#if ROWS > 6
            CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12)
#endif
        }
        if (width == WIDE) finish(count, WIDE, sums, first, after, c, step);  // whole vectors
        else finish(count, width, sums, first, after, c, step);
    }
}

typedef struct { N upper[ROUNDS], lower[ROUNDS]; } Turn;

// What each round of `transpose` takes from where
static __attribute__((noinline)) void turning(Turn *turn) {  // or the compiler makes them anew each time
    for (int t = 0; t < ROUNDS; t++) for (int l = 0, half = 1 << t; l < LANES; l++) {
        turn->upper[t][l] = l & half ? LANES + l - half : l;
        turn->lower[t][l] = l & half ? LANES + l : l + half;
    }
}

// x [LANES vectors] turned about its diagonal: each round swaps the halves of squares twice as wide
static inline void transpose(V x[LANES], const Turn *turn) {
    #pragma GCC unroll 4
    for (int t = 0; t < ROUNDS; t++) {
        #pragma GCC unroll 16
        for (int i = 0; i < LANES; i++) if (!(i >> t & 1)) {
            V a = x[i], b = x[i + (1 << t)];
            x[i] = __builtin_shuffle(a, b, turn->upper[t]);
            x[i + (1 << t)] = __builtin_shuffle(a, b, turn->lower[t]);
        }
    }
}

// panel [inner, WIDE] = `width` columns of B, zeros beyond
static void pack(I inner, I width, const float *b, I row, I column, float *panel) {
    if (width < WIDE) memset(panel, 0, inner * WIDE * sizeof *panel);
    if (column == 1) {
        for (I k = 0; k < inner; k++) memcpy(panel + k * WIDE, b + k * row, width * sizeof *panel);
        return;
    }
    I whole = width == WIDE && row == 1 ? inner / LANES * LANES : 0;
    Turn turn;
    if (whole) turning(&turn);
    for (I k = 0; k < whole; k += LANES) for (int h = 0; h < 2; h++) {
        V x[LANES];
        for (int j = 0; j < LANES; j++) memcpy(x + j, b + (h * LANES + j) * column + k, sizeof *x);
        transpose(x, &turn);
        for (int j = 0; j < LANES; j++) memcpy(panel + (k + j) * WIDE + h * LANES, x + j, sizeof *x);
    }
    for (I j = 0; j < width; j++)
        for (I k = whole; k < inner; k++) panel[k * WIDE + j] = b[k * row + j * column];
}

typedef struct { const float *at; I row, column; } Matrix;  // its numbers lie so far apart

// C [rows, width] = A [rows, inner] B [inner, width], and what comes after; C's rows follow each other.  Long sums go in
// chunks, and many rows in spans, so that what of A is in use stays in the cache while all panels pass.
static void product(I rows, I inner, I width, Matrix a, Matrix b, After after, float *c) {
    I panels = (width + WIDE - 1) / WIDE, spans = (rows + SPAN - 1) / SPAN, last = (inner - 1) / CHUNK;
    for (I part = 0; part <= last; part++) {
        I from = part * CHUNK, taken = part < last ? CHUNK : inner - from;
        #pragma omp parallel if (rows * taken * width > WORTH)
        {
            float *panel = aligned_alloc(64, taken * WIDE * sizeof *panel);
            #pragma omp for collapse(2)
            for (I s = 0; s < spans; s++) for (I p = 0; p < panels; p++) {
                I n = p * WIDE, first = s * SPAN, at = first * width + n;
                I columns = width - n < WIDE ? width - n : WIDE, count = rows - first < SPAN ? rows - first : SPAN;
                After here = {part > 0, 0, 0, NONE};
                if (part == last) here = (After){part > 0, after.bias ? after.bias + n : 0,
                                                 after.said ? after.said + at : 0, after.activation};
                const float *lies = b.at + from * b.row + n * b.column;
                I beside = b.row, whole = b.column == 1 && columns == WIDE;
                if (!whole || count > ROWS) {
                    pack(taken, columns, lies, b.row, b.column, panel);
                    lies = panel, beside = WIDE;
                }
                past(count, taken, columns, a.at + first * a.row + from * a.column, a.row, a.column, lies, beside,
                     &here, c + at, width);
            }
            free(panel);
        }
    }
}

// y [rows, out] = activation(x W + b)
static void layer(I rows, I in, I out, const float *x, const float *w, const float *b, I activation, float *y) {
    if (out > 1) {
        product(rows, in, out, (Matrix){x, in, 1}, (Matrix){w, out, 1}, (After){0, b, 0, activation}, y);
        return;
    }
    for (I i = 0; i < rows; i++) {
        float sum = 0;
        #pragma omp simd reduction(+:sum)
        for (I k = 0; k < in; k++) sum += x[i * in + k] * w[k];
        y[i] = sum + *b;
    }
    activate(rows, activation, y);
}

// dx [rows, in] = (g Wᵀ) times the slope of the activation that said `said` [rows, in], or null
static void layer_back(I rows, I in, I out, const float *g, const float *w, const float *said, I activation,
                       float *dx) {
    if (out > 1) {
        product(rows, out, in, (Matrix){g, out, 1}, (Matrix){w, 1, out},
                (After){0, 0, said, said ? activation : NONE}, dx);
        return;
    }
    for (I i = 0; i < rows; i++) {
        for (I k = 0; k < in; k++) dx[i * in + k] = g[i] * w[k];
        if (said) slope(in, activation, said + i * in, dx + i * in);
    }
}

// dW [in, out] = xᵀ g; db [out] = Σ g over rows
static void layer_weights(I rows, I in, I out, const float *x, const float *g, float *dw, float *db) {
    memset(db, 0, out * sizeof *db);
    for (I i = 0; i < rows; i++) for (I j = 0; j < out; j++) db[j] += g[i * out + j];
    if (out == 1) {
        memset(dw, 0, in * sizeof *dw);
        for (I i = 0; i < rows; i++) for (I k = 0; k < in; k++) dw[k] += g[i] * x[i * in + k];
    }
    else product(in, rows, out, (Matrix){x, 1, in}, (Matrix){g, out, 1}, (After){0}, dw);
}

static I widest(I layers, const I *sizes) {
    I most = 1;
    for (I l = 0; l <= layers; l++) if (sizes[l] > most) most = sizes[l];
    return most;
}

// Whether members go side by side: where there are enough of them, and enough to do; else each has all threads.
static int side_by_side(I members, I rows, I layers, const I *sizes) {
    I multiplications = 0;
    for (I l = 0; l < layers; l++) multiplications += members * rows * sizes[l] * sizes[l + 1];
    return members >= omp_get_max_threads() && multiplications > WORTH;
}

// y[l] [members, rows, sizes[l + 1]]: what layer l says of x [rows, sizes[0]], which lies `x_step` apart of each member,
// all but the last through the activation; w[l], b[l] [members, …]
void forward(I members, I rows, I layers, const I *sizes, const float *x, I x_step, const float **w,
             const float **b, I activation, float **y) {
    #pragma omp parallel for if (side_by_side(members, rows, layers, sizes))
    for (I m = 0; m < members; m++) {
        const float *told = x + m * x_step;
        for (I l = 0; l < layers; l++) {
            I in = sizes[l], out = sizes[l + 1];
            layer(rows, in, out, told, w[l] + m * in * out, b[l] + m * out, l + 1 < layers ? activation : NONE,
                  y[l] + m * rows * out);
            told = y[l] + m * rows * out;
        }
    }
}

// Gradients, of which g [members, rows, sizes[layers]] is the one at the last y: dx [members, rows, sizes[0]], dw[l] and
// db[l], each where it is not null
void backward(I members, I rows, I layers, const I *sizes, const float *x, I x_step, const float **w, I activation,
              const float **y, const float *g, float **dw, float **db, float *dx) {
    #pragma omp parallel for if (side_by_side(members, rows, layers, sizes))
    for (I m = 0; m < members; m++) {
        I most = widest(layers, sizes);
        float *scratch = malloc((2 * rows * most + 1) * sizeof *scratch);
        const float *at = g + m * rows * sizes[layers];
        for (I l = layers - 1; l >= 0; l--) {
            I in = sizes[l], out = sizes[l + 1];
            const float *told = l ? y[l - 1] + m * rows * in : x + m * x_step;
            if (dw[l]) layer_weights(rows, in, out, told, at, dw[l] + m * in * out, db[l] + m * out);
            if (!l && !dx) break;
            float *to = l ? scratch + (l & 1) * rows * most : dx + m * rows * in;
            layer_back(rows, in, out, at, w[l] + m * in * out, l ? told : 0, activation, to);
            at = to;
        }
        free(scratch);
    }
}

// dx [rows, moved]: g [rows] gone back, of each row through the member which[row] alone, to the last `moved` numbers that
// it was told
void least_back(I members, I rows, I layers, const I *sizes, const float **w, I activation, const float **y,
                const I *which, const float *g, I moved, float *dx) {
    #pragma omp parallel for if (side_by_side(members, rows, layers, sizes))
    for (I m = 0; m < members; m++) {
        I most = widest(layers, sizes), count = 0, *mine = malloc((rows + 1) * sizeof *mine);
        float *scratch = malloc((3 * rows * most + 1) * sizeof *scratch), *said = scratch + 2 * rows * most, *at, *to;
        for (I i = 0; i < rows; i++) if (which[i] == m) mine[count++] = i;
        at = scratch + (layers & 1) * rows * most;
        for (I i = 0; i < count; i++) at[i] = g[mine[i]];
        for (I l = layers - 1; l >= 0; l--, at = to) {
            I in = sizes[l], out = sizes[l + 1], left = l ? 0 : in - moved;
            to = scratch + (l & 1) * rows * most;
            for (I i = 0; l && i < count; i++)
                memcpy(said + i * in, y[l - 1] + (m * rows + mine[i]) * in, in * sizeof *said);
            layer_back(count, in - left, out, at, w[l] + (m * in + left) * out, l ? said : 0, activation, to);
        }
        for (I i = 0; i < count; i++) memcpy(dx + mine[i] * moved, at + i * moved, moved * sizeof *dx);
        free(scratch), free(mine);
    }
}
