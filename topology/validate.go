package topology

import (
	"fmt"

	"github.com/moldau/moldau/internal/flow"
)

// validate finds what only the whole graph shows.
func (g *Graph) validate() (found Mistakes) {
	fail := func(kind error, at, format string, args ...any) {
		found = append(found, &Mistake{At: at, Text: fmt.Sprintf(format, args...), Kind: kind})
	}
	if len(g.nodes) == 0 && len(g.globals) == 0 {
		fail(ErrEmpty, "", "the topology is empty: read at least one topic with Builder.Stream or Builder.Table")
	}
	labels := map[string]*Node{}
	for _, n := range g.nodes {
		if n.Name == "" {
			continue
		}
		if err := CheckName(n.Name); err != nil {
			fail(ErrName, n.At, "label %q: %v", n.Name, err)
		}
		if other := labels[n.Name]; other != nil {
			fail(ErrClash, n.At, "label %q is given here and at %s", n.Name, other.At)
		}
		labels[n.Name] = n
	}
	written := map[*Topic]bool{}
	for _, n := range g.nodes {
		for _, t := range n.Sinks {
			written[t] = true
		}
	}
	for _, n := range g.nodes {
		if n.Source != nil && n.Source.Kind == Repartition && !written[n.Source] {
			fail(ErrHandle, n.At, "repartition topic %q is read but never written", n.Source.Name)
		}
		for _, gl := range g.globals {
			if n.Source == gl.Topic {
				fail(ErrClash, n.At, "topic %q is read here and as a global table at %s; it can be only one of both", gl.Topic.Name, gl.At)
			}
		}
		if !n.Keyed {
			continue
		}
		for _, from := range append(append([]*Node(nil), n.Parents...), n.With...) {
			if r := rekeyed(from, map[*Node]bool{}); r != nil {
				fail(ErrNotPartitioned, n.At, "%s needs all records of a key in one task, but %s at %s changes the key; give it a repartition handle in between (GroupBy or Repartition), or say AssumePartitioned if the new key lies in the same partition",
					n.Kind, r.Label(), r.At)
			}
		}
	}
	for _, s := range g.stores {
		if (s.Spec.Kind == flow.Window || s.Spec.Kind == flow.Session) && s.Spec.Retention <= 0 && len(s.Users) > 0 {
			fail(ErrStore, s.Users[0].At, "store %q is used by processors only and must say how long it keeps its entries: %s.Retention(...)", s.Spec.Name, s.Spec.Kind)
		}
	}
	for _, s := range g.stores {
		if s.Spec.Kind == flow.Versioned && s.Spec.Retention < 0 {
			fail(ErrStore, s.Spec.At, "store %q has a history of %d ms; it must not be negative", s.Spec.Name, s.Spec.Retention)
		}
	}
	for _, s := range g.stores {
		if s.Spec.FromSource && len(s.Users) > 0 {
			found = append(found, s.source(g.stores)...)
			continue
		}
		if !s.Spec.Unlogged && len(s.Users) > 0 {
			s.Topic = &Topic{Root: s.Spec.Root, Name: s.Spec.Name, Kind: Changelog, Config: s.Spec.Changelog, At: s.Spec.At}
			for _, t := range g.topics {
				if t.Logical() == s.Topic.Logical() {
					fail(ErrClash, t.At, "topic %q has the name of the changelog of store %q", t.Name, s.Spec.Name)
				}
			}
		}
	}
	return found
}

// source checks a store that is to have a source topic as its changelog.
func (s *Store) source(all []*Store) (found Mistakes) {
	fail := func(format string, args ...any) {
		found = append(found, &Mistake{At: s.Users[0].At, Kind: ErrStore, Text: fmt.Sprintf("store %q is to be restored from a source topic, but ", s.Spec.Name) + fmt.Sprintf(format, args...)})
	}
	switch {
	case s.Replay == nil:
		fail("holds no table that Builder.Table reads from one; leave out ReuseSourceTopic")
	case s.Spec.Unlogged:
		fail("also not to be restored at all; leave out Unlogged or ReuseSourceTopic")
	case len(s.Spec.Changelog) > 0:
		fail("there are settings for a changelog of its own; leave out Changelog or ReuseSourceTopic")
	}
	for _, other := range all {
		if other == s {
			break
		}
		if s.Topic != nil && other.Topic == s.Topic {
			fail("topic %q is that of store %q already; use one table, or leave out ReuseSourceTopic for the other", s.Topic.Name, other.Spec.Name)
		}
	}
	return found
}

// rekeyed is the nearest step above n, or n itself, that changed the key since the records were last partitioned by it.
func rekeyed(n *Node, seen map[*Node]bool) *Node {
	if seen[n] || n.Partitioned || n.Source != nil {
		return nil
	}
	seen[n] = true
	if n.Rekeys {
		return n
	}
	for _, p := range n.Parents {
		if r := rekeyed(p, seen); r != nil {
			return r
		}
	}
	return nil
}
