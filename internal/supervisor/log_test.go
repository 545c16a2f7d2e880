package supervisor

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func newTestLog(t *testing.T) *logFile {
	l := newLogFile(filepath.Join(t.TempDir(), "app", "a.log"))
	l.now = func() time.Time { return time.Unix(0, 0) }
	t.Cleanup(l.Close)
	return l
}

const stamp = "1970-01-01T00:00:00.000Z "

func TestLogLines(t *testing.T) {
	l := newTestLog(t)
	for _, s := range []string{"one\ntw", "o\n", "\n", strings.Repeat("x", maxLogLine+3) + "\n", "open"} {
		if n, err := io.WriteString(l, s); n != len(s) || err != nil {
			t.Fatal(n, err)
		}
	}
	l.Remark("two\nlines")
	l.Close()
	var b bytes.Buffer
	must(t, l.CopyTo(t.Context(), &b, 100, false))
	want := stamp + "one\n" + stamp + "two\n" + stamp + "\n" + stamp + strings.Repeat("x", maxLogLine) + "\n" +
		stamp + "xxx\n" + stamp + "decant: two lines\n" + stamp + "open\n"
	if b.String() != want {
		t.Errorf("log:\n%s", b.String())
	}
	b.Reset()
	must(t, l.CopyTo(t.Context(), &b, 1, false))
	if b.String() != stamp+"open\n" {
		t.Errorf("newest line: %q", b.String())
	}
}

func TestLogIsBoundedAndKeepsTheNewest(t *testing.T) {
	l := newTestLog(t)
	line := strings.Repeat("y", 1000)
	for range 4000 {
		_, _ = io.WriteString(l, line+"\n")
	}
	_, _ = io.WriteString(l, "newest\n")
	for _, path := range []string{l.path, l.path + ".1"} {
		st, err := os.Stat(path)
		must(t, err)
		if st.Size() > maxLogFile || path != l.path && st.Size() < maxLogFile/2 {
			t.Errorf("%s has %d bytes", path, st.Size())
		}
	}
	var b bytes.Buffer
	must(t, l.CopyTo(t.Context(), &b, 1500, false))
	if n := strings.Count(b.String(), "\n"); n != 1500 || !strings.HasSuffix(b.String(), "newest\n") {
		t.Errorf("%d lines of both files, the last %q", n, b.String()[b.Len()-10:])
	}
}

func TestLogFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTestLog(t)
		l.Remark("before")
		ctx, cancel := context.WithCancel(t.Context())
		r, w := io.Pipe()
		followed := make(chan error)
		go func() {
			followed <- l.CopyTo(ctx, w, 10, true)
			w.Close()
		}()
		var got strings.Builder
		read := make(chan struct{})
		go func() {
			_, _ = io.Copy(&got, r)
			close(read)
		}()
		synctest.Wait()
		l.Remark("after")
		synctest.Wait()
		cancel()
		must(t, <-followed)
		<-read
		if want := stamp + "decant: before\n" + stamp + "decant: after\n"; got.String() != want {
			t.Errorf("followed %q", got.String())
		}
		l.Remark("nobody listens")
	})
}
