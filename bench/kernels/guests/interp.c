// A byte-code interpreter: a switch in a loop.
#include "kernel.h"

enum { PUSH, ADD, MUL, XOR, LOAD, STORE, SHR, DEC, JNZ, HALT };
static const u8 program[] = {
    PUSH, 200, STORE, 0, PUSH, 1, STORE, 1,                          // i = 200, x = 1
    LOAD, 1, PUSH, 31, MUL, LOAD, 0, ADD, STORE, 1,                  // x = x*31 + i
    LOAD, 1, LOAD, 1, PUSH, 3, SHR, XOR, STORE, 1, DEC, 0, JNZ, 0, 8, // x ^= x>>3; while --i
    HALT};

static NOINLINE u32 interpret(const u8 *pc) {
  u32 stack[16], vars[4] = {0}, *sp = stack;
  for (;;) {
    switch (*pc++) {
      case PUSH: *sp++ = *pc++; break;
      case ADD: sp--, sp[-1] += sp[0]; break;
      case MUL: sp--, sp[-1] *= sp[0]; break;
      case XOR: sp--, sp[-1] ^= sp[0]; break;
      case SHR: sp--, sp[-1] >>= sp[0]; break;
      case LOAD: *sp++ = vars[*pc++ & 3]; break;
      case STORE: vars[*pc++ & 3] = *--sp; break;
      case DEC: vars[*pc++ & 3]--; break;
      case JNZ: pc = vars[pc[0] & 3] ? program + pc[1] : pc + 2; break;
      default: return vars[1];
    }
  }
}

KERNEL {
  u32 sum = 0;
  while (n--) sum += interpret(program);
  return sum;
}
