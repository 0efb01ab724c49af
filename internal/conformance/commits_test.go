package conformance

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moldau/moldau/stream"
	"github.com/moldau/moldau/streamtest"
	"github.com/moldau/moldau/topology"
)

// commits is how a recording is run in memory, with commits and restarts where they happen to fall.
type commits struct {
	name      string
	perCommit bool // results go on once per key and commit
	bursts    bool // several events are there at once, and what was not committed is lost
	parted    bool // topics have several partitions
}

// TestCommits is TestCrashes in memory, many times as fast: recordings run in streamtest, commits and restarts fall anywhere, and a
// restart finds the disk of the last commit or an empty one. What does not depend on that must be in the end as with a commit
// after each event.
//
// Events one by one: with every update given on, and nothing repartitioned, that is everything; with results per key and commit, what settledOf
// says of input in order. Events in bursts: what TestCrashes compares.
func TestCommits(t *testing.T) {
	start, ran, differing, compared := time.Now(), 0, 0, 0
	for i, v := range liveVectors(t, 0, 500, (*Vector).live) {
		t.Run(v.ID, func(t *testing.T) {
			ran++
			differences := v.atCommits(t, uint64(i), &compared)
			if len(differences) > 0 {
				differing++
				t.Errorf("%s: %d differences\n%s", v.Scheduling, len(differences), strings.Join(differences[:min(3, len(differences))], "\n"))
			}
		})
	}
	t.Logf("commits: %d vectors, %d topics and stores, %d differences, %.0f seconds", ran, compared, differing, time.Since(start).Seconds())
}

// atCommits runs a vector in all these ways and returns how it differs from one that commits after each event.
func (v *Vector) atCommits(t *testing.T, seed uint64, compared *int) (differences []string) {
	kept := *v
	kept.spare = true
	v = &kept
	top, err := topologyOf(v)
	if err != nil {
		t.Skip(err)
	}
	own := *v
	own.perCommit = true
	late, err := topologyOf(&own)
	if err != nil {
		t.Fatal(err)
	}
	calm := v.through(t, top, nil, commits{})
	for n, how := range []commits{{"each update", false, false, false}, {"each update, in bursts", false, true, false}, {"per commit", true, false, false},
		{"per commit, in bursts", true, true, false}, {"per commit, in partitions", true, false, true}} {
		r := &run{Vector: v, topology: top, read: map[string]int{}}
		if how.perCommit {
			r.topology = late
		}
		if how.parted && !v.byKey() {
			continue
		}
		d := v.through(t, r.topology, rand.New(rand.NewPCG(seed, uint64(n))), how)
		if how == (commits{name: how.name}) && !v.meanders(top) {
			*compared += r.alike(d, calm)
		} else {
			*compared += settledOf(v, arrival{!how.bursts, how.parted, !how.perCommit}).compare(r, d, calm)
		}
		for _, d := range r.differences {
			differences = append(differences, how.name+": "+d)
		}
	}
	return differences
}

// TestSkipsAtCommits runs the recordings in which functions fail, and leaves those records out: the epoch is undone, and what else is in it comes
// again. It must come to what it does where each event is an epoch.
func TestSkipsAtCommits(t *testing.T) {
	ran := 0
	for i, v := range liveVectors(t, 0, 0, (*Vector).failing) {
		t.Run(v.ID, func(t *testing.T) {
			top, err := topologyOf(v)
			if err != nil {
				t.Skip(err)
			}
			ran++
			calm := v.through(t, top, nil, commits{})
			for n, how := range []commits{{name: "one by one"}, {name: "in bursts", bursts: true}} {
				r := &run{Vector: v, topology: top, read: map[string]int{}}
				d := v.through(t, top, rand.New(rand.NewPCG(uint64(i), uint64(n))), how)
				if v.meanders(top) || slices.ContainsFunc(v.Events, func(e Event) bool { return e.Topic != v.Events[0].Topic }) {
					settledOf(v, arrival{racing: true}).compare(r, d, calm)
				} else {
					r.alike(d, calm)
				}
				if len(r.differences) > 0 {
					t.Errorf("%s: %s", how.name, strings.Join(r.differences, "\n"))
				}
			}
		})
	}
	t.Logf("skips: %d vectors", ran)
}

// failing is whether a vector is about functions that fail, and could be run otherwise. A table that is restored from its source topic has
// what was left out there.
func (v *Vector) failing() bool {
	if v.optimizes() && slices.ContainsFunc(v.Spec.Steps, func(s Step) bool { return s.text("op") == "table" }) {
		return false
	}
	calm := *v
	calm.Spec.Config.OnError, calm.FailsAt = "", nil
	return v.Spec.Config.OnError != "" && calm.live()
}

// meanders says whether records get from one task to another, or several tasks write to one topic.
func (v *Vector) meanders(top *topology.Topology) bool {
	to := map[string]bool{}
	return v.wandering(top) || slices.ContainsFunc(v.Spec.Steps, func(s Step) (twice bool) {
		if name := s.text("topic"); s.text("op") == "to" {
			twice, to[name] = to[name], true
		}
		return twice
	})
}

// through runs a vector; without a random source it commits after each event.
func (v *Vector) through(tb testing.TB, top *topology.Topology, random *rand.Rand, how commits) *streamtest.Driver {
	options := []streamtest.Option{streamtest.App("oracle"), streamtest.Start(time.UnixMilli(1e12))}
	partitions := int32(1)
	if how.parted {
		partitions = many
		options = append(options, streamtest.Partitions(partitions))
	}
	for _, e := range v.Events {
		options = append(options, streamtest.TopicPartitions(e.Topic, partitions))
	}
	if random != nil {
		options = append(options, streamtest.CommitEvery(0))
		if random.IntN(2) == 0 {
			options = append(options, streamtest.WarmRestart())
		}
	}
	if v.Spec.Config.OnError != "" {
		options = append(options, streamtest.SkipErrors())
	}
	d := streamtest.Run(tb, top, options...)
	for _, e := range v.Events {
		streamtest.In(d, stream.NewTopic[text, text](e.Topic, nullable, nullable)).Put(murmur2(bytesOf(e.Key), partitions), eventRecord(e))
		if random == nil {
			d.Run()
			continue
		}
		if how.bursts && random.IntN(3) > 0 {
			continue
		}
		d.Run()
		if how.bursts && random.IntN(20) == 0 {
			d.Restart()
		}
		if random.IntN(5) == 0 {
			d.Commit()
			if random.IntN(6) == 0 {
				d.Restart()
			}
		}
	}
	d.Run()
	for before := -1; random != nil && before != written(d); {
		before = written(d)
		d.Commit()
	}
	return d
}

// written is how many records there are.
func written(d *streamtest.Driver) (n int) {
	for _, name := range d.Topics() {
		n += len(d.Raw(name))
	}
	return n
}

// alike holds all sinks and changelogs of a run against those of another.
func (r *run) alike(got, want *streamtest.Driver) (compared int) {
	for _, name := range want.Topics() {
		log := strings.HasSuffix(name, "-changelog")
		g, w := linesOf(got, name, exact, log, false, false), linesOf(want, name, exact, log, false, false)
		if log && strings.Contains(name, "-join-store-") { // records of one time are numbered, from the greatest number found on
			g, w = unnumbered(g), unnumbered(w)
		}
		if compared++; !slices.Equal(g, w) {
			r.differ("topic %s:\n  got  %s\n  want %s", name, strings.Join(g, " "), strings.Join(w, " "))
		}
	}
	return compared
}

// unnumbered are lines of a changelog without the numbers at the ends of keys.
func unnumbered(lines []string) (all []string) {
	for _, l := range lines {
		key, value, _ := strings.Cut(l, "=")
		all = append(all, key[:len(key)-8]+"="+value)
	}
	return slices.Sorted(slices.Values(all))
}
