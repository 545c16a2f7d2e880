package decant

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
)

// Application is what a user asks for: components, the links between them and
// what must hold. It says nothing of devices; placement finds those.
type Application struct {
	Name        string               `json:"application"`
	Components  map[string]Component `json:"components"`
	Links       []Link               `json:"links,omitempty"`
	Objective   string               `json:"objective,omitempty" doc:"spread: the least loaded device that fits (default)"`
	Constraints []Constraint         `json:"constraints,omitempty"`
}

// Component is one use of a module package.
type Component struct {
	Package  string            `json:"package" doc:"name@range"`
	Function string            `json:"function,omitempty" doc:"Function called by links, triggers and invoke; may be left out where the module has one"`
	Models   map[string]string `json:"models,omitempty" doc:"Name the module loads to model package, name@range"`
	Trigger  *Trigger          `json:"trigger,omitempty"`
	Needs    Needs             `json:"needs,omitzero"`
	Deadline Duration          `json:"deadline,omitempty" doc:"Longest a call may take, its links included"`
}

// Trigger calls the component by itself.
type Trigger struct {
	Peripheral string `json:"peripheral" doc:"Call the function with each sample of this bound peripheral"`
}

// Link is a directed edge between two components. As text it is "a -> b": a
// pipe, the output of a's function is b's request and b's response the answer.
// With a name it is bound as /link/<name> instead, for a's module to call.
type Link struct {
	From string `json:"from"`
	To   string `json:"to"`
	Name string `json:"name,omitempty"`
}

// Constraint must hold for a placement.
type Constraint struct {
	Components []string `json:"components"`
	Same       string   `json:"same,omitempty" doc:"Their devices carry the same value of this label; device: they share one device"`
	Apart      string   `json:"apart,omitempty" doc:"Their devices carry different values of this label; device: no two share a device"`
}

// Pipe reports whether output flows along l by itself.
func (l Link) Pipe() bool { return l.Name == "" }

func (l Link) String() string { return l.From + " -> " + l.To }

// UnmarshalJSON reads "a -> b" or an object.
func (l *Link) UnmarshalJSON(data []byte) error {
	var text string
	if json.Unmarshal(data, &text) != nil {
		type plain Link
		return unmarshalStrict(data, (*plain)(l))
	}
	from, to, ok := strings.Cut(text, "->")
	l.From, l.To = strings.TrimSpace(from), strings.TrimSpace(to)
	if !ok || l.From == "" || l.To == "" {
		return Errorf(Invalid, "link %q: write it as \"from -> to\"", text)
	}
	return nil
}

// MarshalJSON writes a pipe as text, a named link as an object.
func (l Link) MarshalJSON() ([]byte, error) {
	if l.Pipe() {
		return json.Marshal(l.String())
	}
	type plain Link
	return json.Marshal(plain(l))
}

func unmarshalStrict(data []byte, into any) error {
	dec := json.NewDecoder(strings.NewReader(string(data)))
	dec.DisallowUnknownFields()
	return dec.Decode(into)
}

// Limits of an application; a plan of this size is still made in a blink.
const (
	MaxComponents = 500
	MaxLinks      = 2000
)

// Check returns an Invalid error that says what to change. It looks at the
// application alone; packages and devices are looked at when it is resolved
// and placed.
func (a Application) Check() error {
	if err := CheckName("application", a.Name); err != nil {
		return err
	}
	if len(a.Components) == 0 {
		return Errorf(Invalid, "application %s has no components", a.Name)
	}
	if len(a.Components) > MaxComponents || len(a.Links) > MaxLinks {
		return Errorf(Invalid, "application %s is too large: %d components and %d links at most", a.Name, MaxComponents, MaxLinks)
	}
	for _, name := range a.ComponentNames() {
		if err := a.checkComponent(name); err != nil {
			return err
		}
	}
	if err := a.checkLinks(); err != nil {
		return err
	}
	if a.Objective != "" && a.Objective != "spread" {
		return Errorf(Unsupported, "objective %q is not supported yet: leave it out, or use spread", a.Objective)
	}
	for i, c := range a.Constraints {
		if err := a.checkConstraint(i, c); err != nil {
			return err
		}
	}
	return nil
}

func (a Application) checkComponent(name string) error {
	c := a.Components[name]
	if err := CheckName("component", name); err != nil {
		return err
	}
	if _, err := ParsePackageRef(c.Package); err != nil {
		return Errorf(Invalid, "component %s: %w", name, err)
	}
	for _, m := range slices.Sorted(maps.Keys(c.Models)) {
		if err := CheckName("model", m); err != nil {
			return Errorf(Invalid, "component %s: %w", name, err)
		}
		if _, err := ParsePackageRef(c.Models[m]); err != nil {
			return Errorf(Invalid, "component %s: model %s: %w", name, m, err)
		}
	}
	if t := c.Trigger; t != nil && !slices.Contains(c.Needs.Peripherals, t.Peripheral) {
		return Errorf(Invalid, "component %s: trigger on peripheral %q: add it to needs.peripherals", name, t.Peripheral)
	}
	if err := c.Needs.Check(); err != nil {
		return Errorf(Invalid, "component %s: %w", name, err)
	}
	return nil
}

func (a Application) checkLinks() error {
	type edge struct{ from, to, name string }
	seen := map[edge]bool{}
	for _, l := range a.Links {
		for _, end := range []string{l.From, l.To} {
			if _, ok := a.Components[end]; !ok {
				return Errorf(Invalid, "link %s: there is no component %q; there are %s", l, end, strings.Join(a.ComponentNames(), ", "))
			}
		}
		if !l.Pipe() {
			if err := CheckName("link", l.Name); err != nil {
				return err
			}
		}
		e := edge{l.From, l.To, l.Name}
		if !l.Pipe() {
			e.to = "" // the name is a file of From: once only
		}
		if seen[e] {
			return Errorf(Invalid, "link %s is there twice", l)
		}
		seen[e] = true
	}
	if _, cycle := a.Order(); cycle != nil {
		return Errorf(Invalid, "links make a cycle: %s; a call would never end", strings.Join(cycle, " -> "))
	}
	return nil
}

func (a Application) checkConstraint(i int, c Constraint) error {
	if len(c.Components) < 2 {
		return Errorf(Invalid, "constraint %d: name two components or more", i+1)
	}
	if (c.Same == "") == (c.Apart == "") {
		return Errorf(Invalid, "constraint %d: set one of same and apart", i+1)
	}
	for _, name := range c.Components {
		if _, ok := a.Components[name]; !ok {
			return Errorf(Invalid, "constraint %d: there is no component %q", i+1, name)
		}
	}
	return nil
}

// ComponentNames returns the names of the components, sorted.
func (a Application) ComponentNames() []string { return slices.Sorted(maps.Keys(a.Components)) }

// LinksFrom returns the links that leave component, in the order written.
func (a Application) LinksFrom(component string) []Link {
	var out []Link
	for _, l := range a.Links {
		if l.From == component {
			out = append(out, l)
		}
	}
	return out
}

// Order returns the component names so that each comes after all that it links
// to: the order in which to start them. Where the links make a cycle it returns
// that instead, its first component repeated at the end.
func (a Application) Order() (order, cycle []string) {
	const visiting, done = 1, 2
	mark := map[string]int{}
	next := map[string][]string{}
	for _, l := range a.Links {
		next[l.From] = append(next[l.From], l.To)
	}
	var path []string
	var visit func(string) bool
	visit = func(name string) bool {
		switch mark[name] {
		case done:
			return true
		case visiting:
			cycle = append(slices.Clone(path[slices.Index(path, name):]), name)
			return false
		}
		mark[name] = visiting
		path = append(path, name)
		for _, to := range next[name] {
			if !visit(to) {
				return false
			}
		}
		path = path[:len(path)-1]
		mark[name] = done
		order = append(order, name)
		return true
	}
	for _, name := range a.ComponentNames() {
		if !visit(name) {
			return nil, cycle
		}
	}
	return order, nil
}

// Entry returns the component that an invocation of the application as a whole
// calls: the only one that nothing links to.
func (a Application) Entry() (string, error) {
	linked := map[string]bool{}
	for _, l := range a.Links {
		linked[l.To] = true
	}
	var entries []string
	for _, name := range a.ComponentNames() {
		if !linked[name] {
			entries = append(entries, name)
		}
	}
	if len(entries) != 1 {
		return "", Errorf(Invalid, "application %s starts at %d components (%s): name one, as %s/COMPONENT",
			a.Name, len(entries), strings.Join(entries, ", "), a.Name)
	}
	return entries[0], nil
}
