package conformance

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// fate is how much of an object does not depend on when records come, seen from the topics of the events, each of which has one order:
// neither on which task is ahead, nor on where commits fall.
type fate int

const (
	open   fate = iota // nothing
	latest             // of a table or its updates, the last of each key
	bag                // its records, not their order
	exact              // every record, in order
)

// settled finds what of a vector's results does not depend on when records come, if results go on once per key and commit.
type settled struct {
	v     *Vector
	fates map[string]fate   // of what a step makes
	from  map[string]string // the topic whose order an exact one has
	kept  map[string]fate   // of what a store holds
	sinks map[string]fate   // of topics that are written to by one step
	plain map[string]bool   // streams whose records are updates of a table, unchanged
}

func settledOf(v *Vector) *settled {
	if v.optimizes() { // repartition topics lie elsewhere then
		if moved, _, err := v.optimized(); err == nil {
			v = moved
		}
	}
	s := &settled{v: v, fates: map[string]fate{}, from: map[string]string{}, kept: map[string]fate{}, sinks: map[string]fate{}, plain: map[string]bool{}}
	in := &interpreter{vector: v}
	rekeyed := map[string]bool{}
	for _, step := range v.Spec.Steps {
		id, op := step.text("id"), step.text("op")
		var f, store fate
		var a string
		if step.has("in") {
			a = step.in(0)
			f, s.from[id], rekeyed[id] = s.fates[a], s.from[a], rekeyed[a]
		}
		// through is what a topic makes of it: another order, if it is one.
		through := func(name string) {
			if s.from[id] = name; f == bag {
				f = open
			}
		}
		switch op {
		case "stream":
			f, s.from[id] = exact, step.text("pattern")
			if names := step.texts("topics"); len(names) == 1 {
				s.from[id] = names[0]
			} else {
				f = bag
			}
			if slices.ContainsFunc(v.Spec.Steps, func(to Step) bool {
				return to.text("op") == "to" && (to.has("topicFn") || slices.Contains(step.texts("topics"), to.text("topic")))
			}) {
				f = open
			}
		case "table":
			s.from[id], store, f = step.text("topic"), exact, latest
			if !step.has("store") && !in.keeps(id) {
				f = exact
			}
		case "filter", "filterNot", "mapValues", "mapValuesWithKey", "flatMapValues":
			if f == latest {
				f = open
			}
		case "map", "flatMap", "selectKey":
			if rekeyed[id] = true; f == latest {
				f = open
			}
		case "peek":
			s.plain[id] = s.plain[a]
		case "merge":
			b := step.in(1)
			if rekeyed[id] = rekeyed[a] || rekeyed[b]; f < bag || s.fates[b] < bag {
				f = open
			} else if s.from[a] != s.from[b] || f == bag || s.fates[b] == bag {
				f = bag
			}
		case "split", "processRoute":
			if f == latest {
				f = open
			}
			if op == "processRoute" {
				rekeyed[id] = true
			}
			outs := step.texts("children")
			for _, one := range step.steps("branches") {
				outs = append(outs, one.text("id"))
			}
			for _, out := range append(outs, step.text("default")) {
				s.fates[out], s.from[out], rekeyed[out] = f, s.from[a], rekeyed[id]
			}
			continue
		case "repartition":
			through(step.text("name"))
			rekeyed[id] = false
		case "toTable":
			if rekeyed[a] {
				through(step.text("name"))
			}
			rekeyed[id] = false
			if f == bag {
				f = open
			}
			if store = f; f == exact && (step.has("store") || in.keeps(id)) {
				f = latest
			}
		case "groupByKey":
			if rekeyed[a] {
				through(step.text("name"))
			}
			rekeyed[id] = false
		case "groupBy":
			if through(step.text("name")); f == latest {
				f = open
			}
			rekeyed[id] = false
		case "tableGroupBy":
			if through(step.text("name")); f == latest {
				f = open
			}
		case "cogroup":
			for _, one := range step.texts("in") {
				if s.fates[one] != exact || s.from[one] != s.from[a] {
					f = open
				}
			}
		case "windowedBy":
			if f != exact {
				f = open
			}
		case "count", "reduce", "aggregate":
			if f != exact {
				f = open
			}
			if store = f; f == exact && v.step(a).text("emit") != "close" {
				f = latest
			}
		case "tableFilter", "tableFilterNot", "tableMapValues", "tableTransformValues":
			if op == "tableTransformValues" && f == latest {
				f = open // it makes something of deletions, and one of a row that came and went with one commit is not told
			}
			if store = f; f == exact && step.has("store") {
				f = latest
			}
		case "toStream":
			s.plain[id] = f == latest
			_, rekeyed[id] = v.windowed(a), v.windowed(a)
		case "tableJoin", "foreignKeyJoin":
			if min(f, s.fates[step.in(1)]) == open || v.versions(a) || v.versions(step.in(1)) {
				f = open
			} else {
				f = latest
			}
			store = f
		case "process", "processValues":
			if rekeyed[id] = op == "process"; f != exact || !step.has("storeKind") && step.has("store") || step.has("time") {
				f = open
			}
			store = f
		case "to":
			name := step.text("topic")
			if name == "" {
				continue
			}
			if f == latest && !s.plain[a] {
				f = open
			}
			if _, twice := s.sinks[name]; twice {
				f = open
			}
			s.sinks[name] = f
			continue
		default: // what depends on the time that others have brought
			f = open
		}
		if f < exact && step.has("historyMs") {
			f = open
		}
		s.fates[id] = f
		if step.has("store") {
			s.kept[step.text("store")] = store
		}
	}
	return s
}

// windowed says whether a table's keys are.
func (v *Vector) windowed(id string) bool {
	for step := v.step(id); step.has("in"); step = v.step(step.in(0)) {
		switch step.text("op") {
		case "windowedBy":
			return true
		case "toStream", "tableGroupBy", "toTable", "groupByKey", "groupBy":
			return false
		}
	}
	return false
}

// rowwiseOps compute a table row by row.
var rowwiseOps = []string{"tableFilter", "tableFilterNot", "tableMapValues", "tableTransformValues"}

// versions says whether a table, or one it is computed from row by row, is versioned.
func (v *Vector) versions(id string) bool {
	for step := v.step(id); ; step = v.step(step.in(0)) {
		if step.has("historyMs") {
			return true
		}
		if !step.has("in") || !slices.Contains(rowwiseOps, step.text("op")) {
			return false
		}
	}
}

// compare holds sinks and changelogs of a run against those of another, as far as they do not depend on when records come, and
// returns how many there were to compare.
func (s *settled) compare(r *run, got, want topics) (compared int) {
	joined := slices.ContainsFunc(s.v.Spec.Steps, func(step Step) bool { return strings.HasSuffix(step.text("op"), "Join") })
	one := func(name string, f fate, log bool) {
		g, w := linesOf(got, name, f, log, joined), linesOf(want, name, f, log, joined)
		if compared++; !slices.Equal(g, w) {
			r.differ("%s of topic %s:\n  got  %s\n  want %s", []string{"", "last of each key", "records in any order", "records"}[f], name, strings.Join(g, " "), strings.Join(w, " "))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.sinks)) {
		if f := s.sinks[name]; f > open {
			one(name, f, false)
		}
	}
	for _, store := range slices.Sorted(maps.Keys(s.kept)) {
		if f := s.kept[store]; f > open {
			one("oracle-"+store+"-changelog", f, true)
		}
	}
	return compared
}

// linesOf are the lines of a topic. Where only the last of a key is compared, headers are not: they are those of the one of several
// updates that went on. Nor are times behind joins, which depend on what came first.
func linesOf(from topics, name string, f fate, log, joined bool) (all []string) {
	last := map[string]string{}
	for _, r := range from.Raw(name) {
		if f > latest && !log {
			all = append(all, line(r))
			continue
		}
		if r.Headers = nil; f == latest && joined {
			r.Time = time.UnixMilli(0)
		}
		if log {
			last[string(r.Key)] = fmt.Sprintf("%x=%x@%d", r.Key, r.Value, r.Time.UnixMilli())
		} else {
			last[string(r.Key)] = line(r)
		}
		if r.Value == nil { // like a row that never was
			delete(last, string(r.Key))
		}
	}
	if f < exact || log {
		all = slices.Sorted(slices.Values(slices.AppendSeq(all, maps.Values(last))))
	}
	return all
}
