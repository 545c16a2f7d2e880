package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
)

// TestTokenFor: the token of the data folder goes to no other machine.
func TestTokenFor(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, tokenName), []byte("local\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ endpoint, token string }{
		{"http://127.0.0.1:7440", "local"},
		{"http://127.8.9.1:7440/", "local"},
		{"http://[::1]:7440", "local"},
		{"http://localhost:7440", "local"},
		{"http://10.0.0.1:7440", ""},
		{"http://orchestrator:7440", ""},
		{"http://localhost.example.com", ""},
		{"http://127.0.0.1:7440@example.com", ""},
		{"http://127.0.0.1.example.com", ""},
		{"https://127.0.0.1:7440", ""},
		{"http://%", ""},
		{"site/decant.sock", ""},
	} {
		t.Setenv("DECANT_TOKEN", "")
		if got := tokenFor(tt.endpoint, dir); got != tt.token {
			t.Errorf("%s is given %q, want %q", tt.endpoint, got, tt.token)
		}
		t.Setenv("DECANT_TOKEN", "named")
		if got := tokenFor(tt.endpoint, dir); got != "named" {
			t.Errorf("%s is given %q, not the token that was named", tt.endpoint, got)
		}
	}
	t.Setenv("DECANT_TOKEN", "")
	if got := tokenFor("http://127.0.0.1:7440", t.TempDir()); got != "" {
		t.Errorf("without a data folder it is %q", got)
	}
}

// TestTokenSent: what a command sends is that token.
func TestTokenSent(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, tokenName), []byte("local"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("DECANT_TOKEN", "")
	var sent string
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { sent = r.Header.Get("Authorization") }))
	defer server.Close()
	if run(t.Context(), []string{"device", "rm", "board", "--dir", dir, "--orchestrator", server.URL}) != exitOK || sent != "Bearer local" {
		t.Errorf("sent %q", sent)
	}
}
