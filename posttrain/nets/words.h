// Words of 32 bits, LANES at a time, and where TILED is 1 the processor's tiles, of 16 rows of 16 words.

#define INLINE static inline __attribute__((always_inline))

typedef uint32_t Words __attribute__((vector_size(4 * LANES)));

#if LANES == 16
#define LOW 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif LANES == 8
#define LOW 0, 8, 1, 9, 2, 10, 3, 11
#define HIGH 4, 12, 5, 13, 6, 14, 7, 15
#else
#define LOW 0, 4, 1, 5
#define HIGH 2, 6, 3, 7
#endif
#ifdef __clang__
#define MIXED(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define MIXED(a, b, ...) __builtin_shuffle(a, b, (Words){__VA_ARGS__})
#endif

// Words [LANES][LANES] the other way round
INLINE void flip(Words *a) {
    Words b[LANES];
    #pragma GCC unroll 4
    for (int round = 1; round < LANES; round *= 2) {  // each moves the first bit of the row behind those of the lane
        #pragma GCC unroll 8
        for (int l = 0; l < LANES / 2; l++) {
            b[2 * l] = MIXED(a[l], a[l + LANES / 2], LOW);
            b[2 * l + 1] = MIXED(a[l], a[l + LANES / 2], HIGH);
        }
        #pragma GCC unroll 16
        for (int l = 0; l < LANES; l++) a[l] = b[l];
    }
}

#if TILED
#include <immintrin.h>

#define SIDE 16  // rows of a tile, and words of a row

typedef struct { uint8_t palette, start, nothing[14]; uint16_t bytes[16]; uint8_t rows[16]; } Tiles;

static const Tiles WHOLE = {1, 0, {0}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};

// Says how a thread uses its tiles, and how it did: oneDNN remembers what it has set.
static inline void use(const Tiles *shape, Tiles *before) {
    if (before) *before = (Tiles){0}, _tile_storeconfig(before);
    _tile_loadconfig(shape);
}
#endif
