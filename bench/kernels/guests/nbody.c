// Five bodies that attract one another, in f64.
#include "kernel.h"

typedef struct { double x, y, z, vx, vy, vz, mass; } body;
enum { N = 5 };
static body bodies[N];

static void advance(double dt) {
  for (int i = 0; i < N; i++) {
    body *a = &bodies[i];
    for (int j = i + 1; j < N; j++) {
      body *b = &bodies[j];
      double dx = a->x - b->x, dy = a->y - b->y, dz = a->z - b->z;
      double d2 = dx * dx + dy * dy + dz * dz + .01, mag = dt / (d2 * __builtin_sqrt(d2));
      a->vx -= dx * b->mass * mag, a->vy -= dy * b->mass * mag, a->vz -= dz * b->mass * mag;
      b->vx += dx * a->mass * mag, b->vy += dy * a->mass * mag, b->vz += dz * a->mass * mag;
    }
  }
  for (int i = 0; i < N; i++) bodies[i].x += dt * bodies[i].vx, bodies[i].y += dt * bodies[i].vy, bodies[i].z += dt * bodies[i].vz;
}

KERNEL {
  for (int i = 0; i < N; i++) bodies[i] = (body){i, i * i % 3, -i, .1 * i, .2, -.1 * i, 1 + i};
  while (n--)
    for (int i = 0; i < 1000; i++) advance(.001);
  return (u32)(long long)(bodies[0].x * 1e6);
}
