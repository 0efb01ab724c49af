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
	start, ran, differing := time.Now(), 0, 0
	for i, v := range liveVectors(t, 6, 100, (*Vector).live) {
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

// liveVectors are those of MOLDAU_VECTORS, else of testdata, that a test takes, spread evenly: so many per cent of MOLDAU_LIVE, 0: all;
// without it, or without a share, a few, 0: all. MOLDAU_SEED has others taken.
func liveVectors(t *testing.T, few, share int, takes func(*Vector) bool) []*Vector {
	dir := os.Getenv("MOLDAU_VECTORS")
	if dir == "" {
		dir = "testdata"
	}
	most := few
	if s := os.Getenv("MOLDAU_LIVE"); s != "" && share > 0 {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatalf("MOLDAU_LIVE: %v", err)
		}
		most = (n*share + 99) / 100
	}
	all, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	all = slices.DeleteFunc(all, func(v *Vector) bool { return !takes(v) })
	if most <= 0 || len(all) <= most {
		return all
	}
	first := 0
	if s := os.Getenv("MOLDAU_SEED"); s != "" {
		if first, err = strconv.Atoi(s); err != nil {
			t.Fatalf("MOLDAU_SEED: %v", err)
		}
	}
	some := make([]*Vector, most)
	for i := range some {
		some[i] = all[(first+i*len(all)/most)%len(all)]
	}
	return some
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
	l := newLive(t, v, 1)
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
	l.others(v.Raw.Changelogs)
	l.changelogs()
	// Tasks take up records of one time in any order.
	return slices.DeleteFunc(l.differences, func(d string) bool { return strings.HasPrefix(d, emptied) }), nil
}

// live is a vector on the real runtime.
type live struct {
	run
	t          *testing.T
	dir        string
	top        *topology.Topology
	partitions int32 // of the topics that are not the application's own
	partition  func(key []byte, n int32) int32
	cl         *kgo.Client
	stop       func()
	seen       map[string][]streamtest.Raw // what has been read of each topic
	next       map[place]int64             // where to go on
}

type place struct {
	topic     string
	partition int32
}

func newLive(t *testing.T, v *Vector, partitions int32) *live {
	l := &live{run: run{Vector: v, read: map[string]int{}}, t: t, dir: t.TempDir(), partitions: partitions,
		seen: map[string][]streamtest.Raw{}, next: map[place]int64{}}
	l.run.topics, l.partition = l, murmur2
	// Grace buffers number their records, from the greatest number that they find when they start, and suppression notes offsets,
	// which transactions have markers among.
	logs := maps.Clone(v.Raw.Changelogs)
	maps.DeleteFunc(logs, func(name string, _ []RawRecord) bool {
		return strings.HasSuffix(name, "-Buffer-changelog") || strings.HasPrefix(name, "oracle-suppress")
	})
	one := *v
	one.Raw.Changelogs, l.run.Vector = logs, &one
	return l
}

// murmur2 is Kafka's default partitioner as the client has it, not as we do.
func murmur2(key []byte, n int32) int32 {
	if key == nil {
		return 0
	}
	return int32(kgo.StickyKeyPartitioner(nil).ForTopic("").Partition(&kgo.Record{Key: key}, int(n)))
}

func (l *live) Topics() []string                  { return slices.Sorted(maps.Keys(l.seen)) }
func (l *live) Raw(topic string) []streamtest.Raw { return l.seen[topic] }

// topologyOf builds a vector's topology.
func topologyOf(v *Vector) (*topology.Topology, error) {
	b := stream.NewBuilder()
	if err := v.build(b); err != nil {
		return nil, err
	}
	return b.Build()
}

// config is that of an application that runs a vector.
func config(dir string, workers int) moldau.Config {
	return moldau.Config{
		StateDir: dir, Workers: workers, CommitInterval: time.Millisecond, StopTimeout: time.Minute, // with a machine that has much else to do
		MaxTaskIdle:   -1,                                      // one event at a time: there is nothing to wait for
		PurgeInterval: 100 * time.Millisecond,                  // so that all live with it
		TopicConfig:   map[string]string{"retention.ms": "-1"}, // recordings are of 1970
		Logger:        slog.New(slog.DiscardHandler),
	}
}

func (l *live) start(workers int) (err error) {
	if l.top, err = topologyOf(l.Vector); err != nil {
		return err
	}
	l.run.topology = l.top
	cfg := config(l.dir, workers)
	cfg.Broker.Durability = moldau.SyncNever
	if l.partitions > 1 {
		cfg.PurgeInterval = time.Hour // repartition topics are read here
	}
	app, err := moldau.New("oracle", l.top, cfg)
	if err != nil {
		l.t.Fatal(err)
	}
	l.connect(app.Client()...)
	ctx, cancel := stdcontext.WithCancel(stdcontext.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- app.Run(ctx)
		close(ended) // who stops what has failed to start does not wait
	}()
	l.stop = func() {
		l.cl.Close()
		cancel()
		if err := <-ended; err != nil {
			l.t.Error(err)
		}
	}
	select {
	case <-app.Ready():
	case err := <-ended:
		l.t.Fatal(err)
	}
	return nil
}

// connect makes the client of the test, and the topics.
func (l *live) connect(options ...kgo.Opt) {
	cl, err := kgo.NewClient(append(options, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0),
		kgo.FetchMaxWait(50*time.Millisecond), // a topic that is added waits for the fetch under way
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(), kgo.ConsumeResetOffset(kgo.NoResetOffset()))...)
	if err != nil {
		l.t.Fatal(err)
	}
	l.cl = cl
	forever := "-1"
	for _, name := range l.external() {
		_, err := kadm.NewClient(l.cl).CreateTopic(l.t.Context(), l.partitions, 1, map[string]*string{"retention.ms": &forever}, name)
		if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
			l.t.Fatal(err)
		}
	}
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

func (l *live) send(events ...Event) {
	var records []*kgo.Record
	for _, e := range events {
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
		r.Partition = l.partition(r.Key, l.partitions)
		records = append(records, r)
		l.read[e.Topic]++
	}
	if err := l.cl.ProduceSync(l.t.Context(), records...).FirstErr(); err != nil {
		l.t.Fatal(err)
	}
}

// settle waits until everything that the application reads has been processed and committed, with all that came of it.
// Offsets, outputs and what goes to other tasks are committed at once: so it rests when the ends are the same after the wait.
func (l *live) settle() kadm.ListedOffsets {
	admin, deadline := kadm.NewClient(l.cl), time.Now().Add(time.Minute)
	var before kadm.ListedOffsets
	for {
		ends, err := admin.ListCommittedOffsets(l.t.Context())
		if err != nil {
			l.t.Fatal(err)
		}
		open, err := admin.ListEndOffsets(l.t.Context()) // of transactions that have not ended as well
		if err != nil {
			l.t.Fatal(err)
		}
		if sameEnds(open, ends) {
			if before != nil && sameEnds(before, ends) {
				return ends
			}
			for !l.caughtUp(admin, ends) {
				if time.Now().After(deadline) {
					l.t.Fatal("it does not come to rest")
				}
			}
			before = ends
		}
		if time.Now().After(deadline) {
			l.t.Fatal("it does not come to rest")
		}
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
	top, err := l.top.Resolve("oracle", l.external())
	if err != nil {
		l.t.Fatal(err)
	}
	for _, sub := range top.Subs {
		for _, source := range sub.Sources {
			name := source.Full("oracle")
			for p := range ends[name] {
				end, _ := ends.Lookup(name, p)
				if at, _ := committed.Lookup(name, p); end.Offset > 0 && at.At < end.Offset {
					return false
				}
			}
		}
	}
	return true
}

// fetch reads what is new, up to those ends, of the topics that are compared.
func (l *live) fetch(ends kadm.ListedOffsets) {
	waiting := map[place]bool{}
	ends.Each(func(o kadm.ListedOffset) {
		at := place{o.Topic, o.Partition}
		if strings.HasPrefix(o.Topic, "oracle-") && !l.wants(o.Topic) || l.next[at] >= o.Offset {
			return
		}
		waiting[at] = true
		l.cl.AddConsumePartitions(map[string]map[int32]kgo.Offset{o.Topic: {o.Partition: kgo.NewOffset().At(l.next[at])}})
	})
	for len(waiting) > 0 {
		fetches := l.cl.PollFetches(l.t.Context())
		if err := fetches.Err(); err != nil {
			l.t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			at := place{r.Topic, r.Partition}
			if r.Offset < l.next[at] {
				return
			}
			l.next[at] = r.Offset + 1
			if end, _ := ends.Lookup(r.Topic, r.Partition); r.Offset+1 >= end.Offset {
				delete(waiting, at)
			}
			if r.Attrs.IsControl() {
				return
			}
			one := streamtest.Raw{Partition: r.Partition, Key: r.Key, Value: r.Value, Time: r.Timestamp}
			for _, h := range r.Headers {
				one.Headers = append(one.Headers, stream.Header(h))
			}
			l.seen[r.Topic] = append(l.seen[r.Topic], one)
		})
	}
}

// wants is whether a topic of the application is compared: with several partitions repartition topics are, with one changelogs.
func (l *live) wants(topic string) bool {
	return strings.HasSuffix(topic, "-changelog") == (l.partitions == 1) && !strings.HasSuffix(topic, "-topology")
}
