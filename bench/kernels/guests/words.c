// Words counted in a hash table, with small functions that each loop over a few
// bytes.
#include "kernel.h"

enum { TEXT = 16 << 10, BUCKETS = 1 << 10 };
static char text[TEXT + 1];
typedef struct { const char *word; u32 count; } entry;
static entry table[BUCKETS];

static NOINLINE u32 length(const char *s) {
  u32 n = 0;
  while (s[n] > ' ') n++;
  return n;
}

static NOINLINE u32 hash(const char *s, u32 n) {
  u32 h = 2166136261u;
  while (n--) h = (h ^ (u8)*s++) * 16777619u;
  return h;
}

static NOINLINE int equal(const char *a, const char *b, u32 n) {
  for (u32 i = 0; i < n; i++)
    if (a[i] != b[i]) return 0;
  return b[n] <= ' ';
}

static NOINLINE entry *find(const char *s, u32 n) {
  for (u32 h = hash(s, n);; h++) {
    entry *e = &table[h % BUCKETS];
    if (!e->word || equal(s, e->word, n)) return e;
  }
}

static NOINLINE u32 count(void) {
  u32 most = 0;
  for (u32 i = 0; i < BUCKETS; i++) table[i].word = 0, table[i].count = 0;
  for (const char *s = text; *s;) {
    u32 n = length(s);
    if (n) {
      entry *e = find(s, n);
      e->word = s;
      if (++e->count > most) most = e->count;
    }
    s += n + (s[n] != 0);
  }
  return most;
}

KERNEL {
  u32 state = 1, sum = 0;
  for (u32 i = 0; i < TEXT;) {
    u32 word = next(&state) % 400, size = 2 + word % 9;
    for (u32 j = 0; j < size && i < TEXT; j++) text[i++] = 'a' + (word * (j + 1) >> 2) % 26;
    if (i < TEXT) text[i++] = ' ';
  }
  while (n--) sum = sum * 31 + count();
  return sum;
}
