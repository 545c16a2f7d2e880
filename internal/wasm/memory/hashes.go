package memory

import "hash/maphash"

// hashScanner keeps a hash of each page. They are seeded, so that no guest can
// prepare two contents of a page with one hash.
type hashScanner struct {
	seed maphash.Seed
	sums []uint64 // of each page, 0 of one that is zero
}

func newHashScanner(b []byte) *hashScanner {
	s := &hashScanner{seed: maphash.MakeSeed()}
	_, _ = s.dirty(b)
	return s
}

func (s *hashScanner) dirty(b []byte) ([]Range, error) {
	var ranges []Range
	// What is new was zero before.
	s.sums = append(s.sums, make([]uint64, len(b)/PageSize-len(s.sums))...)
	for i := range s.sums {
		at := i * PageSize
		if sum := s.sum(b[at : at+PageSize]); sum != s.sums[i] {
			s.sums[i] = sum
			ranges = extend(ranges, Range{uint64(at), PageSize}, 1)
		}
	}
	return ranges, nil
}

func (s *hashScanner) sum(page []byte) uint64 {
	if isZero(page) {
		return 0
	}
	return max(1, maphash.Bytes(s.seed, page))
}

func (s *hashScanner) close() error { return nil }
