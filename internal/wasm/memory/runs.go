package memory

import "bytes"

// PageSize is the granularity, in bytes, of runs and of what is tracked.
const PageSize = 4096

// Range is a part of a memory, in bytes.
type Range struct{ Offset, Length uint64 }

// extend adds r, which lies behind the others, to the last of them if fewer than
// gap bytes lie between.
func extend(ranges []Range, r Range, gap uint64) []Range {
	if n := len(ranges); n > 0 && r.Offset-(ranges[n-1].Offset+ranges[n-1].Length) < gap {
		ranges[n-1].Length = r.Offset + r.Length - ranges[n-1].Offset
		return ranges
	}
	return append(ranges, r)
}

var zeros [PageSize]byte

func isZero(page []byte) bool { return bytes.Equal(page, zeros[:len(page)]) }

// Runs visits what is not zero in b: the longest runs of pages that have a byte
// other than zero, in order, by the offset of each in b. It ends with the first
// error of visit. It touches every page: one that nobody touched before takes
// 0.7 us, once, which is not worth asking the kernel about each.
func Runs(b []byte, visit func(offset int, data []byte) error) error {
	start := 0 // of the run that at is in, or at itself
	for at := 0; at < len(b); at += PageSize {
		end := min(at+PageSize, len(b))
		if !isZero(b[at:end]) {
			continue
		}
		if start < at {
			if err := visit(start, b[start:at]); err != nil {
				return err
			}
		}
		start = end
	}
	if start < len(b) {
		return visit(start, b[start:])
	}
	return nil
}
