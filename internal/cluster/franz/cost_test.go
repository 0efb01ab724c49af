package franz

import (
	"context"
	"fmt"
	"runtime/debug"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/moldau/moldau/internal/assign"
	"github.com/moldau/moldau/internal/cluster"
	"github.com/moldau/moldau/internal/flow"
)

// BenchmarkStateless compares the CPU of reading, filtering and writing through the seam with a loop written by hand on
// the same client, as ns of this process per input record. Half the records are written on, with the value inverted.
//
//	MOLDAU_KAFKA=host:port go test -run - -bench Stateless -benchtime 5x ./internal/cluster/franz
func BenchmarkStateless(b *testing.B) {
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	const n = 2_000_000
	in := loadInput(b, n)
	for _, c := range []struct {
		name string
		run  func(testing.TB, job)
		eos  bool
	}{{"hand", byHand, false}, {"seam", throughSeam, false}, {"hand-eos", byHand, true}, {"seam-eos", throughSeam, true}} {
		b.Run(c.name, func(b *testing.B) {
			var cpu time.Duration
			for range b.N {
				j := job{in: in, out: outTopic(b), records: n, eos: c.eos, group: fmt.Sprintf("cost-%d", time.Now().UnixNano())}
				before := cpuTime()
				c.run(b, j)
				cpu += cpuTime() - before
			}
			b.ReportMetric(float64(cpu.Nanoseconds())/float64(b.N)/n, "cpu-ns/record")
			b.ReportMetric(0, "ns/op")
		})
	}
}

type job struct {
	in, out *flow.Topic
	group   string
	records int
	eos     bool
}

const interval = 100 * time.Millisecond

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// loadInput writes n records of 116 bytes to a topic of 4 partitions, unless they are there.
func loadInput(b *testing.B, n int) *flow.Topic {
	c := connect(b)
	t := &flow.Topic{Name: fmt.Sprintf("cost-in-%d", n), Partitions: 4}
	ctx := context.Background()
	if err := c.Admin().Create(ctx, cluster.TopicSpec{Name: t.Name, Partitions: t.Partitions, Replication: -1}); err != nil {
		b.Fatal(err)
	}
	tps := []cluster.TP{{Topic: t.Name}, {Topic: t.Name, Partition: 1}, {Topic: t.Name, Partition: 2}, {Topic: t.Name, Partition: 3}}
	ends, err := c.Admin().Ends(ctx, false, tps...)
	if err != nil {
		b.Fatal(err)
	}
	if ends[tps[0]] > 0 {
		return t
	}
	p, err := c.Producer(cluster.ProducerConfig{})
	if err != nil {
		b.Fatal(err)
	}
	defer p.Close()
	if err := p.Init(ctx); err != nil {
		b.Fatal(err)
	}
	value := make([]byte, 100)
	for at := 0; at < n; at += 10_000 {
		records := make([]flow.Out, 10_000)
		for i := range records {
			value[0] = byte(at + i)
			records[i] = flow.Out{Topic: t, Partition: int32((at + i) / 2 % 4), Time: 1_700_000_000_000 + int64(at+i), Key: fmt.Appendf(nil, "%016d", (at+i)%100_000), Value: append([]byte(nil), value...)}
		}
		done := make(chan error, 1)
		p.Produce(records, func(_ map[cluster.TP]int64, err error) { done <- err })
		p.Flush()
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
	return t
}

func outTopic(b testing.TB) *flow.Topic {
	t := &flow.Topic{Name: fmt.Sprintf("cost-out-%d", time.Now().UnixNano()), Partitions: 4}
	if err := connect(b).Admin().Create(context.Background(), cluster.TopicSpec{Name: t.Name, Partitions: 4, Replication: -1}); err != nil {
		b.Fatal(err)
	}
	return t
}

// byHand is what one would write without a library: a kgo group consumer with record pools that produces what it reads.
func byHand(b testing.TB, j job) {
	ctx := context.Background()
	opts := []kgo.Opt{
		kgo.SeedBrokers(brokers(b)...), kgo.ConsumerGroup(j.group), kgo.ConsumeTopics(j.in.Name),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DefaultProduceTopic(j.out.Name),
		kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)),
		kgo.WithPools(&recordPool{}),
	}
	must := func(err error) {
		if err != nil {
			b.Fatal(err)
		}
	}
	var cl *kgo.Client
	begin := func() {}
	var end func()
	poll := func(ctx context.Context) kgo.Fetches { return cl.PollRecords(ctx, 10_000) }
	if j.eos {
		s, err := kgo.NewGroupTransactSession(append(opts, kgo.TransactionalID(j.group), kgo.FetchIsolationLevel(kgo.ReadCommitted()))...)
		must(err)
		defer s.Close()
		cl = s.Client()
		poll = func(ctx context.Context) kgo.Fetches { return s.PollRecords(ctx, 10_000) }
		begin = func() { must(s.Begin()) }
		end = func() {
			ok, err := s.End(ctx, kgo.TryCommit)
			must(err)
			if !ok {
				b.Fatal("aborted")
			}
		}
	} else {
		var err error
		cl, err = kgo.NewClient(append(opts, kgo.DisableAutoCommit())...)
		must(err)
		defer cl.Close()
		end = func() {
			must(cl.Flush(ctx))
			must(cl.CommitUncommittedOffsets(ctx))
		}
	}
	begin()
	done, last := 0, time.Now()
	for done < j.records {
		wait, cancel := context.WithDeadline(ctx, last.Add(interval))
		fetches := poll(wait)
		cancel()
		fetches.EachRecord(func(r *kgo.Record) {
			if r.Value[0]&1 == 0 {
				v := make([]byte, len(r.Value))
				for i, x := range r.Value {
					v[i] = ^x
				}
				cl.Produce(ctx, &kgo.Record{Key: r.Key, Value: v, Timestamp: r.Timestamp}, func(_ *kgo.Record, err error) { must(err) })
			}
			done++
			r.Recycle()
		})
		if time.Since(last) >= interval {
			end()
			begin()
			last = time.Now()
		}
	}
	end()
}

// throughSeam does the same with a Member and a Producer.
func throughSeam(b testing.TB, j job) {
	ctx := context.Background()
	must := func(err error) {
		if err != nil {
			b.Fatal(err)
		}
	}
	c := connect(b)
	cfg := cluster.ProducerConfig{}
	if j.eos {
		cfg.TransactionalID = j.group
	}
	p, err := c.Producer(cfg)
	must(err)
	defer p.Close()
	must(p.Init(ctx))
	m, err := c.Member(cluster.MemberConfig{Group: j.group, Subtopologies: []assign.Subtopology{{Topics: []string{j.in.Name}}}})
	must(err)
	defer m.Close()

	var waiting []chan error
	offsets := map[cluster.TP]cluster.Offset{}
	end := func() {
		p.Flush()
		for _, ch := range waiting {
			must(<-ch)
		}
		waiting = waiting[:0]
		if j.eos {
			must(p.CommitOffsets(ctx, m.Group(), offsets))
			must(p.End(ctx, true))
			must(p.Begin())
			return
		}
		must(m.Commit(ctx, offsets))
	}
	must(p.Begin())
	done, last := 0, time.Now()
	for done < j.records {
		wait, cancel := context.WithDeadline(ctx, last.Add(interval))
		f, err := m.Poll(wait)
		cancel()
		must(err)
		for _, e := range f.Events {
			seek := map[cluster.TP]int64{}
			for _, tp := range e.Partitions {
				seek[tp] = -1
			}
			m.Seek(seek)
		}
		for _, batch := range f.Batches {
			out := flow.Effects{Records: make([]flow.Out, 0, len(batch.Records))}
			for i := range batch.Records {
				r := &batch.Records[i]
				if r.Value[0]&1 != 0 {
					continue
				}
				slab := out.Slab()
				from := len(slab)
				slab = append(slab, r.Key...)
				mid := len(slab)
				for _, x := range r.Value {
					slab = append(slab, ^x)
				}
				out.Emit(slab, from, mid, false, false, flow.Out{Topic: j.out, Partition: batch.Partition, Time: r.Time})
			}
			done += len(batch.Records)
			offsets[batch.TP] = cluster.Offset{At: batch.Next}
			batch.Release()
			ch := make(chan error, 1)
			waiting = append(waiting, ch)
			p.Produce(out.Records, func(_ map[cluster.TP]int64, err error) { ch <- err })
		}
		if time.Since(last) >= interval && len(offsets) > 0 {
			end()
			last = time.Now()
		}
	}
	end()
}
