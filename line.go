package decant

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Line makes s a line that a terminal can show, of at most so many bytes: what
// comes from elsewhere ends up on somebody's screen. What cannot be shown
// becomes a space, and an end that is cut off three dots.
func Line(s string, most int) string {
	s = strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, strings.ToValidUTF8(s, "")))
	if len(s) <= most {
		return s
	}
	const dots = " ..."
	end := max(0, most-len(dots))
	for !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + dots
}

// maxText bounds a short text that others wrote, in bytes.
const maxText = 256

// checkText returns an Invalid error unless s is a short text that a terminal
// can show. It may be empty.
func checkText(what, s string) error {
	if len(s) > maxText {
		return Errorf(Invalid, "%s is longer than %d bytes", what, maxText)
	}
	if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return Errorf(Invalid, "%s %q has characters that cannot be shown", what, s)
	}
	return nil
}
