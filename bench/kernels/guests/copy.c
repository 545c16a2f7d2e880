// Records of 8 to 200 bytes that are copied about by memory.copy.
#include "kernel.h"

enum { N = 64 << 10 };
static u8 from[N], to[N];

KERNEL {
  u32 state = 1, sum = 0;
  for (u32 i = 0; i < N; i++) from[i] = next(&state);
  while (n--)
    for (u32 i = 0; i < 2000; i++) {
      u32 r = next(&state), size = 8 + r % 192, at = (r >> 8) % (N - 200);
      __builtin_memcpy(to + at, from + (at * 3) % (N - 200), size);
      sum += to[at];
    }
  return sum;
}
