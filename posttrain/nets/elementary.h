// Functions of one number.  Unlike the C library's, a loop over them becomes vectors.

// e^x to 2e-7 of itself, by x = n ln 2 + r and Cephes' polynomial of r
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

static inline float hyperbolic_tangent(float x) {  // (1 − e^−2|x|) / (1 + e^−2|x|); x − x³/3 + 2x⁵/15 near 0
    float z = fabsf(x), e = exponential(-2 * z), s = x * x;
    float far = copysignf((1 - e) / (1 + e), x), near = x * (1 - s * (0.33333333f - s * 0.13333333f));
    return z < 0.04f ? near : far;
}

static inline float log_of_1_plus(float e) {  // 2 artanh( e / (2 + e) ), e in [0, 1]; to 2e-8 of itself
    float s = e / (2 + e), q = s * s, p = 1.0f / 13;
    p = p * q + 1.0f / 11;
    p = p * q + 1.0f / 9;
    p = p * q + 1.0f / 7;
    p = p * q + 1.0f / 5;
    p = p * q + 1.0f / 3;
    return 2 * s * (p * q + 1);
}
