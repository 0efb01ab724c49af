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
	how   arrival
	fates map[string]fate   // of what a step makes
	from  map[string]string // the topic whose order an exact one has
	kept  map[string]fate   // of what a store holds
	sinks map[string]fate   // of topics that are written to by one step
	plain map[string]bool   // streams whose records are updates of a table, unchanged

	prompt map[string]bool            // tables that a lookup finds as the last record left them, and not the last commit
	roots  map[string]map[string]bool // the tables that one is made of, row by row or joined
	// Tables that are joined with what they are made of themselves, which may miss deletions, and aggregates of streams, whose first update takes
	// away what they begin with, as in Kafka Streams: such updates do not add up.
	twice, begun map[string]bool
	sums         map[string]string // tables of numbers that do not depend on the order of what is added up, and what they begin with
	counts       map[string]string // and sinks of those
}

// arrival is how events come.
type arrival struct {
	ordered bool // one after another, of whichever topic
	parted  bool // in several partitions, so that only keys have an order
	racing  bool // foreign keys are not always answered, so that deletions are lost as in Kafka Streams when updates overtake answers
}

func settledOf(v *Vector, how arrival) *settled {
	if v.optimizes() { // repartition topics lie elsewhere then
		if moved, _, err := v.optimized(); err == nil {
			v = moved
		}
	}
	s := &settled{v: v, how: how, fates: map[string]fate{}, from: map[string]string{}, kept: map[string]fate{}, sinks: map[string]fate{}, plain: map[string]bool{},
		prompt: map[string]bool{}, roots: map[string]map[string]bool{}, twice: map[string]bool{}, begun: map[string]bool{}, sums: map[string]string{}, counts: map[string]string{}}
	in := &interpreter{vector: v}
	rekeyed := map[string]bool{}
	for _, step := range v.Spec.Steps {
		id, op := step.text("id"), step.text("op")
		var f, store fate
		var a string
		if step.has("in") {
			a = step.in(0)
			f, s.from[id], rekeyed[id] = s.fates[a], s.from[a], rekeyed[a]
			s.roots[id] = map[string]bool{}
			for _, one := range step.texts("in") {
				s.twice[id], s.begun[id] = s.twice[id] || s.twice[one], s.begun[id] || s.begun[one]
				for root := range s.roots[one] {
					s.twice[id] = s.twice[id] || s.roots[id][root]
					s.roots[id][root] = true
				}
				if _, sum := s.sums[one]; sum && op != "toStream" && op != "to" {
					f = open
				}
			}
		}
		// through is what a topic makes of it: another order, if it is one.
		through := func(name string) {
			if s.from[id] = name; f == bag || f == exact && how.parted {
				f = open
			}
		}
		switch op {
		case "stream":
			f, s.from[id] = exact, step.text("pattern")
			if names := step.texts("topics"); how.ordered {
				s.from[id] = ""
			} else if len(names) == 1 {
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
			if how.ordered {
				s.from[id] = ""
			}
			if !step.has("store") && !in.keeps(id) {
				f = exact
			}
			if slices.ContainsFunc(v.Spec.Steps, func(to Step) bool {
				return to.text("op") == "to" && (to.has("topicFn") || to.text("topic") == step.text("topic"))
			}) {
				f, store = open, open
			}
			s.prompt[id], s.roots[id] = true, map[string]bool{id: true}
		case "filter", "filterNot", "mapValues", "mapValuesWithKey", "flatMapValues":
			if f == latest {
				f = open
			}
		case "map", "flatMap", "selectKey":
			if rekeyed[id] = true; f == latest {
				f = open
			} else if how.parted { // records of one key come of several, in several partitions
				f = min(f, bag)
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
			s.prompt[id], s.roots[id][id] = f == exact, true
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
			if through(step.text("name")); f == latest && (s.twice[a] || s.begun[a]) {
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
			if start, adds := addsUp(step); f == latest && adds && v.step(a).text("op") == "tableGroupBy" {
				s.sums[id] = start
			} else if f != exact {
				f = open
			}
			s.prompt[id], s.roots[id][id], s.begun[id] = f == exact, true, true
			if store = f; f == latest {
				store = open
			} else if f == exact && v.step(a).text("emit") != "close" {
				f = latest
			}
		case "tableFilter", "tableFilterNot", "tableMapValues", "tableTransformValues":
			if op == "tableTransformValues" && f == latest {
				f = open // it makes something of deletions, and one of a row that came and went with one commit is not told
			}
			if f == bag {
				f = open
			}
			s.prompt[id] = s.prompt[a] && (!step.has("store") || f == exact)
			if store = f; f == exact && step.has("store") {
				f = latest
			}
		case "suppress":
			// It takes up updates in the order of the last of each row, so that none comes after its window has closed.
			if made := v.step(a); step.text("until") == "windowCloses" && f == latest && neverNull(made) && slices.Contains(steady, v.step(made.in(0)).sub("window").text("type")) {
				f = bag
			} else {
				f = open
			}
		case "toStream":
			if start, ok := s.sums[a]; ok {
				s.sums[id] = start
			}
			s.plain[id] = f == latest
			_, rekeyed[id] = v.windowed(a), v.windowed(a)
		case "tableJoin", "foreignKeyJoin":
			if min(f, s.fates[step.in(1)]) == open || s.twice[id] || how.racing && op == "foreignKeyJoin" || v.versions(a) || v.versions(step.in(1)) {
				f = open
			} else {
				f = latest
			}
			store = f
			if s.prompt[id] = op == "tableJoin" && !step.has("store") && s.prompt[a] && s.prompt[step.in(1)]; s.from[a] != s.from[step.in(1)] || op != "tableJoin" {
				s.from[id] = id
			}
		case "streamJoin":
			if b := step.in(1); rekeyed[a] || rekeyed[b] || f != exact || s.fates[b] != exact || s.from[a] != s.from[b] {
				f = open
			}
		case "streamTableJoin":
			if b := step.in(1); rekeyed[a] || f != exact || s.fates[b] < latest || s.from[a] != s.from[b] || !s.prompt[b] {
				f = open
			}
		case "process", "processValues":
			if rekeyed[id] = op == "process"; f != exact || how.parted && rekeyed[a] || !step.has("storeKind") && step.has("store") || step.has("time") {
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
			if start, ok := s.sums[a]; ok {
				s.counts[name] = start
			}
			if _, twice := s.sinks[name]; twice {
				f = open
			}
			s.sinks[name] = f
			continue
		default: // what depends on the time that others have brought
			f = open
		}
		if step.has("historyMs") { // its latest row is that of the latest time, and not of all updates it hears
			if f < exact {
				f = open
			}
			if store < exact {
				store = open
			}
		}
		s.fates[id] = f
		if step.has("store") {
			s.kept[step.text("store")] = store
		}
	}
	return s
}

// steady are windows of which none takes up a record after its result has gone on.
var steady = []string{"tumbling", "hopping"}

// neverNull says whether every record of a window makes an update that is told of. One from nothing to nothing moves the time of those behind it
// only where every update goes on.
func neverNull(step Step) bool {
	return step.text("op") == "count" || step.text("op") == "aggregate" && slices.Contains([]string{"append", "plus", "keyValue", "sum", "inc"}, step.text("fn"))
}

// addsUp says whether an aggregate of a grouped table comes to the same in any order, and what it begins with.
func addsUp(step Step) (start string, ok bool) {
	switch step.text("op") {
	case "count":
		return "0", true
	case "reduce":
		return "0", step.text("fn") == "sum" && step.text("subtract") == "diff"
	}
	by := step.text("fn") + " " + step.text("subtract")
	return step.text("init"), by == "sum diff" || by == "inc dec"
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
		g, w := linesOf(got, name, f, log, joined, s.how.parted), linesOf(want, name, f, log, joined, s.how.parted)
		if start, ok := s.counts[name]; ok {
			g, w = numbersOf(got, name, start), numbersOf(want, name, start)
		}
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
func linesOf(from topics, name string, f fate, log, joined, parted bool) (all []string) {
	last := map[string]string{}
	var keys []string
	for _, r := range from.Raw(name) {
		if f > latest && !log {
			all, keys = append(all, line(r)), append(keys, string(r.Key))
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
	if parted {
		all = byKey(keys, all)
	}
	if f < exact || log {
		all = slices.Sorted(slices.Values(slices.AppendSeq(all, maps.Values(last))))
	}
	return all
}

// numbersOf are the last numbers of each key of a topic but for those that are as they were to begin with: such a key may never
// have been heard of.
func numbersOf(from topics, name, start string) []string {
	last := map[string]string{}
	for _, r := range from.Raw(name) {
		key, n := string(r.Key), num(new(string(r.Value)))
		if last[key] = fmt.Sprintf("%s=%d", key, n); r.Value == nil || n == num(&start) {
			delete(last, key)
		}
	}
	return slices.Sorted(maps.Values(last))
}
