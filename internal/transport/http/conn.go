package httptransport

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/problem"
	"github.com/decant-project/decant/internal/transport"
)

// Pattern is where Handler is to be mounted on an http.ServeMux.
const Pattern = "POST /v1/apps/{app}/{component}/{function}"

// defaultFunction stands in the path for the component's own choice.
const defaultFunction = "-"

// Headers of a call, beside Content-Type.
const (
	headerTrace   = "Traceparent"    // W3C trace context
	headerEpoch   = "Decant-Epoch"   // lowest epoch that may answer
	headerTimeout = "Decant-Timeout" // how long the caller still waits, in milliseconds
)

const (
	bufferSize = 16 << 10 // a TLS record
	maxHeader  = 64 << 10 // bytes of an answer's header
	maxInterim = 8        // answers of status 1xx before the real one
)

// The far side has not executed the request: it cannot have all of it, or has
// broken TLS off before it read any.
var (
	errNotSent = errors.New("not sent")
	errRefused = errors.New("refused")
)

// conn is a connection to a device. One call at a time uses it.
type conn struct {
	tls    *tls.Conn
	born   time.Time
	raw    syscall.RawConn
	w      *bufio.Writer
	limit  *io.LimitedReader // under r: what may still be read
	r      *bufio.Reader
	clean  bool        // its last call ended well: it can be used again
	expire *time.Timer // running while it is idle; nil before the first time
}

func newConn(c *tls.Conn, raw syscall.RawConn) *conn {
	limit := &io.LimitedReader{R: c}
	return &conn{
		tls: c, born: time.Now(), raw: raw, limit: limit,
		w: bufio.NewWriterSize(c, bufferSize),
		r: bufio.NewReaderSize(limit, bufferSize),
	}
}

// close closes the connection at once: TLS's goodbye would be one more write
// that can block, and each body's length is known without it.
func (c *conn) close() { _ = c.tls.NetConn().Close() }

// call sends req and returns the answer. Its errors are the handler's,
// Exhausted for an answer that is too large, errNotSent, errRefused, or what
// broke the connection after the request was sent.
func (c *conn) call(ctx context.Context, req *http.Request) (*transport.Response, error) {
	c.clean = false
	stop := context.AfterFunc(ctx, func() { _ = c.tls.SetDeadline(time.Unix(1, 0)) })
	resp, clean, err := c.exchange(req)
	c.clean = stop() && clean
	return resp, err
}

func (c *conn) exchange(req *http.Request) (_ *transport.Response, clean bool, _ error) {
	err := req.Write(c.w)
	if err == nil {
		err = c.w.Flush()
	}
	if err != nil {
		return nil, false, fmt.Errorf("%w: %w", errNotSent, err)
	}
	answer, err := c.readHeader(req) //nolint:bodyclose // the caller reads it to its end
	switch {
	case err != nil && c.isNew() && isAlert(err):
		return nil, false, fmt.Errorf("%w: %w", errRefused, err)
	case err != nil:
		return nil, false, err
	}
	// The body is never closed: that would read all of it. It is read here as
	// far as wanted, and the connection closed where something is left.
	if err := problem.Read(answer); err != nil {
		return nil, c.done(answer), err
	}
	body, err := readBody(answer.Body, answer.ContentLength)
	switch {
	case errors.Is(err, errTooLarge):
		return nil, false, decant.Errorf(decant.Exhausted, "response: %w", err)
	case err != nil:
		return nil, false, err
	}
	return &transport.Response{ContentType: answer.Header.Get("Content-Type"), Body: body}, c.done(answer), nil
}

func (c *conn) readHeader(req *http.Request) (*http.Response, error) {
	for range maxInterim {
		c.limit.N = maxHeader
		answer, err := http.ReadResponse(c.r, req)
		if err != nil {
			return nil, err
		}
		if answer.StatusCode >= 200 {
			c.limit.N = math.MaxInt64
			return answer, nil
		}
	}
	return nil, errors.New("no end of interim answers")
}

// done reports whether answer was read to its end, and another may follow.
func (c *conn) done(answer *http.Response) bool {
	if answer.Close {
		return false
	}
	_, err := io.ReadFull(answer.Body, make([]byte, 1))
	return err == io.EOF && c.r.Buffered() == 0
}

// isNew reports whether no call has ended on c yet.
func (c *conn) isNew() bool { return c.expire == nil }

// isAlert reports whether the peer broke TLS off. In TLS 1.3 it refuses our
// certificate after our side of the handshake is done, when a request may be on
// its way already.
func isAlert(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "remote error"
}

func newRequest(ctx context.Context, device string, req *transport.Request) (*http.Request, error) {
	function := req.Function
	switch function {
	case "":
		function = defaultFunction
	case defaultFunction:
		return nil, decant.Errorf(decant.Invalid, "function %q cannot be called over HTTP: its name stands for the default one", function)
	}
	// A dot is escaped lest ".." be taken for a way up.
	u := "https://" + device + "/v1/apps/" + url.PathEscape(req.Application) + "/" + url.PathEscape(req.Component) + "/" +
		strings.ReplaceAll(url.PathEscape(function), ".", "%2E")
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, u, bytes.NewReader(req.Body))
	if err != nil {
		return nil, decant.Errorf(decant.Invalid, "cannot call device %q: %w", device, err)
	}
	set := func(header, value string) {
		if value != "" {
			r.Header[header] = []string{value}
		}
	}
	set("Content-Type", req.ContentType)
	set(headerTrace, req.TraceParent)
	if req.Epoch != 0 {
		set(headerEpoch, strconv.FormatInt(req.Epoch, 10))
	}
	if deadline, ok := ctx.Deadline(); ok {
		wait := min(max(time.Until(deadline).Milliseconds(), 1), math.MaxUint32)
		set(headerTimeout, strconv.FormatInt(wait, 10))
	}
	return r, nil
}

var errTooLarge = errors.New("larger than " + decant.Bytes(transport.MaxBody).String())

// readBody reads a body of length bytes, -1 where that is not known. What is
// promised but not sent takes no more than a mebibyte of memory.
func readBody(r io.Reader, length int64) ([]byte, error) {
	if length > transport.MaxBody {
		return nil, errTooLarge
	}
	if length >= 0 && length <= 1<<20 {
		body := make([]byte, length)
		_, err := io.ReadFull(r, body)
		return body, err
	}
	var body bytes.Buffer
	_, err := body.ReadFrom(io.LimitReader(r, transport.MaxBody+1))
	if body.Len() > transport.MaxBody {
		return nil, errTooLarge
	}
	return body.Bytes(), err
}
