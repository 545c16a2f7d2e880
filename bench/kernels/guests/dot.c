// Dot products of int8 vectors, as quantised inference has them.
#include "kernel.h"

enum { N = 1024, ROWS = 64 };
static signed char w[ROWS][N], x[N];

KERNEL {
  u32 state = 1, sum = 0;
  for (int j = 0; j < N; j++) x[j] = next(&state);
  for (int i = 0; i < ROWS; i++)
    for (int j = 0; j < N; j++) w[i][j] = next(&state);
  while (n--) {
    x[n & (N - 1)]++;
    for (int i = 0; i < ROWS; i++) {
      int s = 0;
      for (int j = 0; j < N; j++) s += w[i][j] * x[j];
      sum = sum * 31 + s;
    }
  }
  return sum;
}
