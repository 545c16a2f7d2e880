package codecache

import (
	"encoding/json"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/decant-project/decant"
)

const someDigest = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestParseRecord(t *testing.T) {
	whole := record{Version: "1", Limits: DefaultLimits, Code: &code{Path: filepath.Join("wazero-v1-amd64-linux", someDigest), Size: 1, SHA256: someDigest}}
	failed := record{Version: "1", Failure: decant.Errorf(decant.Invalid, "too large").WithHelp("make it smaller")}
	for _, r := range []record{whole, failed} {
		data, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := parseRecord(data); err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("got %+v, %v; want %+v", got, err, r)
		}
	}
	for _, text := range []string{
		``, `{`, `[]`, `{}`, `{"failure":{"code":"internal"}}`,
		`{"failure":{"code":"invalid"},"code":{"path":"wazero-v1/` + someDigest + `"}}`,
		`{"code":{"path":"wazero-v1/` + someDigest[1:] + `"}}`,
		`{"code":{"path":"wazero-v1/` + strings.ToUpper(someDigest) + `"}}`,
		`{"code":{"path":"wazero-/` + someDigest + `"}}`,
		`{"code":{"path":"wazero-v1/../x/` + someDigest + `"}}`,
		`{"code":{"path":"/wazero-v1/` + someDigest + `"}}`,
		`{"code":{"path":"../wazero-v1/` + someDigest + `"}}`,
		`{"code":{"path":"modules/` + someDigest + `"}}`,
		`{"code":{"path":"` + someDigest + `"}}`,
	} {
		if r, err := parseRecord([]byte(text)); err == nil {
			t.Errorf("%s: got %+v", text, r)
		}
	}
}

// FuzzParseRecord: what is read leads to nothing but a file of code.
func FuzzParseRecord(f *testing.F) {
	f.Add([]byte(`{"version":"1","limits":{"memory":1,"cpu":1},"code":{"path":"wazero-v1/` + someDigest + `","size":1,"sha256":"x"}}`))
	f.Add([]byte(`{"failure":{"code":"invalid","message":"x"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := parseRecord(data)
		if err != nil || r.Code == nil {
			return
		}
		dir, file := filepath.Split(r.Code.Path)
		if !filepath.IsLocal(r.Code.Path) || len(file) != 64 || strings.Count(dir, "/") != 1 || !strings.HasPrefix(dir, codePrefix) {
			t.Errorf("path %q", r.Code.Path)
		}
	})
}

func TestPlainLine(t *testing.T) {
	for text, want := range map[string]string{
		"":                             "",
		"one\ntwo":                     "one",
		"a\x1b[2Jb\tc\u202e\xff":       "a [2Jb c ",
		strings.Repeat("é", 400):       strings.Repeat("é", 250),
		"x" + strings.Repeat("é", 400): "x" + strings.Repeat("é", 249),
	} {
		if got := plainLine(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}
