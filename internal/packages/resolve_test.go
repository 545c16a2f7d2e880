package packages

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/decant-project/decant"
)

func pkg(ref string, requires ...string) decant.Package {
	name, version, _ := strings.Cut(ref, "@")
	p := decant.Package{PackageSpec: decant.PackageSpec{Name: name, Version: version, Requires: map[string]string{}}}
	for _, r := range requires {
		n, rng, _ := strings.Cut(r, "@")
		p.Requires[n] = rng
	}
	return p
}

func refs(t testing.TB, texts ...string) (out []decant.PackageRef) {
	t.Helper()
	for _, text := range texts {
		r, err := decant.ParsePackageRef(text)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, r)
	}
	return out
}

func TestResolve(t *testing.T) {
	all := catalogue([]decant.Package{
		pkg("app@1.0.0", "dsp@^1", "log@*"),
		pkg("dsp@1.1.0", "math@^2"), pkg("dsp@1.0.0", "math@^1"),
		pkg("log@1.0.0", "math@<2"),
		pkg("math@2.0.0"), pkg("math@1.5.0"), pkg("math@1.0.0"),
		pkg("stuck@1.0.0", "gone@^1"),
		pkg("wide@1.0.0", "math@^3"),
		pkg("ring@1.0.0", "back@*"), pkg("back@1.0.0", "ring@^1"),
	})
	for _, tt := range []struct {
		roots []string
		want  string
	}{
		{[]string{"math"}, "math@2.0.0"},
		{[]string{"math@^1"}, "math@1.5.0"},
		{[]string{"app"}, "app@1.0.0 dsp@1.0.0 log@1.0.0 math@1.5.0"}, // dsp 1.1.0 is given up again for log
		{[]string{"dsp", "math@1.0.0"}, "dsp@1.0.0 math@1.0.0"},
		{[]string{"ring"}, "back@1.0.0 ring@1.0.0"},
		{[]string{"stuck"}, "error: stuck@1.0.0 requires gone@^1: there is no package gone; push it with: decant package push"},
		{[]string{"wide"}, "error: wide@1.0.0 requires math@^3: there are only 2.0.0, 1.5.0, 1.0.0"},
		{[]string{"dsp@1.1.0", "log"}, "error: no version of math satisfies all: dsp@1.1.0 requires math@^2 and log@1.0.0 requires math@<2; there are 2.0.0, 1.5.0, 1.0.0"},
		{[]string{"none"}, "error: there is no package none; push it with: decant package push"},
		{[]string{"math@9"}, "error: math@9: there are only 2.0.0, 1.5.0, 1.0.0"},
	} {
		found, err := resolve(all, refs(t, tt.roots...))
		var names []string
		for _, p := range found {
			names = append(names, p.Ref())
		}
		got := strings.Join(names, " ")
		if err != nil {
			got = "error: " + err.Error()
		}
		if got != tt.want {
			t.Errorf("%v\n got %s\nwant %s", tt.roots, got, tt.want)
		}
	}
}

// TestResolveAgainstBruteForce: versions are found exactly when there are some
// that agree; all that was asked for holds; and it is always the same.
func TestResolveAgainstBruteForce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := []string{"a", "b", "c", "d"}
		ranges := rapid.SampledFrom([]string{"", "^1", "^2", "<2", "1.0.0", ">=1.1"})
		var list []decant.Package
		for _, n := range names {
			for _, v := range []string{"2.0.0", "1.1.0", "1.0.0"} {
				if !rapid.Bool().Draw(t, "exists") {
					continue
				}
				p := pkg(n + "@" + v)
				for range rapid.IntRange(0, 2).Draw(t, "requires") {
					p.Requires[rapid.SampledFrom(names).Draw(t, "of")] = ranges.Draw(t, "range")
				}
				list = append(list, p)
			}
		}
		all := catalogue(list)
		roots := []decant.PackageRef{{Name: "a", Range: ranges.Draw(t, "root a")}, {Name: "b", Range: ranges.Draw(t, "root b")}}
		found, err := resolve(all, roots)
		if possible := bruteForce(all, names, roots, map[string]decant.Package{}); possible != (err == nil) {
			t.Fatalf("possible: %v; got %v, %v", possible, found, err)
		}
		if err != nil {
			return
		}
		chosen := map[string]decant.Package{}
		for _, p := range found {
			chosen[p.Name] = p
		}
		if why := broken(chosen, roots); why != "" {
			t.Fatal(why)
		}
		if again, _ := resolve(all, roots); !reflect.DeepEqual(again, found) {
			t.Fatal("another answer to the same question")
		}
	})
}

func bruteForce(all map[string][]decant.Package, names []string, roots []decant.PackageRef, chosen map[string]decant.Package) bool {
	if len(names) == 0 {
		return broken(chosen, roots) == ""
	}
	if bruteForce(all, names[1:], roots, chosen) {
		return true
	}
	for _, p := range all[names[0]] {
		chosen[names[0]] = p
		if bruteForce(all, names[1:], roots, chosen) {
			return true
		}
	}
	delete(chosen, names[0])
	return false
}

// broken says which demand does not hold.
func broken(chosen map[string]decant.Package, roots []decant.PackageRef) string {
	check := func(who, name, rng string) string {
		c, err := parseRange(rng)
		if p, ok := chosen[name]; err != nil || !ok || !c.Check(version(p.Version)) {
			return fmt.Sprintf("%s wants %s@%s, chosen is %q", who, name, rng, p.Version)
		}
		return ""
	}
	for _, r := range roots {
		if why := check("a root", r.Name, r.Range); why != "" {
			return why
		}
	}
	for _, p := range chosen {
		for name, rng := range p.Requires {
			if why := check(p.Ref(), name, rng); why != "" {
				return why
			}
		}
	}
	return ""
}
