package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestToken: the users' API on the network is for those who have the token;
// its description is for everybody.
func TestToken(t *testing.T) {
	answer := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	h := requireToken("secret", answer)
	for _, tt := range []struct {
		path, authorization string
		status              int
	}{
		{"/v1/devices", "Bearer secret", http.StatusNoContent},
		{"/v1/devices", "", http.StatusForbidden},
		{"/v1/devices", "Bearer ", http.StatusForbidden},
		{"/v1/devices", "Bearer secrets", http.StatusForbidden},
		{"/openapi.json", "", http.StatusNoContent},
	} {
		r := httptest.NewRequest(http.MethodGet, tt.path, nil)
		if tt.authorization != "" {
			r.Header.Set("Authorization", tt.authorization)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != tt.status {
			t.Errorf("%s with %q gave %d, want %d", tt.path, tt.authorization, w.Code, tt.status)
		}
		if w.Code == http.StatusForbidden && !strings.Contains(w.Body.String(), "in the file token of the data folder") {
			t.Errorf("%s does not say where the token is: %s", tt.path, w.Body)
		}
	}
}
