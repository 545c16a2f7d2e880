package snapshot

import (
	"hash/crc32"
	"strconv"
)

// What a snapshot begins with: magic, then version as 32 bits.
const (
	magic   = "\x00dcs"
	version = 1
)

// section is a section's id.
type section byte

// The sections in the order in which they come. Contents follow each file and
// extra.
const (
	sectionInstance section = 1
	sectionBase     section = 2 // kept for snapshots of changes only
	sectionGlobals  section = 3
	sectionDropped  section = 4
	sectionMemory   section = 5
	sectionFile     section = 6
	sectionExtra    section = 7
	sectionContents section = 8
	sectionEnd      section = 255
)

var sectionNames = map[section]string{
	sectionInstance: "instance",
	sectionBase:     "base",
	sectionGlobals:  "globals",
	sectionDropped:  "dropped",
	sectionMemory:   "memory",
	sectionFile:     "file",
	sectionExtra:    "extra",
	sectionContents: "contents",
	sectionEnd:      "end",
}

func (s section) String() string {
	if name, ok := sectionNames[s]; ok {
		return name
	}
	return strconv.Itoa(int(s))
}

// Sizes in bytes.
const (
	headSize   = 5       // of a section, before its body: id, length
	crcSize    = 4       // of a section, behind its body
	globalSize = 13      // index, type, bits
	maxPiece   = 1 << 20 // most of a memory or of contents in a section
	maxBody    = 8 + maxPiece
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)
