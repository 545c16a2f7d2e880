// A 3x3 convolution of an image in f32, and a FIR filter of 16 taps.
#include "kernel.h"

enum { W = 96, H = 64, TAPS = 16 };
static float image[H][W], out[H][W], taps[TAPS], kernel[3][3] = {{1, 2, 1}, {2, 4, 2}, {1, 2, 1}};

static NOINLINE void convolve(void) {
  for (int y = 1; y < H - 1; y++)
    for (int x = 1; x < W - 1; x++) {
      float s = 0;
      for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++) s += kernel[i][j] * image[y + i - 1][x + j - 1];
      out[y][x] = s;
    }
}

static NOINLINE void filter(const float *in, float *to, int n, int taken) {
  for (int i = 0; i + taken <= n; i++) {
    float s = 0;
    for (int j = 0; j < taken; j++) s += taps[j] * in[i + j];
    to[i] = s;
  }
}

KERNEL {
  float sum = 0;
  for (int i = 0; i < TAPS; i++) taps[i] = i & 3;
  for (int y = 0; y < H; y++)
    for (int x = 0; x < W; x++) image[y][x] = (x ^ y) & 15;
  while (n--) {
    convolve();
    sum += out[n % 60 + 1][n % 90 + 1];
    filter(&image[0][0], &out[0][0], H * W, TAPS);
    sum += out[n % 60][n % 90];
    if (sum > 1 << 20) sum = 0;
  }
  return (u32)sum;
}
