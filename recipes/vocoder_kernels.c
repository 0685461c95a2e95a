/* The two things a vocoder spends its training on, for one core with wide registers: what
 * decoders/audio/unit_bigvgan.py says in torch.
 *
 * First, anti-aliased Snake, forward and backward, one pass over each row.
 * x, y, gradients: [rows][time], rows = batch * channels. alpha, inverse_beta: per channel, out of log scale.
 * The doubled signal is kept as its even and odd samples. Twelve taps: f. Scratch: 8 * (time + 16) floats.
 */
#include <math.h>
#include <string.h>

#define PAD 8

static void double_rate(const float *x, float *padded, float *even, float *odd, const float *f, long time) {
    memcpy(padded + PAD, x, time * sizeof(float));
    for (int i = 1; i <= 3; i++) padded[PAD - i] = x[0], padded[PAD + time - 1 + i] = x[time - 1];
    const float *p = padded + PAD;
    for (long t = 0; t < time; t++) {
        even[t] = 2 * (p[t - 3] * f[11] + p[t - 2] * f[9] + p[t - 1] * f[7] + p[t] * f[5] + p[t + 1] * f[3] + p[t + 2] * f[1]);
        odd[t] = 2 * (p[t - 2] * f[10] + p[t - 1] * f[8] + p[t] * f[6] + p[t + 1] * f[4] + p[t + 2] * f[2] + p[t + 3] * f[0]);
    }
}

void snake_forward(const float *x, const float *alpha, const float *inverse_beta, const float *f, float *y, float *scratch,
                   long rows, long channels, long time) {
    float *padded = scratch, *even = scratch + (time + 16) + PAD, *odd = even + time + 16;
    for (long row = 0; row < rows; row++) {
        float twice = 2 * alpha[row % channels], half = 0.5f * inverse_beta[row % channels];
        double_rate(x + row * time, padded, even, odd, f, time);
        for (long t = 0; t < time; t++) even[t] += half * (1 - cosf(twice * even[t]));
        for (long t = 0; t < time; t++) odd[t] += half * (1 - cosf(twice * odd[t]));
        for (int i = 1; i <= 3; i++) even[-i] = odd[-i] = even[0], even[time - 1 + i] = odd[time - 1 + i] = odd[time - 1];
        float *out = y + row * time;
        const float *e = even, *o = odd;
        for (long t = 0; t < time; t++)
            out[t] = e[t - 2] * f[1] + e[t - 1] * f[3] + e[t] * f[5] + e[t + 1] * f[7] + e[t + 2] * f[9] + e[t + 3] * f[11]
                   + o[t - 3] * f[0] + o[t - 2] * f[2] + o[t - 1] * f[4] + o[t] * f[6] + o[t + 1] * f[8] + o[t + 2] * f[10];
    }
}

/* One phase: u in, gradient of Snake's output in g, turned in place into the gradient of u; sums for alpha and 1/beta. */
static void snake_gradient(const float *u, float *g, float twice, float half, long time, double *d_alpha, double *d_inverse) {
    float sum_alpha = 0, sum_inverse = 0;
    /* Two loops: sine and cosine of one angle in one loop become a scalar sincos call. */
    for (long t = 0; t < time; t++) sum_inverse += g[t] * (1 - cosf(twice * u[t]));
    for (long t = 0; t < time; t++) {
        float sine = sinf(twice * u[t]);
        sum_alpha += g[t] * u[t] * sine;
        g[t] += g[t] * half * twice * sine;
    }
    *d_alpha += 2 * half * sum_alpha;
    *d_inverse += 0.5 * sum_inverse;
}

void snake_backward(const float *x, const float *gradient, const float *alpha, const float *inverse_beta, const float *f,
                    float *d_x, float *d_alpha, float *d_inverse, float *scratch, long rows, long channels, long time) {
    long step = time + 16;
    float *padded = scratch, *even = scratch + step + PAD, *odd = even + step, *g = odd + step, *d_even = g + step, *d_odd = d_even + step;
    for (long row = 0; row < rows; row++) {
        long channel = row % channels;
        double sum_alpha = 0, sum_inverse = 0;
        float twice = 2 * alpha[channel], half = 0.5f * inverse_beta[channel];
        double_rate(x + row * time, padded, even, odd, f, time);
        memset(g - PAD, 0, step * sizeof(float));
        memcpy(g, gradient + row * time, time * sizeof(float));
        for (long t = -3; t < time + 3; t++) {
            d_even[t] = g[t + 2] * f[1] + g[t + 1] * f[3] + g[t] * f[5] + g[t - 1] * f[7] + g[t - 2] * f[9] + g[t - 3] * f[11];
            d_odd[t] = g[t + 3] * f[0] + g[t + 2] * f[2] + g[t + 1] * f[4] + g[t] * f[6] + g[t - 1] * f[8] + g[t - 2] * f[10];
        }
        for (int i = 1; i <= 3; i++) {  /* what lay beyond the ends was the first even and the last odd sample */
            d_even[0] += d_even[-i] + d_odd[-i];
            d_odd[time - 1] += d_even[time - 1 + i] + d_odd[time - 1 + i];
        }
        snake_gradient(even, d_even, twice, half, time, &sum_alpha, &sum_inverse);
        snake_gradient(odd, d_odd, twice, half, time, &sum_alpha, &sum_inverse);
        d_alpha[channel] += (float)sum_alpha;
        d_inverse[channel] += (float)sum_inverse;
        for (int i = 1; i <= 6; i++) d_even[-i] = d_odd[-i] = d_even[time - 1 + i] = d_odd[time - 1 + i] = 0;
        const float *e = d_even, *o = d_odd;
        for (long t = -3; t < time + 3; t++)
            padded[PAD + t] = 2 * (e[t + 3] * f[11] + e[t + 2] * f[9] + e[t + 1] * f[7] + e[t] * f[5] + e[t - 1] * f[3] + e[t - 2] * f[1]
                                 + o[t + 2] * f[10] + o[t + 1] * f[8] + o[t] * f[6] + o[t - 1] * f[4] + o[t - 2] * f[2] + o[t - 3] * f[0]);
        for (int i = 1; i <= 3; i++) padded[PAD] += padded[PAD - i], padded[PAD + time - 1] += padded[PAD + time - 1 + i];
        memcpy(d_x + row * time, padded + PAD, time * sizeof(float));
    }
}

/* Second, convolutions of few channels over long rows, where general libraries are slow.
 *
 * x: [inputs][time] with `reach` zeros on either side of each row, rows `stride` apart. weight: [kernel][inputs][outputs].
 */
#define TILE 16
#define GROUP 4

typedef float lanes __attribute__((vector_size(32), aligned(4)));

void convolve(const float *x, const float *weight, const float *bias, float *y, long inputs, long outputs, long kernel,
              long dilation, long stride, long time) {
    for (long o = 0; o < outputs; o += GROUP)
        for (long start = 0; start < time; start += TILE) {
            long t = start + TILE <= time ? start : time - TILE;  /* the last tile overlaps the one before */
            lanes sum[GROUP][2];
            for (int j = 0; j < GROUP; j++) sum[j][0] = sum[j][1] = (lanes){0} + bias[o + j];
            for (long k = 0; k < kernel; k++)
                for (long i = 0; i < inputs; i++) {
                    const float *row = x + i * stride + t + k * dilation, *w = weight + (k * inputs + i) * outputs + o;
                    lanes first = *(const lanes *)row, second = *(const lanes *)(row + 8);
                    for (int j = 0; j < GROUP; j++) sum[j][0] += first * w[j], sum[j][1] += second * w[j];
                }
            for (int j = 0; j < GROUP; j++) {
                *(lanes *)(y + (o + j) * time + t) = sum[j][0];
                *(lanes *)(y + (o + j) * time + t + 8) = sum[j][1];
            }
        }
}

/* Adds to d_weight [kernel][inputs][outputs]; gradient: [outputs][time]. */
void convolve_weight_gradient(const float *x, const float *gradient, float *d_weight, long inputs, long outputs, long kernel,
                              long dilation, long stride, long time) {
    for (long o = 0; o < outputs; o += GROUP)
        for (long k = 0; k < kernel; k++)
            for (long i = 0; i < inputs; i++) {
                const float *row = x + i * stride + k * dilation, *g = gradient + o * time;
                float *out = d_weight + (k * inputs + i) * outputs + o;
                lanes sum[GROUP] = {{0}};
                long t = 0;
                for (; t + 8 <= time; t += 8) {
                    lanes value = *(const lanes *)(row + t);
                    for (int j = 0; j < GROUP; j++) sum[j] += value * *(const lanes *)(g + j * time + t);
                }
                for (int j = 0; j < GROUP; j++) {
                    for (int lane = 0; lane < 8; lane++) out[j] += sum[j][lane];
                    for (long rest = t; rest < time; rest++) out[j] += row[rest] * g[j * time + rest];
                }
            }
}
