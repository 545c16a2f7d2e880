package device

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/problem"
)

// thingOf returns the description that f gives a client that is nobody.
func thingOf(t *testing.T, f *fakeDevice) map[string]any {
	t.Helper()
	r := as("", httptest.NewRequest("GET", "/.well-known/wot", nil))
	r.Host = "board.local:7444"
	rec := httptest.NewRecorder()
	f.handler().ServeHTTP(rec, r)
	if rec.Code != 200 || rec.Header().Get("Content-Type") != "application/td+json" {
		t.Fatalf("status %d, %s", rec.Code, rec.Header())
	}
	var td map[string]any
	if err := json.Unmarshal(rec.Body.Bytes(), &td); err != nil {
		t.Fatal(err)
	}
	return td
}

// TestThingIsValid holds the descriptions to the W3C's own schema.
func TestThingIsValid(t *testing.T) {
	check := thingSchema(t)
	for name, f := range map[string]*fakeDevice{
		"bare": {info: decant.DeviceInfo{ID: "d1", Name: "bare"}},
		"busy": {info: decant.DeviceInfo{ID: "d1", Name: "busy", Version: "1.2.3"}, functions: []Function{
			{Application: "a", Component: "b", Name: "plain"},
			{Application: "a", Component: "b", Name: "typed", Types: decant.Function{In: "audio/L16", Out: "application/json"}},
		}},
	} {
		for _, problem := range check.validate(thingOf(t, f)) {
			t.Errorf("%s: %s", name, problem)
		}
	}
}

// TestSchemaJudges: the validator of this test sees what is wrong with a
// description.
func TestSchemaJudges(t *testing.T) {
	check := thingSchema(t)
	action := func(td map[string]any) map[string]any {
		return td["actions"].(map[string]any)["a.b.f"].(map[string]any)
	}
	form := func(td map[string]any) map[string]any { return action(td)["forms"].([]any)[0].(map[string]any) }
	for name, spoil := range map[string]func(map[string]any){
		"no title":                func(td map[string]any) { delete(td, "title") },
		"no security":             func(td map[string]any) { delete(td, "security") },
		"no security definitions": func(td map[string]any) { td["securityDefinitions"] = map[string]any{} },
		"no context":              func(td map[string]any) { delete(td, "@context") },
		"another context":         func(td map[string]any) { td["@context"] = "https://example.org" },
		"another security scheme": func(td map[string]any) {
			td["securityDefinitions"] = map[string]any{"mutual_tls": map[string]any{"scheme": "mutual"}}
		},
		"a model, not a thing":            func(td map[string]any) { td["@type"] = "tm:ThingModel" },
		"an action without forms":         func(td map[string]any) { action(td)["forms"] = []any{} },
		"an action's form for a property": func(td map[string]any) { form(td)["op"] = "readproperty" },
		"a form without href":             func(td map[string]any) { delete(form(td), "href") },
		"a response without its type":     func(td map[string]any) { form(td)["response"] = map[string]any{} },
		"safe as text":                    func(td map[string]any) { action(td)["safe"] = "no" },
		"a property of no type": func(td map[string]any) {
			td["properties"].(map[string]any)["state"].(map[string]any)["type"] = "thing"
		},
	} {
		td := thingOf(t, &fakeDevice{functions: []Function{{Application: "a", Component: "b", Name: "f"}}})
		spoil(td)
		if len(check.validate(td)) == 0 {
			t.Errorf("%s: valid", name)
		}
	}
}

// TestThingMembers: what the schema leaves open, but clients go by.
func TestThingMembers(t *testing.T) {
	f := &fakeDevice{info: decant.DeviceInfo{ID: "d1", Name: "board", Version: "1.2.3"}, functions: []Function{
		{Application: "a", Component: "b", Name: "plain"},
		{Application: "a", Component: "b", Name: "typed", Types: decant.Function{In: "audio/L16", Out: "application/json"}},
		{Application: "a", Component: "b", Name: "same", Types: decant.Function{In: "text/x", Out: "text/x"}},
	}}
	td := thingOf(t, f)
	if td["id"] != "urn:decant:device:d1" || td["title"] != "board" {
		t.Errorf("id %v, title %v", td["id"], td["title"])
	}
	if defined := td["securityDefinitions"].(map[string]any); defined[td["security"].(string)] == nil {
		t.Errorf("security %v is not among %v", td["security"], defined)
	}
	want := map[string]string{
		"a.b.plain": "application/octet-stream -> application/octet-stream",
		"a.b.typed": "audio/L16 -> application/json",
		"a.b.same":  "text/x -> text/x",
	}
	actions := td["actions"].(map[string]any)
	if len(actions) != len(want) {
		t.Errorf("actions %v", actions)
	}
	for name, types := range want {
		form := actions[name].(map[string]any)["forms"].([]any)[0].(map[string]any)
		in, out := form["contentType"], form["contentType"]
		if response, ok := form["response"].(map[string]any); ok {
			out = response["contentType"]
		}
		if got := fmt.Sprintf("%s -> %s", in, out); got != types {
			t.Errorf("%s: %s", name, got)
		}
		if href := "https://board.local:7444/v1/apps/a/b/" + name[len("a.b."):]; form["href"] != href || form["htv:methodName"] != "POST" || form["op"] != "invokeaction" {
			t.Errorf("%s: %v", name, form)
		}
	}
}

// TestThingLeadsSomewhere: each form of the description is a route that answers.
func TestThingLeadsSomewhere(t *testing.T) {
	f := &fakeDevice{functions: []Function{{Application: "a", Component: "b", Name: "f"}}}
	td := thingOf(t, f)
	followed := 0
	for _, kind := range []string{"properties", "actions"} {
		for name, of := range td[kind].(map[string]any) {
			for _, form := range of.(map[string]any)["forms"].([]any) {
				form := form.(map[string]any)
				u, err := url.Parse(form["href"].(string))
				if err != nil || u.Scheme != "https" || u.Host != "board.local:7444" {
					t.Errorf("%s: href %v", name, form["href"])
					continue
				}
				resp := f.ask(form["htv:methodName"].(string), u.RequestURI(), "", []byte("in"))
				if err := problem.Read(resp); err != nil || resp.StatusCode != http.StatusOK {
					t.Errorf("%s: %v", name, err)
				}
				if got := resp.Header.Get("Content-Type"); kind == "properties" && got != form["contentType"] {
					t.Errorf("%s is %s", name, got)
				}
				followed++
			}
		}
	}
	if followed < 4 {
		t.Errorf("followed %d forms", followed)
	}
}

// schema is as much of JSON Schema draft 7 as that of Thing Descriptions uses.
type schema struct{ root map[string]any }

func thingSchema(t *testing.T) schema {
	t.Helper()
	data, err := os.ReadFile("testdata/td-json-schema-validation.json")
	if err != nil {
		t.Fatal(err)
	}
	var s schema
	if err := json.Unmarshal(data, &s.root); err != nil {
		t.Fatal(err)
	}
	return s
}

// validate returns what is wrong with v.
func (s schema) validate(v any) []string {
	err := s.check(s.root, v, "$")
	if err == nil {
		return nil
	}
	return strings.Split(err.Error(), "\n")
}

// keywords that are checked below, or say nothing about what is valid.
var keywords = map[string]bool{
	"$ref": true, "type": true, "enum": true, "const": true, "pattern": true, "format": true, "minLength": true,
	"required": true, "properties": true, "additionalProperties": true, "minProperties": true,
	"items": true, "additionalItems": true, "minItems": true,
	"oneOf": true, "anyOf": true, "allOf": true, "not": true,
	"definitions": true, "$schema": true, "$id": true, "$comment": true, "title": true, "description": true, "version": true, "default": true,
}

func (s schema) check(rule any, v any, at string) error {
	if rule, ok := rule.(bool); ok {
		if !rule {
			return fmt.Errorf("%s: must not be there", at)
		}
		return nil
	}
	r := rule.(map[string]any)
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(at+": "+format, args...)) }
	for k := range r {
		if !keywords[k] {
			fail("the validator does not know %q", k)
		}
	}
	if ref, ok := r["$ref"].(string); ok {
		return s.check(s.root["definitions"].(map[string]any)[strings.TrimPrefix(ref, "#/definitions/")], v, at)
	}
	if want, ok := r["type"].(string); ok && !isType(v, want) {
		fail("is %T, not %s", v, want)
	}
	if list, ok := r["enum"].([]any); ok && !contains(list, v) {
		fail("%v is none of %v", v, list)
	}
	if want, ok := r["const"]; ok && !reflect.DeepEqual(v, want) {
		fail("%v is not %v", v, want)
	}
	errs = append(errs, s.checkText(r, v, at), s.checkObject(r, v, at), s.checkArray(r, v, at), s.checkCombined(r, v, at))
	return errors.Join(errs...)
}

func isType(v any, want string) bool {
	switch v := v.(type) {
	case string:
		return want == "string"
	case bool:
		return want == "boolean"
	case float64:
		return want == "number" || want == "integer" && v == float64(int64(v))
	case []any:
		return want == "array"
	case map[string]any:
		return want == "object"
	}
	return want == "null"
}

func contains(list []any, v any) bool {
	for _, one := range list {
		if reflect.DeepEqual(one, v) {
			return true
		}
	}
	return false
}

func (s schema) checkText(r map[string]any, v any, at string) error {
	text, ok := v.(string)
	if !ok {
		return nil
	}
	if p, ok := r["pattern"].(string); ok && !regexp.MustCompile(p).MatchString(text) {
		return fmt.Errorf("%s: %q does not match %s", at, text, p)
	}
	if least, ok := r["minLength"].(float64); ok && float64(len(text)) < least {
		return fmt.Errorf("%s: %q is too short", at, text)
	}
	switch r["format"] {
	case "uri":
		if u, err := url.Parse(text); err != nil || u.Scheme == "" {
			return fmt.Errorf("%s: %q is no URI", at, text)
		}
	case "date-time":
		if _, err := time.Parse(time.RFC3339, text); err != nil {
			return fmt.Errorf("%s: %q is no time", at, text)
		}
	}
	return nil
}

func (s schema) checkObject(r map[string]any, v any, at string) error {
	object, ok := v.(map[string]any)
	if !ok {
		return nil
	}
	var errs []error
	required, _ := r["required"].([]any)
	for _, name := range required {
		if _, ok := object[name.(string)]; !ok {
			errs = append(errs, fmt.Errorf("%s: has no %s", at, name))
		}
	}
	if least, ok := r["minProperties"].(float64); ok && float64(len(object)) < least {
		errs = append(errs, fmt.Errorf("%s: has %d members", at, len(object)))
	}
	known, _ := r["properties"].(map[string]any)
	for name, member := range object {
		rule, ok := known[name]
		if !ok {
			rule, ok = r["additionalProperties"]
		}
		if ok {
			errs = append(errs, s.check(rule, member, at+"."+name))
		}
	}
	return errors.Join(errs...)
}

func (s schema) checkArray(r map[string]any, v any, at string) error {
	list, ok := v.([]any)
	if !ok {
		return nil
	}
	var errs []error
	if least, ok := r["minItems"].(float64); ok && float64(len(list)) < least {
		errs = append(errs, fmt.Errorf("%s: has %d items", at, len(list)))
	}
	for i, item := range list {
		rule := r["items"]
		if each, ok := rule.([]any); ok {
			if rule = r["additionalItems"]; i < len(each) {
				rule = each[i]
			}
		}
		if rule != nil {
			errs = append(errs, s.check(rule, item, fmt.Sprintf("%s[%d]", at, i)))
		}
	}
	return errors.Join(errs...)
}

func (s schema) checkCombined(r map[string]any, v any, at string) error {
	var errs []error
	matching := func(rules any) (n, of int, why error) {
		list, _ := rules.([]any)
		var all []error
		for _, rule := range list {
			err := s.check(rule, v, at)
			if err == nil {
				n++
			}
			all = append(all, err)
		}
		return n, len(list), errors.Join(all...)
	}
	if n, of, why := matching(r["allOf"]); n < of {
		errs = append(errs, why)
	}
	if n, of, why := matching(r["anyOf"]); of > 0 && n == 0 {
		errs = append(errs, why)
	}
	if n, of, why := matching(r["oneOf"]); of > 0 && n != 1 {
		errs = append(errs, fmt.Errorf("%s: matches %d of what it must match one of (%w)", at, n, why))
	}
	if not, ok := r["not"]; ok && s.check(not, v, at) == nil {
		errs = append(errs, fmt.Errorf("%s: is what it must not be", at))
	}
	return errors.Join(errs...)
}
