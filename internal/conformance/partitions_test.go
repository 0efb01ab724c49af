package conformance

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moldau/moldau/stream"
	"github.com/moldau/moldau/streamtest"
	"github.com/moldau/moldau/topology"
)

// many is how many partitions the topics have that tests of several partitions use.
const many = 4

// TestPartitions runs recordings with four partitions in streamtest and holds them against runs with one, which TestVectors
// holds against Kafka Streams: where results of a key depend on that key's records alone, one run, key by key; where nothing
// is repartitioned, four runs, each fed with the keys that Kafka's default partitioner puts there.
func TestPartitions(t *testing.T) {
	start, ran, differing := time.Now(), 0, 0
	for _, v := range liveVectors(t, 0, 500, (*Vector).divisible) {
		t.Run(v.ID, func(t *testing.T) {
			ran++
			if differences := v.divided(t, murmur2); len(differences) > 0 {
				differing++
				t.Errorf("%s: %d differences\n%s", v.Scheduling, len(differences), strings.Join(differences[:min(3, len(differences))], "\n"))
			}
		})
	}
	t.Logf("partitions: %d vectors, %d differences, %.0f seconds", ran, differing, time.Since(start).Seconds())
}

// TestLivePartitions runs recordings on the real runtime with four partitions, one event at a time, with a stop and a start
// half-way, and expects what streamtest has with four. Every record of a sink or a repartition topic must lie where Kafka's
// default partitioner puts its key. MOLDAU_LIVE says how many.
func TestLivePartitions(t *testing.T) {
	start, ran, differing := time.Now(), 0, 0
	for i, v := range liveVectors(t, 4, 50, (*Vector).divisibleLive) {
		t.Run(v.ID, func(t *testing.T) {
			ran++
			if differences := v.liveDivided(t, i, murmur2); len(differences) > 0 {
				differing++
				t.Errorf("%s: %d differences\n%s", v.Scheduling, len(differences), strings.Join(differences[:min(3, len(differences))], "\n"))
			}
		})
	}
	t.Logf("live partitions: %d vectors, %d differences, %.0f seconds", ran, differing, time.Since(start).Seconds())
}

// Input in partitions where its keys do not belong is noticed by both: rows of two tables with one key do not meet.
func TestWrongPartitionsAreSeen(t *testing.T) {
	byValue := func(key []byte, n int32) int32 {
		if len(key) == 0 {
			return 0
		}
		return int32(key[len(key)-1]) % n
	}
	model, live := false, false
	for i, v := range liveVectors(t, 0, 0, (*Vector).divisibleLive) {
		if !model {
			model = len(v.divided(t, byValue)) > 0
		}
		if !live {
			live = len(v.liveDivided(t, i, byValue)) > 0
		}
		if model && live {
			return
		}
	}
	t.Errorf("a wrong partitioner is seen in streamtest: %v, on the real runtime: %v", model, live)
}

// perKey are the operators whose result for a key depends on nothing but that key's records.
var perKey = []string{
	"stream", "table", "filter", "filterNot", "map", "mapValues", "mapValuesWithKey", "flatMap", "flatMapValues", "selectKey", "peek",
	"merge", "split", "repartition", "to", "toTable", "toStream", "groupByKey", "groupBy", "cogroup", "count", "reduce", "aggregate",
	"tableFilter", "tableFilterNot", "tableMapValues", "tableTransformValues", "tableGroupBy", "tableJoin", "foreignKeyJoin",
	"streamTableJoin", "process", "processValues", "processRoute", "stateStore",
}

// byKey says whether results depend on the records of one key only, so that it does not matter which others share its partition.
func (v *Vector) byKey() bool {
	return !slices.ContainsFunc(v.Spec.Steps, func(s Step) bool {
		return !slices.Contains(perKey, s.text("op")) || s.has("historyMs") || s.has("graceMs") || s.text("timestamps") == "valueOrPartitionTime" ||
			s.text("op") == "process" && !slices.Contains([]string{"countKey", "dedup", "shift"}, s.text("processor")) ||
			strings.HasPrefix(s.text("op"), "process") && s.has("store") && v.scattered(s.in(0))
	})
}

// scattered says whether a stream has records of one key in several partitions, since keys have changed and no repartition topic followed.
func (v *Vector) scattered(stream string) bool {
	step := v.step(stream)
	switch step.text("op") {
	case "map", "flatMap", "selectKey", "process", "processRoute":
		return true
	case "filter", "filterNot", "mapValues", "mapValuesWithKey", "flatMapValues", "peek", "merge", "split", "processValues":
		return slices.ContainsFunc(step.texts("in"), v.scattered)
	case "toStream":
		return v.windowed(step.in(0))
	}
	return false
}

// wandering says whether records get from one partition to another: through repartition topics, or a sink that is read again.
func (v *Vector) wandering(top *topology.Topology) bool {
	var read []string
	for _, s := range v.Spec.Steps {
		switch s.text("op") {
		case "stream":
			read = append(read, s.texts("topics")...)
		case "table":
			read = append(read, s.text("topic"))
		}
	}
	return v.readsBack() || slices.ContainsFunc(top.Topics, func(t *topology.Topic) bool { return t.Kind == topology.Repartition }) ||
		slices.ContainsFunc(v.Spec.Steps, func(s Step) bool { return s.text("op") == "to" && slices.Contains(read, s.text("topic")) })
}

// divisible says whether there is a model of several partitions.
func (v *Vector) divisible() bool {
	if v.Scheduling == "SENSITIVE" || v.FailsAt != nil || v.Spec.Config.OnError != "" || v.Spec.Config.CacheBytes > 0 ||
		slices.ContainsFunc(v.Spec.Steps, func(s Step) bool { return strings.HasPrefix(s.text("op"), "global") }) {
		return false
	}
	top, err := topologyOf(v)
	return err == nil && (v.byKey() || !v.wandering(top))
}

func (v *Vector) divisibleLive() bool { return v.live() && v.divisible() }

// observed is what came of each event: lines by topic and key, in their order, and stores at the end, sorted.
type observed struct {
	events []map[string][]string
	stores map[string][]string
}

// divided compares several partitions with the model.
func (v *Vector) divided(tb testing.TB, partition func(key []byte, n int32) int32) (differences []string) {
	top, err := topologyOf(v)
	if err != nil {
		return []string{err.Error()}
	}
	got := v.observe(tb, top, many, partition, func(Event) bool { return true })
	if v.byKey() {
		r := &run{Vector: v}
		r.compareObserved("with one partition", got, v.observe(tb, top, 1, func([]byte, int32) int32 { return 0 }, func(Event) bool { return true }))
		differences = r.differences
	}
	if !v.wandering(top) {
		r := &run{Vector: v}
		want := observed{stores: map[string][]string{}, events: make([]map[string][]string, len(v.Events))}
		for p := range int32(many) {
			one := v.observe(tb, top, 1, func([]byte, int32) int32 { return 0 }, func(e Event) bool { return murmur2(bytesOf(e.Key), many) == p })
			for at := range one.events {
				for key, lines := range one.events[at] {
					if want.events[at] == nil {
						want.events[at] = map[string][]string{}
					}
					want.events[at][key] = append(want.events[at][key], lines...)
				}
			}
			for name, lines := range one.stores {
				want.stores[name] = slices.Sorted(slices.Values(append(want.stores[name], lines...)))
			}
		}
		r.compareObserved("partition by partition", got, want)
		differences = append(differences, r.differences...)
	}
	return differences
}

func bytesOf(v *string) []byte {
	if v == nil {
		return nil
	}
	return []byte(*v)
}

func note(m *map[string][]string, topic, key, line string) {
	if *m == nil {
		*m = map[string][]string{}
	}
	(*m)[topic+" "+key] = append((*m)[topic+" "+key], line)
}

func (r *run) compareObserved(how string, got, want observed) {
	for at := range r.Events {
		for _, key := range slices.Sorted(maps.Keys(both(got.events[at], want.events[at]))) {
			g, w := got.events[at][key], want.events[at][key]
			if strings.HasSuffix(key, " null") { // which lie in any partition
				g, w = slices.Sorted(slices.Values(g)), slices.Sorted(slices.Values(w))
			}
			if !slices.Equal(g, w) {
				r.differ("%s, event %d, topic and key %s:\n  got  %s\n  want %s", how, at, key, strings.Join(g, " "), strings.Join(w, " "))
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(both(got.stores, want.stores))) {
		if g, w := got.stores[name], want.stores[name]; !slices.Equal(g, w) {
			r.differ("%s, store %s:\n  got  %s\n  want %s", how, name, strings.Join(g, " "), strings.Join(w, " "))
		}
	}
}

// observe runs a vector in streamtest with so many partitions, fed with some of the events.
func (v *Vector) observe(tb testing.TB, top *topology.Topology, partitions int32, partition func(key []byte, n int32) int32, takes func(Event) bool) observed {
	d := streamtest.Run(tb, top, streamtest.App("oracle"), streamtest.Start(time.UnixMilli(1e12)), streamtest.Partitions(partitions))
	r := &run{Vector: v, d: d, topics: d, topology: top, read: map[string]int{}}
	o := observed{stores: map[string][]string{}, events: make([]map[string][]string, len(v.Events))}
	for at, e := range v.Events {
		switch {
		case e.AdvanceWallClockMs != nil:
			d.Advance(time.Duration(*e.AdvanceWallClockMs) * time.Millisecond)
		case takes(e):
			in := streamtest.In(d, stream.NewTopic[text, text](e.Topic, nullable, nullable))
			in.Put(partition(bytesOf(e.Key), partitions), eventRecord(e))
			d.Run()
		default:
			continue
		}
		r.noteNew(&o.events[at], e)
	}
	for name, dump := range v.Stores {
		lines, _ := r.dump(name, dump.Kind)
		o.stores[name] = slices.Sorted(slices.Values(lines))
	}
	return o
}

// noteNew notes what has appeared in topics that are not the application's own since the last time, but for the event itself.
func (r *run) noteNew(m *map[string][]string, e Event) {
	for _, name := range r.topics.Topics() {
		if strings.HasPrefix(name, "oracle-") {
			continue
		}
		all := r.topics.Raw(name)
		fresh := all[r.read[name]:]
		r.read[name] = len(all)
		if name == e.Topic && e.AdvanceWallClockMs == nil {
			i := slices.IndexFunc(fresh, func(one streamtest.Raw) bool { return one.Time.UnixMilli() == e.TS && string(one.Key) == str(e.Key) })
			if i < 0 { // a null key
				i = 0
			}
			fresh = slices.Delete(slices.Clone(fresh), i, i+1)
		}
		for _, one := range fresh {
			note(m, name, str(nullableText(one.Key)), line(one))
		}
	}
}

// liveDivided runs a vector with several partitions on the real runtime.
func (v *Vector) liveDivided(t *testing.T, seed int, partition func(key []byte, n int32) int32) []string {
	l := newLive(t, v, many)
	l.partition = partition
	workers := []int{1, 3}
	if err := l.start(workers[seed%2]); err != nil {
		t.Fatal(err)
	}
	defer func() { l.stop() }()
	want := v.observe(t, l.top, many, murmur2, func(Event) bool { return true })
	got := observed{events: make([]map[string][]string, len(v.Events)), stores: want.stores}
	for at, e := range v.Events {
		if at == len(v.Events)/2 {
			l.stop()
			if err := l.start(workers[(seed+1)%2]); err != nil {
				t.Fatal(err)
			}
		}
		l.send(e)
		l.read[e.Topic]-- // noteNew counts it
		l.fetch(l.settle())
		l.noteNew(&got.events[at], e)
	}
	l.compareObserved("live", got, want)
	for _, name := range l.Topics() {
		if strings.Contains(name, "-subscription-") || slices.ContainsFunc(v.Events, func(e Event) bool { return e.Topic == name }) {
			continue
		}
		for _, one := range l.Raw(name) {
			if p := murmur2(one.Key, many); one.Key != nil && p != one.Partition {
				l.differ("topic %s: %s lies in partition %d, its key belongs to %d", name, line(one), one.Partition, p)
			}
		}
	}
	return l.differences
}
