package conformance

import (
	stdcontext "context"
	"errors"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/moldau/moldau"
	"github.com/moldau/moldau/stream"
	"github.com/moldau/moldau/streamtest"
	"github.com/moldau/moldau/topology"
)

// TestLive runs recordings on the real runtime over the bundled broker: topics of one partition, the next event once all is quiet
// and committed. Half-way the application is stopped and started again on the same directory, with another number of workers.
// MOLDAU_LIVE is how many recordings to run, spread evenly, 0: all; without it there are a few.
//
// Recordings that move the wall clock or are about failures are left out, and those that depend on the order in which one
// task of Java's driver runs all sub-topologies.
func TestLive(t *testing.T) {
	dir, most := os.Getenv("MOLDAU_VECTORS"), 6
	if dir == "" {
		dir = "testdata"
	}
	if n := os.Getenv("MOLDAU_LIVE"); n != "" {
		var err error
		if most, err = strconv.Atoi(n); err != nil {
			t.Fatalf("MOLDAU_LIVE: %v", err)
		}
	}
	all, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	all = slices.DeleteFunc(all, func(v *Vector) bool { return !v.live() })
	if most > 0 && len(all) > most {
		some := make([]*Vector, most)
		for i := range some {
			some[i] = all[i*len(all)/most]
		}
		all = some
	}
	start, ran, differing := time.Now(), 0, 0
	for i, v := range all {
		t.Run(v.ID, func(t *testing.T) {
			differences, err := v.runLive(t, i)
			if err != nil {
				t.Skip(err)
			}
			ran++
			if rest := v.Unexplained(differences); len(rest) > 0 {
				differing++
				t.Errorf("%d differences\n%s", len(rest), strings.Join(rest[:min(3, len(rest))], "\n"))
			}
		})
	}
	t.Logf("live: %d vectors, %d differences, %.0f seconds", ran, differing, time.Since(start).Seconds())
}

// live is whether a vector can be run there. The tables of global topics follow on their own, so that no event waits for them;
// and a record that is skipped leaves nothing behind, where Java keeps what it did before it failed.
func (v *Vector) live() bool {
	return v.Scheduling != "SENSITIVE" && v.FailsAt == nil && v.Spec.Config.OnError == "" && v.Spec.Config.CacheBytes == 0 &&
		!slices.ContainsFunc(v.Events, func(e Event) bool { return e.AdvanceWallClockMs != nil }) &&
		!slices.ContainsFunc(v.Spec.Steps, func(s Step) bool { return strings.HasPrefix(s.text("op"), "global") })
}

// runLive runs a vector and returns how its outputs and changelogs differ; an error says that it cannot be built.
func (v *Vector) runLive(t *testing.T, seed int) ([]string, error) {
	l := &live{run: run{Vector: v, read: map[string]int{}}, t: t, dir: t.TempDir(), seen: map[string][]streamtest.Raw{}, next: map[string]int64{}}
	l.run.topics = l
	workers := []int{1, 3}
	if err := l.start(workers[seed%2]); err != nil {
		return nil, err
	}
	defer func() { l.stop() }()
	for at, e := range v.Events {
		if at == len(v.Events)/2 {
			l.stop()
			if err := l.start(workers[(seed+1)%2]); err != nil {
				return nil, err
			}
		}
		l.send(e)
		l.fetch(l.settle())
		l.outputs(at)
	}
	// Grace buffers number their records, from the greatest number that they find when they start, and suppression notes offsets,
	// which transactions have markers among.
	l.Vector.Raw.Changelogs = maps.Clone(l.Vector.Raw.Changelogs)
	maps.DeleteFunc(l.Vector.Raw.Changelogs, func(name string, _ []RawRecord) bool {
		return strings.HasSuffix(name, "-Buffer-changelog") || strings.HasPrefix(name, "oracle-suppress")
	})
	l.changelogs()
	return l.differences, nil
}

// live is a vector on the real runtime.
type live struct {
	run
	t    *testing.T
	dir  string
	top  *topology.Topology
	app  *moldau.App
	cl   *kgo.Client
	stop func()
	seen map[string][]streamtest.Raw // what has been read of each topic
	next map[string]int64            // where to go on
}

func (l *live) Topics() []string                  { return slices.Sorted(maps.Keys(l.seen)) }
func (l *live) Raw(topic string) []streamtest.Raw { return l.seen[topic] }

func (l *live) start(workers int) (err error) {
	b := stream.NewBuilder()
	if err := l.build(b); err != nil {
		return err
	}
	if l.top, err = b.Build(); err != nil {
		return err
	}
	l.run.topology = l.top
	l.app, err = moldau.New("oracle", l.top, moldau.Config{
		StateDir: l.dir, Workers: workers, CommitInterval: time.Millisecond,
		MaxTaskIdle: -1, // one event at a time: there is nothing to wait for
		Broker:      moldau.BrokerConfig{Durability: moldau.SyncNever},
		TopicConfig: map[string]string{"retention.ms": "-1"}, // recordings are of 1970
		Logger:      slog.New(slog.DiscardHandler),
	})
	if err != nil {
		l.t.Fatal(err)
	}
	l.cl, err = kgo.NewClient(append(l.app.Client(), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0),
		kgo.FetchMaxWait(50*time.Millisecond), // a topic that is added waits for the fetch under way
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(), kgo.ConsumeResetOffset(kgo.NoResetOffset()))...)
	if err != nil {
		l.t.Fatal(err)
	}
	ctx, cancel := stdcontext.WithCancel(stdcontext.Background())
	forever := "-1"
	for _, name := range l.external() {
		_, err := kadm.NewClient(l.cl).CreateTopic(ctx, 1, 1, map[string]*string{"retention.ms": &forever}, name)
		if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
			l.t.Fatal(err)
		}
	}
	ended := make(chan error, 1)
	go func() { ended <- l.app.Run(ctx) }()
	l.stop = func() {
		l.cl.Close()
		cancel()
		if err := <-ended; err != nil {
			l.t.Error(err)
		}
	}
	select {
	case <-l.app.Ready():
	case err := <-ended:
		l.t.Fatal(err)
	}
	return nil
}

// external are the topics that are not the application's own.
func (l *live) external() (names []string) {
	add := func(name string) {
		if name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for _, step := range l.Spec.Steps {
		add(step.text("topic"))
		for _, name := range step.texts("topics") {
			add(name)
		}
	}
	for _, e := range l.Events {
		add(e.Topic)
	}
	for _, o := range l.Outputs {
		add(o.Topic)
	}
	return names
}

func (l *live) send(e Event) {
	r := &kgo.Record{Topic: e.Topic, Timestamp: time.UnixMilli(e.TS)}
	if e.Key != nil {
		r.Key = []byte(*e.Key)
	}
	if e.Value != nil {
		r.Value = []byte(*e.Value)
	}
	for _, h := range e.Headers {
		one := kgo.RecordHeader{Key: *h[0]}
		if h[1] != nil {
			one.Value = []byte(*h[1])
		}
		r.Headers = append(r.Headers, one)
	}
	if err := l.cl.ProduceSync(l.t.Context(), r).FirstErr(); err != nil {
		l.t.Fatal(err)
	}
	l.read[e.Topic]++
}

// settle waits until everything that the application reads has been processed and committed, with all that came of it.
// Offsets, outputs and what goes to other tasks are committed at once: so it rests when the ends are the same after the wait.
func (l *live) settle() kadm.ListedOffsets {
	admin, deadline := kadm.NewClient(l.cl), time.Now().Add(20*time.Second)
	var before kadm.ListedOffsets
	for {
		ends, err := admin.ListCommittedOffsets(l.t.Context())
		if err != nil {
			l.t.Fatal(err)
		}
		if before != nil && sameEnds(before, ends) {
			return ends
		}
		for !l.caughtUp(admin, ends) {
			if time.Now().After(deadline) {
				l.t.Fatalf("it does not come to rest: %+v", l.app.Tasks())
			}
		}
		before = ends
	}
}

func sameEnds(a, b kadm.ListedOffsets) bool {
	same := true
	b.Each(func(o kadm.ListedOffset) {
		was, ok := a.Lookup(o.Topic, o.Partition)
		same = same && ok && was.Offset == o.Offset
	})
	return same
}

// caughtUp is whether all that tasks read is committed up to there.
func (l *live) caughtUp(admin *kadm.Client, ends kadm.ListedOffsets) bool {
	committed, err := admin.FetchOffsets(l.t.Context(), "oracle")
	if err != nil {
		l.t.Fatal(err)
	}
	for _, sub := range l.top.Subs {
		for _, source := range sub.Sources {
			name := source.Full("oracle")
			end, _ := ends.Lookup(name, 0)
			if at, _ := committed.Lookup(name, 0); end.Offset > 0 && at.At < end.Offset {
				return false
			}
		}
	}
	return true
}

// fetch reads what is new, up to those ends, of the topics that are compared.
func (l *live) fetch(ends kadm.ListedOffsets) {
	waiting := map[string]bool{}
	ends.Each(func(o kadm.ListedOffset) {
		if strings.HasPrefix(o.Topic, "oracle-") && !strings.HasSuffix(o.Topic, "-changelog") || l.next[o.Topic] >= o.Offset {
			return
		}
		waiting[o.Topic] = true
		l.cl.AddConsumePartitions(map[string]map[int32]kgo.Offset{o.Topic: {o.Partition: kgo.NewOffset().At(l.next[o.Topic])}})
	})
	for len(waiting) > 0 {
		fetches := l.cl.PollFetches(l.t.Context())
		if err := fetches.Err(); err != nil {
			l.t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if r.Offset < l.next[r.Topic] {
				return
			}
			l.next[r.Topic] = r.Offset + 1
			if end, _ := ends.Lookup(r.Topic, r.Partition); r.Offset+1 >= end.Offset {
				delete(waiting, r.Topic)
			}
			if r.Attrs.IsControl() {
				return
			}
			one := streamtest.Raw{Key: r.Key, Value: r.Value, Time: r.Timestamp}
			for _, h := range r.Headers {
				one.Headers = append(one.Headers, stream.Header(h))
			}
			l.seen[r.Topic] = append(l.seen[r.Topic], one)
		})
	}
}
