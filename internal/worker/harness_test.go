package worker_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/moldau/moldau/internal/cluster"
	"github.com/moldau/moldau/internal/cluster/mem"
	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/internal/tier"
	"github.com/moldau/moldau/internal/worker"
	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/state"
	"github.com/moldau/moldau/stream"
	"github.com/moldau/moldau/topology"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patient makes a cluster in memory wait where a real one does.
type patient struct{ cluster.Cluster }

func (p patient) Member(cfg cluster.MemberConfig) (cluster.Member, error) {
	m, err := p.Cluster.Member(cfg)
	return patientMember{m}, err
}

func (p patient) Reader() (cluster.Reader, error) {
	r, err := p.Cluster.Reader()
	return patientReader{r}, err
}

type patientMember struct{ cluster.Member }

func (m patientMember) Poll(ctx context.Context) (f cluster.Fetched, err error) {
	await(ctx, func() bool {
		f, err = m.Member.Poll(ctx)
		return err != nil || len(f.Events)+len(f.Batches) > 0
	})
	return f, err
}

type patientReader struct{ cluster.Reader }

func (r patientReader) Poll(ctx context.Context) (b []cluster.Batch, err error) {
	await(ctx, func() bool {
		b, err = r.Reader.Poll(ctx)
		return err != nil || len(b) > 0
	})
	return b, err
}

// await asks again and again until ctx ends.
func await(ctx context.Context, done func() bool) {
	t := time.NewTicker(300 * time.Microsecond)
	defer t.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// disk is the state of one machine, in memory.
type disk struct {
	mu   sync.Mutex
	dbs  map[string]*tier.Mem
	used map[string]bool // open just now, as Pebble's locks would say
	fs   *vfs.MemFS
}

// directory is an open one.
type directory struct {
	tier.DB
	closed func()
}

func (d directory) Close() error {
	d.closed()
	return d.DB.Close()
}

func newDisk() *disk {
	return &disk{dbs: map[string]*tier.Mem{}, used: map[string]bool{}, fs: vfs.NewMem()}
}

// open lists what has not been closed.
func (d *disk) open() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Sorted(maps.Keys(d.used))
}

func (d *disk) Open(name string) (tier.DB, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dbs[name] == nil {
		d.dbs[name] = tier.NewMem()
	}
	if d.used[name] {
		return nil, fmt.Errorf("%s: %w", name, tier.ErrLocked)
	}
	d.used[name] = true
	return directory{d.dbs[name], func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.used, name)
	}}, nil
}

func (d *disk) Remove(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.dbs, name)
	return nil
}

// crash is the disk as the next process finds it.
func (d *disk) crash() *disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := &disk{dbs: map[string]*tier.Mem{}, used: map[string]bool{}, fs: d.fs}
	for name, db := range d.dbs {
		n.dbs[name] = db.Crash()
	}
	return n
}

// process is a Node on a cluster in memory.
type process struct {
	*worker.Node
	t        testing.TB
	conn     *mem.Conn
	disk     *disk
	identity *worker.Identity
	stop     context.CancelFunc
	done     chan error
	mu       sync.Mutex
	events   []worker.Event
}

func (p *process) happened(kind worker.EventKind) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.events {
		if e.Kind == kind {
			n++
		}
	}
	return n
}

// run starts a process; change adjusts its configuration.
func run(t testing.TB, log *mem.Log, d *disk, topo *topology.Topology, change func(*worker.Config)) *process {
	t.Helper()
	id, err := worker.OpenIdentity(d.fs, "state", "app")
	if err != nil {
		t.Fatal(err)
	}
	metrics, err := worker.NewMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, conn: log.Connect(), disk: d, identity: id, done: make(chan error, 1)}
	out := io.Discard
	if testing.Verbose() {
		out = os.Stderr
	}
	cfg := worker.Config{App: "app", Topology: topo, Cluster: patient{p.conn}, State: d, Identity: id, Transactional: true,
		CommitInterval: 5 * time.Millisecond, TransactionTimeout: 10 * time.Second, Workers: 2, Memory: 64 << 20, StopTimeout: 5 * time.Second,
		PurgeInterval: time.Hour, WatchInterval: time.Hour, MetadataMaxAge: time.Hour, Metrics: metrics, Logger: slog.New(slog.NewTextHandler(out, nil)), Now: time.Now,
		Event: func(e worker.Event) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.events = append(p.events, e)
		}}
	if change != nil {
		change(&cfg)
	}
	p.Node = worker.New(cfg)
	ctx, stop := context.WithCancel(context.Background())
	p.stop = stop
	go func() { p.done <- p.Node.Run(ctx) }()
	t.Cleanup(func() { p.end() })
	return p
}

// end stops the process and returns what Run did; the second call does nothing.
func (p *process) end() error {
	p.stop()
	if p.done == nil {
		return nil
	}
	return p.wait()
}

// wait waits for Run to end by itself.
func (p *process) wait() error {
	p.t.Helper()
	select {
	case err := <-p.done:
		p.done = nil
		p.identity.Close()
		if open := p.disk.open(); len(open) > 0 && !p.Hangs() {
			p.t.Errorf("the process has ended and left open: %v", open)
		}
		return err
	case <-time.After(20 * time.Second):
		p.t.Fatal("the process does not end")
		return nil
	}
}

// kill ends the process as kill -9 does: nothing more reaches the cluster, what was not durable is gone.
func (p *process) kill() *disk {
	p.conn.Kill()
	p.end()
	return p.disk.crash()
}

// The test's applications.

var (
	Words  = stream.NewTopic("words", serde.String, serde.String)
	More   = stream.NewTopic("more", serde.String, serde.String)
	Again  = stream.NewRepartition("again", serde.String, serde.String)
	Counts = state.NewKeyValue("counts", serde.String, serde.Int64)
	Totals = stream.NewTopic("totals", serde.String, serde.Int64)
	Names  = stream.NewTopic("names", serde.String, serde.String)
	NameKV = state.NewKeyValue("names", serde.String, serde.String)
	Named  = stream.NewTopic("named", serde.String, serde.String)
)

// count counts words by key, through a repartition topic.
func count(b *stream.Builder) {
	b.Stream(Words).GroupBy(Again, func(k, _ string) string { return strings.ToLower(k) }).Count(Counts).ToStream().To(Totals)
}

func build(t testing.TB, f func(*stream.Builder)) *topology.Topology {
	t.Helper()
	b := stream.NewBuilder()
	f(b)
	topo, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	return topo
}

func create(t testing.TB, log *mem.Log, partitions int32, topics ...string) {
	t.Helper()
	for _, name := range topics {
		if err := log.Connect().Admin().Create(t.Context(), cluster.TopicSpec{Name: name, Partitions: partitions, Replication: -1}); err != nil {
			t.Fatal(err)
		}
	}
}

// write writes "key=value" records, each to the partition of its key.
func write(t testing.TB, log *mem.Log, topic string, partitions int32, records ...string) {
	t.Helper()
	p, err := log.Connect().Producer(cluster.ProducerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	to := &flow.Topic{Name: topic, Partitions: partitions}
	var out []flow.Out
	for i, r := range records {
		k, v, _ := strings.Cut(r, "=")
		o := flow.Out{Topic: to, Partition: stream.Partition([]byte(k), partitions), Time: int64(1000 + i), Key: []byte(k), Value: []byte(v)}
		if v == "null" {
			o.Value = nil
		}
		out = append(out, o)
	}
	p.Produce(out, func(_ map[cluster.TP]int64, err error) {
		if err != nil {
			t.Error(err)
		}
	})
}

// read gives what is committed in a topic, by partition.
func read(t testing.TB, log *mem.Log, topic string) (records []flow.In) {
	t.Helper()
	infos, err := log.Connect().Admin().Describe(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	r, err := log.Connect().Reader()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	from := map[cluster.TP]int64{}
	for p := range infos[topic].Partitions {
		from[cluster.TP{Topic: topic, Partition: p}] = -1
	}
	r.Assign(from)
	for {
		batches, err := r.Poll(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(batches) == 0 {
			return records
		}
		for _, b := range batches {
			for _, in := range b.Records {
				in.Key, in.Value = append([]byte(nil), in.Key...), append([]byte(nil), in.Value...)
				records = append(records, in)
			}
			if b.Release != nil {
				b.Release()
			}
		}
	}
}

// written is how many offsets a topic has, committed or not; 0 while there is no such topic.
func written(t testing.TB, log *mem.Log, topic string) (n int64) {
	t.Helper()
	admin := log.Connect().Admin()
	infos, err := admin.Describe(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	var tps []cluster.TP
	for p := range infos[topic].Partitions {
		tps = append(tps, cluster.TP{Topic: topic, Partition: p})
	}
	ends, err := admin.Ends(t.Context(), false, tps...)
	if err != nil {
		t.Fatal(err)
	}
	for _, end := range ends {
		n += end
	}
	return n
}

// totals is the last count of each word; each result must be greater than the one before.
func totals(t testing.TB, log *mem.Log) map[string]int64 {
	t.Helper()
	last := map[string]int64{}
	for _, r := range read(t, log, "totals") {
		n := int64(binary.BigEndian.Uint64(r.Value))
		if n <= last[string(r.Key)] {
			t.Errorf("%s=%d comes after %d", r.Key, n, last[string(r.Key)])
		}
		last[string(r.Key)] = n
	}
	return last
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// words is n records of w different words.
func words(from, n, w int) (records []string, want map[string]int64) {
	want = map[string]int64{}
	for i := from; i < from+n; i++ {
		k := fmt.Sprintf("w%d", i%w)
		records = append(records, k+"=x")
		want[k]++
	}
	return records, want
}
