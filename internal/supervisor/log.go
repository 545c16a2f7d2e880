package supervisor

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/decant-project/decant"
)

// Bounds of an instance's log: two files of maxLogFile, lines of maxLogLine.
const (
	maxLogFile = 1 << 20
	maxLogLine = 4 << 10
	// logBacklog is how many lines a follower may be behind before it misses some.
	logBacklog = 256
)

// logFile is the log of one instance: what its module writes to standard error
// and what the supervisor remarks on it, each line after its time. The file is
// renamed to <path>.1 when it is full. Failing to log never fails a call: what
// cannot be written is lost.
type logFile struct {
	path string

	mu        sync.Mutex // guards all below
	file      *os.File   // nil until the first line
	size      int
	partial   []byte // a line without its end, shorter than maxLogLine
	followers map[chan []byte]struct{}
	now       func() time.Time
}

func newLogFile(path string) *logFile {
	return &logFile{path: path, followers: map[chan []byte]struct{}{}, now: time.Now}
}

// Write takes a module's standard error. It never fails.
func (l *logFile) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(p)
	for len(p) > 0 {
		line, rest, ended := bytes.Cut(p, []byte("\n"))
		if room := maxLogLine - len(l.partial); len(line) > room {
			line, rest, ended = p[:room], p[room:], true
		}
		l.partial = append(l.partial, line...)
		if ended {
			l.writeLine(l.partial)
			l.partial = l.partial[:0]
		}
		p = rest
	}
	return n, nil
}

// Remark adds a line of the supervisor's own.
func (l *logFile) Remark(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	line := fmt.Appendf(nil, "decant: "+format, args...)
	line = bytes.ReplaceAll(line, []byte("\n"), []byte(" "))
	l.writeLine(line[:min(len(line), maxLogLine)])
}

func (l *logFile) writeLine(text []byte) {
	line := l.now().UTC().AppendFormat(nil, "2006-01-02T15:04:05.000Z ")
	line = append(append(line, text...), '\n')
	for f := range l.followers {
		select {
		case f <- line:
		default: // too slow: it misses the line
		}
	}
	if !l.open(len(line)) {
		return
	}
	n, _ := l.file.Write(line)
	l.size += n
}

// open makes room for n more bytes, and reports whether there is some.
func (l *logFile) open(n int) bool {
	if l.file == nil {
		_ = os.MkdirAll(filepath.Dir(l.path), 0o700)
		l.openFile(0)
	}
	if l.file != nil && l.size+n > maxLogFile {
		l.file.Close()
		_ = os.Rename(l.path, l.path+".1")
		l.openFile(os.O_TRUNC) // where renaming failed, the old lines go
	}
	return l.file != nil
}

func (l *logFile) openFile(flags int) {
	l.file, l.size = nil, 0
	f, err := os.OpenFile(l.path, flags|os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return
	}
	if st, err := f.Stat(); err == nil {
		l.size = int(st.Size())
	}
	l.file = f
}

// CopyTo writes the newest lines, at most last of them, to w and, if follow is
// set, each new one until ctx ends. A follower too slow for the log misses
// lines.
func (l *logFile) CopyTo(ctx context.Context, w io.Writer, last int, follow bool) error {
	l.mu.Lock()
	tail := l.tail(last)
	lines := make(chan []byte, logBacklog)
	if follow {
		l.followers[lines] = struct{}{}
	}
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.followers, lines)
	}()
	if _, err := w.Write(tail); err != nil || !follow {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case line := <-lines:
			if _, err := w.Write(line); err != nil {
				return err
			}
		}
	}
}

// tail returns the newest lines of both files, at most last.
func (l *logFile) tail(last int) []byte {
	var lines [][]byte
	for _, path := range []string{l.path + ".1", l.path} {
		f, err := os.Open(path)
		if err != nil {
			continue
		}
		r := bufio.NewReader(io.LimitReader(f, 2*maxLogFile))
		for {
			line, err := r.ReadBytes('\n')
			if err != nil {
				break // a line cut off by a crash is left out
			}
			lines = append(lines, line)
		}
		f.Close()
	}
	return bytes.Join(lines[max(0, len(lines)-last):], nil)
}

func (l *logFile) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.partial) > 0 {
		l.writeLine(l.partial)
		l.partial = nil
	}
	if l.file != nil {
		l.file.Close()
		l.file = nil
	}
}

// Log writes the newest lines of an instance's log to w, at most newest of them,
// and each new one until ctx ends if follow is set.
func (s *Supervisor) Log(ctx context.Context, app, component string, newest int, follow bool, w io.Writer) error {
	in := s.instance(app + "/" + component)
	if in == nil {
		return decant.Errorf(decant.NotFound, "%s/%s does not run on %s", app, component, s.config.Name)
	}
	return in.log.CopyTo(ctx, w, newest, follow)
}
