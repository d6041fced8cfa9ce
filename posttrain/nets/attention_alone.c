// Scores and sums of the GROUP queries of one token.  A part of attention.c.

#if TILED
#define ALONE 1
#define BUNDLE 4  // tiles that are computed before the first is looked at

// Queries [GROUP, HEAD] as `scores_alone` wants them: words [WORDS, SIDE] of which a column is a query's, and those that
// are nobody's are any numbers
static const Word *laid(const T *q, Word *room) {
    for (int w = 0; w < WORDS; w++) for (int g = 0; g < GROUP; g++)
        room[w * SIDE + g] = ((const Word *)q)[g * WORDS + w];
    return room;
}

// s [GROUP, columns] = x · each key, or value, of one part, x as laid: keys are a tile's rows as they lie
static void scores_alone(const Word *x, const Part *p, int what, I columns, float *s) {
    const I step = p->step[what];
    for (I j = p->low; j < p->high; j += BUNDLE * SIDE, s += BUNDLE * SIDE) {
        float found[BUNDLE][SIDE * SIDE] __attribute__((aligned(64)));
        for (I b = 0, i = j; b < BUNDLE && i < p->high; b++, i += SIDE) {
            T last[SIDE * HEAD] __attribute__((aligned(64))); const T *from = p->x[what] + i * step; I across = step;
            if (p->high - i < SIDE) {
                for (I k = 0; k < p->high - i; k++) memcpy(last + k * HEAD, from + k * step, HEAD * sizeof(T));
                from = last, across = HEAD;
            } else for (int k = 0; k < SIDE; k++) for (int d = 0; d < HEAD; d += 32) fetch(from + (LATER + k) * step + d);
            __asm__ volatile("" ::: "memory");
            _tile_zero(5);
            for (int w = 0; w < WORDS; w += SIDE) {
                _tile_loadd(6, from + w * PAIR, across * sizeof(T)); _tile_loadd(7, x + w * SIDE, 64);
                _tile_dpbf16ps(5, 6, 7);
            }
            _tile_stored(5, found[b], 64);
        }
        for (I b = 0, i = j; b < BUNDLE && i < p->high; b++, i += SIDE) {
            Words a[SIDE];
            memcpy(a, found[b], sizeof a);
            flip(a);
            for (int g = 0; g < GROUP; g++) memcpy(s + g * columns + b * SIDE, a + g, sizeof *a);
        }
    }
}

// out [GROUP, WIDTH] = w · keys, or values, of one part; w [GROUP, columns]
static void sums_alone(const Word *w, const Part *p, int what, I columns, float *out) {
    const I step = p->step[what], row = WIDTH * sizeof *out;
    for (int c = 0; c < HEAD; c += 4 * SIDE) {
        const int wide = HEAD - c < 4 * SIDE ? (HEAD - c) / SIDE : 4;
        _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
        for (I j = p->low; j < p->high; j += STEP) {
            Word room[SIDE * 4 * SIDE] __attribute__((aligned(64)));
            const T *from = p->x[what] + j * step + c; I count = p->high - j < STEP ? p->high - j : STEP;
            for (int k = 0; k < SIDE; k++) for (int d = 0; d < wide * SIDE; d += 32) {
                fetch(from + (LATER + 2 * k) * step + d); fetch(from + (LATER + 2 * k + 1) * step + d);
            }
            joined(count, wide * SIDE, from, step, room, 4 * SIDE);
            __asm__ volatile("" ::: "memory");
            _tile_loadd(4, w + (j - p->low) / PAIR, columns * sizeof(T));
            _tile_loadd(5, room, 256); _tile_dpbf16ps(0, 4, 5);
            _tile_loadd(6, room + SIDE, 256); _tile_dpbf16ps(1, 4, 6);
            if (wide < 4) continue;
            _tile_loadd(7, room + 2 * SIDE, 256); _tile_dpbf16ps(2, 4, 7);
            _tile_loadd(5, room + 3 * SIDE, 256); _tile_dpbf16ps(3, 4, 5);
        }
        _tile_stored(0, out + c, row); _tile_stored(1, out + c + SIDE, row);
        if (wide < 4) continue;
        _tile_stored(2, out + c + 2 * SIDE, row); _tile_stored(3, out + c + 3 * SIDE, row);
    }
}
#else
#define ALONE (GROUP <= ROWS && HEAD % (WIDE * LANES) == 0)  // whether one token's sums fit the registers

static const Word *laid(const T *q, Word *room) { (void)room; return (const Word *)q; }

// The same, of which x [GROUP, WORDS]: nothing is laid out in memory.
static void scores_alone(const Word *x, const Part *p, int what, I columns, float *s) {
    for (I j = p->low; j < p->high; j += LANES, s += LANES) {
        V sum[GROUP] = {};
        for (int w = 0; w < WORDS; w += LANES) {
            Words a[LANES];
            cross(p->high - j, p->x[what] + j * p->step[what], p->step[what], w, a);
            #pragma GCC unroll 16
            for (int l = 0; l < LANES; l++) for (int g = 0; g < GROUP; g++)
                sum[g] = plus(sum[g], everywhere(x[g * WORDS + w + l]), a[l]);
        }
        for (int g = 0; g < GROUP; g++) memcpy(s + g * columns, sum + g, sizeof *sum);
    }
}

static void sums_alone(const Word *w, const Part *p, int what, I columns, float *out) {
    static const T nothing[WIDE * LANES];
    for (int c = 0; c < HEAD; c += WIDE * LANES) {
        V a[GROUP][WIDE] = {};
        I step = p->step[what];
        const T *x = p->x[what] + p->low * step + c;
        for (I j = 0; p->low + PAIR * j < p->high; j++, x += PAIR * step) {
            const T *below = p->low + PAIR * j + 1 < p->high ? x + step : nothing;
            for (int i = 0; i < WIDE; i++) fetch(x + (LATER + i % PAIR) * step + i / PAIR * PAIR * LANES);
            for (int i = 0; i < WIDE; i++) {
                Words column = pair(x + i * LANES, below + i * LANES);
                for (int g = 0; g < GROUP; g++) a[g][i] = plus(a[g][i], everywhere(w[g * columns / PAIR + j]), column);
            }
        }
        for (int g = 0; g < GROUP; g++) memcpy(out + g * WIDTH + c, a[g], sizeof a[g]);
    }
}
#endif
