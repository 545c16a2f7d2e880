// An LZ77 compressor with a hash of three bytes, and base64 of what it makes.
#include "kernel.h"

enum { N = 16 << 10, BITS = 12 };
static u8 in[N], out[2 * N];
static char text[3 * N];
static u32 head[1 << BITS];

static u32 hash(const u8 *p) { return ((u32)p[0] << 16 | p[1] << 8 | p[2]) * 2654435761u >> (32 - BITS); }

static NOINLINE u32 compress(void) {
  u32 at = 0;
  for (u32 i = 0; i < 1 << BITS; i++) head[i] = N;
  for (u32 i = 0; i < N;) {
    u32 length = 0, from = N;
    if (i + 3 < N) {
      u32 h = hash(in + i);
      from = head[h], head[h] = i;
    }
    if (from < i)
      while (length < 255 && i + length < N && in[from + length] == in[i + length]) length++;
    if (length < 4) {
      out[at++] = in[i++];
      continue;
    }
    out[at++] = 0xff, out[at++] = length, out[at++] = i - from, out[at++] = (i - from) >> 8;
    i += length;
  }
  return at;
}

static NOINLINE u32 base64(u32 n) {
  static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  u32 at = 0;
  for (u32 i = 0; i + 3 <= n; i += 3) {
    u32 v = (u32)out[i] << 16 | out[i + 1] << 8 | out[i + 2];
    for (int shift = 18; shift >= 0; shift -= 6) text[at++] = alphabet[v >> shift & 63];
  }
  return at;
}

KERNEL {
  u32 state = 1, sum = 0;
  for (u32 i = 0; i < N; i++) in[i] = i < 64 || next(&state) % 16 == 0 ? state % 20 : in[i - 64 + state % 3 / 2];
  while (n--) {
    in[n % N] ^= n;
    u32 m = base64(compress());
    sum = sum * 31 + m + text[n % m];
  }
  return sum;
}
