// The sieve of Eratosthenes up to 64 Ki.
#include "kernel.h"

enum { N = 64 << 10 };
static u8 composite[N];

KERNEL {
  u32 sum = 0;
  while (n--) {
    for (u32 i = 0; i < N; i++) composite[i] = 0;
    for (u32 i = 2; i < N; i++) {
      if (composite[i]) continue;
      sum += i;
      for (u32 j = 2 * i; j < N; j += i) composite[j] = 1;
    }
  }
  return sum;
}
