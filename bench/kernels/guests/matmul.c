// Product of f32 matrices: a short innermost loop over rows.
#include "kernel.h"

enum { N = 64 };
static float a[N * N], b[N * N], c[N * N];

static NOINLINE void multiply(const float *a, const float *b, float *restrict c, int size) {
  for (int i = 0; i < size; i++) {
    for (int j = 0; j < size; j++) c[i * size + j] = 0;
    for (int k = 0; k < size; k++)
      for (int j = 0; j < size; j++) c[i * size + j] += a[i * size + k] * b[k * size + j];
  }
}

KERNEL {
  u32 sum = 0;
  for (int i = 0; i < N * N; i++) a[i] = i % 7, b[i] = i % 3;
  while (n--) {
    int size = N - (n & 3);
    multiply(a, b, c, size);
    sum = sum * 31 + (u32)c[n % (size * size)];
  }
  return sum;
}
