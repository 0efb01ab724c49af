// Package streamtest runs a topology in a test: the real task loop over many partitions, repartition topics and changelogs
// in memory, a clock that the test moves, and no broker. A record that is sent is worked off before Send returns,
// with everything that follows from it, and a commit follows each record, as in Kafka Streams' TopologyTestDriver;
// CommitEvery changes that.
package streamtest

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/internal/task"
	"github.com/moldau/moldau/internal/tier"
	"github.com/moldau/moldau/stream"
	"github.com/moldau/moldau/topology"
)

// Driver runs one application. One goroutine uses it.
type Driver struct {
	tb       testing.TB
	declared *topology.Topology
	topology *topology.Topology // with the topics that its patterns match
	appeared bool               // topics have, since patterns were matched last
	config   config
	now      int64
	topics   map[string]*memTopic // by full name
	tasks    []*running
	globals  map[string]flow.Store
	disks    map[task.ID]*tier.Mem
	java     struct {
		queues  []*javaQueue
		waiting javaHeap
		arrived []string // topics, in the order in which records appeared
	}
	nullKeys int64      // that were written to global tables
	past     task.Stats // of tasks that started again since topics have appeared
	err      error
}

type config struct {
	app         string
	partitions  int32
	perTopic    map[string]int32
	commitEvery int
	start       time.Time
	errors      task.Errors
	keepErrors  bool
	warm        bool
	maxIdle     time.Duration
	java        bool
}

// Option changes how a Driver runs.
type Option func(*config)

// App is the application's name, which begins the names of internal topics. Default "test".
func App(name string) Option { return func(c *config) { c.app = name } }

// Partitions is how many every topic from outside has whose handle does not say. Default 1.
func Partitions(n int32) Option { return func(c *config) { c.partitions = n } }

// TopicPartitions is Partitions for one topic, whatever its handle says. The topic is there from the start. Other topics that only a
// pattern names appear when In is called, or when a sink first writes them.
func TopicPartitions(topic string, n int32) Option {
	return func(c *config) { c.perTopic[topic] = n }
}

// CommitEvery commits a task after n records instead of after each; 0: only when Commit is called. What a task puts out
// appears when it commits, as to a reader of committed records.
func CommitEvery(n int) Option { return func(c *config) { c.commitEvery = n } }

// Start is the wall clock at the beginning. Default 2001-09-09 01:46:40 UTC, 1e12 ms.
func Start(t time.Time) Option { return func(c *config) { c.start = t } }

// SkipErrors leaves out records that fail instead of failing the test.
func SkipErrors() Option {
	return Errors(task.Errors{Decoding: task.ErrorPolicy{Action: task.Skip}, Processing: task.ErrorPolicy{Action: task.Skip}, Production: task.ErrorPolicy{Action: task.Skip}})
}

// Errors is moldau.Config.Errors. Retries wait for Advance.
func Errors(e task.Errors) Option { return func(c *config) { c.errors = e } }

// ContinueErrors leaves out what an operator that fails would have given on, as Kafka Streams' LogAndContinue handler does.
func ContinueErrors() Option {
	return Errors(task.Errors{Decoding: task.ErrorPolicy{Action: task.Continue}, Processing: task.ErrorPolicy{Action: task.Continue}, Production: task.ErrorPolicy{Action: task.Continue}})
}

// JavaOrder runs records of several topics in the order of Kafka Streams' TopologyTestDriver, which takes all sub-topologies for
// one task: a heap of topics by the time of their first record, and one stream time. It needs topics of one partition, and none with
// IdleAfter: stream time moves with records only there.
func JavaOrder() Option { return func(c *config) { c.java = true } }

// KeepErrors keeps the first error for Err instead of failing the test. Nothing runs after it but Restart.
func KeepErrors() Option { return func(c *config) { c.keepErrors = true } }

// WarmRestart has Restart find the local state of the last commit, instead of an empty disk.
func WarmRestart() Option { return func(c *config) { c.warm = true } }

// MaxIdle is Config.MaxTaskIdle: how long a task waits for sources that are empty. Default 0.
func MaxIdle(d time.Duration) Option { return func(c *config) { c.maxIdle = d } }

// New builds a topology and starts it. A mistake in it fails the test.
func New(tb testing.TB, build func(*stream.Builder), options ...Option) *Driver {
	tb.Helper()
	b := stream.NewBuilder()
	build(b)
	t, err := b.Build()
	if err != nil {
		tb.Fatalf("the topology cannot be built:\n%v", err)
	}
	return Run(tb, t, options...)
}

// Run is New for a topology that has been built.
func Run(tb testing.TB, t *topology.Topology, options ...Option) *Driver {
	tb.Helper()
	d := &Driver{tb: tb, declared: t, topics: map[string]*memTopic{}, disks: map[task.ID]*tier.Mem{},
		config: config{app: "test", partitions: 1, commitEvery: 1, start: time.UnixMilli(1e12), perTopic: map[string]int32{}}}
	for _, o := range options {
		o(&d.config)
	}
	d.now = d.config.start.UnixMilli()
	if d.config.java {
		d.refuseIdle()
	}
	d.makeTopics()
	d.startTasks()
	tb.Cleanup(d.stopTasks)
	return d
}

// Now is the driver's wall clock.
func (d *Driver) Now() time.Time { return time.UnixMilli(d.now).UTC() }

// Err is the first error, with KeepErrors.
func (d *Driver) Err() error { return d.err }

// Advance moves the wall clock: timers that are due run, each once, then all that follows.
func (d *Driver) Advance(by time.Duration) {
	d.tb.Helper()
	d.now += by.Milliseconds()
	for _, r := range d.tasks {
		if d.err == nil {
			d.check(r, r.task.Tick(d.now))
		}
	}
	if d.config.commitEvery == 1 {
		d.Commit()
	}
	d.run()
}

// Commit commits every task and works off what follows from that.
func (d *Driver) Commit() {
	d.tb.Helper()
	for _, r := range d.tasks {
		d.commit(r)
	}
	d.run()
}

// Restart crashes the application and starts it again: what was not committed is lost and comes again, state is restored
// from the changelogs.
func (d *Driver) Restart() {
	d.tb.Helper()
	d.err, d.past = nil, task.Stats{}
	d.stopTasks()
	d.startTasks()
	d.java.queues, d.java.waiting, d.java.arrived = nil, nil, d.Topics()
	d.run()
}

// Topology is what runs.
func (d *Driver) Topology() *topology.Topology { return d.declared }

// Skipped is how often the error policy had something left out, over all tasks since they were started.
func (d *Driver) Skipped() int64 {
	n := d.past.Skipped
	for _, r := range d.tasks {
		n += r.task.Stats().Skipped
	}
	return n
}

// Dropped is how many records operators had to leave out, by "node: reason", over all tasks since they were started.
func (d *Driver) Dropped() map[string]int64 {
	sum := map[string]int64{}
	if d.nullKeys > 0 {
		sum["global table: null-key"] = d.nullKeys
	}
	add := func(s *task.Stats) {
		for drop, n := range s.Dropped {
			sum[drop.Node+": "+drop.Reason] += n
		}
	}
	add(&d.past)
	for _, r := range d.tasks {
		add(r.task.Stats())
	}
	return sum
}

// run works until there is nothing left to do.
func (d *Driver) run() {
	d.tb.Helper()
	d.match()
	if d.config.java {
		d.runJava()
		return
	}
	for again := true; again && d.err == nil; {
		again = d.match()
		for _, r := range d.tasks {
			if d.turn(r) {
				again = true
			}
			if d.appeared {
				again = true
				break
			}
		}
	}
}

// turn gives a task one record.
func (d *Driver) turn(r *running) bool {
	d.tb.Helper()
	d.feed(r)
	moved := r.task.Stats().Punctuations
	n, err := r.task.Step(d.now, 1)
	if err == nil && r.task.Asks() {
		d.feed(r) // it wanted to hear that there is no more
		n, err = r.task.Step(d.now, 1)
	}
	if !d.check(r, err) {
		return d.err == nil // undone: run it again
	}
	if n == 0 && r.task.Stats().Punctuations == moved {
		return r.caller.run()
	}
	r.since++
	if r.task.CommitRequested() || d.config.commitEvery > 0 && r.since >= d.config.commitEvery {
		d.commit(r)
	}
	return true
}

// feed gives a task all of its input that it has not got.
func (d *Driver) feed(r *running) {
	for _, name := range r.sources {
		log := &d.topics[name].logs[r.task.ID().Partition]
		if at := r.task.Position(name); at < int64(len(*log)) {
			r.task.Add(name, slices.Clone((*log)[at:]), int64(len(*log)), nil)
		}
		r.task.Caught(name, int64(len(*log)))
	}
}

// check deals with a task's error; false: there was one.
func (d *Driver) check(r *running, err error) bool {
	d.tb.Helper()
	if err == nil {
		return true
	}
	var failed *task.Error
	if errors.As(err, &failed) && failed.Undo {
		if _, err = r.task.Undo(r.task.Current()); err == nil {
			r.out, r.since = nil, 0
			return false
		}
	}
	if d.err == nil {
		d.err = err
	}
	if !d.config.keepErrors {
		d.tb.Fatal(err)
	}
	return false
}

// commit ends a task's epoch: what it put out becomes visible, its positions are kept.
func (d *Driver) commit(r *running) {
	d.tb.Helper()
	if d.err != nil {
		return
	}
	r.out = append(r.out, r.task.Take()...)
	e, err := r.task.Seal(d.now)
	for err == nil && r.task.Sealing() && r.caller.run() {
		if _, err = r.task.Step(d.now, 1); err == nil {
			e, err = r.task.Seal(d.now)
		}
	}
	if !d.check(r, err) || !e.Dirty {
		return
	}
	ends := map[string]int64{}
	for _, o := range append(r.out, e.Records...) {
		t := d.topics[o.Topic.Name]
		p := max(o.Partition, 0)
		ends[o.Topic.Name] = t.append(p, o)
		d.java.arrived = append(d.java.arrived, o.Topic.Name)
	}
	for name, at := range e.Offsets {
		d.topics[name].committed[r.task.ID().Partition] = at
	}
	r.out, r.since = nil, 0
	d.check(r, r.task.Done(e.N, ends))
}
