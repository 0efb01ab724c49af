package conformance

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moldau/moldau/internal/table"
	"github.com/moldau/moldau/stream"
	"github.com/moldau/moldau/streamtest"
	"github.com/moldau/moldau/topology"
)

// Run runs a vector and returns how it differs from the recording; an error says that it cannot be built.
func (v *Vector) Run(tb testing.TB) (differences []string, err error) {
	if v.Scheduling == "SENSITIVE" {
		return v.compare(tb, java)
	}
	differences, err = v.compare(tb, ours)
	unsaid := v.punctuates() || v.readsBack()
	if len(differences) == 0 || v.Scheduling != "FREE" && !unsaid {
		return differences, err
	}
	var excused []string
	if slices.ContainsFunc(v.Unexplained(differences), visible) && !unsaid {
		turned, err := v.compare(tb, turned)
		if err != nil || slices.ContainsFunc(v.Unexplained(turned), visible) {
			return differences, err
		}
		for _, difference := range v.Unexplained(differences) {
			excused = append(excused, ties+": "+difference)
		}
	}
	differences, err = v.compare(tb, java)
	return append(excused, differences...), err
}

// order is the order in which records wait that are due at once.
type order int

const (
	ours   order = iota // each task on its own; of its topics the one that was declared first
	turned              // each task on its own; of its topics the one that was declared last
	java                // that of Java's test driver
)

// visible says whether a difference is one of results. How many records it takes to get there, and how many of them are dropped,
// may depend on the order of tasks even where results do not; so may whether anything was ever written to a changelog in which
// nothing stays.
func visible(difference string) bool {
	return !strings.HasPrefix(difference, "dropped ") && !strings.HasPrefix(difference, "internal topic ") && !strings.HasPrefix(difference, emptied)
}

const emptied = "emptied changelog "

// punctuates says whether a processor acts by stream time, which in Java's test driver all sub-topologies have together.
func (v *Vector) punctuates() bool {
	return slices.ContainsFunc(v.Spec.Steps, func(s Step) bool { return s.text("time") == "STREAM_TIME" })
}

// readsBack says whether a source reads what a topic extractor writes: to several topics, whose records then wait with one time. The
// recording's scheduling is of the application's own topics, and does not say whether their order matters.
func (v *Vector) readsBack() bool {
	return slices.ContainsFunc(v.Spec.Steps, func(to Step) bool {
		_, name, ok := strings.Cut(to.text("topicFn"), ":")
		return ok && slices.ContainsFunc(v.Spec.Steps, func(s Step) bool {
			return s.text("op") != "to" && slices.ContainsFunc(append(s.texts("topics"), s.text("topic")), func(topic string) bool {
				return strings.HasPrefix(topic, name+"-")
			})
		})
	})
}

// compare is Run in one of these orders.
func (v *Vector) compare(tb testing.TB, how order) (differences []string, err error) {
	b := stream.NewBuilder()
	if err := v.build(b); err != nil {
		return nil, err
	}
	top, err := b.Build()
	if err != nil {
		return []string{err.Error()}, nil
	}
	options := []streamtest.Option{streamtest.App("oracle"), streamtest.Start(time.UnixMilli(1e12))}
	for _, e := range v.Events { // they are there from the start, for patterns to match
		if e.Topic != "" {
			options = append(options, streamtest.TopicPartitions(e.Topic, 1))
		}
	}
	switch v.Spec.Config.OnError {
	case "continue":
		options = append(options, streamtest.ContinueErrors())
	case "fail":
		options = append(options, streamtest.KeepErrors())
	}
	switch how {
	case java:
		options = append(options, streamtest.JavaOrder())
	case turned:
		for _, sub := range top.Subs {
			slices.Reverse(sub.Sources)
		}
	}
	d := streamtest.Run(tb, top, options...)
	r := &run{Vector: v, d: d, topics: d, topology: top, read: map[string]int{}}
	for at, e := range v.Events {
		r.feed(e)
		if d.Err() != nil {
			if v.FailsAt == nil || *v.FailsAt != at {
				r.differ("event %d fails: %v", at, d.Err())
			}
			return r.differences, nil
		}
		r.outputs(at)
	}
	if v.FailsAt != nil {
		r.differ("event %d does not fail", *v.FailsAt)
	}
	r.stores()
	var dropped int64
	for _, n := range d.Dropped() {
		dropped += n
	}
	if dropped += d.Skipped(); dropped != v.Dropped {
		kind := ""
		if r.cached() && (r.sessionsKept() >= 0 || r.slides()) && dropped < v.Dropped {
			kind = recordCaches + ": " // Java's store refuses some when the cache hands them on
		}
		r.differ("%sdropped %d, want %d: %v", kind, dropped, v.Dropped, d.Dropped())
	}
	r.changelogs()
	r.others(r.Raw.Changelogs)
	r.internal()
	return r.differences, nil
}

type run struct {
	*Vector
	d           *streamtest.Driver
	topics      topics
	topology    *topology.Topology
	read        map[string]int // records seen of each topic
	next        int            // of Outputs
	differences []string
}

// topics is what has been written so far, by whatever runs the vector.
type topics interface {
	Topics() []string
	Raw(topic string) []streamtest.Raw
}

func (r *run) differ(format string, args ...any) {
	r.differences = append(r.differences, fmt.Sprintf(format, args...))
}

func (r *run) feed(e Event) {
	if e.AdvanceWallClockMs != nil {
		r.d.Advance(time.Duration(*e.AdvanceWallClockMs) * time.Millisecond)
		return
	}
	in := streamtest.In(r.d, stream.NewTopic[text, text](e.Topic, nullable, nullable))
	in.SendRecord(eventRecord(e))
	r.read[e.Topic]++ // it is no output
}

func eventRecord(e Event) record {
	r := record{Key: e.Key, Value: e.Value, Time: time.UnixMilli(e.TS)}
	for _, h := range e.Headers {
		one := stream.Header{Key: *h[0]}
		if h[1] != nil {
			one.Value = []byte(*h[1])
		}
		r.Headers = append(r.Headers, one)
	}
	return r
}

// outputs compares what appeared because of an event, topic by topic.
func (r *run) outputs(at int) {
	got, want := map[string][]string{}, map[string][]string{}
	for _, name := range r.topics.Topics() {
		if strings.HasPrefix(name, "oracle-") {
			continue
		}
		all := r.topics.Raw(name)
		written := r.read[name]
		fed := 0
		for _, e := range r.Events[:at+1] {
			if e.AdvanceWallClockMs == nil && e.Topic == name {
				fed++
			}
		}
		if len(all) > written {
			from := written
			if fed > 0 && r.Events[at].Topic == name && r.Events[at].AdvanceWallClockMs == nil {
				from = written - 1 // the event itself comes first
				all = append(all[:from:from], all[from+1:]...)
			}
			for _, one := range all[from:] {
				got[name] = append(got[name], line(one))
			}
			r.read[name] = len(r.topics.Raw(name))
		}
	}
	for ; r.next < len(r.Outputs) && r.Outputs[r.next].At == at; r.next++ {
		o := r.Outputs[r.next]
		want[o.Topic] = append(want[o.Topic], show(o.Key, o.Value, o.TS, o.Headers))
	}
	r.hold(at, got, want)
}

// hold compares what each topic got at an event.
func (r *run) hold(at int, got, want map[string][]string) {
	for _, name := range slices.Sorted(maps.Keys(both(got, want))) {
		if !slices.Equal(got[name], want[name]) {
			kind := ""
			if gone := r.gone(at); slices.Equal(slices.DeleteFunc(slices.Clone(got[name]), func(l string) bool { return !slices.Contains(want[name], l) && gone(l) }), want[name]) {
				kind = recordCaches + ": "
			}
			r.differ(kind+"event %d, topic %s:\n  got  %s\n  want %s", at, name, strings.Join(got[name], " "), strings.Join(want[name], " "))
		}
	}
}

func both[V any](a, b map[string]V) map[string]V {
	all := make(map[string]V, len(a)+len(b))
	maps.Copy(all, a)
	maps.Copy(all, b)
	return all
}

func line(one streamtest.Raw) string {
	var headers [][2]*string
	for _, h := range one.Headers {
		headers = append(headers, [2]*string{&h.Key, nullableText(h.Value)})
	}
	return show(nullableText(one.Key), nullableText(one.Value), one.Time.UnixMilli(), headers)
}

func nullableText(b []byte) text {
	if b == nil {
		return nil
	}
	return s(string(b))
}

func show(k, v text, ts int64, headers [][2]*string) string {
	line := fmt.Sprintf("%s=%s@%d", str(k), str(v), ts)
	for _, h := range headers {
		line += fmt.Sprintf(",%s:%s", str(h[0]), str(h[1]))
	}
	return line
}

// stores compares final contents.
func (r *run) stores() {
	for _, name := range slices.Sorted(maps.Keys(r.Stores)) {
		want := r.Stores[name]
		var lines []string
		for _, e := range want.Entries {
			lines = append(lines, entry(want.Kind, e))
		}
		got, ok := r.dump(name, want.Kind)
		if !ok {
			r.differ("store %s of kind %s cannot be read", name, want.Kind)
			continue
		}
		if r.cached() && strings.Contains(want.Kind, "WINDOW") {
			lines = slices.DeleteFunc(lines, r.cachedOnly(name, lines, got))
		}
		if !slices.Equal(got, lines) {
			r.differ("store %s:\n  got  %s\n  want %s", name, strings.Join(got, " "), strings.Join(lines, " "))
		}
	}
}

func entry(kind string, e Entry) string {
	line := str(e.Key)
	if e.Start != nil {
		line += fmt.Sprintf("[%d", *e.Start)
	}
	if e.End != nil {
		line += fmt.Sprintf(",%d", *e.End)
	}
	line += "=" + str(e.Value)
	if e.TS != nil {
		line += fmt.Sprintf("@%d", *e.TS)
	}
	return line
}

// dump reads a store, in the order of key bytes and times.
func (r *run) dump(name, kind string) (lines []string, ok bool) {
	for _, st := range r.d.Stores(name) { // of one task each
		before := lines
		lines = nil
		var err error
		stamp := func(at int64) string {
			if strings.HasPrefix(kind, "TIMESTAMPED") {
				return fmt.Sprintf("@%d", at)
			}
			return ""
		}
		switch st := st.(type) {
		case *table.KV[text, text]:
			err = st.Range(nil, nil, func(k, v text, at int64) bool {
				lines = append(lines, str(k)+"="+str(v)+stamp(at))
				return true
			})
		case *table.KV[text, int64]:
			err = st.Range(nil, nil, func(k text, v, at int64) bool {
				lines = append(lines, fmt.Sprintf("%s=%d", str(k), v)+stamp(at))
				return true
			})
		case *table.Versions[text, text]:
			lines, err = versionLines(lines, st, str)
		case *table.Versions[text, int64]:
			lines, err = versionLines(lines, st, func(v int64) string { return fmt.Sprint(v) })
		case *table.Windows[text, text]:
			lines, err = windowLines(st, str, stamp)
		case *table.Windows[text, int64]:
			lines, err = windowLines(st, func(v int64) string { return fmt.Sprint(v) }, stamp)
		case *table.Records[text, text]:
			var keys []string
			err = st.FetchAll(0, 1<<62, func(k text, at int64, v text) bool {
				lines = append(lines, fmt.Sprintf("%s[%d=%s", str(k), at, str(v)))
				keys = append(keys, str(k))
				return true
			})
			lines = byKey(keys, lines)
		case *table.Sessions[text, text]:
			lines, err = sessionLines(st, str)
		case *table.Sessions[text, int64]:
			lines, err = sessionLines(st, func(v int64) string { return fmt.Sprint(v) })
		default:
			return nil, false
		}
		if err != nil {
			r.differ("store %s: %v", name, err)
		}
		lines = append(before, lines...)
	}
	return lines, true
}

func windowLines[V any](st *table.Windows[*string, V], text func(V) string, stamp func(int64) string) (lines []string, err error) {
	type row struct {
		key   string
		start int64
		line  string
	}
	var rows []row
	err = st.FetchAll(0, 1<<62, func(k *string, start int64, v V, at int64) bool {
		rows = append(rows, row{str(k), start, fmt.Sprintf("%s[%d=%s", str(k), start, text(v)) + stamp(at)})
		return true
	})
	slices.SortStableFunc(rows, func(a, b row) int { return strings.Compare(a.key, b.key) })
	for _, r := range rows {
		lines = append(lines, r.line)
	}
	return lines, err
}

// changelogs compares the bytes of changelogs after compaction, where the spec names the store. Java logs puts of
// expired windows and sessions although its store does not take them: a difference that is gone without these is a deviation.
func (r *run) changelogs() {
	for _, name := range slices.Sorted(maps.Keys(r.Raw.Changelogs)) {
		if strings.Contains(name, "-STATE-STORE-") {
			continue
		}
		last := map[string]string{}
		timed := len(r.Raw.Changelogs[name]) == 0 || r.Raw.Changelogs[name][0].TS != nil // Java leaves the time of buffers to the producer
		for k, one := range r.compacted(name) {
			last[k] = fmt.Sprintf("%s=%s", k, hex.EncodeToString(one.Value))
			if timed {
				last[k] += fmt.Sprintf("@%d", one.Time.UnixMilli())
			}
		}
		var got, want []string
		for _, k := range slices.Sorted(maps.Keys(last)) {
			got = append(got, last[k])
		}
		for _, one := range r.Raw.Changelogs[name] {
			line := str(one.Key) + "=" + str(one.Value)
			if one.TS != nil {
				line += fmt.Sprintf("@%d", *one.TS)
			}
			want = append(want, line)
		}
		if r.cached() && r.suppresses(name) {
			got, want = withoutOrigins(got), withoutOrigins(want)
		}
		kind := ""
		if store := strings.TrimSuffix(strings.TrimPrefix(name, "oracle-"), "-changelog"); r.Stores[store].Kind == "VERSIONED" {
			r.endsWithLatest(store, last)
			if r.endsWithPuts(name, want) {
				kind = versionedLogs + ": "
			}
		}
		if slices.Equal(got, want) {
			continue
		}
		if keep := r.sessionsKept(); r.cached() && keep >= 0 {
			expired := r.expiry(name, keep)
			if slices.Equal(got, slices.DeleteFunc(slices.Clone(want), func(l string) bool { return !slices.Contains(got, l) && expired(l) })) {
				kind = recordCaches + ": "
			}
		}
		gone := r.expiry(name, -1)
		live, wanted := slices.DeleteFunc(slices.Clone(got), gone), slices.DeleteFunc(slices.Clone(want), gone)
		if slices.Equal(live, wanted) {
			kind = expiredPuts + ": "
		}
		r.differ("%schangelog %s:\n  got  %s\n  want %s", kind, name, strings.Join(got, " "), strings.Join(want, " "))
	}
}

// compacted is the last record of each key of a topic, by the key in hexadecimal.
func (r *run) compacted(topic string) map[string]streamtest.Raw {
	last := map[string]streamtest.Raw{}
	for _, one := range r.topics.Raw(topic) {
		k := hex.EncodeToString(one.Key)
		if delete(last, k); one.Value != nil {
			last[k] = one
		}
	}
	return last
}

// others are changelogs that Java has not: where it restores a table from its topic, for instance. Stores that the spec does not name
// are none of its business.
func (r *run) others(recorded map[string][]RawRecord) {
	for _, name := range r.topics.Topics() {
		store, ok := strings.CutSuffix(strings.TrimPrefix(name, "oracle-"), "-changelog")
		if _, has := recorded[name]; ok && !has && !strings.HasPrefix(store, "unnamed-") && len(r.topics.Raw(name)) > 0 {
			kind := "changelog "
			if len(r.compacted(name)) == 0 {
				kind = emptied
			}
			r.differ("%s%s is not in the recording", kind, name)
		}
	}
}

// expiry says which lines of a changelog, whose keys are in hexadecimal, are of windows or sessions that have expired: that are older than
// keep, or below 0 than the store keeps them.
func (r *run) expiry(changelog string, keep int64) func(line string) bool {
	s, _ := r.topology.Store(strings.TrimSuffix(strings.TrimPrefix(changelog, "oracle-"), "-changelog"))
	if s != nil && keep < 0 {
		keep = s.Spec.Retention
	}
	var tail int // from where on a key holds the time by which it expires
	switch {
	case s == nil:
	case s.Spec.Kind == "window":
		tail = 12
	case s.Spec.Kind == "session":
		tail = 16
	}
	if tail == 0 {
		return func(string) bool { return false }
	}
	at := func(line string) int64 {
		key, _, _ := strings.Cut(line, "=")
		b, _ := hex.DecodeString(key)
		return int64(binary.BigEndian.Uint64(b[len(b)-tail:]))
	}
	var seen int64
	for _, one := range r.topics.Raw(changelog) {
		seen = max(seen, at(hex.EncodeToString(one.Key)))
	}
	return func(line string) bool { return at(line) <= seen-keep }
}
