package discovery

import (
	"cmp"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/decant-project/decant"
)

// Bounds of what a service may say of itself. A text value and its key fit in
// one string of a TXT record, and all of them in one packet.
const (
	maxText      = 16
	maxTextLine  = 255
	maxAddresses = 16
	maxID        = 63
)

// check returns an Invalid error for a service that cannot be advertised.
func (s Service) check() error {
	switch {
	case s.Kind == "":
		return decant.Errorf(decant.Invalid, "service %s has no kind", s.ID)
	case s.Port < 1 || s.Port > 65535:
		return decant.Errorf(decant.Invalid, "service %s: port %d: must be from 1 to 65535", s.ID, s.Port)
	case len(s.Text) > maxText:
		return decant.Errorf(decant.Invalid, "service %s: %d text values: %d at most", s.ID, len(s.Text), maxText)
	}
	for k, v := range s.Text {
		if !validText(k, v) {
			return decant.Errorf(decant.Invalid, "service %s: text value %q: %d printable bytes at most, with its name", s.ID, k, maxTextLine-1)
		}
	}
	return decant.CheckName("service", s.ID)
}

// validText reports whether a key and value may stand in a TXT record (RFC
// 6763, section 6.4) and on a terminal.
func validText(key, value string) bool {
	for _, r := range key {
		if r < ' ' || r > '~' || r == '=' || unicode.IsUpper(r) {
			return false
		}
	}
	return key != "" && len(key)+1+len(value) <= maxTextLine && printable(value)
}

func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// formatText makes the strings of a TXT record.
func formatText(text map[string]string) (lines []string) {
	for _, k := range slices.Sorted(maps.Keys(text)) {
		lines = append(lines, k+"="+text[k])
	}
	return lines
}

// parseText reads the strings of a TXT record that came from the network. What
// is not a value that we would write is left out; of a key that is there twice
// the first counts.
func parseText(lines []string) map[string]string {
	text := map[string]string{}
	for _, line := range lines {
		key, value, ok := strings.Cut(line, "=")
		key = strings.Map(lowerASCII, key)
		if _, twice := text[key]; !ok || twice || !validText(key, value) || len(text) == maxText {
			continue
		}
		text[key] = value
	}
	return text
}

// lowerASCII leaves other letters alone: some have a lower case in ASCII.
func lowerASCII(r rune) rune {
	if 'A' <= r && r <= 'Z' {
		return r + 'a' - 'A'
	}
	return r
}

// hostPorts returns where to dial a service, best first: what works from
// anywhere before what works from here only. A link-local IPv6 address means
// nothing without an interface, so it is there once for each of zones.
func hostPorts(addrs []netip.Addr, port int, zones []string) []string {
	addrs = slices.Clone(addrs)
	slices.SortStableFunc(addrs, func(a, b netip.Addr) int { return cmp.Compare(rank(a), rank(b)) })
	var out []string
	for i, addr := range addrs {
		switch {
		case slices.Contains(addrs[:i], addr): // it is there already
		case !addr.IsValid() || addr.IsUnspecified() || addr.IsMulticast():
		case addr.Is6() && addr.IsLinkLocalUnicast() && addr.Zone() == "":
			for _, zone := range zones {
				out = append(out, net.JoinHostPort(addr.WithZone(zone).String(), strconv.Itoa(port)))
			}
		default:
			out = append(out, net.JoinHostPort(addr.String(), strconv.Itoa(port)))
		}
	}
	return out[:min(len(out), maxAddresses)]
}

// rank orders addresses by how likely they work.
func rank(a netip.Addr) int {
	switch {
	case a.IsLoopback():
		return 2
	case a.Is6() && a.IsLinkLocalUnicast():
		return 4
	case a.IsLinkLocalUnicast():
		return 3
	case a.Is6():
		return 1
	}
	return 0
}
