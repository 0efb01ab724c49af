// Package topology is the untyped graph of an application: operators, topics, stores, and how they hang together. It
// describes what runs; it never runs it. Front ends (package stream) add nodes to a Graph; Build checks everything at
// once and cuts the graph into sub-topologies, whose tasks the runtime makes.
package topology

import (
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"

	"github.com/moldau/moldau/internal/flow"
)

// What can be wrong with a graph; test with errors.Is.
var (
	ErrName           = errors.New("invalid name")
	ErrClash          = errors.New("name clash")
	ErrConflict       = errors.New("conflicting settings")
	ErrNotPartitioned = errors.New("not partitioned by key")
	ErrNotCopart      = errors.New("not co-partitioned")
	ErrStore          = errors.New("wrong use of a store")
	ErrProcessor      = errors.New("a processor cannot begin")
	ErrHandle         = errors.New("missing handle")
	ErrArgument       = errors.New("wrong argument")
	ErrEmpty          = errors.New("nothing to run")
)

// Mistake is one thing wrong with a graph. At is the author's file:line.
type Mistake struct {
	At   string
	Text string
	Kind error
}

func (m *Mistake) Error() string {
	if m.At == "" {
		return m.Text
	}
	return m.At + ": " + m.Text
}
func (m *Mistake) Unwrap() error { return m.Kind }

// Mistakes is everything wrong with a graph.
type Mistakes []*Mistake

func (m Mistakes) Error() string {
	lines := make([]string, 0, len(m)+1)
	if len(m) > 1 {
		lines = append(lines, fmt.Sprintf("the topology has %d mistakes:", len(m)))
	}
	for _, one := range m {
		lines = append(lines, one.Error())
	}
	return strings.Join(lines, "\n")
}

func (m Mistakes) Unwrap() []error {
	errs := make([]error, len(m))
	for i, one := range m {
		errs[i] = one
	}
	return errs
}

// Graph collects nodes. The zero value is empty and ready.
type Graph struct {
	nodes    []*Node
	topics   []*Topic
	stores   []*Store
	globals  []*Global
	mistakes Mistakes
}

// Add takes a node in and numbers it.
func (g *Graph) Add(n *Node) *Node {
	n.ID = len(g.nodes)
	g.nodes = append(g.nodes, n)
	for _, s := range n.Stores {
		s.Users = append(s.Users, n)
	}
	return n
}

// Children are the nodes that take what n gives on, in the order in which they were added; one that takes it twice is there
// twice. It is what Node.Wire gets, known once the graph is whole.
func (g *Graph) Children(n *Node) (children []*Node) {
	for _, c := range g.nodes {
		for _, p := range c.Parents {
			if p == n {
				children = append(children, c)
			}
		}
	}
	return children
}

// Fail notes a mistake; Build reports all of them.
func (g *Graph) Fail(kind error, at, format string, args ...any) {
	g.mistakes = append(g.mistakes, &Mistake{At: at, Text: fmt.Sprintf(format, args...), Kind: kind})
}

// Topic is the graph's value for the topic of a handle; t describes it if it is seen for the first time.
func (g *Graph) Topic(t Topic) *Topic {
	for _, have := range g.topics {
		if have.Root == t.Root && have.Name == t.Name && have.Kind == t.Kind {
			if have.Partitions != t.Partitions || have.Reset != t.Reset || have.IdleAfter != t.IdleAfter || !maps.Equal(have.Config, t.Config) {
				g.Fail(ErrConflict, t.At, "topic %q is used with different settings: partitions, reset, idle time or topic settings differ between two copies of its handle", t.Name)
			}
			return have
		}
	}
	for _, have := range g.topics {
		if have.Logical() == t.Logical() && (have.Kind == Pattern) == (t.Kind == Pattern) {
			g.Fail(ErrClash, t.At, "topic %q is declared twice, here and at %s; declare its handle once and use it in both places", t.Name, have.At)
			return have
		}
	}
	var err error
	if t.Kind == Pattern {
		t.match, err = CompilePattern(t.Name)
	} else {
		err = CheckName(t.Name)
	}
	if err != nil {
		g.Fail(ErrName, t.At, "%s %q: %v", map[bool]string{true: "pattern", false: "topic"}[t.Kind == Pattern], t.Name, err)
	}
	if t.IdleAfter < 0 {
		g.Fail(ErrConflict, t.At, "topic %q is idle after %d ms; it must not be negative", t.Name, t.IdleAfter)
	}
	if t.Partitions < 0 {
		g.Fail(ErrConflict, t.At, "topic %q asks for %d partitions", t.Name, t.Partitions)
	}
	g.topics = append(g.topics, &t)
	return &t
}

func root(s *flow.StoreSpec) *flow.StoreSpec {
	if s.Root != nil {
		return s.Root
	}
	return s
}

// Store is the graph's value for the store of a handle. at is the place of use.
func (g *Graph) Store(spec *flow.StoreSpec, at string) *Store {
	if spec == nil {
		g.Fail(ErrHandle, at, "a store is needed here, but the handle is the zero value; make one with package state")
		return &Store{Spec: &flow.StoreSpec{Name: "?"}}
	}
	for _, have := range g.stores {
		if root(have.Spec) == root(spec) {
			h := have.Spec
			if h.Kind != spec.Kind || h.TTL != spec.TTL || h.Ordered != spec.Ordered || h.EveryUpdate != spec.EveryUpdate ||
				h.Unlogged != spec.Unlogged || h.FromSource != spec.FromSource || h.ExpireFirst != spec.ExpireFirst || h.BySegment != spec.BySegment || !maps.Equal(h.Changelog, spec.Changelog) {
				g.Fail(ErrConflict, at, "store %q is used with different settings: copies of one handle must agree within a topology", spec.Name)
			}
			h.Retention, h.Grace = max(h.Retention, spec.Retention), max(h.Grace, spec.Grace)
			return have
		}
	}
	if spec.Mistake != nil {
		g.Fail(ErrHandle, at, "store %q, declared at %s: %v", spec.Name, spec.At, spec.Mistake)
	}
	settled := *spec
	settled.Root = root(spec)
	s := &Store{Spec: &settled}
	for _, have := range g.stores {
		if have.Spec.Name == spec.Name {
			g.Fail(ErrClash, at, "store %q is declared twice, at %s and at %s; declare its handle once and use it in both places", spec.Name, have.Spec.At, spec.At)
			return s
		}
	}
	if err := CheckName(spec.Name); err != nil {
		g.Fail(ErrName, at, "store %q: %v", spec.Name, err)
	}
	g.stores = append(g.stores, s)
	return s
}

// Own is Store for the one operator that writes a store. Raise its retention with what the operator needs.
func (g *Graph) Own(spec *flow.StoreSpec, at string, owner *Node) *Store {
	s := g.Store(spec, at)
	if s.Owner != nil {
		g.Fail(ErrStore, at, "store %q is written by two operators, here and at %s; each needs a store of its own", s.Spec.Name, s.Owner.At)
	}
	s.Owner = owner
	owner.Stores = append(owner.Stores, s)
	return s
}

// Global adds a global table.
func (g *Graph) Global(t *Topic, spec *flow.StoreSpec, at string) *Global {
	for _, have := range g.globals {
		if have.Topic == t && spec != nil && root(have.Store.Spec) == root(spec) {
			return have
		}
	}
	s := g.Store(spec, at)
	if s.Owner != nil || len(s.Users) > 0 {
		g.Fail(ErrStore, at, "store %q is used by an operator as well as by a global table", s.Spec.Name)
	}
	s.Spec.Unlogged, s.Spec.FromSource = false, false // its topic is its changelog: what lies on disk is as good as the position beside it
	global := &Global{Topic: t, Store: s, At: at}
	g.globals = append(g.globals, global)
	return global
}

// CheckName applies Kafka's rule for names of topics and stores.
func CheckName(name string) error {
	switch {
	case name == "":
		return errors.New("the name is empty")
	case name == "." || name == "..":
		return errors.New("the name is a dot")
	case len(name) > 249:
		return fmt.Errorf("the name has %d bytes, 249 are allowed", len(name))
	}
	for _, r := range name {
		if !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '_' || r == '-') {
			return fmt.Errorf("the name holds %q; allowed are letters, digits, '.', '_' and '-'", r)
		}
	}
	return nil
}

func itoa(n int) string { return strconv.Itoa(n) }
