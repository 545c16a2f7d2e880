// The Mandelbrot set: f64 in registers.
#include "kernel.h"

enum { N = 48, MOST = 100 };

KERNEL {
  u32 sum = 0;
  while (n--)
    for (int y = 0; y < N; y++)
      for (int x = 0; x < N; x++) {
        double cr = 2.5 * x / N - 1.8, ci = 2.4 * y / N - 1.2, zr = 0, zi = 0;
        u32 i = 0;
        for (; i < MOST && zr * zr + zi * zi < 4; i++) {
          double t = zr * zr - zi * zi + cr;
          zi = 2 * zr * zi + ci, zr = t;
        }
        sum += i;
      }
  return sum;
}
