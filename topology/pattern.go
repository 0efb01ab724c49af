package topology

import (
	"fmt"
	"regexp"
	"slices"
)

// CompilePattern reads the name of a topic of kind Pattern: it must match a topic's whole name. The syntax is that of package
// regexp.
func CompilePattern(name string) (*regexp.Regexp, error) {
	if _, err := regexp.Compile(name); err != nil {
		return nil, err
	}
	return regexp.Compile("^(?:" + name + ")$")
}

// Matches says whether a topic of kind Pattern takes in a topic of that name.
func (t *Topic) Matches(name string) bool { return t.match != nil && t.match.MatchString(name) }

// Reads says whether a source that was declared with topic t takes records of topic from: that one, or one that t has matched.
func (t *Topic) Reads(from *Topic) bool { return from == t || from.Of == t }

// Patterns says whether what is read depends on which topics there are; see Resolve.
func (t *Topology) Patterns() bool {
	return slices.ContainsFunc(t.Topics, func(topic *Topic) bool { return topic.Kind == Pattern })
}

// Resolve is the topology on a cluster that has topics of these names: in Topics, and in Sources of each Sub, those that match stand
// in place of a pattern, in order of their names. Nodes, and the numbers of sub-topologies, stay as they are. The
// application's own internal topics match nothing; app is its name, and own names those that are no topic of the topology. An error is a
// Mistakes: a topic may have one source.
func (t *Topology) Resolve(app string, names []string, own ...string) (*Topology, error) {
	if !t.Patterns() {
		return t, nil
	}
	internal := map[string]bool{}
	for _, name := range own {
		internal[name] = true
	}
	for _, topic := range t.Topics {
		if topic.Kind == Repartition {
			internal[topic.Full(app)] = true
		}
	}
	for _, s := range t.Subs {
		for _, st := range s.Stores {
			if st.Topic != nil {
				internal[st.Topic.Full(app)] = true
			}
		}
	}
	names = slices.DeleteFunc(slices.Sorted(slices.Values(names)), func(name string) bool { return internal[name] })

	r := &Topology{Nodes: t.Nodes, Globals: t.Globals, found: map[*Topic][]*Topic{}}
	var mistakes Mistakes
	by := map[string]*Topic{}
	for _, topic := range t.Topics {
		if topic.Kind != Pattern {
			r.Topics = append(r.Topics, topic)
			continue
		}
		for _, name := range names {
			if !topic.Matches(name) {
				continue
			}
			if other := by[name]; other != nil {
				mistakes = append(mistakes, &Mistake{At: topic.At, Kind: ErrClash, Text: fmt.Sprintf(
					"topic %q is matched by the pattern %q here and by %q at %s; a topic is read by one source", name, topic.Name, other.Name, other.At)})
				continue
			}
			by[name] = topic
			one := &Topic{Root: topic.Root, Name: name, Kind: External, Reset: topic.Reset, IdleAfter: topic.IdleAfter, At: topic.At, Key: topic.Key, Value: topic.Value, Of: topic}
			r.found[topic] = append(r.found[topic], one)
			r.Topics = append(r.Topics, one)
		}
	}
	if len(mistakes) > 0 {
		return nil, mistakes
	}
	for _, s := range t.Subs {
		sub := *s
		sub.Sources = nil
		for _, topic := range s.Sources {
			if topic.Kind == Pattern {
				sub.Sources = append(sub.Sources, r.found[topic]...)
			} else {
				sub.Sources = append(sub.Sources, topic)
			}
		}
		r.Subs = append(r.Subs, &sub)
	}
	return r, nil
}

// overlaps are the topics with a source of their own that a pattern takes in as well.
func (g *Graph) overlaps() (found Mistakes) {
	for _, n := range g.nodes {
		if n.Source == nil || n.Source.Kind != Pattern {
			continue
		}
		clash := func(name, at string) {
			found = append(found, &Mistake{At: n.At, Kind: ErrClash, Text: fmt.Sprintf(
				"the pattern %q matches topic %q, which is read at %s; a topic is read by one source", n.Source.Name, name, at)})
		}
		for _, other := range g.nodes {
			if other.Source != nil && other.Source.Kind == External && n.Source.Matches(other.Source.Name) {
				clash(other.Source.Name, other.At)
			}
		}
		for _, gl := range g.globals {
			if n.Source.Matches(gl.Topic.Name) {
				clash(gl.Topic.Name, gl.At)
			}
		}
	}
	return found
}
