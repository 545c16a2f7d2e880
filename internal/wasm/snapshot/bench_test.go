package snapshot

import (
	"bytes"
	"crypto/sha256"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/decant-project/decant"
)

const benchmarked = 64 << 20

// benchMemory is memory without a page of zeros.
func benchMemory() Memory {
	m := make(Memory, benchmarked)
	_, _ = rand.NewChaCha8([32]byte{}).Read(m)
	return m
}

func benchSnapshot() *Snapshot {
	return &Snapshot{Module: decant.DigestOf(nil), Memory: benchmarked}
}

func BenchmarkEncode(b *testing.B) {
	m := benchMemory()
	b.SetBytes(benchmarked)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Encode(io.Discard, benchSnapshot(), m.Pages()); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkEncodeZeros is of a memory that nothing is in.
func BenchmarkEncodeZeros(b *testing.B) {
	m := make(Memory, benchmarked)
	b.SetBytes(benchmarked)
	for b.Loop() {
		if _, err := Encode(io.Discard, benchSnapshot(), m.Pages()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	var encoded bytes.Buffer
	if _, err := Encode(&encoded, benchSnapshot(), benchMemory().Pages()); err != nil {
		b.Fatal(err)
	}
	to := make(Memory, benchmarked)
	b.SetBytes(benchmarked)
	b.ReportAllocs()
	for b.Loop() {
		_, _, err := Decode(bytes.NewReader(encoded.Bytes()), Limits{Memory: benchmarked}, func(*Snapshot) (io.WriterAt, error) { return to, nil })
		if err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSHA256 and BenchmarkCRC are what the sums take of both.
func BenchmarkSHA256(b *testing.B) {
	m := benchMemory()
	b.SetBytes(benchmarked)
	for b.Loop() {
		sha256.Sum256(m)
	}
}

func BenchmarkCRC(b *testing.B) {
	m := benchMemory()
	b.SetBytes(benchmarked)
	for b.Loop() {
		crc32.Checksum(m, castagnoli)
	}
}
