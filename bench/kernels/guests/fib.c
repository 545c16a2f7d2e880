// Recursive Fibonacci: nothing but calls.
#include "kernel.h"

static NOINLINE u32 fib(u32 n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }

KERNEL {
  u32 sum = 0;
  while (n--) sum += fib(20 + (n & 1));
  return sum;
}
