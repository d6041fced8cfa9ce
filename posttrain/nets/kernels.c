// What a transformer's layer does between its products, forwards and backwards, one call each; products of a few rows.
//
// Compiled by kernels.py when it is first wanted, for one size of head and one type of number.  Every sum is taken in
// fp32; what torch's own operations round to T on the way is rounded here too, so that sampling and training agree.
//
//   HEAD   numbers of a head, even       GROUP  query heads that share a key head
//   BF16   1: T is bf16, 0: fp32         GELU   1: the gate is GELU (tanh), 0: SiLU
//   FEW    rows of `product`, at most    LEVELS of a tree, at most
//   TOKENS that look together, at most
//   TILED  1: attention multiplies by the processor's tiles: of bf16, HEAD a multiple of 32, GROUP at most 16
//
// threads: how many there may be, where each has numbers of its own.

#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <string.h>

#include "elementary.h"

typedef int64_t I;

#if BF16
typedef uint16_t T;
static inline float wide(T x) { uint32_t bits = (uint32_t)x << 16; float y; memcpy(&y, &bits, 4); return y; }
static inline T narrow(float x) {  // to the nearest, ties to even
    uint32_t bits; memcpy(&bits, &x, 4);
    return (T)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
#else
typedef float T;
static inline float wide(T x) { return x; }
static inline T narrow(float x) { return x; }
#endif
static inline float rounded(float x) { return wide(narrow(x)); }

static float inverse_rms(const float *x, I width, float epsilon) {
    float sum = 0;
    #pragma omp simd reduction(+:sum)
    for (I j = 0; j < width; j++) sum += x[j] * x[j];
    return 1 / sqrtf(sum / width + epsilon);
}

// out = x / rms(x) w, [rows, width]; out = x where w is null
void norm(I rows, I width, const float *x, const float *w, float epsilon, T *out) {
    #pragma omp parallel for if (rows > 3)
    for (I i = 0; i < rows; i++) {
        const float *from = x + i * width; T *to = out + i * width;
        float r = w ? inverse_rms(from, width, epsilon) : 1;
        for (I j = 0; j < width; j++) to[j] = narrow(w ? from[j] * r * w[j] : from[j]);
    }
}

// dx [rows, width] of `norm`, of which g is the gradient at its result; and dw, a sum for each thread, [threads, width]
//     dx = r (g w − x r² mean(g w x)),   dw = Σ g x r,   r = 1 / rms(x)
void norm_back(I threads, I rows, I width, const float *x, const float *w, float epsilon, const T *g, float *dx,
               float *dw) {
    #pragma omp parallel for num_threads(threads)
    for (I i = 0; i < rows; i++) {
        const float *from = x + i * width; const T *gi = g + i * width;
        float *to = dx + i * width, *sums = dw + omp_get_thread_num() * width;
        float r = inverse_rms(from, width, epsilon), along = 0;
        #pragma omp simd reduction(+:along)
        for (I j = 0; j < width; j++) along += wide(gi[j]) * w[j] * from[j];
        along *= r * r / width;
        for (I j = 0; j < width; j++) {
            to[j] = r * (wide(gi[j]) * w[j] - from[j] * along);
            sums[j] += wide(gi[j]) * from[j] * r;
        }
    }
}

// x += scale y, or scale times y's norm where w is not null; [rows, width]
void add(I rows, I width, float *x, const T *y, const float *w, float epsilon, float scale) {
    #pragma omp parallel for if (rows > 3)
    for (I i = 0; i < rows; i++) {
        float *to = x + i * width, t[width];
        for (I j = 0; j < width; j++) t[j] = wide(y[i * width + j]);
        float r = w ? inverse_rms(t, width, epsilon) : 1;
        for (I j = 0; j < width; j++) to[j] += scale * (w ? t[j] * r * w[j] : t[j]);
    }
}

// The gate's activation is a σ(z); z and dz / da of SiLU and of GELU (tanh), since 1 + tanh(z / 2) = 2 σ(z):
#if GELU
static inline float inside(float a) { return 1.5957691216f * (a + 0.044715f * a * a * a); }  // 2 √(2 / π) (…)
static inline float slope(float a) { return 1.5957691216f * (1 + 0.134145f * a * a); }
#else
static inline float inside(float a) { return a; }
static inline float slope(float a) { (void)a; return 1; }
#endif
static inline float sigmoid(float z) { return 1 / (1 + exponential(-z)); }

// out [rows, width] = activation(x[:, :width]) x[:, width:]
void gate(I rows, I width, const T *x, T *out) {
    #pragma omp parallel for if (rows > 1)
    for (I i = 0; i < rows; i++) {
        const T *from = x + i * 2 * width, *up = from + width; T *to = out + i * width;
        for (I j = 0; j < width; j++) {
            float a = wide(from[j]);
            to[j] = narrow(rounded(a * sigmoid(inside(a))) * wide(up[j]));
        }
    }
}

// dx [rows, 2 width] of `gate`, of which g [rows, width] is the gradient at its result
void gate_back(I rows, I width, const T *x, const T *g, T *dx) {
    #pragma omp parallel for
    for (I i = 0; i < rows; i++) {
        const T *from = x + i * 2 * width, *up = from + width, *gi = g + i * width; T *to = dx + i * 2 * width;
        for (I j = 0; j < width; j++) {
            float a = wide(from[j]), s = sigmoid(inside(a));
            to[j] = narrow(rounded(wide(gi[j]) * wide(up[j])) * s * (1 + a * (1 - s) * slope(a)));
            to[width + j] = narrow(wide(gi[j]) * rounded(a * s));
        }
    }
}

// out [rows, heads, HEAD] = x with the pairs of every head turned; a row of x is `stride` numbers after the last one;
// cos, sin [rows, HEAD / 2]; way: 1, or −1 to turn back
void turn(I rows, I heads, I stride, const T *x, const float *cos, const float *sin, float way, T *out) {
    #pragma omp parallel for if (rows > 3)
    for (I i = 0; i < rows; i++) for (I h = 0; h < heads; h++) {
        const T *from = x + i * stride + h * HEAD; T *to = out + (i * heads + h) * HEAD;
        const float *c = cos + i * (HEAD / 2), *s = sin + i * (HEAD / 2);
        for (int d = 0; d < HEAD / 2; d++) {
            float a = wide(from[d]), b = wide(from[d + HEAD / 2]);
            to[d] = narrow(a * c[d] - way * b * s[d]);
            to[d + HEAD / 2] = narrow(b * c[d] + way * a * s[d]);
        }
    }
}

// out [rows, bytes]: what lies where `from` [rows] says
void gather(I rows, I bytes, const I *from, char *out) {
    #pragma omp parallel for
    for (I i = 0; i < rows; i++) memcpy(out + i * bytes, (const char *)from[i], bytes);
}

// ------------------------------------------------------------------------------------------------------- probabilities

#define BLOCK 256  // numbers summed at a time, so that a row of many loses little
#define LEAST -87.0f  // what is less likely than e^LEAST times the likeliest counts as impossible

static inline float bounded(float s) { return s < LEAST ? LEAST : s; }
static inline float mass_of(float s) { return s < LEAST ? 0 : exponential(s); }

static __attribute__((noinline)) float sum_of(const float *x, I count) {
    float s = 0;
    #pragma omp simd reduction(+:s)
    for (I j = 0; j < count; j++) s += x[j];
    return s;
}

static float largest(const T *x, I count) {
    float m = -INFINITY;
    #pragma omp simd reduction(max:m)
    for (I j = 0; j < count; j++) m = wide(x[j]) > m ? wide(x[j]) : m;
    return m;
}

// The masses of `count` numbers, no more than BLOCK, and their sum
static inline float masses_of(I count, const T *z, float most, float inverse, float *to) {
    for (I j = 0; j < count; j++) to[j] = mass_of((wide(z[j]) - most) * inverse);
    return sum_of(to, count);
}

// Of z [rows, width]: most = its largest, mass = e^s, s = (z − most) inverse, total = Σ mass, along = Σ mass s;
// inverse: 1 / temperature; mass and along may be null
void masses(I rows, I width, const T *z, float inverse, float *mass, float *most, float *total, float *along) {
    #pragma omp parallel for
    for (I i = 0; i < rows; i++) {
        const T *from = z + i * width;
        float m = largest(from, width), t = 0, a = 0, own[BLOCK], by[BLOCK];
        for (I first = 0; first < width; first += BLOCK) {
            I count = width - first < BLOCK ? width - first : BLOCK;
            float *to = mass ? mass + i * width + first : own;
            t += masses_of(count, from + first, m, inverse, to);
            if (!along) continue;
            for (I j = 0; j < count; j++) by[j] = to[j] * bounded((wide(from[first + j]) - m) * inverse);
            a += sum_of(by, count);
        }
        most[i] = m;
        total[i] = t;
        if (along) along[i] = a;
    }
}

// The same most and total of z [rows, width], and of each row the token at quantile `uniform` [rows] of its masses:
// first the block in which it is, then the token in it; by rounding at the very end, the last that is possible
void draw(I rows, I width, const T *z, float inverse, const float *uniform, float *most, float *total, I *token) {
    #pragma omp parallel for
    for (I i = 0; i < rows; i++) {
        const T *from = z + i * width;
        const I blocks = (width + BLOCK - 1) / BLOCK;
        float m = largest(from, width), t = 0, own[BLOCK], ends[blocks];
        I block = 0, found = 0, count;
        for (I b = 0; b < blocks; b++) {
            float before = t;
            count = width - b * BLOCK < BLOCK ? width - b * BLOCK : BLOCK;
            ends[b] = t += masses_of(count, from + b * BLOCK, m, inverse, own);
            if (t > before) block = b;
        }
        float at = uniform[i] * t, sum = 0;
        for (I b = 0; b < block; b++) if (ends[b] > at) block = b;
        at -= block ? ends[block - 1] : 0;
        count = width - block * BLOCK < BLOCK ? width - block * BLOCK : BLOCK;
        masses_of(count, from + block * BLOCK, m, inverse, own);
        for (I j = 0; j < count && sum <= at; j++) if (own[j] > 0) sum += own[j], found = j;
        most[i] = m;
        total[i] = t;
        token[i] = block * BLOCK + found;
    }
}

// In the place of z: the gradient to it of g log p[target] + h entropy; target, g, h, entropy [rows], of which the last
// two may be null
//     dz = inverse (g (onehot − p) − h p (log p + entropy)),   p = mass / total
void masses_back(I rows, I width, T *z, float inverse, const float *most, const float *total, const I *target,
                 const float *g, const float *entropy, const float *h) {
    #pragma omp parallel for
    for (I i = 0; i < rows; i++) {
        T *at = z + i * width;
        float m = most[i], by = 1 / total[i], right = wide(at[target[i]]), a = g[i], b = h ? h[i] : 0;
        float u = h ? a + b * (entropy[i] - logf(total[i])) : a;  // u + b s = a + b (log p + entropy)
        for (I j = 0; j < width; j++) {
            float s = (wide(at[j]) - m) * inverse;
            at[j] = narrow(-inverse * by * mass_of(s) * (u + b * bounded(s)));
        }
        float s = (right - m) * inverse;
        at[target[i]] = narrow(inverse * (a - by * mass_of(s) * (u + b * bounded(s))));
    }
}

// ------------------------------------------------------------------------------------------------ products of few rows

// Numbers that are computed with at a time, and a + x y of them: rounded once, and no sum taken apart, where there is an
// instruction for it; elsewhere the compiler may.
#if defined(__AVX512F__)
#include <immintrin.h>
#define LANES 16
#define FUSED(a, x, y) (V)_mm512_fmadd_ps((__m512)(x), (__m512)(y), (__m512)(a))
#elif defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>
#define LANES 8
#define FUSED(a, x, y) (V)_mm256_fmadd_ps((__m256)(x), (__m256)(y), (__m256)(a))
#elif defined(__aarch64__)
#include <arm_neon.h>
#define LANES 4
#define FUSED(a, x, y) (V)vfmaq_f32((float32x4_t)(a), (float32x4_t)(x), (float32x4_t)(y))
#else
#define LANES 4
#define FUSED(a, x, y) ((a) + (x) * (y))
#endif
#define ROWS (TILED ? 16 : 4)  // of a tile
#define WIDE (LANES == 8 ? 2 : 4)  // of which so many times LANES are its columns: as many sums as there are registers
typedef float V __attribute__((vector_size(4 * LANES)));

static inline V load(const T *x) {
#if BF16
    typedef uint16_t Half __attribute__((vector_size(2 * LANES)));
    typedef uint32_t Word __attribute__((vector_size(4 * LANES)));
    Half half; memcpy(&half, x, sizeof half);
    return (V)(__builtin_convertvector(half, Word) << 16);
#else
    V v; memcpy(&v, x, sizeof v);
    return v;
#endif
}

static inline float sum(V v) {
    float s = 0;
    for (int l = 0; l < LANES; l++) s += v[l];
    return s;
}

#define AHEAD 2048  // of its numbers: the next rows of a weight are fetched while one is multiplied

// One column of the result for R rows: the weight's row is read once for all of them.
static inline __attribute__((always_inline)) void column(const int R, I in, const float *x, const T *w, float *y) {
    V a[FEW] = {};
    I j = 0;
    for (; j + LANES <= in; j += LANES) {
        __builtin_prefetch(w + j + AHEAD);
        V v = load(w + j);
        for (int r = 0; r < R; r++) { V u; memcpy(&u, x + r * in + j, sizeof u); a[r] += u * v; }
    }
    for (int r = 0; r < R; r++) y[r] = sum(a[r]);
    for (; j < in; j++) for (int r = 0; r < R; r++) y[r] += x[r * in + j] * wide(w[j]);
}

// out [rows, width] = x [rows, in] wᵀ + bias, w [width, in], rows ≤ FEW; bias may be null
void product(I rows, I in, I width, const T *x, const T *w, const T *bias, T *out) {
    float wx[FEW * in];
    for (I j = 0; j < rows * in; j++) wx[j] = wide(x[j]);
    #pragma omp parallel for
    for (I n = 0; n < width; n++) {
        float y[FEW] = {0};
        if (rows == 1) column(1, in, wx, w + n * in, y);
        else column(FEW, in, wx, w + n * in, y);
        for (I i = 0; i < rows; i++) out[i * width + n] = narrow(y[i] + (bias ? wide(bias[n]) : 0));
    }
}

#include "tiles.c"
#include "attention.c"
#include "layers.c"
