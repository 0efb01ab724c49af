package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/moldau/moldau/examples/flights/topics"
)

// contents is what was read from the topics, each in the order of partition and offset.
type contents struct {
	flights, hours, late, routes []record
	partitions                   map[string]int // per topic
}

// verdict is what was found about one topic.
type verdict struct {
	Topic    string
	Records  int
	Expected int
	Missing  int // expected and not there
	Extra    int // there and not expected
	Doubled  int // of the extra ones: equal to one that is expected
	Wrong    int // in the wrong partition or order, or ending at a wrong value
	Over     int // of topic routes: keys that count more flights than there were
	Under    int // of topic routes: keys that count fewer
	First    []string
}

// OK says whether the topic holds exactly what it must.
func (v *verdict) OK() bool { return v.Missing+v.Extra+v.Wrong == 0 }

// show keeps the first few differences.
func (v *verdict) show(format string, args ...any) {
	if len(v.First) < 5 {
		v.First = append(v.First, fmt.Sprintf(format, args...))
	}
}

// check compares what was read with what the CSV demands.
func check(s source, c contents) ([]*verdict, error) {
	e, err := expect(s, c.flights)
	if err != nil {
		return nil, err
	}
	flat := make([]record, len(c.flights))
	for i, r := range c.flights {
		flat[i] = record{time: r.time, key: r.key, value: r.value}
	}
	flights := &verdict{Topic: topics.Flights}
	flights.compare(flat, e.flights)
	flights.places(c.flights, c.partitions[topics.Flights], func(key string) string { return key })

	hours := &verdict{Topic: topics.AirportHours}
	hours.compare(withoutOffsets(c.hours), multiset(e.hours))
	hours.places(c.hours, c.partitions[topics.AirportHours], func(key string) string { return key[:max(0, len(key)-8)] })

	late := &verdict{Topic: topics.FlightsLate}
	late.compare(withoutOffsets(c.late), multiset(e.late))
	late.sequence(c.late, e.late)

	routes := &verdict{Topic: topics.Routes}
	routes.last(c.routes, e.routes)
	routes.places(c.routes, c.partitions[topics.Routes], func(key string) string { return key })
	return []*verdict{flights, hours, late, routes}, nil
}

func withoutOffsets(rs []record) []record {
	out := slices.Clone(rs)
	for i := range out {
		out[i].offset = 0
	}
	return out
}

func multiset(byPartition map[int32][]record) map[record]int {
	m := map[record]int{}
	for _, rs := range byPartition {
		for _, r := range rs {
			m[r]++
		}
	}
	return m
}

// compare compares as multisets.
func (v *verdict) compare(got []record, want map[record]int) {
	left := maps.Clone(want)
	for _, n := range want {
		v.Expected += n
	}
	v.Records = len(got)
	for _, r := range got {
		if left[r] > 0 {
			left[r]--
			continue
		}
		v.Extra++
		if want[r] > 0 {
			v.Doubled++
			v.show("doubled: %v (partition %d)", r, r.partition)
		} else {
			v.show("not expected: %v (partition %d)", r, r.partition)
		}
	}
	for _, r := range slices.SortedFunc(maps.Keys(left), compareRecords) {
		if n := left[r]; n > 0 {
			v.Missing += n
			v.show("missing %d times: %v (partition %d)", n, r, r.partition)
		}
	}
}

func compareRecords(a, b record) int {
	return cmp.Or(cmp.Compare(a.partition, b.partition), cmp.Compare(a.time, b.time), cmp.Compare(a.key, b.key), cmp.Compare(a.value, b.value))
}

// places checks that each key is where Java's partitioner puts it.
func (v *verdict) places(got []record, partitions int, partitioned func(key string) string) {
	at := map[string]int32{}
	for _, r := range got {
		key := partitioned(r.key)
		p, known := at[key]
		if !known {
			p = partitionOf(key, partitions)
			at[key] = p
		}
		if p != r.partition {
			v.Wrong++
			v.show("in partition %d and not in %d, offset %d: %v", r.partition, p, r.offset, r)
		}
	}
}

// sequence checks the order within each partition; what is missing or too much has been counted by compare.
func (v *verdict) sequence(got []record, want map[int32][]record) {
	next := map[int32]int{}
	for _, r := range got {
		i := next[r.partition]
		next[r.partition]++
		bare := r
		bare.offset = 0
		if due := want[r.partition]; i < len(due) && due[i] != bare && v.Missing+v.Extra == 0 {
			v.Wrong++
			v.show("out of order, partition %d, offset %d: %v where %v is due", r.partition, r.offset, r, due[i])
		}
	}
}

// last checks that each key ends at the value it must have, and never counts backwards on the way there.
func (v *verdict) last(got []record, want map[string]string) {
	v.Records, v.Expected = len(got), len(want)
	final := map[string]record{}
	counted := map[string]int64{}
	for _, r := range got {
		var t tally
		if err := json.Unmarshal([]byte(r.value), &t); err != nil {
			v.Wrong++
			v.show("partition %d, offset %d: %v: %v", r.partition, r.offset, r, err)
			continue
		}
		if t.Flights <= counted[r.key] {
			v.Wrong++
			v.show("partition %d, offset %d: %v after a count of %d", r.partition, r.offset, r, counted[r.key])
		}
		counted[r.key] = t.Flights
		final[r.key] = r
	}
	for _, key := range slices.Sorted(maps.Keys(want)) {
		r, ok := final[key]
		switch {
		case !ok:
			v.Missing++
			v.show("missing: %s -> %s", key, want[key])
		case r.value != want[key]:
			v.Wrong++
			var due tally
			if err := json.Unmarshal([]byte(want[key]), &due); err != nil {
				panic(err) // our own
			}
			if counted[key] > due.Flights {
				v.Over++
			} else if counted[key] < due.Flights {
				v.Under++
			}
			v.show("%s ends at %s and must end at %s", key, r.value, want[key])
		}
	}
	for _, key := range slices.Sorted(maps.Keys(final)) {
		if _, ok := want[key]; !ok {
			v.Extra++
			v.show("not expected: %v", final[key])
		}
	}
}

// doubled says whether the application has counted flights twice and has lost none: what at least once allows.
func doubled(verdicts []*verdict) bool {
	over := false
	for _, v := range verdicts {
		switch v.Topic {
		case topics.Flights:
			if !v.OK() {
				return false // the loader is exactly once whatever the application is
			}
		case topics.Routes:
			if v.Under+v.Missing+v.Extra > 0 {
				return false
			}
			over = v.Over > 0
		}
	}
	return over
}

// report writes the verdicts and says whether all is well.
func report(w io.Writer, verdicts []*verdict) bool {
	ok := true
	for _, v := range verdicts {
		word := "ok  "
		if !v.OK() {
			word, ok = "FAIL", false
		}
		fmt.Fprintf(w, "%s %-14s %7d records, %7d expected, %d missing, %d extra (%d doubled), %d wrong\n",
			word, v.Topic, v.Records, v.Expected, v.Missing, v.Extra, v.Doubled, v.Wrong)
		for _, line := range v.First {
			fmt.Fprintf(w, "       %s\n", line)
		}
	}
	return ok
}
