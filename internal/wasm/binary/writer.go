package binary

import "math"

// Numbers in LEB128. A padded one takes as many bytes whatever its value is, so
// that it can be written before the value is known.

func appendU32(b []byte, v uint32) []byte {
	for ; v >= 0x80; v >>= 7 {
		b = append(b, byte(v)|0x80)
	}
	return append(b, byte(v))
}

func appendS64(b []byte, v int64) []byte {
	for ; v < -64 || v > 63; v >>= 7 {
		b = append(b, byte(v)|0x80)
	}
	return append(b, byte(v)&0x7f)
}

const (
	paddedI32 = 5
	paddedI64 = 10
)

// putPadded writes v over all of b.
func putPadded(b []byte, v int64) {
	for i := range b {
		b[i] = byte(v)&0x7f | 0x80
		v >>= 7
	}
	b[len(b)-1] &= 0x7f
}

// appendVector appends a vector's length and its content.
func appendVector(b []byte, n int, content []byte) []byte {
	return append(appendU32(b, length(n)), content...)
}

// length is a length as binaries have it.
func length(n int) uint32 {
	if n < 0 || uint64(n) > math.MaxUint32 {
		panic("a length beyond 32 bits") // Limits.Size is far below
	}
	return uint32(n)
}

func appendName(b []byte, name string) []byte { return appendVector(b, len(name), []byte(name)) }

// i64Const is an i64.const.
func i64Const(v int64) []byte { return appendS64([]byte{0x42}, v) }

// op is an instruction that names something.
func op(code byte, index uint32) []byte { return appendU32([]byte{code}, index) }
