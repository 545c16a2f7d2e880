package sse

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/decant-project/decant"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func all(r io.Reader) ([]Event, error) {
	var got []Event
	err := Read(context.Background(), r, func(e Event) error {
		got = append(got, e)
		return nil
	})
	return got, err
}

func TestRead(t *testing.T) {
	message := func(data string) Event { return Event{Name: "message", Data: []byte(data)} }
	tests := []struct {
		name, in string
		want     []Event
	}{
		{"nothing", "", nil},
		{"one", "data: a\n\n", []Event{message("a")}},
		{"fields", "event: e\nid: 7\nretry: 1500\ndata: a\n\n", []Event{{Name: "e", ID: "7", Data: []byte("a"), Retry: 1500 * time.Millisecond}}},
		{"id stays, name does not", "event: e\nid: 7\ndata: a\n\ndata: b\n\n", []Event{{Name: "e", ID: "7", Data: []byte("a")}, {Name: "message", ID: "7", Data: []byte("b")}}},
		{"id taken back", "id: 7\nid\ndata: a\n\n", []Event{message("a")}},
		{"id with NUL", "id: 7\x00\ndata: a\n\n", []Event{message("a")}},
		{"bad retry", "retry: -5\nretry: x\nretry: 99999999999\ndata: a\n\n", []Event{message("a")}},
		{"lines", "data: a\ndata\ndata:  b\n\n", []Event{message("a\n\n b")}},
		{"empty data", "data\n\n", []Event{message("")}},
		{"comments and unknown fields", ":\n\n: ping\nwhat: x\ndata: a\n\n", []Event{message("a")}},
		{"no data", "event: e\n\ndata: a\n\n", []Event{message("a")}},
		{"cut off", "data: a\n\ndata: b\n", []Event{message("a")}},
		{"cut off midway", "data: a\n\ndata: b", []Event{message("a")}},
		{"all line ends", "data: a\r\rdata: b\r\n\r\ndata: c\n\n", []Event{message("a"), message("b"), message("c")}},
		{"byte order mark", "\ufeffdata: a\n\n", []Event{message("a")}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, r := range []io.Reader{strings.NewReader(tt.in), iotest.OneByteReader(strings.NewReader(tt.in))} {
				got, err := all(r)
				if err != nil || !reflect.DeepEqual(got, tt.want) {
					t.Errorf("got %+v, %v", got, err)
				}
			}
		})
	}
}

// A lone \r ends a line at once: nothing waits for what may follow it.
func TestReadDoesNotWait(t *testing.T) {
	r, w := io.Pipe()
	defer w.Close()
	go func() { _, _ = w.Write([]byte("data: a\r\r")) }()
	seen := errors.New("seen")
	if err := Read(t.Context(), r, func(Event) error { return seen }); !errors.Is(err, seen) {
		t.Error(err)
	}
}

func TestReadBounds(t *testing.T) {
	long := "data: " + strings.Repeat("x", MaxEvent/2) + "\n"
	for name, in := range map[string]string{"line": strings.Repeat("x", MaxEvent+1), "event": long + long + "\n"} {
		if _, err := all(strings.NewReader(in)); !errors.Is(err, decant.Exhausted) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestReadEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	defer w.Close()
	cancel() // closes r, which would never end
	if err := Read(ctx, r, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	broken := errors.New("broken")
	if _, err := all(iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("reader fails: %v", err)
	}
}

func TestOverHTTP(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		events := NewWriter(w)
		for _, send := range []error{events.Ping(), events.Send("change", "1", []byte(`{"a":1}`)), events.Send("", "", []byte("x\ny"))} {
			if send != nil {
				t.Error(send)
			}
		}
	}))
	defer srv.Close()
	defer http.DefaultClient.CloseIdleConnections()
	resp, err := http.Get(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := all(resp.Body)
	want := []Event{{Name: "change", ID: "1", Data: []byte(`{"a":1}`)}, {Name: "message", ID: "1", Data: []byte("x\ny")}}
	if err != nil || !reflect.DeepEqual(got, want) || resp.Header.Get("Content-Type") != ContentType {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestSendRefuses(t *testing.T) {
	w := NewWriter(httptest.NewRecorder())
	for _, err := range []error{w.Send("a\nb", "", nil), w.Send("", "1\r", nil), w.Send("", "\x00", nil), w.Send("", "", make([]byte, MaxEvent))} {
		if !errors.Is(err, decant.Invalid) {
			t.Error(err)
		}
	}
}

// What is sent is what is read, but for the ends of its lines.
func TestSendThenRead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		data := rapid.StringMatching(`[a: \r\n\x00é{}]*`).Draw(t, "data")
		name := rapid.StringMatching(`[a-z: ]*`).Draw(t, "name")
		rec := httptest.NewRecorder()
		if err := NewWriter(rec).Send(name, "", []byte(data)); err != nil {
			t.Fatal(err)
		}
		got, err := all(rec.Body)
		if err != nil || len(got) != 1 {
			t.Fatalf("%v, %v", got, err)
		}
		if want := strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(data); string(got[0].Data) != want {
			t.Fatalf("got %q, want %q", got[0].Data, want)
		}
		if name == "" {
			name = "message"
		}
		if got[0].Name != name {
			t.Fatalf("got name %q, want %q", got[0].Name, name)
		}
	})
}

func FuzzRead(f *testing.F) {
	f.Add([]byte("event: e\nid: 7\nretry: 1\ndata: a\r\ndata: b\r\r:\n\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		whole, err := all(bytes.NewReader(in))
		if err != nil {
			t.Fatal(err)
		}
		bytewise, _ := all(iotest.OneByteReader(bytes.NewReader(in)))
		if !reflect.DeepEqual(whole, bytewise) {
			t.Fatalf("depends on how it arrives: %+v, %+v", whole, bytewise)
		}
	})
}
