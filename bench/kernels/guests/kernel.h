// What all kernels share. run(n) does the same work n times and returns a
// checksum, which does not depend on how the kernel was built.
typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;

#define KERNEL __attribute__((export_name("run"))) u32 run(u32 n)
#define NOINLINE __attribute__((noinline))

// next returns a number that looks random, the same ones each time.
static inline u32 next(u32 *state) {
  *state ^= *state << 13;
  *state ^= *state >> 17;
  return *state ^= *state << 5;
}
