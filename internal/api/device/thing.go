package device

import (
	"encoding/json"
	"net/http"

	"github.com/decant-project/decant"
)

// serveThing answers with the device's Thing Description (W3C WoT TD 1.1).
func serveThing(s Service) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/td+json")
		_ = json.NewEncoder(w).Encode(thing("https://"+r.Host, s.Info(), s.Functions()))
	}
}

// thing describes a device to the Web of Things: what it reports are
// properties, what it can be told to do are actions. Its hrefs are absolute,
// below base.
func thing(base string, info decant.DeviceInfo, functions []Function) map[string]any {
	actions := map[string]any{}
	for _, f := range functions {
		in, out := orBytes(f.Types.In), orBytes(f.Types.Out)
		form := map[string]any{
			"href":           base + "/v1/apps/" + f.Application + "/" + f.Component + "/" + f.Name,
			"op":             "invokeaction",
			"contentType":    in,
			"htv:methodName": "POST",
		}
		if out != in {
			form["response"] = map[string]any{"contentType": out}
		}
		actions[f.Application+"."+f.Component+"."+f.Name] = map[string]any{
			"title":      f.Name + " of " + f.Application + "/" + f.Component,
			"safe":       false,
			"idempotent": false,
			"forms":      []any{form},
		}
	}
	property := func(title, path, kind string) map[string]any {
		return map[string]any{
			"title": title, "type": kind, "readOnly": true, "observable": false,
			"forms": []any{map[string]any{
				"href": base + path, "op": "readproperty", "contentType": "application/json", "htv:methodName": "GET",
			}},
		}
	}
	return map[string]any{
		"@context":            []any{"https://www.w3.org/2022/wot/td/v1.1", map[string]any{"@language": "en"}},
		"@type":               "Thing",
		"id":                  "urn:decant:device:" + info.ID,
		"title":               info.Name,
		"version":             map[string]any{"instance": "1.0.0", "model": info.Version},
		"securityDefinitions": map[string]any{"mutual_tls": map[string]any{"scheme": "auto", "description": "TLS 1.3 with a client certificate of the device's site"}},
		"security":            "mutual_tls",
		"properties": map[string]any{
			"device":    property("What the device is, has and does", "/v1/device", "object"),
			"state":     property("How the device is doing", "/v1/state", "object"),
			"instances": property("All that runs on the device", "/v1/instances", "array"),
		},
		"actions": actions,
	}
}

func orBytes(contentType string) string {
	if contentType == "" {
		return "application/octet-stream"
	}
	return contentType
}
