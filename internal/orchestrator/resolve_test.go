package orchestrator

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/transport"
)

func TestRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, _ := newPost(t)
		s.pushModel("net@1.0.0")
		s.push("stuck@1.0.0", "run", func(p *decant.PackageSpec) { p.Requires = map[string]string{"codec": "^2"} })
		s.push("loads@1.0.0", "run", func(p *decant.PackageSpec) {
			p.Models = map[string]decant.ModelUse{"vad": {Accepts: "^5"}}
		})
		before := s.keys("")
		for _, tt := range []struct {
			part decant.Component
			code decant.Code
			says string
		}{
			{decant.Component{Package: "nothing"}, decant.NotFound, "there is no package nothing"},
			{decant.Component{Package: "frames@^2"}, decant.NotFound, "frames@^2: there are only 1.0.0"},
			{decant.Component{Package: "stuck"}, decant.NotFound, "stuck@1.0.0 requires codec@^2: there is no package codec"},
			{decant.Component{Package: "detector", Function: "listen"}, decant.NotFound, `package detector@1.0.0 has no function "listen"; it has detect, status`},
			{decant.Component{Package: "detector"}, decant.Invalid, "package detector@1.0.0 has 2 functions (detect, status)"},
			{decant.Component{Package: "net"}, decant.Invalid, "package net@1.0.0 is a model"},
			{decant.Component{Package: "frames", Models: map[string]string{"m": "detector"}}, decant.Invalid, "package detector@1.0.0 is a module"},
			{decant.Component{Package: "loads"}, decant.Invalid, `package loads@1.0.0 loads a model "vad" that is not bound`},
			{decant.Component{Package: "loads", Models: map[string]string{"vad": "net"}}, decant.Invalid, "accepts version ^5"},
		} {
			app := post()
			app.Components["detector"] = tt.part
			_, err := s.o().Deploy(t.Context(), app, 0)
			wantErr(t, err, tt.code, "component detector: ", tt.says)
		}
		cycle := post()
		cycle.Links = append(cycle.Links, decant.Link{From: "detector", To: "ear"})
		_, err := s.o().Deploy(t.Context(), cycle, 0)
		wantErr(t, err, decant.Invalid, "links make a cycle: detector -> ear -> detector")
		if after := s.keys(""); after != before {
			t.Errorf("the refusals left %s; before there was %s", after, before)
		}
	})
}

func TestModels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.push("loads@1.0.0", "run", func(p *decant.PackageSpec) { p.Models = map[string]decant.ModelUse{"vad": {}} })
		net := s.pushModel("net@1.2.0")
		app := appOf("detector", "")
		app.Components["detector"] = decant.Component{Package: "loads", Models: map[string]string{"vad": "net@^1"}}
		s.join("plain")
		s.deploy(app)
		s.wantStatus("app", decant.DeployPending, "plain has no inference backend")
		clever := s.join("clever", func(d *decant.DeviceInfo) {
			d.Capabilities.Inference = []decant.Backend{{Name: "onnxruntime", Formats: []string{"onnx"}}}
		})
		s.wantStatus("app", decant.DeployRunning, "")
		bound := clever.desired.Instances[0].Models["vad"]
		if bound.Package != "net@1.2.0" || bound.Format != "onnx" || bound.Model != net.Blobs[0] || len(bound.Files) != 0 {
			t.Errorf("bound %+v", bound)
		}
	})
}

func TestInvokeAndLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, gateway := newPost(t)
		call := func(app, component string) (string, error) {
			resp, err := s.o().Invoke(t.Context(), &transport.Request{Application: app, Component: component})
			if err != nil {
				return "", err
			}
			return string(resp.Body), nil
		}
		app := post()
		app.Components["lone"] = decant.Component{Package: "detector", Function: "status", Needs: decant.Needs{Peripherals: []string{"screen"}}}
		s.deploy(app)
		synctest.Wait()
		_, err := call("app", "ear")
		wantErr(t, err, decant.Unavailable, "runs nowhere yet", "decant app show app")
		s.deploy(post())
		s.wantStatus("app", decant.DeployRunning, "")
		for component, want := range map[string]string{"": "ear on mic-id at mic:1", "detector": "detector on gateway-id at gateway:1"} {
			if got, err := call("app", component); err != nil || got != want {
				t.Errorf("call of %q: %q, %v; want %q", component, got, err, want)
			}
		}
		_, err = call("app", "nose")
		wantErr(t, err, decant.NotFound, `has no component "nose"; it has detector, ear`)
		_, err = call("none", "")
		wantErr(t, err, decant.NotFound)

		log, err := s.o().ComponentLog(t.Context(), "app", "detector", false)
		must(t, err)
		if text := make([]byte, 100); true {
			n, _ := log.Read(text)
			if got := string(text[:n]); got != "log of app/detector on "+gateway.id {
				t.Errorf("log %q", got)
			}
		}
		two := decant.Application{Name: "two", Components: map[string]decant.Component{"x": {Package: "frames"}, "y": {Package: "frames"}}}
		s.deploy(two)
		synctest.Wait()
		_, err = call("two", "")
		wantErr(t, err, decant.Invalid, "starts at 2 components (x, y)")
	})
}

// TestResolvesWhatWasNot holds that an application whose packages were never
// resolved gets them once they are there.
func TestResolvesWhatWasNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.join("one")
		app := appOf("a", "")
		must(t, s.o().commit(context.Background(), nil, put(appsPrefix+"app", appRecord{Application: app, Revision: 1})))
		s.wantStatus("app", decant.DeployPending, "there is no package p")
		s.push("p@1.0.0", "run")
		s.wantStatus("app", decant.DeployRunning, "")
	})
}
