// What a transformer's layer does between its products, forwards and backwards, one call each; products of a few rows.
//
// Compiled by kernels.py when it is first wanted, for one size of head and one type of number.  Every sum is taken in
// fp32; what torch's own operations round to T on the way is rounded here too, so that sampling and training agree.
//
//   HEAD   numbers of a head, even       GROUP  query heads that share a key head
//   BF16   1: T is bf16, 0: fp32         GELU   1: the gate is GELU (tanh), 0: SiLU
//   FEW    rows of `product`, at most    LEVELS of a tree, at most
//
// threads: how many there may be, where each has numbers of its own.

#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <string.h>

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

// e^x to 2e-7 of itself, by x = n ln 2 + r and Cephes' polynomial of r: unlike expf, a loop over it becomes vectors
static inline float exponential(float x) {
    x = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
    float n = rintf(x * 1.44269504f), r = x - n * 0.693359375f + n * 2.12194440e-4f, p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    int32_t bits = ((int32_t)n + 127) << 23;
    float power; memcpy(&power, &bits, 4);
    return (p * r * r + r + 1.0f) * power;
}

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

// Of z [rows, width]: most = its largest, mass = e^s, s = (z − most) inverse, total = Σ mass, along = Σ mass s;
// inverse: 1 / temperature; mass and along may be null
void masses(I rows, I width, const T *z, float inverse, float *mass, float *most, float *total, float *along) {
    #pragma omp parallel for
    for (I i = 0; i < rows; i++) {
        const T *from = z + i * width;
        float m = -INFINITY, t = 0, a = 0, own[BLOCK], by[BLOCK];
        #pragma omp simd reduction(max:m)
        for (I j = 0; j < width; j++) m = wide(from[j]) > m ? wide(from[j]) : m;
        for (I first = 0; first < width; first += BLOCK) {
            I count = width - first < BLOCK ? width - first : BLOCK;
            float *to = mass ? mass + i * width + first : own;
            for (I j = 0; j < count; j++) to[j] = mass_of((wide(from[first + j]) - m) * inverse);
            t += sum_of(to, count);
            if (!along) continue;
            for (I j = 0; j < count; j++) by[j] = to[j] * bounded((wide(from[first + j]) - m) * inverse);
            a += sum_of(by, count);
        }
        most[i] = m;
        total[i] = t;
        if (along) along[i] = a;
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

#define LANES 16
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

// One column of the result for R rows: the weight's row is read once for all of them.
static inline __attribute__((always_inline)) void column(const int R, I in, const float *x, const T *w, float *y) {
    V a[FEW] = {};
    I j = 0;
    for (; j + LANES <= in; j += LANES) {
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

// ---------------------------------------------------------------------------------------------------------- attention

// Keys and values of some tokens, each HEAD numbers, the next one's `key_step` and `value_step` numbers after it.
typedef struct { const T *keys, *values; I key_step, value_step, count; } Part;

static inline float dot(const float *a, const float *b) {
    float s = 0;
    #pragma omp simd reduction(+:s)
    for (int d = 0; d < HEAD; d++) s += a[d] * b[d];
    return s;
}

static inline void widen(const T *x, float *to) {
    for (int d = 0; d < HEAD; d++) to[d] = wide(x[d]);
}

// One head [HEAD] of queries or keys: normed where w is not null, turned where cos is not null.
static void turned(const T *x, const float *w, float r, const float *cos, const float *sin, float *out) {
    float t[HEAD];
    for (int d = 0; d < HEAD; d++) t[d] = w ? rounded(wide(x[d]) * r * w[d]) : wide(x[d]);
    for (int d = 0; d < HEAD / 2; d++) {
        float a = t[d], b = t[d + HEAD / 2], c = cos ? cos[d] : 1, s = cos ? sin[d] : 0;
        out[d] = rounded(a * c - b * s);
        out[d + HEAD / 2] = rounded(b * c + a * s);
    }
}

// 1 / rms of the `width` numbers over which a norm of queries or keys goes
static float norm_of(const T *x, I width, float epsilon) {
    float s = 0;
    #pragma omp simd reduction(+:s)
    for (I j = 0; j < width; j++) s += wide(x[j]) * wide(x[j]);
    return 1 / sqrtf(s / width + epsilon);
}

// How much each of q [GROUP, HEAD] weighs each key of all parts, into s [GROUP, columns]; how many keys there are
static I weights(const float *q, const Part *parts, I count, I columns, float *s) {
    I n = 0;
    for (const Part *p = parts; p < parts + count; n += p++->count) for (I j = 0; j < p->count; j++) {
        float k[HEAD];
        widen(p->keys + j * p->key_step, k);
        for (int g = 0; g < GROUP; g++) s[g * columns + n + j] = rounded(dot(q + g * HEAD, k));
    }
    for (int g = 0; g < GROUP; g++, s += columns) {
        float most = -INFINITY, total = 0;
        #pragma omp simd reduction(max:most)
        for (I j = 0; j < n; j++) most = s[j] > most ? s[j] : most;
        #pragma omp simd reduction(+:total)
        for (I j = 0; j < n; j++) { s[j] = exponential(s[j] - most); total += s[j]; }
        for (I j = 0; j < n; j++) s[j] = rounded(s[j] / total);
    }
    return n;
}

// q [GROUP, HEAD] over all parts with one softmax, and each part's share added after the other's; s [GROUP, columns] is
// scratch.  Whoever attends here, in training, prefill or decoding, gets the same to the last bit.
static __attribute__((noinline)) void look(const float *q, const Part *parts, I count, I columns, float *s, T *out) {
    float o[GROUP * HEAD] = {0};
    weights(q, parts, count, columns, s);
    for (const Part *p = parts; p < parts + count; s += p++->count) {
        float its[GROUP * HEAD] = {0};
        for (I j = 0; j < p->count; j++) {
            float v[HEAD];
            widen(p->values + j * p->value_step, v);
            for (int g = 0; g < GROUP; g++)
                for (int d = 0; d < HEAD; d++) its[g * HEAD + d] += s[g * columns + j] * v[d];
        }
        for (int d = 0; d < GROUP * HEAD; d++) o[d] = rounded(o[d] + rounded(its[d]));
    }
    for (int d = 0; d < GROUP * HEAD; d++) out[d] = narrow(o[d]);
}

// One new token of every row looks at what all rows share, at its prompt and at its row's own tokens, to which it adds
// its key and value.
//
// qkv [rows, (GROUP + 2) kv, HEAD]: queries, keys, values; q_norm, k_norm: null, or as long as a head (`across` = 0) or
// as all heads together (1); cos, sin [rows, HEAD / 2], null where a layer knows no positions.  Each of what follows
// is keys and values alike: root [kv, shared, HEAD], prompts [places, kv, rest, HEAD], own [rows, kv, limit, HEAD].
// place [rows]: where the prompt is; start [rows]: its tokens, the shared ones counted; drawn [rows]: tokens of the row,
// the new one counted; reach: how many tokens it sees, itself included, 0: all.
// scratch [threads, GROUP, shared + rest + limit]; out [rows, GROUP kv, HEAD].
void attend(I threads, I rows, I kv, const T *qkv, const float *q_norm, const float *k_norm, I across, float epsilon,
            const float *cos, const float *sin, float scale, const T *root_keys, const T *root_values, I shared,
            const T *prompt_keys, const T *prompt_values, I rest, const I *place, T *own_keys, T *own_values, I limit,
            const I *start, const I *drawn, I reach, float *scratch, T *out) {
    I heads = kv * GROUP, columns = shared + rest + limit;
    #pragma omp parallel for collapse(2) num_threads(threads) if (rows * kv * columns > 64)
    for (I i = 0; i < rows; i++) for (I h = 0; h < kv; h++) {
        const T *queries = qkv + i * (heads + 2 * kv) * HEAD, *keys = queries + heads * HEAD, *values = keys + kv * HEAD;
        const float *c = cos ? cos + i * (HEAD / 2) : 0, *s = cos ? sin + i * (HEAD / 2) : 0;
        float q[GROUP * HEAD], k[HEAD], r = 1;
        for (int g = 0; g < GROUP; g++) {
            I head = h * GROUP + g;
            if (q_norm) r = across ? norm_of(queries, heads * HEAD, epsilon)
                                   : norm_of(queries + head * HEAD, HEAD, epsilon);
            turned(queries + head * HEAD, q_norm ? q_norm + across * head * HEAD : 0, r, c, s, q + g * HEAD);
        }
        if (k_norm) r = across ? norm_of(keys, kv * HEAD, epsilon) : norm_of(keys + h * HEAD, HEAD, epsilon);
        turned(keys + h * HEAD, k_norm ? k_norm + across * h * HEAD : 0, r, c, s, k);
        for (int d = 0; d < GROUP * HEAD; d++) q[d] = rounded(q[d] * scale);

        I at = drawn[i] - 1, mine = (i * kv + h) * limit * HEAD, its = (place[i] * kv + h) * rest * HEAD;
        for (int d = 0; d < HEAD; d++) {
            own_keys[mine + at * HEAD + d] = narrow(k[d]);
            own_values[mine + at * HEAD + d] = values[h * HEAD + d];
        }
        I low = reach ? start[i] + at + 1 - reach : 0, ends[3] = {shared, start[i], start[i] + at + 1}, first = 0;
        Part parts[3] = {{root_keys + h * shared * HEAD, root_values + h * shared * HEAD, HEAD, HEAD, 0},
                         {prompt_keys + its, prompt_values + its, HEAD, HEAD, 0},
                         {own_keys + mine, own_values + mine, HEAD, HEAD, 0}};
        for (int p = 0; p < 3; first = ends[p++]) {
            I far = low <= first ? 0 : low < ends[p] ? low - first : ends[p] - first;  // tokens out of reach
            parts[p].keys += far * HEAD;
            parts[p].values += far * HEAD;
            parts[p].count = ends[p] - first - far;
        }
        float *room = scratch + omp_get_thread_num() * GROUP * columns;
        look(q, parts, 3, columns, room, out + (i * heads + h * GROUP) * HEAD);
    }
}

// Where a level of a tree keeps the keys and values of its tokens: steps from head to head and from token to token, and
// how many tokens the levels before it have.
typedef struct { const T *keys, *values; I key_head, key_step, value_head, value_step, before; } Store;

// The parts that a token looks at with key head h; ranges [levels, 2]: the first token in each level, and how many.
static void parts_of(const Store *stores, const I *ranges, I levels, I h, Part *parts) {
    for (I l = 0; l < levels; l++) {
        Store s = stores[l]; I first = ranges[2 * l];
        parts[l] = (Part){s.keys + h * s.key_head + first * s.key_step,
                          s.values + h * s.value_head + first * s.value_step, s.key_step, s.value_step,
                          ranges[2 * l + 1]};
    }
}

static void scaled(const T *x, float scale, float *q) {
    for (int d = 0; d < GROUP * HEAD; d++) q[d] = rounded(wide(x[d]) * scale);
}

// Every token of a tree looks at what it descends from: q and out [n, GROUP kv, HEAD], stores [levels], ranges
// [n, levels, 2], scratch [threads, GROUP, columns], no token looking at more than `columns`.
void tree_look(I threads, I n, I kv, I levels, const T *q, const Store *stores, const I *ranges, float scale, I columns,
               float *scratch, T *out) {
    #pragma omp parallel for collapse(2) num_threads(threads) schedule(static, 8)
    for (I i = 0; i < n; i++) for (I h = 0; h < kv; h++) {
        float mine[GROUP * HEAD]; Part parts[LEVELS]; I at = (i * kv + h) * GROUP * HEAD;
        scaled(q + at, scale, mine);
        parts_of(stores, ranges + 2 * i * levels, levels, h, parts);
        look(mine, parts, levels, columns, scratch + omp_get_thread_num() * GROUP * columns, out + at);
    }
}

// Gradients of `tree_look`, g being the one at its result: dq [n, GROUP kv, HEAD], and of keys and values a sum for each
// thread, [threads, n, kv, HEAD] of all levels' tokens one after the other.  Weights are computed again:
//     ds = p (g·v − Σ p g·v),   dq = scale Σ ds k,   dk += ds q,   dv += p g
void tree_look_back(I threads, I n, I kv, I levels, const T *q, const Store *stores, const I *ranges, float scale,
                    I columns, float *scratch, const T *g, T *dq, float *dk, float *dv) {
    #pragma omp parallel for collapse(2) num_threads(threads) schedule(static, 8)
    for (I i = 0; i < n; i++) for (I h = 0; h < kv; h++) {
        I thread = omp_get_thread_num(), at = (i * kv + h) * GROUP * HEAD, j = 0;
        float mine[GROUP * HEAD], from[GROUP * HEAD], sum[GROUP * HEAD] = {0}, x[HEAD]; Part parts[LEVELS];
        float *p = scratch + thread * 2 * GROUP * columns, *ds = p + GROUP * columns;
        scaled(q + at, scale, mine);
        for (int d = 0; d < GROUP * HEAD; d++) from[d] = wide(g[at + d]);
        parts_of(stores, ranges + 2 * i * levels, levels, h, parts);
        I keys = weights(mine, parts, levels, columns, p);
        for (I l = 0; l < levels; l++) for (I t = 0; t < parts[l].count; t++, j++) {
            widen(parts[l].values + t * parts[l].value_step, x);
            for (int r = 0; r < GROUP; r++) ds[r * columns + j] = dot(from + r * HEAD, x);
        }
        for (int r = 0; r < GROUP; r++) {
            float along = 0, *w = p + r * columns, *s = ds + r * columns;
            #pragma omp simd reduction(+:along)
            for (j = 0; j < keys; j++) along += w[j] * s[j];
            for (j = 0; j < keys; j++) s[j] = w[j] * (s[j] - along);
        }
        j = 0;
        for (I l = 0; l < levels; l++) {
            I first = ((thread * n + stores[l].before + ranges[2 * (i * levels + l)]) * kv + h) * HEAD;
            for (I t = 0; t < parts[l].count; t++, j++) {
                float *k = dk + first + t * kv * HEAD, *v = dv + first + t * kv * HEAD;
                float to_k[HEAD] = {0}, to_v[HEAD] = {0};
                widen(parts[l].keys + t * parts[l].key_step, x);
                for (int r = 0; r < GROUP; r++) {
                    float s = ds[r * columns + j], w = p[r * columns + j];
                    for (int d = 0; d < HEAD; d++) {
                        sum[r * HEAD + d] += s * x[d];
                        to_k[d] += s * mine[r * HEAD + d];
                        to_v[d] += w * from[r * HEAD + d];
                    }
                }
                for (int d = 0; d < HEAD; d++) { k[d] += to_k[d]; v[d] += to_v[d]; }
            }
        }
        for (int d = 0; d < GROUP * HEAD; d++) dq[at + d] = narrow(sum[d] * scale);
    }
}
