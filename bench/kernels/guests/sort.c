// Quicksort and heapsort that compare through a function pointer.
#include "kernel.h"

typedef int (*compare)(const u32 *, const u32 *);
static NOINLINE int up(const u32 *a, const u32 *b) { return (*a > *b) - (*a < *b); }
static NOINLINE int down(const u32 *a, const u32 *b) { return (*a < *b) - (*a > *b); }
static const compare orders[] = {up, down};

static void swap(u32 *a, u32 *b) {
  u32 t = *a;
  *a = *b, *b = t;
}

static NOINLINE void quick(u32 *a, int n, compare of) {
  while (n > 1) {
    u32 pivot = a[n / 2];
    int i = 0, j = n - 1;
    while (i <= j) {
      while (of(&a[i], &pivot) < 0) i++;
      while (of(&a[j], &pivot) > 0) j--;
      if (i <= j) swap(&a[i++], &a[j--]);
    }
    quick(a, j + 1, of);
    a += i, n -= i;
  }
}

static NOINLINE void sift(u32 *a, int i, int n, compare of) {
  for (int child; (child = 2 * i + 1) < n; i = child) {
    if (child + 1 < n && of(&a[child], &a[child + 1]) < 0) child++;
    if (of(&a[i], &a[child]) >= 0) return;
    swap(&a[i], &a[child]);
  }
}

static NOINLINE void heap(u32 *a, int n, compare of) {
  for (int i = n / 2; i-- > 0;) sift(a, i, n, of);
  while (--n > 0) {
    swap(&a[0], &a[n]);
    sift(a, 0, n, of);
  }
}

enum { N = 2000 };
static u32 a[N];

KERNEL {
  u32 state = 1, sum = 0;
  while (n--) {
    for (int i = 0; i < N; i++) a[i] = next(&state);
    quick(a, N, orders[n & 1]);
    sum += a[N / 3];
    for (int i = 0; i < N; i++) a[i] = next(&state);
    heap(a, N, orders[state & 1]);
    sum = sum * 31 + a[N / 3];
  }
  return sum;
}
