package topology

import (
	"fmt"
	"slices"
	"strings"
)

// ChangeKind says what a change of a topology is about.
type ChangeKind string

const (
	Added             ChangeKind = "added"
	Removed           ChangeKind = "removed"
	KindChanged       ChangeKind = "kind"
	FormatChanged     ChangeKind = "format"
	PartitionsChanged ChangeKind = "partitions"
	RetentionChanged  ChangeKind = "retention"
	LoggingChanged    ChangeKind = "logging"
	Moved             ChangeKind = "moved" // to another sub-topology
)

// Change is one thing that a new version of a topology makes of stores and internal topics. What is, for instance, store "counts".
type Change struct {
	Kind ChangeKind `json:"kind"`
	What string     `json:"what"`
	Note string     `json:"note"` // what it means
	// Unsafe: the new version would read what the old one wrote as something else, or not at all. Way says how to get there all the same.
	Unsafe bool   `json:"unsafe,omitempty"`
	Way    string `json:"way,omitempty"`
}

// String is a line: + for what is added, - for what is removed, ~ for what is changed, ! for what is unsafe; and, for that,
// a second line with the way out.
func (c Change) String() string {
	sign := map[ChangeKind]string{Added: "+", Removed: "-"}[c.Kind]
	if sign == "" {
		sign = "~"
	}
	if !c.Unsafe {
		return sign + " " + c.What + ": " + c.Note
	}
	return "! " + c.What + ": " + c.Note + "\n    " + c.Way
}

// Changes are what Diff found.
type Changes []Change

// Unsafe are those that cannot just be deployed.
func (c Changes) Unsafe() (unsafe Changes) {
	for _, one := range c {
		if one.Unsafe {
			unsafe = append(unsafe, one)
		}
	}
	return unsafe
}

func (c Changes) String() string {
	lines := make([]string, len(c))
	for i, one := range c {
		lines[i] = one.String()
	}
	return strings.Join(lines, "\n")
}

// Ways out, of which each unsafe change names one.
const (
	wayStore  = "give the new store another name: it begins empty, and the old changelog stays; or begin anew: stop the application and run \"moldau app reset\""
	waySource = "give the new store another name: it is restored from its topic"
	wayTopic  = "give the new topic another name, once the old version has worked off what is in it; or begin anew: stop the application and run \"moldau app reset\""
	wayDrain  = "let the old version run without new input until its lag is 0, stop it, and start the new one with Config.AcceptTopology; or begin anew: stop the application and run \"moldau app reset\""
)

// Diff says what becomes of stores and internal topics when a program with the topology next takes over from one with the topology
// last. Operators and topics from outside may change at will. The order is that of next, then what is gone in the order of last.
func Diff(last, next Description) Changes {
	d := differ{}
	was, is := places(last), places(next)
	gone := map[string]StoreDescription{}
	for _, st := range last.Gone {
		gone[st.Name] = st
	}
	for _, s := range next.Subs {
		for _, st := range s.Stores {
			old, ok := was[st.Name]
			left, back := gone[st.Name]
			switch {
			case ok:
				d.store(old, is[st.Name])
			case st.Source:
				d.note(Added, "store", st.Name, "%s, up to the committed position", st.details())
			case back && st.Changelog != "":
				d.back(left, st)
			default:
				d.note(Added, "store", st.Name, "%s; it begins empty: what was read before does not count", st.details())
			}
		}
	}
	for _, s := range last.Subs {
		for _, st := range s.Stores {
			if _, ok := is[st.Name]; ok {
				continue
			}
			switch {
			case st.Changelog == "":
				d.note(Removed, "store", st.Name, "%s; what it holds is lost", st.details())
			case st.Source:
				d.note(Removed, "store", st.Name, "%s; the topic stays as it is", st.details())
			default:
				d.note(Removed, "store", st.Name, "%s; nobody reads its changelog any more, and nobody deletes it", st.details())
			}
		}
	}
	d.globals(last, next)
	d.topics(last, next)
	return d.found
}

// Succeed is next with the stores that are gone since last, or were before: what an application records when next takes over.
func Succeed(last, next Description) Description {
	is := places(next)
	left := slices.Clone(last.Gone)
	for _, s := range last.Subs {
		for _, st := range s.Stores {
			if st.Changelog != "" && !st.Source {
				left = append(left, st)
			}
		}
	}
	next.Gone = nil
	for _, st := range left {
		if _, ok := is[st.Name]; !ok {
			next.Gone = append(next.Gone, st)
		}
	}
	slices.SortFunc(next.Gone, func(a, b StoreDescription) int { return strings.Compare(a.Name, b.Name) })
	return next
}

type differ struct{ found Changes }

func (d *differ) note(kind ChangeKind, what, name, format string, args ...any) {
	d.found = append(d.found, Change{Kind: kind, What: fmt.Sprintf("%s %q", what, name), Note: fmt.Sprintf(format, args...)})
}

func (d *differ) unsafe(kind ChangeKind, what, name, way, format string, args ...any) {
	d.note(kind, what, name, format, args...)
	last := &d.found[len(d.found)-1]
	last.Unsafe, last.Way = true, way
}

// placed is a store and where it is.
type placed struct {
	StoreDescription
	sub int
}

func places(d Description) map[string]placed {
	all := map[string]placed{}
	for _, s := range d.Subs {
		for _, st := range s.Stores {
			all[st.Name] = placed{st, s.ID}
		}
	}
	return all
}

func (d *differ) store(was, is placed) {
	name := is.Name
	if was.Kind != is.Kind {
		d.unsafe(KindChanged, "store", name, wayStore, "it was a %s store and becomes a %s store, whose changelog is another one", was.Kind, is.Kind)
		return
	}
	where, way := "its changelog", wayStore
	if is.Source {
		where, way = "the state directory", waySource
	}
	d.formats("store", name, way, where, was.Key, is.Key, was.Value, is.Value)
	switch {
	case is.Source && was.Source && was.Changelog != is.Changelog:
		d.note(LoggingChanged, "store", name, "it was made from topic %q and begins anew with topic %q", was.Changelog, is.Changelog)
	case is.Source && !was.Source:
		d.note(LoggingChanged, "store", name, "it is restored from source topic %q, up to the committed position; nobody reads its own changelog any more, and nobody deletes it", is.Changelog)
	case was.Source && !is.Source && is.Changelog != "":
		d.unsafe(LoggingChanged, "store", name, wayStore, "it was restored from source topic %q and gets a changelog of its own, which does not hold what the store has now", was.Changelog)
	case was.Changelog != "" && is.Changelog == "":
		d.note(LoggingChanged, "store", name, "it has no changelog any more: what it holds is lost when its task moves or starts again")
	case was.Changelog == "" && is.Changelog != "":
		d.unsafe(LoggingChanged, "store", name, wayStore, "it gets a changelog, which does not hold what the store has now")
	}
	switch {
	case was.Retention < is.Retention:
		d.note(RetentionChanged, "store", name, "entries are kept %d ms, not %d ms; those that are gone do not come back. Raise retention.ms of its changelog, which was made for less", is.Retention, was.Retention)
	case was.Retention > is.Retention:
		d.note(RetentionChanged, "store", name, "entries are kept %d ms, not %d ms; older ones go", is.Retention, was.Retention)
	}
	if was.TTL != is.TTL {
		d.note(RetentionChanged, "store", name, "values live %d ms, not %d ms (0: for ever)", is.TTL, was.TTL)
	}
	if was.sub != is.sub {
		d.note(Moved, "store", name, "it moves from sub-topology %d to %d: local state is not found there, and is restored from the changelog", was.sub, is.sub)
	}
}

// back is a store that an earlier version had, and the last one had not: its changelog is still there.
func (d *differ) back(was, is StoreDescription) {
	if was.Kind != is.Kind {
		d.unsafe(KindChanged, "store", is.Name, wayStore, "an earlier version had it as a %s store, and now it is a %s store: the changelog that is still there is another one", was.Kind, is.Kind)
		return
	}
	found := len(d.found)
	d.formats("store", is.Name, wayStore, "the changelog that an earlier version has left", was.Key, is.Key, was.Value, is.Value)
	if len(d.found) == found {
		d.note(Added, "store", is.Name, "%s; an earlier version had it: it begins with what that has left in the changelog, and what was read since does not count", is.details())
	}
}

// formats notes how bytes change; of a description that does not say, nothing is known.
func (d *differ) formats(what, name, way, where, wasKey, isKey, wasValue, isValue string) {
	for _, part := range []struct{ name, was, is string }{{"keys", wasKey, isKey}, {"values", wasValue, isValue}} {
		if part.was != part.is && part.was != "" && part.is != "" {
			d.unsafe(FormatChanged, what, name, way, "its %s were written as %s and are now %s: what is in %s cannot be read", part.name, part.was, part.is, where)
		}
	}
}

func (d *differ) globals(last, next Description) {
	was := map[string]GlobalDescription{}
	for _, g := range last.Globals {
		was[g.Store] = g
	}
	for _, g := range next.Globals {
		old, ok := was[g.Store]
		delete(was, g.Store)
		switch {
		case !ok:
			d.note(Added, "global table", g.Store, "from topic %q; it is read to the end before the application starts", g.Topic)
		case old.Topic != g.Topic:
			d.unsafe(KindChanged, "global table", g.Store, "give the new table's store another name", "it was made from topic %q and is now from %q: what lies on disk is of the old one", old.Topic, g.Topic)
		default:
			d.formats("global table", g.Store, "give the new table's store another name", "the state directory", old.Key, g.Key, old.Value, g.Value)
		}
	}
	for _, g := range last.Globals {
		if _, left := was[g.Store]; left {
			d.note(Removed, "global table", g.Store, "nobody reads topic %q for it any more", g.Topic)
		}
	}
}

// topics compares internal topics; those from outside have other owners as well.
func (d *differ) topics(last, next Description) {
	was := map[string]TopicDescription{}
	for _, t := range last.Topics {
		if t.Kind.internal() {
			was[t.Name] = t
		}
	}
	for _, t := range next.Topics {
		if !t.Kind.internal() {
			continue
		}
		old, ok := was[t.Name]
		delete(was, t.Name)
		if !ok {
			d.note(Added, "internal topic", t.Name, "it will be created")
			continue
		}
		d.formats("internal topic", t.Name, wayTopic, "it", old.Key, t.Key, old.Value, t.Value)
		if old.Partitions != t.Partitions && old.Partitions > 0 && t.Partitions > 0 {
			d.unsafe(PartitionsChanged, "internal topic", t.Name, wayTopic, "it has %d partitions and would have %d: keys would be looked for in the wrong task", old.Partitions, t.Partitions)
		}
	}
	for _, t := range last.Topics {
		if _, left := was[t.Name]; left {
			d.unsafe(Removed, "internal topic", t.Name, wayDrain, "records may be in it that the old version has written and nobody would read")
		}
	}
}
