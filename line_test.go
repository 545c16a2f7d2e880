package decant_test

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/decant-project/decant"
)

// esc sets the title of a terminal, and writes over the line before.
const esc = "\x1b]0;title\a\x1b[1A\x1b[2K"

func TestLine(t *testing.T) {
	for _, tt := range []struct {
		s    string
		most int
		want string
	}{
		{"", 8, ""},
		{"it broke", 8, "it broke"},
		{"it broke", 7, "it  ..."},
		{" two\nlines\r\n", 20, "two lines"},
		{"a\tb", 20, "a b"},
		{"x" + esc, 40, "x ]0;title  [1A [2K"},
		{"\u009b2J\u202eabc\u200b", 20, "2J abc"}, // a control of one character, and what turns text around
		{"a\xffb", 20, "ab"},
		{"Hämeenlinna → Oulu ✓", 40, "Hämeenlinna → Oulu ✓"},
		{"ääää", 7, "ä ..."},
		{"ääää", 5, " ..."},
	} {
		if got := decant.Line(tt.s, tt.most); got != tt.want {
			t.Errorf("Line(%q, %d) is %q, want %q", tt.s, tt.most, got, tt.want)
		}
	}
}

func FuzzLine(f *testing.F) {
	f.Add("two\nlines"+esc, 8)
	f.Add("ä\xff\u202e", 5)
	f.Fuzz(func(t *testing.T, s string, most int) {
		if most < 4 {
			return
		}
		got := decant.Line(s, most)
		if len(got) > most || !utf8.ValidString(got) || strings.ContainsFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("Line(%q, %d) is %q", s, most, got)
		}
	})
}
