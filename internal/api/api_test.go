package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"go.uber.org/goleak"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/problem"
	"github.com/decant-project/decant/internal/sse"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type sample struct {
	A int    `json:"a"`
	B *inner `json:"b,omitempty"`
}

type inner struct {
	C string `json:"c"`
}

func TestDecode(t *testing.T) {
	tests := []struct {
		name, in      string
		loose, strict string // what its error must mention; "" is none
	}{
		{"a value", `{"a":1}`, "", ""},
		{"space around it", " \n{\"a\":1}\n\t ", "", ""},
		{"an unknown member", `{"a":1,"x":2}`, "", `"x"`},
		{"an unknown member within", `{"a":1,"b":{"c":"","deep":1}}`, "", `"deep"`},
		{"nothing", "", "EOF|end of", "EOF|end of"},
		{"another type", `{"a":"one"}`, "string", "string"},
		{"not JSON", `{a:1}`, "invalid character", "invalid character"},
		{"cut off", `{"a":1`, "end of", "EOF|end of"},
		{"two values", `{"a":1}{"a":2}`, "after top-level", "more than one"},
		{"two values, spaced", `{"a":1} 2`, "after top-level", "more than one"},
		{"a closing brace more", `{"a":1}}`, "after top-level", "more than one"},
		{"a closing bracket more", `{"a":1}]`, "after top-level", "more than one"},
		{"rubbish after it", `{"a":1} x`, "after top-level", "more than one"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var v sample
			checkDecoded(t, "loose", Decode([]byte(tt.in), &v), tt.loose)
			checkDecoded(t, "strict", DecodeStrict([]byte(tt.in), &v), tt.strict)
		})
	}
}

func checkDecoded(t *testing.T, how string, err error, want string) {
	t.Helper()
	if want == "" {
		if err != nil {
			t.Errorf("%s: %v", how, err)
		}
		return
	}
	if !errors.Is(err, decant.Invalid) {
		t.Errorf("%s: %v, want Invalid", how, err)
		return
	}
	for one := range strings.SplitSeq(want, "|") {
		if strings.Contains(err.Error(), one) {
			return
		}
	}
	t.Errorf("%s: %v does not mention %s", how, err, want)
}

func FuzzDecodeStrict(f *testing.F) {
	f.Add([]byte(`{"application":"a","components":{"c":{"package":"p@^1","needs":{"memory":"64MiB"}}},"links":["c -> c"]}`))
	f.Add([]byte(`{"links":[{"from":"a","to":"b","name":"c"}],"x":1}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		var strict, loose decant.Application
		if err := DecodeStrict(in, &strict); err != nil {
			if !errors.Is(err, decant.Invalid) {
				t.Fatalf("%v is not Invalid", err)
			}
			return
		}
		if err := Decode(in, &loose); err != nil {
			t.Fatalf("only the strict reader takes %q: %v", in, err)
		}
	})
}

func TestQueryInt(t *testing.T) {
	for query, want := range map[string]int{"": 7, "n=": 7, "n=0": 0, "n=50": 50, "n=51": -1, "n=-1": -1, "n=x": -1, "n=1e3": -1, "n=99999999999999999999": -1} {
		got, err := QueryInt(httptest.NewRequest("GET", "/?"+query, nil), "n", 7, 50)
		if want < 0 {
			if !errors.Is(err, decant.Invalid) {
				t.Errorf("%q: %d, %v", query, got, err)
			}
		} else if got != want || err != nil {
			t.Errorf("%q: %d, %v; want %d", query, got, err, want)
		}
	}
}

// eventsOf returns the events of an answer, its error by code.
func eventsOf(t *testing.T, rec *httptest.ResponseRecorder) (got []string) {
	t.Helper()
	err := sse.Read(t.Context(), rec.Body, func(e sse.Event) error {
		if e.Name == "error" {
			var p problem.Problem
			if err := json.Unmarshal(e.Data, &p); err != nil {
				return err
			}
			got = append(got, "error "+string(p.Code))
			return nil
		}
		got = append(got, e.Name+" "+string(e.Data))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestServeEvents(t *testing.T) {
	gone := decant.Errorf(decant.NotFound, "gone")
	tests := []struct {
		name   string
		f      func(context.Context, func(string, any) error) error
		status int
		want   string
	}{
		{"events", func(_ context.Context, send func(string, any) error) error {
			return errors.Join(send("n", 1), send("n", "two\nlines"))
		}, 200, `n 1|n "two\nlines"`},
		{"an error later", func(_ context.Context, send func(string, any) error) error {
			return errors.Join(send("n", 1), gone)
		}, 200, "n 1|error not_found"},
		{"an error at first", func(context.Context, func(string, any) error) error { return gone }, 404, ""},
		{"what is no JSON at first", func(_ context.Context, send func(string, any) error) error { return send("n", func() {}) }, 500, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rec := httptest.NewRecorder()
			ServeEvents(t.Context(), rec, tt.f)
			if rec.Code != tt.status {
				t.Fatalf("status %d: %s", rec.Code, rec.Body)
			}
			wantType := sse.ContentType
			if tt.want == "" {
				wantType = problem.ContentType
			}
			if got := rec.Header().Get("Content-Type"); got != wantType {
				t.Errorf("content type %q, want %q", got, wantType)
			}
			if tt.want == "" {
				return
			}
			if got := strings.Join(eventsOf(t, rec), "|"); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

// leftReader is a client that has gone: nothing can be written to it.
type leftReader struct{ http.ResponseWriter }

func (leftReader) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

// TestServeEventsPings: a quiet stream shows that it lives, and ends when
// nobody reads it any more.
func TestServeEventsPings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec := httptest.NewRecorder()
		ServeEvents(t.Context(), rec, func(_ context.Context, send func(string, any) error) error {
			time.Sleep(2*pingEvery + time.Second) // nothing before the answer has begun
			if rec.Body.Len() > 0 {
				t.Errorf("sent %q before the first event", rec.Body)
			}
			if err := send("n", 1); err != nil {
				return err
			}
			time.Sleep(2 * pingEvery)
			return nil
		})
		if got := rec.Body.String(); got != "event: n\ndata: 1\n\n:\n\n:\n\n" {
			t.Errorf("got %q", got)
		}

		began := time.Now()
		ServeEvents(t.Context(), leftReader{httptest.NewRecorder()}, func(ctx context.Context, send func(string, any) error) error {
			_ = send("n", 1)
			<-ctx.Done()
			return ctx.Err()
		})
		if took := time.Since(began); took > pingEvery {
			t.Errorf("went on for %s with nobody there", took)
		}
	})
}

// TestBodyLimits: no operation takes more than it has said, nor without end
// where it has said nothing.
func TestBodyLimits(t *testing.T) {
	type input struct {
		RawBody []byte `contentType:"application/json"`
	}
	type output struct{ Body int }
	mux := http.NewServeMux()
	a := New(mux, "test", "1")
	sum := func(_ context.Context, in *input) (*output, error) { return &output{len(in.RawBody)}, nil }
	for path, most := range map[string]int64{"/own": 100, "/default": 0} {
		HandleJSON[sample](a, huma.Operation{Method: "POST", Path: path, OperationID: path[1:], MaxBodyBytes: most}, sum)
	}
	tests := []struct {
		path string
		size int
		want int
	}{
		{"/own", 99, 200},
		{"/own", 100, 413}, // huma refuses what reaches the limit
		{"/own", 0, 400},
		{"/default", 1 << 20, 200},
		{"/default", MaxJSON, 413},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%s %d", tt.path, tt.size), func(t *testing.T) {
			rec := httptest.NewRecorder()
			mux.ServeHTTP(rec, httptest.NewRequest("POST", tt.path, strings.NewReader(strings.Repeat(" ", tt.size))))
			if rec.Code != tt.want {
				t.Fatalf("status %d: %s", rec.Code, rec.Body)
			}
			if tt.want == 413 && !errors.Is(problem.Read(rec.Result()), decant.Exhausted) {
				t.Errorf("got %s", rec.Body)
			}
		})
	}
}

// TestErrors: what a handler returns and what huma finds wrong leave alike.
func TestErrors(t *testing.T) {
	type input struct {
		N int `query:"n" maximum:"5"`
	}
	type output struct{ Body int }
	mux := http.NewServeMux()
	a := New(mux, "test", "1")
	Handle(a, huma.Operation{Method: "GET", Path: "/x", OperationID: "x"}, func(_ context.Context, in *input) (*output, error) {
		if in.N == 1 {
			return nil, fmt.Errorf("around: %w", decant.Errorf(decant.Conflict, "taken").WithHelp("try again"))
		}
		return nil, errors.New("plain")
	})
	for query, want := range map[string]struct {
		code decant.Code
		text string
	}{
		"n=1":  {decant.Conflict, "around: taken; try again"},
		"n=2":  {decant.Internal, "plain"},
		"n=99": {decant.Invalid, "query.n"},
		"n=x":  {decant.Invalid, "query.n"},
	} {
		rec := httptest.NewRecorder()
		mux.ServeHTTP(rec, httptest.NewRequest("GET", "/x?"+query, nil))
		if got := rec.Header().Get("Content-Type"); got != problem.ContentType {
			t.Errorf("%s: content type %q", query, got)
		}
		err := problem.Read(rec.Result())
		if !errors.Is(err, want.code) || !strings.Contains(err.Error(), want.text) {
			t.Errorf("%s: %v", query, err)
		}
	}
}
