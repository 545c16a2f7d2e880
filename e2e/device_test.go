package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/decant-project/decant"
)

// TestDeviceAlone asks a device by REST, as its own user may without a site:
// what it is, to take a model, to infer.
func TestDeviceAlone(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.configure("board", "labels: {site: hall}\nperipherals:\n  - {name: probe, type: thermometer, driver: simulated}\n")
	board := s.restart("board")
	ask := local(s, "board")
	s.must(s.Until(s.ctx, board, "the device answers", func(context.Context) (bool, error) {
		_, status := ask("GET", "/v1/device", "", nil)
		return status == http.StatusOK, nil
	}))
	var info decant.DeviceInfo
	body, _ := ask("GET", "/v1/device", "", nil)
	s.must(json.Unmarshal(body, &info))
	if c := info.Capabilities; info.Name != "board" || c.Cores < 1 || c.Memory < decant.MiB || c.Arch == "" || c.Engine == "" || c.Peripherals[0].Type != "thermometer" {
		t.Errorf("the device says of itself %s", body)
	}
	if len(info.Capabilities.Inference) == 0 {
		missing(t, "ONNX Runtime: run `make fetch-ort`")
	}

	model, err := os.ReadFile("../examples/speech/models/silero-vad/silero_vad_v5.onnx")
	if err != nil {
		missing(t, "the speech model: run `make fetch-speech`")
	}
	digest := string(decant.DigestOf(model))
	for _, c := range []struct {
		what   string
		body   []byte
		digest string
		status int
	}{
		{"bytes that are no model", []byte("no model"), "", http.StatusBadRequest},
		{"another digest", model, string(decant.DigestOf([]byte("x"))), http.StatusUnprocessableEntity},
		{"the model", model, digest, http.StatusOK},
	} {
		if answer, status := ask("PUT", "/v1/models/vad?digest="+c.digest, "application/octet-stream", c.body); status != c.status {
			t.Errorf("put %s: %d %s", c.what, status, answer)
		}
	}
	silence := `{"inputs": [
		{"name": "input", "shape": [1, 576], "data": [` + strings.Repeat("0,", 575) + `0]},
		{"name": "state", "shape": [2, 1, 128], "data": [` + strings.Repeat("0,", 255) + `0]},
		{"name": "sr", "shape": [], "data": [16000]}]}`
	answer, status := ask("POST", "/v1/models/vad/infer", "application/json", []byte(silence))
	var out struct {
		Outputs []struct {
			Name  string
			Shape []int
			Data  []float64
		}
	}
	if status != http.StatusOK || json.Unmarshal(answer, &out) != nil || len(out.Outputs) != 2 || out.Outputs[0].Data[0] > .1 {
		t.Errorf("inference on silence: %d %.300s", status, answer)
	}
	if list, _ := ask("GET", "/v1/models", "", nil); !strings.Contains(string(list), digest) {
		t.Errorf("the models are %s", list)
	}
	if _, status := ask("DELETE", "/v1/models/vad", "", nil); status != http.StatusNoContent {
		t.Errorf("deleting the model: %d", status)
	}
	if answer, status := ask("POST", "/v1/models/vad/infer", "application/json", []byte(silence)); status != http.StatusNotFound {
		t.Errorf("a deleted model: %d %s", status, answer)
	}
}

// local returns what asks a device by its own user's socket.
func local(s *site, name string) func(method, path, contentType string, body []byte) ([]byte, int) {
	socket := filepath.Join(s.Dir, name, "data", "device.sock")
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}}
	return func(method, path, contentType string, body []byte) ([]byte, int) {
		s.t.Helper()
		req, err := http.NewRequestWithContext(s.ctx, method, "http://device"+path, bytes.NewReader(body))
		s.must(err)
		req.Header.Set("Content-Type", contentType)
		resp, err := client.Do(req)
		if err != nil {
			return []byte(err.Error()), 0
		}
		defer resp.Body.Close()
		answer, err := io.ReadAll(resp.Body)
		s.must(err)
		return answer, resp.StatusCode
	}
}
