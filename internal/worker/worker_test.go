package worker_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moldau/moldau/internal/cluster"
	"github.com/moldau/moldau/internal/cluster/mem"
	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/internal/task"
	"github.com/moldau/moldau/internal/worker"
	"github.com/moldau/moldau/stream"
	"github.com/moldau/moldau/topology"
)

func TestCounts(t *testing.T) {
	for _, transactional := range []bool{true, false} {
		t.Run(fmt.Sprintf("transactional %v", transactional), func(t *testing.T) {
			log := mem.New()
			create(t, log, 2, "words", "totals")
			p := run(t, log, newDisk(), build(t, count), func(c *worker.Config) { c.Transactional = transactional })
			records, want := words(0, 1000, 20)
			write(t, log, "words", 2, records...)
			eventually(t, "all are counted", func() bool { return maps.Equal(totals(t, log), want) })
			if err := p.end(); err != nil {
				t.Fatal(err)
			}
			for _, tp := range []cluster.TP{{Topic: "words", Partition: 0}, {Topic: "words", Partition: 1}} {
				ends, _ := log.Connect().Admin().Ends(t.Context(), true, tp)
				at, _ := log.Connect().Admin().Committed(t.Context(), "app", tp)
				if at[tp].At != ends[tp] {
					t.Errorf("%v: committed %d of %d", tp, at[tp].At, ends[tp])
				}
			}
		})
	}
}

// TestFaults lets everything go wrong that a cluster can do to a transaction, again and again.
func TestFaults(t *testing.T) {
	log := mem.New()
	create(t, log, 2, "words", "totals")
	r := rand.New(rand.NewPCG(1, 2))
	var off atomic.Bool
	lucky := func(n int) bool { return off.Load() || r.IntN(n) > 0 } // called with the cluster locked
	log.Faults = mem.Faults{
		Produce: func(id string, _ flow.Out) error {
			if id == "" || lucky(300) {
				return nil
			}
			return cluster.ErrAborted
		},
		CommitOffsets: func(string) error {
			if lucky(10) {
				return nil
			}
			return []error{cluster.ErrGeneration, cluster.ErrAborted, errors.New("connection reset")}[r.IntN(3)]
		},
		Commit: func(string) error {
			if lucky(10) {
				return nil
			}
			return []error{cluster.ErrGeneration, errors.New("connection reset")}[r.IntN(2)]
		},
		End: func(_ string, commit bool) mem.EndFault {
			if lucky(8) || !commit {
				return mem.Ended
			}
			return mem.EndFault(1 + r.IntN(3))
		},
		Init: func(id string) error {
			if id == "" || lucky(5) {
				return nil
			}
			return errors.New("connection reset")
		},
	}
	d := newDisk()
	topo := build(t, count)
	begin := func() *process {
		return run(t, log, d, topo, func(c *worker.Config) { c.StopTimeout = 300 * time.Millisecond })
	}
	p, undone := begin(), 0
	want := map[string]int64{}
	for i := range 30 {
		records, more := words(i*50, 50, 30)
		for k, n := range more {
			want[k] += n
		}
		before := written(t, log, "app-again-repartition")
		write(t, log, "words", 2, records...)
		eventually(t, "the application is at work", func() bool { return written(t, log, "app-again-repartition") > before })
		switch i {
		case 8, 16:
			undone += p.happened(worker.EpochUndone)
			d = p.kill()
			p = begin()
		case 24:
			undone += p.happened(worker.EpochUndone)
			if err := p.end(); err != nil && !errors.Is(err, worker.ErrStopTimeout) {
				t.Error(err)
			}
			p = begin()
		}
	}
	off.Store(true)
	eventually(t, "all are counted", func() bool { return maps.Equal(totals(t, log), want) })
	if undone+p.happened(worker.EpochUndone) == 0 {
		t.Error("nothing was ever undone: the test proves little")
	}
}

// TestTakenForDead has the group drop a process that goes on, and a successor take over.
func TestTakenForDead(t *testing.T) {
	log := mem.New()
	create(t, log, 2, "words", "totals")
	topo := build(t, count)
	one := run(t, log, newDisk(), topo, nil)
	two := run(t, log, newDisk(), topo, nil)
	eventually(t, "both have tasks", func() bool { return len(one.Status()) == 2 && len(two.Status()) == 2 })
	want := map[string]int64{}
	for i := range 40 {
		records, more := words(i*50, 50, 30)
		for k, n := range more {
			want[k] += n
		}
		before := written(t, log, "app-again-repartition")
		write(t, log, "words", 2, records...)
		eventually(t, "the application is at work", func() bool { return written(t, log, "app-again-repartition") > before })
		if i%10 == 5 {
			log.Evict("app", one.identity.Instance)
		}
	}
	eventually(t, "all are counted", func() bool { return maps.Equal(totals(t, log), want) })
	for _, p := range []*process{one, two} {
		if err := p.end(); err != nil {
			t.Error(err)
		}
	}
}

func TestTimedOutTransaction(t *testing.T) {
	log := mem.New()
	create(t, log, 1, "words", "totals")
	p := run(t, log, newDisk(), build(t, count), func(c *worker.Config) { c.Workers = 1 })
	want := map[string]int64{}
	for i := range 30 {
		records, more := words(i*50, 50, 10)
		for k, n := range more {
			want[k] += n
		}
		before := written(t, log, "app-again-repartition")
		write(t, log, "words", 1, records...)
		eventually(t, "the application is at work", func() bool { return written(t, log, "app-again-repartition") > before })
		log.TimeOut(p.identity.TransactionalID(0))
	}
	eventually(t, "all are counted", func() bool { return maps.Equal(totals(t, log), want) })
	if err := p.end(); err != nil {
		t.Fatal(err)
	}
}

func TestRestoreAfterACrash(t *testing.T) {
	log := mem.New()
	create(t, log, 2, "words", "totals")
	topo := build(t, count)
	p := run(t, log, newDisk(), topo, nil)
	records, want := words(0, 200, 20)
	write(t, log, "words", 2, records...)
	eventually(t, "all are counted", func() bool { return maps.Equal(totals(t, log), want) })
	d := p.kill()
	p = run(t, log, d, topo, nil)
	write(t, log, "words", 2, records...)
	for k := range want {
		want[k] *= 2
	}
	eventually(t, "all are counted again", func() bool { return maps.Equal(totals(t, log), want) })
	if p.happened(worker.RestoreEnded) != 2 {
		t.Errorf("%d stores were restored", p.happened(worker.RestoreEnded))
	}
}

// TestAChangelogThatWasDeleted: state is not forgotten without a word while the positions up to which it counted stand.
func TestAChangelogThatWasDeleted(t *testing.T) {
	log, d := mem.New(), newDisk()
	create(t, log, 2, "words", "totals")
	topo := build(t, count)
	p := run(t, log, d, topo, nil)
	records, want := words(0, 200, 20)
	write(t, log, "words", 2, records...)
	eventually(t, "all are counted", func() bool { return maps.Equal(totals(t, log), want) })
	if err := p.end(); err != nil {
		t.Fatal(err)
	}
	log.Delete("app-counts-changelog")
	err := run(t, log, d, topo, nil).wait()
	if !errors.Is(err, worker.ErrTopics) || !strings.Contains(err.Error(), `"app-counts-changelog" has been deleted`) || !strings.Contains(err.Error(), "--to-earliest") {
		t.Fatalf("got %v", err)
	}
	create(t, log, 2, "app-counts-changelog")
	if err = run(t, log, d, topo, nil).wait(); !errors.Is(err, worker.ErrTopics) || !strings.Contains(err.Error(), "created again") {
		t.Fatalf("made anew: %v", err)
	}
	// Somebody else's offsets mean a new beginning; what is on disk is that of another topic.
	offsets := map[cluster.TP]cluster.Offset{}
	for i := range int32(2) {
		offsets[cluster.TP{Topic: "words", Partition: i}] = cluster.Offset{}
		offsets[cluster.TP{Topic: "app-again-repartition", Partition: i}] = cluster.Offset{}
	}
	commit(t, log, offsets)
	p = run(t, log, d, topo, nil)
	eventually(t, "tasks run", func() bool { return len(p.Status()) == 4 })
	if p.happened(worker.StoreRebuilt) != 2 {
		t.Errorf("%d stores were rebuilt", p.happened(worker.StoreRebuilt))
	}
}

// TestAnInternalTopicGoesMeanwhile: the application notices that somebody deletes a topic of its own.
func TestAnInternalTopicGoesMeanwhile(t *testing.T) {
	log := mem.New()
	create(t, log, 1, "words", "totals")
	p := run(t, log, newDisk(), build(t, count), func(c *worker.Config) { c.WatchInterval = 5 * time.Millisecond })
	eventually(t, "the tasks run", func() bool { return len(p.Status()) == 2 })
	log.Delete("app-counts-changelog")
	if err := p.wait(); !errors.Is(err, worker.ErrTopics) || !strings.Contains(err.Error(), `"app-counts-changelog" has been deleted`) {
		t.Errorf("got %v", err)
	}
}

func TestGlobalTable(t *testing.T) {
	log := mem.New()
	create(t, log, 2, "words", "names", "named")
	write(t, log, "names", 2, "a=Anna", "b=Bert")
	d := newDisk()
	topo := build(t, func(b *stream.Builder) {
		names := b.GlobalTable(Names, NameKV)
		b.Stream(Words).LeftJoinGlobal(names, func(k, _ string) string { return k }, func(v string, name *string) string {
			if name == nil {
				return v + " ?"
			}
			return v + " " + *name
		}).To(Named)
	})
	got := func() string {
		var all []string
		for _, r := range read(t, log, "named") {
			all = append(all, string(r.Value))
		}
		return fmt.Sprint(all)
	}
	p := run(t, log, d, topo, nil)
	write(t, log, "words", 1, "a=hello")
	eventually(t, "what was there at the start is known", func() bool { return got() == "[hello Anna]" })
	write(t, log, "names", 2, "a=Anton")
	eventually(t, "an update is known", func() bool {
		var name string
		err := p.Query(t.Context(), "names", 0, func(s flow.Store) {
			if v, _, ok, err := NameKV.View(s).Get("a"); ok && err == nil {
				name = v
			}
		})
		return err == nil && name == "Anton"
	})
	write(t, log, "words", 1, "a=again")
	eventually(t, "the update is used", func() bool { return got() == "[hello Anna again Anton]" })
	if err := p.end(); err != nil {
		t.Fatal(err)
	}
	write(t, log, "names", 2, "a=null")
	p = run(t, log, d, topo, nil)
	write(t, log, "words", 1, "a=bye")
	eventually(t, "a deletion is known", func() bool { return got() == "[hello Anna again Anton bye ?]" })
}

func TestNothingButAGlobalTable(t *testing.T) {
	log := mem.New()
	create(t, log, 2, "names")
	write(t, log, "names", 2, "a=Anna")
	p := run(t, log, newDisk(), build(t, func(b *stream.Builder) { b.GlobalTable(Names, NameKV) }), nil)
	<-p.Ready()
	var name string
	err := p.Query(t.Context(), "names", 0, func(s flow.Store) { name, _, _, _ = NameKV.View(s).Get("a") })
	if err != nil || name != "Anna" {
		t.Errorf("%q, %v", name, err)
	}
	if err := p.end(); err != nil {
		t.Error(err)
	}
}

func TestSettingsOfInternalTopics(t *testing.T) {
	log := mem.New()
	create(t, log, 1, "words", "totals")
	stored := Counts.Changelog(map[string]string{"segment.bytes": "1000000"})
	topo := build(t, func(b *stream.Builder) {
		b.Stream(Words).GroupBy(Again, func(k, _ string) string { return k }).Count(stored).ToStream().To(Totals)
	})
	p := run(t, log, newDisk(), topo, func(c *worker.Config) {
		c.TopicConfig = map[string]string{"segment.bytes": "2000000", "compression.type": "zstd", "min.insync.replicas": "2"}
	})
	<-p.Ready()
	infos, err := log.Connect().Admin().Describe(t.Context(), "app-counts-changelog", "app-again-repartition")
	if err != nil {
		t.Fatal(err)
	}
	for topic, want := range map[string]map[string]string{
		"app-counts-changelog":  {"segment.bytes": "1000000", "compression.type": "zstd", "cleanup.policy": "compact"},
		"app-again-repartition": {"segment.bytes": "2000000", "min.insync.replicas": "2", "cleanup.policy": "delete", "retention.ms": "-1"},
	} {
		for k, v := range want {
			if got := infos[topic].Config[k]; got != v {
				t.Errorf("%s: %s is %q, not %q", topic, k, got, v)
			}
		}
	}
}

// TestOrderOfTime: a task with two inputs takes the earlier record first, even if one input comes later to the process.
func TestOrderOfTime(t *testing.T) {
	log := mem.New()
	create(t, log, 1, "words", "more", "named")
	write(t, log, "words", 1, "k=1", "k=2", "k=3") // times 1000, 1001, 1002
	write(t, log, "more", 1, "k=a", "k=b", "k=c")
	topo := build(t, func(b *stream.Builder) { b.Stream(Words).Merge(b.Stream(More)).To(Named) })
	run(t, log, newDisk(), topo, nil)
	var all []string
	eventually(t, "all have come", func() bool {
		all = nil
		for _, r := range read(t, log, "named") {
			all = append(all, string(r.Value))
		}
		return len(all) == 6
	})
	if got := strings.Join(all, " "); got != "1 a 2 b 3 c" {
		t.Errorf("in the order %s", got)
	}
}

func TestTopics(t *testing.T) {
	topo := build(t, count)
	for _, tt := range []struct {
		name   string
		set    func(log *mem.Log)
		before func(log *mem.Log) // after a first run
		change func(*worker.Config)
		is     error
		says   []string
	}{
		{name: "missing", set: func(log *mem.Log) { create(t, log, 1, "totals") }, is: cluster.ErrMissingTopic,
			says: []string{`"words", which the application reads`, "--create --topic words --partitions N"}},
		{name: "sink missing", set: func(log *mem.Log) { create(t, log, 1, "words") }, is: worker.ErrTopics,
			says: []string{`"totals", which the application writes`, "--create --topic totals"}},
		{name: "changelog too narrow", set: func(log *mem.Log) { create(t, log, 2, "words", "totals"); create(t, log, 1, "app-counts-changelog") },
			is: worker.ErrTopics, says: []string{`"app-counts-changelog" has 1 partitions, the application needs 2`}},
		{name: "changelog that forgets", set: func(log *mem.Log) {
			create(t, log, 1, "words", "totals")
			log.Connect().Admin().Create(t.Context(), cluster.TopicSpec{Name: "app-counts-changelog", Partitions: 1, Config: map[string]string{"cleanup.policy": "delete"}})
		}, is: worker.ErrTopics, says: []string{"cleanup.policy=delete", "kafka-configs"}},
		{name: "more partitions", set: func(log *mem.Log) { create(t, log, 1, "words", "totals") }, before: func(log *mem.Log) { log.AddPartitions("words", 1) },
			is: worker.ErrTopics, says: []string{`"words" has 2 partitions, it had 1`}},
		{name: "made again", set: func(log *mem.Log) { create(t, log, 1, "words", "totals") },
			before: func(log *mem.Log) { log.Delete("words"); create(t, log, 1, "words") },
			is:     worker.ErrTopics, says: []string{`"words" has been deleted and created again`}},
		{name: "records gone", set: func(log *mem.Log) { create(t, log, 1, "words", "totals") }, before: func(log *mem.Log) {
			write(t, log, "words", 1, "a=1", "b=1", "c=1")
			log.Connect().Admin().DeleteRecords(t.Context(), map[cluster.TP]int64{{Topic: "words"}: 3})
		}, is: worker.ErrOffsets, says: []string{"words[0]", "starts at 3", "--reset-offsets"}},
		{name: "no committed position", set: func(log *mem.Log) { create(t, log, 1, "words", "totals") },
			change: func(c *worker.Config) { c.Reset = topology.ResetNone }, is: worker.ErrOffsets, says: []string{"words[0]", "FromCommitted"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			log, d := mem.New(), newDisk()
			tt.set(log)
			if tt.before != nil {
				p := run(t, log, d, topo, tt.change)
				write(t, log, "words", 1, "x=1")
				eventually(t, "the first run counts", func() bool { return totals(t, log)["x"] == 1 })
				if err := p.end(); err != nil {
					t.Fatal(err)
				}
				tt.before(log)
			}
			err := run(t, log, d, topo, tt.change).wait()
			if !errors.Is(err, tt.is) {
				t.Fatalf("got %v", err)
			}
			for _, s := range tt.says {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("does not say %q: %v", s, err)
				}
			}
		})
	}
}

func TestTopicsThatChangeMeanwhile(t *testing.T) {
	log := mem.New()
	create(t, log, 1, "words", "totals")
	p := run(t, log, newDisk(), build(t, count), func(c *worker.Config) { c.WatchInterval = 5 * time.Millisecond })
	<-p.Ready()
	log.AddPartitions("words", 1)
	if err := p.wait(); !errors.Is(err, worker.ErrTopics) || !strings.Contains(err.Error(), `"words" has 2 partitions`) {
		t.Errorf("got %v", err)
	}
}

func TestBundledTopicsAreCreated(t *testing.T) {
	log := mem.New()
	topo := build(t, func(b *stream.Builder) { b.Stream(Words.Partitions(3)).To(Named.Partitions(2)) })
	run(t, log, newDisk(), topo, func(c *worker.Config) { c.Bundled = true })
	eventually(t, "the topics are there", func() bool {
		infos, err := log.Connect().Admin().Describe(t.Context(), "words", "named")
		return err == nil && infos["words"].Partitions == 3 && infos["named"].Partitions == 2
	})
}

func TestPurge(t *testing.T) {
	log := mem.New()
	create(t, log, 1, "words", "totals")
	run(t, log, newDisk(), build(t, count), func(c *worker.Config) { c.PurgeInterval = 5 * time.Millisecond })
	records, want := words(0, 100, 10)
	write(t, log, "words", 1, records...)
	eventually(t, "all are counted", func() bool { return maps.Equal(totals(t, log), want) })
	tp := cluster.TP{Topic: "app-again-repartition"}
	eventually(t, "what was read is deleted", func() bool {
		starts, err := log.Connect().Admin().Starts(t.Context(), tp)
		return err == nil && starts[tp] >= 100
	})
}

func TestErrorPolicy(t *testing.T) {
	bad := errors.New("a bad word")
	check := func(b *stream.Builder) {
		b.Stream(Words).TryFilter(func(r stream.Record[string, string]) (bool, error) {
			if r.Value == "bad" {
				return false, bad
			}
			return true, nil
		}).GroupByKey().Count(Counts).ToStream().To(Totals)
	}
	t.Run("fail", func(t *testing.T) {
		log := mem.New()
		create(t, log, 1, "words", "totals")
		write(t, log, "words", 1, "a=good", "a=bad", "a=good")
		err := run(t, log, newDisk(), build(t, check), nil).wait()
		e, ok := errors.AsType[*task.Error](err)
		if !errors.Is(err, bad) || !ok || e.Topic != "words" || e.Offset != 1 {
			t.Errorf("got %v", err)
		}
	})
	t.Run("skip", func(t *testing.T) {
		log := mem.New()
		create(t, log, 1, "words", "totals")
		write(t, log, "words", 1, "a=good", "a=bad", "a=good")
		p := run(t, log, newDisk(), build(t, check), func(c *worker.Config) { c.Errors.Processing.Action = task.Skip })
		eventually(t, "the good ones are counted", func() bool { return totals(t, log)["a"] == 2 })
		if err := p.end(); err != nil {
			t.Error(err)
		}
	})
}

// TestLeftOutAfterAWrite: a record fails after a store has been written; with Skip nothing of it remains.
func TestLeftOutAfterAWrite(t *testing.T) {
	log := mem.New()
	create(t, log, 1, "words", "totals")
	topo := build(t, func(b *stream.Builder) {
		counted := b.Stream(Words).GroupByKey().Count(Counts.EveryUpdate()).ToStream()
		counted.TryFilter(func(r stream.Record[string, int64]) (bool, error) {
			if r.Value == 3 && r.Time.UnixMilli() == 1002 {
				return false, errors.New("no third one at this time")
			}
			return true, nil
		}).To(Totals)
	})
	write(t, log, "words", 1, "a=1", "a=2", "a=3", "a=4")
	p := run(t, log, newDisk(), topo, func(c *worker.Config) { c.Errors.Processing.Action = task.Skip })
	eventually(t, "three remain", func() bool { return totals(t, log)["a"] == 3 })
	if p.happened(worker.EpochUndone) == 0 {
		t.Error("nothing was undone")
	}
}

// TestStopTimeout: a function that does not come back in time does not keep the process from ending, and is named. What it
// still does when it comes back is not committed, and nothing stays open.
func TestStopTimeout(t *testing.T) {
	log := mem.New()
	create(t, log, 1, "words", "totals")
	entered, leave := make(chan bool), make(chan bool)
	var once sync.Once
	stuck := func(v string) string {
		once.Do(func() { entered <- true; <-leave })
		return v
	}
	topo := build(t, func(b *stream.Builder) {
		b.Stream(Words).MapValues(stuck).GroupByKey().Count(Counts).ToStream().To(Totals)
	})
	write(t, log, "words", 1, "a=1")
	d := newDisk()
	p := run(t, log, d, topo, func(c *worker.Config) { c.StopTimeout = 20 * time.Millisecond })
	<-entered
	p.stop()
	err := p.wait() // the function has not come back
	if !errors.Is(err, worker.ErrStopTimeout) || !p.Hangs() {
		t.Fatalf("got %v", err)
	}
	for _, says := range []string{"task 0_0", "TestStopTimeout", "worker_test.go"} {
		if !strings.Contains(err.Error(), says) {
			t.Errorf("does not say %q: %v", says, err)
		}
	}
	close(leave)
	p.Wait()
	if got := read(t, log, "totals"); len(got) != 0 {
		t.Errorf("%d records were committed", len(got))
	}
	if open := d.open(); len(open) > 0 {
		t.Errorf("still open: %v", open)
	}
	run(t, log, d, topo, nil)
	eventually(t, "the next run does it", func() bool { return totals(t, log)["a"] == 1 })
}

// TestSmallBudget: with a budget far below what the state takes, everything still gets done.
func TestSmallBudget(t *testing.T) {
	log := mem.New()
	create(t, log, 1, "words", "totals")
	topo := build(t, func(b *stream.Builder) { b.Stream(Words).GroupByKey().Count(Counts).ToStream().To(Totals) })
	want := map[string]int64{}
	for i := range 2 { // the second on another machine, with everything to restore
		p := run(t, log, newDisk(), topo, func(c *worker.Config) { c.Memory = 200 << 10 })
		records, more := words(i*20_000, 20_000, 5000)
		for k, n := range more {
			want[k] += n
		}
		write(t, log, "words", 1, records...)
		eventually(t, "all are counted", func() bool { return maps.Equal(totals(t, log), want) })
		if err := p.end(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestQueryAfterTheEnd(t *testing.T) {
	log := mem.New()
	create(t, log, 1, "words", "totals")
	p := run(t, log, newDisk(), build(t, count), nil)
	eventually(t, "the store can be asked", func() bool { return p.Query(t.Context(), "counts", 0, func(flow.Store) {}) == nil })
	if err := p.Query(t.Context(), "nothing", 0, func(flow.Store) {}); !errors.Is(err, worker.ErrNoStore) {
		t.Errorf("an unknown store: %v", err)
	}
	if err := p.end(); err != nil {
		t.Fatal(err)
	}
	if err := p.Query(context.Background(), "counts", 0, func(flow.Store) {}); !errors.Is(err, worker.ErrNotHere) {
		t.Errorf("after the end: %v", err)
	}
}
