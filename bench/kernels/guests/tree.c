// A search tree and a list, with memory from a free list.
#include "kernel.h"

typedef struct node { struct node *left, *right; u32 key; } node;
enum { N = 2000 };
static node nodes[N], *freed;

static NOINLINE node *new(u32 key) {
  node *n = freed;
  freed = n->left;
  n->left = n->right = 0, n->key = key;
  return n;
}

static NOINLINE void delete(node *n) {
  n->left = freed;
  freed = n;
}

static NOINLINE node *insert(node *t, u32 key) {
  if (!t) return new(key);
  if (key < t->key) t->left = insert(t->left, key);
  else t->right = insert(t->right, key);
  return t;
}

static NOINLINE u32 depth(const node *t) {
  if (!t) return 0;
  u32 l = depth(t->left), r = depth(t->right);
  return 1 + (l > r ? l : r);
}

static NOINLINE u32 has(const node *t, u32 key) {
  while (t && t->key != key) t = key < t->key ? t->left : t->right;
  return t != 0;
}

static NOINLINE void release(node *t) {
  if (!t) return;
  release(t->left);
  release(t->right);
  delete(t);
}

KERNEL {
  u32 state = 1, sum = 0;
  freed = 0;
  for (int i = 0; i < N; i++) delete(&nodes[i]);
  while (n--) {
    node *t = 0;
    for (int i = 0; i < N; i++) t = insert(t, next(&state) % 8192);
    for (u32 i = 0; i < 8192; i += 2) sum += has(t, i);
    sum += depth(t);
    release(t);
  }
  return sum;
}
