package problem

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2"

	"github.com/decant-project/decant"
)

// What huma asks of an error model.
var (
	_ huma.StatusError       = (*Problem)(nil)
	_ huma.ContentTypeFilter = (*Problem)(nil)
)

// wire sends err through a response and reads it again.
func wire(t *testing.T, err error) (*http.Response, *decant.Error) {
	t.Helper()
	rec := httptest.NewRecorder()
	Write(rec, err)
	resp := rec.Result()
	got, ok := errors.AsType[*decant.Error](Read(resp))
	if !ok {
		t.Fatalf("Read returned no *decant.Error for %v", err)
	}
	return resp, got
}

func TestEveryCodeSurvives(t *testing.T) {
	for code := range statuses {
		if !code.Known() {
			t.Errorf("%s is not one of the codes", code)
		}
		t.Run(string(code), func(t *testing.T) {
			resp, got := wire(t, decant.Errorf(code, "cannot pour").WithHelp("hold the %s", "glass"))
			if !errors.Is(got, code) || got.Message != "cannot pour" || got.Help != "hold the glass" {
				t.Errorf("got %#v", got)
			}
			if resp.StatusCode != StatusOf(code) || resp.Header.Get("Content-Type") != ContentType {
				t.Errorf("status %d, type %q", resp.StatusCode, resp.Header.Get("Content-Type"))
			}
		})
	}
}

func TestWriteErrors(t *testing.T) {
	help := decant.Errorf(decant.Conflict, "taken").WithHelp("wait")
	tests := []struct {
		name          string
		err           error
		code          decant.Code
		message, help string
	}{
		{"no code", errors.New("disk is on fire"), decant.Internal, "disk is on fire", ""},
		{"one line only", errors.New("first\n\tsecond\x1b[31m"), decant.Internal, "first  second [31m", ""},
		{"bare code", decant.Exhausted, decant.Exhausted, "exhausted", ""},
		{"wrapped help", fmt.Errorf("cannot deploy: %w", help), decant.Conflict, "cannot deploy: taken", "wait"},
		{"deadline", fmt.Errorf("x: %w", context.DeadlineExceeded), decant.Deadline, "x: context deadline exceeded", ""},
		{"cancelled", context.Canceled, decant.Deadline, "context canceled", ""},
		{"a problem again", New(help), decant.Conflict, "taken", "wait"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, got := wire(t, tt.err)
			if got.Code != tt.code || got.Message != tt.message || got.Help != tt.help {
				t.Errorf("got %#v", got)
			}
		})
	}
}

func TestReadForeign(t *testing.T) {
	tests := []struct {
		name    string
		status  int
		media   string
		body    string
		code    decant.Code
		message string
	}{
		{"proxy page", 502, "text/html", "<html>oops", decant.Internal, "the answer was 502 Bad Gateway"},
		{"busy", 503, "text/html", "", decant.Unavailable, "the answer was 503 Service Unavailable"},
		{"no route", 404, "text/plain; charset=utf-8", "404 page not found\n", decant.NotFound, "the answer was 404 Not Found: 404 page not found"},
		{"login page", 302, "text/html", "", decant.Internal, "the answer was 302 Found"},
		{"not json", 400, ContentType, "{", decant.Invalid, "the answer was 400 Bad Request"},
		{"unknown code", 409, ContentType, `{"code":"weird","detail":"d"}`, decant.Conflict, "d"},
		{"other's problem", 403, ContentType, `{"type":"about:blank","detail":"no"}`, decant.Denied, "no"},
		{"status disagrees", 500, ContentType + "; charset=utf-8", `{"code":"corrupt","status":200,"detail":"d\r\ne"}`, decant.Corrupt, "d  e"},
		{"endless", 500, ContentType, `{"detail":"` + strings.Repeat("x", 2*maxBody), decant.Internal, "the answer was 500 Internal Server Error"},
		{"long", 500, ContentType, `{"detail":"` + strings.Repeat("x", 2*maxText) + `"}`, decant.Internal, strings.Repeat("x", maxText-4) + " ..."},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := Read(response(tt.status, tt.media, tt.body))
			if !errors.Is(err, tt.code) || err.Error() != tt.message {
				t.Errorf("got %v: %.200v", decant.CodeOf(err), err)
			}
		})
	}
	if err := Read(response(204, "", "")); err != nil {
		t.Errorf("2xx: %v", err)
	}
	resp := response(500, "text/plain", "no\nmore")
	resp.Request = httptest.NewRequest("GET", "http://user:secret@host/x", nil)
	if err := Read(resp); err.Error() != "GET http://user:xxxxx@host/x: the answer was 500 Internal Server Error: no" {
		t.Errorf("with its request: %v", err)
	}
}

func TestHuma(t *testing.T) {
	tests := []struct {
		name   string
		got    *Problem
		status int
		code   decant.Code
		detail string
	}{
		{"validation", NewHumaError(422, "validation failed", &huma.ErrorDetail{Message: "expected string", Location: "body.name"}), 422, decant.Invalid, "validation failed: expected string (body.name: <nil>)"},
		{"ours", NewHumaError(500, "unexpected error occurred", nil, fmt.Errorf("w: %w", decant.Errorf(decant.NotFound, "gone"))), 404, decant.NotFound, "w: gone"},
		{"unknown", NewHumaError(500, "unexpected error occurred", errors.New("a\nb")), 500, decant.Internal, "unexpected error occurred: a b"},
		{"schema", NewHumaError(0, ""), 0, decant.Internal, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.got.GetStatus() != tt.status || tt.got.Code != tt.code || tt.got.Detail != tt.detail {
				t.Errorf("got %#v", tt.got)
			}
			if !errors.Is(tt.got, tt.code) || decant.CodeOf(tt.got) != tt.code {
				t.Error("the code is not found in it")
			}
		})
	}
}

func FuzzRead(f *testing.F) {
	f.Add(404, ContentType, `{"code":"not_found","detail":"d","help":"h"}`)
	f.Add(502, "text/html", "<html>")
	f.Add(503, "text/plain", "\x1b]0;title\a")
	f.Fuzz(func(t *testing.T, status int, media, body string) {
		err := Read(response(status, media, body))
		if status >= 200 && status <= 299 {
			if err != nil {
				t.Fatal(err)
			}
			return
		}
		e, ok := errors.AsType[*decant.Error](err)
		if !ok || e.Message == "" && media != ContentType {
			t.Fatalf("%#v", err)
		}
		if _, known := statuses[e.Code]; !known {
			t.Fatalf("code %q", e.Code)
		}
		if len(e.Error()) > 2*(maxText+10) || strings.ContainsAny(e.Error(), "\n\r\x1b\x00") {
			t.Fatalf("not a bounded line: %q", e)
		}
		// What was read goes on as it is.
		_, again := wire(t, e)
		if again.Code != e.Code || e.Message != "" && again.Message != e.Message || again.Help != e.Help {
			t.Fatalf("%#v became %#v", e, again)
		}
	})
}

func response(status int, media, body string) *http.Response {
	return &http.Response{
		StatusCode: status,
		Header:     http.Header{"Content-Type": {media}},
		Body:       io.NopCloser(strings.NewReader(body)),
	}
}
