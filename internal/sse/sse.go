// Package sse reads and writes server-sent events, the text/event-stream of
// the HTML standard: how a client watches over plain HTTP. Events of bounded
// size enter and leave; comments, which keep a connection alive, are skipped.
package sse

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/decant-project/decant"
)

// ContentType is the media type of a stream of events.
const ContentType = "text/event-stream"

// MaxEvent bounds an event, and each line of it, in bytes.
const MaxEvent = 16 << 20

// Silence is how long a stream that lives may be without a byte: who writes one
// pings each third of it.
const Silence = 30 * time.Second

// Alive returns body as one that calls cancel when no byte comes for Silence;
// that ends the request that body answers. Closing it calls cancel too.
func Alive(body io.ReadCloser, cancel context.CancelFunc) io.ReadCloser {
	return &watched{body: body, cancel: cancel, timer: time.AfterFunc(Silence, cancel)}
}

type watched struct {
	body   io.ReadCloser
	cancel context.CancelFunc
	timer  *time.Timer
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.body.Read(p)
	if n > 0 {
		w.timer.Reset(Silence)
	}
	return n, err
}

func (w *watched) Close() error {
	w.timer.Stop()
	w.cancel()
	return w.body.Close()
}

// Event is one event of a stream.
type Event struct {
	Name  string        // "message" where the sender gave none
	ID    string        // the last one the sender gave, with this event or before
	Data  []byte        // lines joined by \n; the receiver's own
	Retry time.Duration // how long to wait before connecting again, as last said; 0: never said
}

// Read calls f for each event of r, in order, until r ends (nil), ctx ends or
// f fails (that error), or r fails. More than MaxEvent bytes in an event is
// Exhausted. Where r is an io.Closer, it is closed when ctx ends.
func Read(ctx context.Context, r io.Reader, f func(Event) error) error {
	if c, ok := r.(io.Closer); ok {
		stop := context.AfterFunc(ctx, func() { _ = c.Close() })
		defer stop()
	}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, MaxEvent)
	lines.Split(splitter())

	var p parser
	for first := true; lines.Scan(); first = false {
		line := lines.Bytes()
		if first {
			line = bytes.TrimPrefix(line, []byte("\ufeff"))
		}
		event, err := p.line(line)
		if err != nil {
			return err
		}
		if event == nil {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := f(*event); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		return errTooLarge()
	}
	return lines.Err()
}

func errTooLarge() error {
	return decant.Errorf(decant.Exhausted, "an event is larger than %s", decant.Bytes(MaxEvent))
}

// splitter returns a SplitFunc for lines that end in \n, \r or \r\n. A line
// that ends in \r is handed out at once: the \n may be long in coming, and is
// skipped when it does. A last line without an end is dropped.
func splitter() bufio.SplitFunc {
	afterCR := false
	return func(data []byte, _ bool) (int, []byte, error) {
		skip := 0
		if afterCR && len(data) > 0 {
			afterCR = false
			if data[0] == '\n' {
				skip = 1
			}
		}
		i := bytes.IndexAny(data[skip:], "\r\n")
		if i < 0 {
			return skip, nil, nil
		}
		end := skip + i
		afterCR = data[end] == '\r'
		return end + 1, data[skip:end:end], nil
	}
}

// parser gathers lines into events.
type parser struct {
	name  string
	id    string
	data  []byte // nil: none yet
	retry time.Duration
}

// line takes a line, and returns the event where the line ends one.
func (p *parser) line(line []byte) (*Event, error) {
	if len(line) == 0 {
		return p.dispatch(), nil
	}
	field, value, _ := bytes.Cut(line, []byte(":"))
	value = bytes.TrimPrefix(value, []byte(" "))
	switch string(field) {
	case "event":
		p.name = string(value)
	case "data":
		if len(p.data)+len(value)+1 > MaxEvent {
			return nil, errTooLarge()
		}
		if p.data == nil {
			p.data = []byte{}
		} else {
			p.data = append(p.data, '\n')
		}
		p.data = append(p.data, value...)
	case "id":
		if bytes.IndexByte(value, 0) < 0 {
			p.id = string(value)
		}
	case "retry":
		if ms, err := strconv.ParseUint(string(value), 10, 31); err == nil {
			p.retry = time.Duration(ms) * time.Millisecond
		}
	}
	return nil, nil
}

// dispatch ends an event. One without data is none.
func (p *parser) dispatch() *Event {
	var event *Event
	if p.data != nil {
		event = &Event{Name: p.name, ID: p.id, Data: p.data, Retry: p.retry}
		if p.name == "" {
			event.Name = "message"
		}
	}
	p.name, p.data = "", nil
	return event
}

// writeTimeout is how long a reader may leave the stream unread.
const writeTimeout = 30 * time.Second

// Writer writes a stream of events as the answer to a request. Its methods
// are not for concurrent use.
type Writer struct {
	w    http.ResponseWriter
	ctrl *http.ResponseController
}

// NewWriter answers a request with a stream of events. The status is sent with
// the first event or ping.
func NewWriter(w http.ResponseWriter) *Writer {
	h := w.Header()
	h.Set("Content-Type", ContentType)
	h.Set("Cache-Control", "no-store")
	return &Writer{w: w, ctrl: http.NewResponseController(w)}
}

// Send writes an event, and has left it with the network when it returns.
// event and id may be "". Invalid: event or id cannot be sent, or data is more
// than MaxEvent. Any other error says that the reader has gone.
func (w *Writer) Send(event, id string, data []byte) error {
	if strings.ContainsAny(event+id, "\r\n\x00") {
		return decant.Errorf(decant.Invalid, "event %q with id %q: must be one line", event, id)
	}
	if len(data) >= MaxEvent-len("data: ") {
		return decant.Errorf(decant.Invalid, "an event of %d bytes is larger than %s", len(data), decant.Bytes(MaxEvent))
	}
	var b bytes.Buffer
	b.Grow(len(data) + len(event) + len(id) + 32)
	if event != "" {
		fmt.Fprintf(&b, "event: %s\n", event)
	}
	if id != "" {
		fmt.Fprintf(&b, "id: %s\n", id)
	}
	for more := true; more; {
		end := bytes.IndexAny(data, "\r\n")
		line := data
		if more = end >= 0; more {
			line = data[:end]
			data = bytes.TrimPrefix(data[end:], []byte("\r"))
			data = bytes.TrimPrefix(data, []byte("\n"))
		}
		b.WriteString("data: ")
		b.Write(line)
		b.WriteByte('\n')
	}
	b.WriteByte('\n')
	return w.write(b.Bytes())
}

// Ping writes a comment, so that both ends learn of a dead connection.
func (w *Writer) Ping() error { return w.write([]byte(":\n\n")) }

func (w *Writer) write(b []byte) error {
	// A deadline would outlive the answer on a connection that is kept, hence
	// the second call. Writers that have none (tests) do without.
	if err := w.ctrl.SetWriteDeadline(time.Now().Add(writeTimeout)); err == nil {
		defer func() { _ = w.ctrl.SetWriteDeadline(time.Time{}) }()
	}
	if _, err := w.w.Write(b); err != nil {
		return err
	}
	return w.ctrl.Flush()
}
