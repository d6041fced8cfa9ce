// Attention over the keys of several parts with one softmax, forwards and backwards.  The last part of kernels.c.
//
// Up to TOKENS tokens that descend from each other look together, GROUP rows each: a key is laid out once for all of
// them.  Whoever attends, in training, prefill or decoding, alone or with others, gets the same to the last bit.

#define WIDTH UP(HEAD, 16)  // whatever LANES
#define SPARE 16  // rows that a tile may add zeros to, beyond the last one
#define MOST UP(TOKENS * GROUP, STEP < ROWS ? ROWS : STEP)  // rows that look together, filled up to whole tiles
#define EDGE (2 * LANES)  // keys of a part are filled up to so many, which STEP does not exceed
#define CHUNK (TILED ? 128 : 64)  // keys that are laid out at a time

// Where a level of a tree keeps the keys and values of its tokens: steps from head to head and from token to token, and
// how many tokens the levels before it have.
typedef struct { const T *keys, *values; I key_head, key_step, value_head, value_step, before; } Store;

typedef struct { I begin, low, high; } Range;  // a token looks at [low, high) of the segment that begins there

// What some tokens look at of a level: [low, high) of a segment's KEYS and VALUES, low a multiple of EDGE; in a row of
// scores it begins `at`.
typedef struct { const T *x[2]; I step[2], low, high, at; } Part;
enum { KEYS, VALUES };

// The parts that tokens look at with key head h; ranges [tokens, levels].  Returns the columns of their scores.
static I parts_of(const Store *stores, I tokens, const Range *ranges, I levels, I h, Part *parts) {
    I columns = 0;
    for (I l = 0; l < levels; l++) {
        Store s = stores[l]; I begin = ranges[l].begin, low = ranges[l].low, high = ranges[l].high;
        for (I t = 1; t < tokens; t++) {
            Range r = ranges[t * levels + l];
            low = r.low < low ? r.low : low;
            high = r.high > high ? r.high : high;
        }
        low -= low % EDGE;
        parts[l] = (Part){{s.keys + h * s.key_head + begin * s.key_step,
                           s.values + h * s.value_head + begin * s.value_step},
                          {s.key_step, s.value_step}, low, high, columns};
        columns += UP(high - low, EDGE);
    }
    return columns;
}

#include "attention_alone.c"

// s [rows, columns] = x · each key, or each value, of all parts; x [rows filled up to ROWS, HEAD]
static void scores(I rows, const T *x, const Part *parts, I levels, int what, I columns, float *s) {
    Word room[CHUNK * WORDS] __attribute__((aligned(64)));
    for (const Part *p = parts; p < parts + levels; p++) for (I j = p->low; j < p->high; j += CHUNK) {
        I count = p->high - j < CHUNK ? p->high - j : CHUNK;
        crossed(count, p->x[what] + j * p->step[what], p->step[what], room);
        multiply(rows, UP(count, LANES) / LANES, WORDS, (Factor){(const Word *)x, WORDS, 1},
                 (Factor){room, WORDS * LANES, LANES}, 0, s + p->at + j - p->low, columns);
    }
}

// out [rows, WIDTH] = w · keys, or values, of one part, or out + that where there is `more`; w [rows, columns]
static void sums(I rows, const T *w, const Part *p, int what, I columns, int more, float *out) {
    Word room[CHUNK / PAIR * WIDTH] __attribute__((aligned(64)));
    for (I j = p->low; j < p->high; j += CHUNK) {
        I count = p->high - j < CHUNK ? p->high - j : CHUNK;
        joined(count, HEAD, p->x[what] + j * p->step[what], p->step[what], room, WIDTH);
        multiply(rows, WIDTH / LANES, UP(count, STEP) / PAIR,
                 (Factor){(const Word *)(w + p->at + j - p->low), columns / PAIR, 1}, (Factor){room, LANES, WIDTH},
                 more || j > p->low, out, WIDTH);
    }
}

// p = softmax of one row of scores
static __attribute__((noinline)) void shares(I columns, float *s, T *p) {
    float most = -INFINITY, *end = s + columns;
    V total = {}, some;
    #pragma omp simd reduction(max:most)
    for (I j = 0; j < columns; j++) { float x = s[j] = rounded(s[j]); most = x > most ? x : most; }
    for (; s < end; s += LANES) {
        for (int l = 0; l < LANES; l++) s[l] = mass_of(s[l] - most);
        memcpy(&some, s, sizeof some);
        total += some;
    }
    float by = 1 / sum(total);
    for (s -= columns; s < end; s += LANES, p += LANES) for (int l = 0; l < LANES; l++) p[l] = narrow(s[l] * by);
}

// How much each row of q [tokens GROUP, HEAD] weighs each key of all parts, 0 where its token does not look:
// p [tokens GROUP, columns], s as large; alone: of one token
static void weights(int alone, I tokens, const T *q, const Part *parts, const Range *ranges, I levels, I columns,
                    float *s, T *p) {
    if (alone) {
        Word room[WORDS * LANES] __attribute__((aligned(64))); const Word *x = laid(q, room);
        for (I l = 0; l < levels; l++) scores_alone(x, parts + l, KEYS, columns, s + parts[l].at);
    } else scores(tokens * GROUP, q, parts, levels, KEYS, columns, s);
    for (I row = 0; row < tokens * GROUP; row++, s += columns, p += columns) {
        for (I l = 0; l < levels; l++) {
            Range r = ranges[row / GROUP * levels + l]; const Part *of = parts + l;
            I end = of->low + UP(of->high - of->low, EDGE);
            for (I j = of->low; j < r.low; j++) s[of->at + j - of->low] = -INFINITY;
            for (I j = r.high; j < end; j++) s[of->at + j - of->low] = -INFINITY;
        }
        shares(columns, s, p);
    }
}

// Tokens look at all parts, and each part's share is added after the other's: q as `weights` wants it, room [2, most,
// columns], out [tokens, GROUP, HEAD] with tokens that are `step` numbers apart.
static void look(int alone, I tokens, const T *q, const Part *parts, const Range *ranges, I levels, I most, I columns,
                 float *room, T *out, I step) {
    float o[MOST * WIDTH], its[MOST * WIDTH];
    T *p = (T *)(room + most * columns);
    weights(alone, tokens, q, parts, ranges, levels, columns, room, p);
    memset(o, 0, tokens * GROUP * WIDTH * sizeof(float));
    for (const Part *of = parts; of < parts + levels; of++) if (of->high > of->low) {
        if (alone) sums_alone((const Word *)(p + of->at), of, VALUES, columns, its);
        else sums(tokens * GROUP, p, of, VALUES, columns, 0, its);
        for (I d = 0; d < tokens * GROUP * WIDTH; d++) o[d] = rounded(o[d] + rounded(its[d]));
    }
    for (I r = 0; r < tokens * GROUP; r++)
        for (int d = 0; d < HEAD; d++) out[r / GROUP * step + r % GROUP * HEAD + d] = narrow(o[r * WIDTH + d]);
}

// ------------------------------------------------------------------------------------------------------- one new token

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

// One new token of every row looks at what all rows share, at its prompt and at its row's own tokens, to which it adds
// its key and value.
//
// qkv [rows, (GROUP + 2) kv, HEAD]: queries, keys, values; q_norm, k_norm: null, or as long as a head (`across` = 0) or
// as all heads together (1); cos, sin [rows, HEAD / 2], null where a layer knows no positions.  Each of what follows
// is keys and values alike: root [kv, shared, HEAD], prompts [places, kv, rest, HEAD], own [rows, kv, limit, HEAD].
// place [rows]: where the prompt is; start [rows]: its tokens, the shared ones counted; drawn [rows]: tokens of the row,
// the new one counted; reach: how many tokens it sees, itself included, 0: all.
// scratch [threads, 2, GROUP filled up to ROWS, columns], no token's parts having more columns; out [rows, GROUP kv, HEAD].
void attend(I threads, I rows, I kv, const T *qkv, const float *q_norm, const float *k_norm, I across, float epsilon,
            const float *cos, const float *sin, float scale, const T *root_keys, const T *root_values, I shared,
            const T *prompt_keys, const T *prompt_values, I rest, const I *place, T *own_keys, T *own_values, I limit,
            const I *start, const I *drawn, I reach, I columns, float *scratch, T *out) {
    const I heads = kv * GROUP, most = UP(GROUP, ROWS);
    #pragma omp parallel num_threads(threads) if (rows * kv * columns > 64)
    {
        Tiles before;
        use(ALONE ? &ONE : &WHOLE, &before);
        #pragma omp for collapse(2)
        for (I i = 0; i < rows; i++) for (I h = 0; h < kv; h++) {
            const T *queries = qkv + i * (heads + 2 * kv) * HEAD, *keys = queries + heads * HEAD;
            const T *values = keys + kv * HEAD;
            const float *c = cos ? cos + i * (HEAD / 2) : 0, *s = cos ? sin + i * (HEAD / 2) : 0;
            float x[HEAD], r = 1; T q[UP(GROUP, ROWS) * HEAD];  // rows that fill it up may be any numbers
            for (int g = 0; g < GROUP; g++) {
                I head = h * GROUP + g;
                if (q_norm) r = across ? norm_of(queries, heads * HEAD, epsilon)
                                       : norm_of(queries + head * HEAD, HEAD, epsilon);
                turned(queries + head * HEAD, q_norm ? q_norm + across * head * HEAD : 0, r, c, s, x);
                for (int d = 0; d < HEAD; d++) q[g * HEAD + d] = narrow(x[d] * scale);
            }
            if (k_norm) r = across ? norm_of(keys, kv * HEAD, epsilon) : norm_of(keys + h * HEAD, HEAD, epsilon);
            turned(keys + h * HEAD, k_norm ? k_norm + across * h * HEAD : 0, r, c, s, x);

            I at = drawn[i] - 1, mine = (i * kv + h) * limit * HEAD, its = (place[i] * kv + h) * rest * HEAD;
            for (int d = 0; d < HEAD; d++) {
                own_keys[mine + at * HEAD + d] = narrow(x[d]);
                own_values[mine + at * HEAD + d] = values[h * HEAD + d];
            }
            I low = reach ? start[i] + at + 1 - reach : 0, ends[3] = {shared, start[i], start[i] + at + 1}, first = 0;
            Store stores[3] = {{root_keys + h * shared * HEAD, root_values + h * shared * HEAD, 0, HEAD, 0, HEAD, 0},
                               {prompt_keys + its, prompt_values + its, 0, HEAD, 0, HEAD, 0},
                               {own_keys + mine, own_values + mine, 0, HEAD, 0, HEAD, 0}};
            Range ranges[3];
            for (int p = 0; p < 3; first = ends[p++]) {
                I far = low <= first ? 0 : low < ends[p] ? low - first : ends[p] - first;  // tokens out of reach
                ranges[p] = (Range){0, far, ends[p] - first};
            }
            Part parts[3];
            I many = parts_of(stores, 1, ranges, 3, 0, parts);
            look(ALONE, 1, q, parts, ranges, 3, most, many, scratch + omp_get_thread_num() * 2 * most * columns,
                 out + (i * heads + h * GROUP) * HEAD, 0);
        }
        use(&before, 0);
    }
}

// ---------------------------------------------------------------------------------------------------- a tree of tokens

// How many of the next tokens, no more than `most`, descend from each other: in every level of the same segment
static I together(const Range *ranges, I levels, I most) {
    for (I t = 1; t < most; t++) for (I l = 0; l < levels; l++)
        if (ranges[t * levels + l].begin != ranges[l].begin) return t;
    return most;
}

// to [tokens GROUP filled up to ROWS, HEAD] = scale x, of which tokens are `step` numbers apart
static void scaled(I tokens, const T *x, I step, float scale, T *to) {
    for (I r = 0; r < tokens * GROUP; r++)
        for (int d = 0; d < HEAD; d++)
            to[r * HEAD + d] = narrow(wide(x[r / GROUP * step + r % GROUP * HEAD + d]) * scale);
    memset(to + tokens * GROUP * HEAD, 0, (UP(tokens * GROUP, ROWS) - tokens * GROUP) * HEAD * sizeof(T));
}

// Every token of a tree looks at what it descends from: q and out [n, GROUP kv, HEAD], stores [levels], ranges
// [n, levels], scratch [threads, 2, MOST, columns], no tokens that look together having more columns.
void tree_look(I threads, I n, I kv, I levels, const T *q, const Store *stores, const Range *ranges, float scale,
               I columns, float *scratch, T *out) {
    #pragma omp parallel num_threads(threads)
    {
        Tiles before;
        use(&WHOLE, &before);
        #pragma omp for collapse(2) schedule(static, 1)
        for (I h = 0; h < kv; h++) for (I first = 0; first < n; first += TOKENS) {
            I end = first + TOKENS < n ? first + TOKENS : n, step = kv * GROUP * HEAD, many;
            float *room = scratch + omp_get_thread_num() * 2 * MOST * columns;
            for (I i = first; i < end; i += many) {
                const Range *own = ranges + i * levels;
                T mine[MOST * HEAD]; Part parts[LEVELS]; I at = i * step + h * GROUP * HEAD;
                many = together(own, levels, end - i);
                scaled(many, q + at, step, scale, mine);
                I its = parts_of(stores, many, own, levels, h, parts);
                look(0, many, mine, parts, own, levels, MOST, its, room, out + at, step);
            }
        }
        use(&before, 0);
    }
}

// to [tokens of the part filled up to ROWS, WIDTH], `step` numbers apart, += the sum over rows of w [rows, columns] times
// x [rows, WIDTH], which is joined
static void spread(I rows, const T *w, I columns, const Word *x, const Part *p, float *to, I step) {
    Word flipped[CHUNK * MOST / PAIR] __attribute__((aligned(64)));
    const I steps = UP(rows, STEP) / PAIR;
    for (I j = p->low; j < p->high; j += CHUNK) {
        I count = p->high - j < CHUNK ? p->high - j : CHUNK;
        joined_crossed(rows, count, w + p->at + j - p->low, columns, flipped);
        multiply(count, WIDTH / LANES, steps, (Factor){flipped, steps, 1}, (Factor){x, LANES, WIDTH}, 1, to + j * step,
                 step);
    }
}

// ds of some rows of weights p and of s = g·v, all [rows, columns]; where p is 0, s is any number
static void slopes(I rows, I columns, const T *p, const float *s, T *ds) {
    for (I r = 0; r < rows; r++, p += columns, s += columns, ds += columns) {
        float along = 0;
        #pragma omp simd reduction(+:along)
        for (I j = 0; j < columns; j++) along += wide(p[j]) * s[j];
        for (I j = 0; j < columns; j++) ds[j] = narrow(wide(p[j]) * (s[j] - along));
    }
}

// Gradients of `tree_look`, g being the one at its result: dq [n, GROUP kv, HEAD], and of keys and values a sum for each
// thread, [threads, n + SPARE, kv, WIDTH] of all levels' tokens one after the other; scratch [threads, 3, MOST, columns].
// Weights are computed again:
//     ds = p (g·v − Σ p g·v),   dq = scale Σ ds k,   dk += ds q,   dv += p g
void tree_look_back(I threads, I n, I kv, I levels, const T *q, const Store *stores, const Range *ranges, float scale,
                    I columns, float *scratch, const T *g, T *dq, float *dk, float *dv) {
    #pragma omp parallel num_threads(threads)
    {
        Tiles before;
        use(&WHOLE, &before);
        #pragma omp for collapse(2) schedule(static, 1)
        for (I h = 0; h < kv; h++) for (I first = 0; first < n; first += TOKENS) {
            I end = first + TOKENS < n ? first + TOKENS : n, step = kv * GROUP * HEAD, many;
            I thread = omp_get_thread_num();
            float *s = scratch + thread * 3 * MOST * columns;
            T *p = (T *)(s + MOST * columns), *ds = (T *)(s + 2 * MOST * columns);
            for (I i = first; i < end; i += many) {
                const Range *own = ranges + i * levels;
                T mine[MOST * HEAD], from[MOST * HEAD]; Part parts[LEVELS];
                Word q_words[MOST / PAIR * WIDTH], g_words[MOST / PAIR * WIDTH];
                float sum[MOST * WIDTH]; int more = 0;
                many = together(own, levels, end - i);
                I rows = many * GROUP, at = i * step + h * GROUP * HEAD;
                I its = parts_of(stores, many, own, levels, h, parts);
                scaled(many, q + at, step, scale, mine);
                scaled(many, g + at, step, 1, from);
                weights(0, many, mine, parts, own, levels, its, s, p);
                scores(rows, from, parts, levels, VALUES, its, s);
                slopes(rows, its, p, s, ds);
                joined(rows, HEAD, mine, HEAD, q_words, WIDTH);
                joined(rows, HEAD, from, HEAD, g_words, WIDTH);
                for (I l = 0; l < levels; l++) if (parts[l].high > parts[l].low) {
                    I to = ((thread * (n + SPARE) + stores[l].before + own[l].begin) * kv + h) * WIDTH;
                    sums(rows, ds, parts + l, KEYS, its, more, sum);
                    spread(rows, ds, its, q_words, parts + l, dk + to, kv * WIDTH);
                    spread(rows, p, its, g_words, parts + l, dv + to, kv * WIDTH);
                    more = 1;
                }
                for (I r = 0; r < rows; r++) for (int d = 0; d < HEAD; d++)
                    dq[at + r / GROUP * step + r % GROUP * HEAD + d] = narrow(sum[r * WIDTH + d] * scale);
            }
        }
        use(&before, 0);
    }
}
