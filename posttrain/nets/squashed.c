// A squashed Gaussian's draws and their log densities, in fp32, forwards and backwards; compiled by squashed.py.
//
//     σ = exp( low + half (tanh s + 1) ),   u = μ + σ z,   a = tanh u,
//     log π(a) = Σ_j log N(u_j) − log(1 − a_j²),   −log(1 − tanh² u) = 2 ( |u| + log(1 + e^−2|u|) − log 2 )

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "elementary.h"

typedef int64_t I;

#define LN2 0.69314718f
#define LN2PI 1.83787707f

// moments [rows, μ and s of n numbers], z [rows, n] whose rows lie `step` apart -> action [rows, n], log_density [rows];
// for the way back reach = σ z and bend = half (1 − tanh² s), [rows, n] each
void draw(I rows, I n, const float *moments, const float *z, I step, float low, float half, float *action,
          float *log_density, float *reach, float *bend) {
    float *each = malloc((rows * n + 1) * sizeof *each);
    for (I i = 0; i < rows; i++) {  // numbers of all rows lie side by side, so that many go together however few a row has
        memcpy(action + i * n, moments + 2 * i * n, n * sizeof *each);
        memcpy(bend + i * n, moments + (2 * i + 1) * n, n * sizeof *each);
        memcpy(reach + i * n, z + i * step, n * sizeof *each);
    }
    for (I k = 0; k < rows * n; k++) {
        float t = hyperbolic_tangent(bend[k]), log_std = low + half * (t + 1), noise = reach[k];
        float far = exponential(log_std) * noise, u = action[k] + far, size = fabsf(u);
        action[k] = hyperbolic_tangent(u);
        each[k] = 2 * (size + log_of_1_plus(exponential(-2 * size)) - LN2) - 0.5f * (noise * noise + LN2PI) - log_std;
        reach[k] = far, bend[k] = half * (1 - t * t);
    }
    for (I i = 0; i < rows; i++) {
        float sum = 0;
        for (I j = 0; j < n; j++) sum += each[i * n + j];
        log_density[i] = sum;
    }
    free(each);
}

// Gradients at the action [rows, n] and at log_density [rows], each null where there is none -> that at the moments
void draw_back(I rows, I n, const float *action, const float *reach, const float *bend, const float *to_action,
               const float *to_density, float *to_moments) {
    for (I i = 0; i < rows; i++) {
        float *to_mean = to_moments + 2 * i * n, *to_s = to_mean + n, density = to_density ? to_density[i] : 0;
        for (I j = 0, k = i * n; j < n; j++, k++) {
            float to_u = (to_action ? to_action[k] * (1 - action[k] * action[k]) : 0) + 2 * density * action[k];
            to_mean[j] = to_u;
            to_s[j] = (to_u * reach[k] - density) * bend[k];
        }
    }
}
