package conformance

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moldau/moldau/streamtest"
)

// TestRecordCaches runs recordings of topologies without repartition topics, which Java ran with a record cache that kept what it had until some
// events: what comes at each of those must be what comes here with a commit, once per key.
func TestRecordCaches(t *testing.T) {
	dir := "testdata/caches"
	if d := os.Getenv("MOLDAU_CACHES"); d != "" {
		dir = d
	}
	vectors, err := Load(dir)
	if err != nil || len(vectors) == 0 {
		t.Fatalf("%d vectors: %v", len(vectors), err)
	}
	for _, v := range vectors {
		t.Run(v.ID, func(t *testing.T) {
			differences, err := v.runCached(t)
			if err != nil {
				t.Fatal(err)
			}
			if rest := v.Unexplained(differences); len(rest) > 0 {
				t.Errorf("%d differences\n%s", len(rest), strings.Join(rest[:min(3, len(rest))], "\n"))
			}
		})
	}
}

// A commit where there was none is noticed.
func TestOtherCommitsAreSeen(t *testing.T) {
	vectors, err := Load("testdata/caches")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, v := range vectors {
		other := *v
		other.Events = slices.Clone(v.Events)
		other.Events[slices.IndexFunc(v.Events, func(e Event) bool { return !e.Commit })].Commit = true
		if differences, err := other.runCached(t); err == nil && len(differences) > 0 {
			seen++
		}
	}
	if seen < len(vectors)/4 {
		t.Errorf("in %d of %d", seen, len(vectors))
	}
}

// runCached is Run with commits where Java's cache was flushed.
func (v *Vector) runCached(tb testing.TB) ([]string, error) {
	top, err := topologyOf(v)
	if err != nil {
		return nil, err
	}
	one := *v
	one.Outputs = slices.Clone(v.Outputs)
	for i := range one.Outputs {
		for o := &one.Outputs[i]; !v.Events[o.At].Commit; o.At++ { // what no cache holds back is seen with the commit as well
		}
	}
	d := streamtest.Run(tb, top, streamtest.App("oracle"), streamtest.Start(time.UnixMilli(1e12)), streamtest.CommitEvery(0))
	r := &run{Vector: &one, d: d, topics: d, topology: top, read: map[string]int{}}
	for at, e := range v.Events {
		r.feed(e)
		if e.Commit {
			d.Commit()
			r.committed(at)
		}
	}
	r.stores()
	r.changelogs()
	return r.differences, nil
}

// committed compares what has appeared since the last commit, topic by topic.
func (r *run) committed(at int) {
	got, want := map[string][]string{}, map[string][]string{}
	for _, name := range r.topics.Topics() {
		if all := r.topics.Raw(name); !strings.HasPrefix(name, "oracle-") && !slices.ContainsFunc(r.Events, func(e Event) bool { return e.Topic == name }) {
			for _, one := range all[r.read[name]:] {
				got[name] = append(got[name], line(one))
			}
			r.read[name] = len(all)
		}
	}
	for _, o := range r.Outputs {
		if o.At == at {
			want[o.Topic] = append(want[o.Topic], show(o.Key, o.Value, o.TS, o.Headers))
		}
	}
	r.hold(at, got, want)
}
