package supervisor

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"regexp"
)

type spanKey struct{}

var traceParent = regexp.MustCompile(`^00-([0-9a-f]{32})-[0-9a-f]{16}-([0-9a-f]{2})$`)

// withSpan keeps in ctx which trace a call belongs to, for the links it takes: a
// new one where its caller named none.
func withSpan(ctx context.Context, parent string) context.Context {
	if !traceParent.MatchString(parent) {
		parent = childSpan("")
	}
	return context.WithValue(ctx, spanKey{}, parent)
}

func spanOf(ctx context.Context) string {
	parent, _ := ctx.Value(spanKey{}).(string)
	return parent
}

// childSpan returns the W3C traceparent of a call made within parent, or of a
// new trace where there is none.
func childSpan(parent string) string {
	var id [24]byte
	rand.Read(id[:]) // never fails
	trace, flags := hex.EncodeToString(id[:16]), "01"
	if m := traceParent.FindStringSubmatch(parent); m != nil {
		trace, flags = m[1], m[2]
	}
	return "00-" + trace + "-" + hex.EncodeToString(id[16:]) + "-" + flags
}
