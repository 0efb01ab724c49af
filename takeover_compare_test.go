package moldau_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// read gives a topic's committed records by partition.
func (h *handover) read(topics ...string) map[string][][]*kgo.Record {
	ctx := h.context()
	ends, err := h.admin.ListCommittedOffsets(ctx, topics...)
	if err != nil {
		h.t.Fatal(err)
	}
	all, left := map[string][][]*kgo.Record{}, 0
	from := map[string]map[int32]kgo.Offset{}
	ends.Each(func(o kadm.ListedOffset) {
		if all[o.Topic] == nil {
			all[o.Topic], from[o.Topic] = make([][]*kgo.Record, takeoverPartitions), map[int32]kgo.Offset{}
		}
		if o.Offset > 0 {
			from[o.Topic][o.Partition] = kgo.NewOffset().AtStart()
			left++
		}
	})
	if left == 0 {
		return all
	}
	cl := h.client(kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(), kgo.ConsumePartitions(from))
	defer cl.Close()
	for left > 0 {
		for _, r := range cl.PollFetches(ctx).Records() {
			if !r.Attrs.IsControl() {
				all[r.Topic][r.Partition] = append(all[r.Topic][r.Partition], r)
			}
			if end, _ := ends.Lookup(r.Topic, r.Partition); r.Offset+1 == end.Offset {
				left--
			}
		}
		if ctx.Err() != nil {
			h.t.Fatalf("%v cannot be read to their ends", topics)
		}
	}
	return all
}

// compare holds the results of an application, and its changelogs, against those of the one that Java has run alone.
func (h *handover) compare(t *testing.T, a *handed) {
	alone := "takeover-" + a.takeover.name + "-" + ways[0]
	var topics []string
	for _, out := range slices.Concat(a.takeover.ordered, a.takeover.final) {
		topics = append(topics, alone+"-"+out, a.app+"-"+out)
	}
	there, err := h.admin.ListTopics(h.context())
	if err != nil {
		t.Fatal(err)
	}
	var changelogs []string
	for _, name := range there.Names() {
		for _, app := range []string{alone, a.app} {
			if store, ok := strings.CutPrefix(name, app+"-"); ok && strings.HasSuffix(name, "-changelog") {
				topics = append(topics, name)
				if !slices.Contains(changelogs, store) {
					changelogs = append(changelogs, store)
				}
			}
		}
	}
	records := h.read(topics...)
	for _, out := range a.takeover.ordered {
		if strings.Contains(a.way[1:], "J") && slices.Contains(a.takeover.restarted, out) {
			continue
		}
		n := 0
		for p := range takeoverPartitions {
			// Whoever is killed forgets how late it was. Records that wait for it to get late, in outer joins, are then let go of by other
			// ones, whose headers they have, and among others.
			waits := a.way[0] >= 'a' && a.takeover.name == "joins"
			got, want := lines(records[a.app+"-"+out][p], !waits), lines(records[alone+"-"+out][p], !waits)
			if waits {
				slices.Sort(got)
				slices.Sort(want)
			}
			n += len(want)
			for i := range max(len(got), len(want)) {
				if i >= len(got) || i >= len(want) || got[i] != want[i] {
					t.Errorf("%s[%d]: record %d of %d (there are %d):\n  got  %s\n  want %s", out, p, i, len(want), len(got), at(got, i), at(want, i))
					break
				}
			}
		}
		t.Logf("%s: %d records", out, n)
		if n == 0 {
			t.Errorf("%s is empty", out)
		}
	}
	for _, out := range a.takeover.final {
		want := last(records[alone+"-"+out], false)
		same(t, out, last(records[a.app+"-"+out], false), want)
	}
	for _, changelog := range changelogs {
		if slices.ContainsFunc(a.takeover.counted, func(s string) bool { return strings.Contains(changelog, s) }) {
			continue
		}
		times := len(a.takeover.final) == 0
		same(t, changelog, last(records[a.app+"-"+changelog], times), last(records[alone+"-"+changelog], times))
	}
}

func at(lines []string, i int) string {
	if i >= len(lines) {
		return "nothing"
	}
	return lines[i]
}

func lines(records []*kgo.Record, headers bool) (all []string) {
	for _, r := range records {
		one := line(r, true)
		if !headers {
			one, _, _ = strings.Cut(one, " n:")
		}
		all = append(all, one)
	}
	return all
}

func line(r *kgo.Record, time bool) string {
	s := fmt.Sprintf("%q=%q", r.Key, r.Value)
	if r.Value == nil {
		s = fmt.Sprintf("%q=null", r.Key)
	}
	if time {
		s += fmt.Sprintf(" @%d", r.Timestamp.UnixMilli())
		for _, one := range r.Headers {
			s += fmt.Sprintf(" %s:%q", one.Key, one.Value)
		}
	}
	return s
}

// last are the last records of the keys that are there.
func last(partitions [][]*kgo.Record, time bool) map[string]string {
	m := map[string]string{}
	for p, records := range partitions {
		for _, r := range records {
			key := fmt.Sprintf("%d %s", p, r.Key)
			// The changelog of a suppression buffer, which says its format, has the clock's time in Java.
			buffer := len(r.Headers) == 1 && r.Headers[0].Key == "v"
			if m[key] = line(r, time && !buffer); r.Value == nil {
				delete(m, key)
			}
		}
	}
	return m
}

func same(t *testing.T, what string, got, want map[string]string) {
	t.Logf("%s: %d keys", what, len(want))
	shown := 0
	for _, key := range slices.Sorted(maps.Keys(want)) {
		if got[key] != want[key] && shown < 3 {
			t.Errorf("%s:\n  got  %s\n  want %s", what, got[key], want[key])
			shown++
		}
	}
	for _, key := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[key]; !ok && shown < 3 {
			t.Errorf("%s:\n  got  %s\n  want nothing", what, got[key])
			shown++
		}
	}
}
