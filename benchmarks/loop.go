package main

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime/pprof"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// runLoop is what a Go developer writes without a streams library: poll, compute in a map, produce, commit. It writes the
// outputs and the changelog that Moldau writes, and reads nothing back: no restore, no windows closed, no rebalance. It is
// the floor of a library on this client, not its equal.
func runLoop(ctx context.Context, args []string) error {
	o, err := parseJob("loop", args)
	if err != nil {
		return err
	}
	opts := []kgo.Opt{
		kgo.SeedBrokers(o.broker), kgo.ConsumerGroup(o.app), kgo.ConsumeTopics(o.in), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DefaultProduceTopic(o.out), kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)),
		kgo.WithPools(&recordPool{}), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.DisableAutoCommit(),
	}
	l := &loop{job: o, counts: map[string]*entry{}}
	begin := func() error { return nil }
	var end func() error
	if o.exactlyOnce {
		s, err := kgo.NewGroupTransactSession(append(opts, kgo.TransactionalID(o.app))...)
		if err != nil {
			return err
		}
		defer s.Close()
		l.client, l.poll, begin = s.Client(), s.PollRecords, s.Begin
		end = func() error {
			committed, err := s.End(ctx, kgo.TryCommit)
			if err == nil && !committed {
				err = errors.New("transaction aborted; this loop cannot rewind its state")
			}
			return err
		}
	} else {
		cl, err := kgo.NewClient(opts...)
		if err != nil {
			return err
		}
		defer cl.Close()
		l.client, l.poll = cl, cl.PollRecords
		end = func() error {
			if err := cl.Flush(ctx); err != nil {
				return err
			}
			return cl.CommitUncommittedOffsets(ctx)
		}
	}
	return l.run(ctx, begin, end)
}

// loop is the state of the hand-written program.
type loop struct {
	job
	client *kgo.Client
	poll   func(context.Context, int) kgo.Fetches
	counts map[string]*entry
	dirty  []*entry
	err    error
	errMu  sync.Mutex
}

// entry is one key's count; time is the record time that the output carries.
type entry struct {
	key   []byte
	count uint64
	time  time.Time
	dirty bool
}

func (l *loop) run(ctx context.Context, begin, end func() error) error {
	process := map[string]func(*kgo.Record){"stateless": l.stateless, "count": l.count, "tumbling": l.tumbling}[l.workload]
	if process == nil {
		return fmt.Errorf("no workload %q", l.workload)
	}
	if err := begin(); err != nil {
		return err
	}
	m := newMeter(l.job)
	done, last := 0, time.Now()
	for done < l.records {
		wait, cancel := context.WithDeadline(ctx, last.Add(l.commit))
		fetched := l.poll(wait, 10_000)
		cancel()
		if err := fetched.Err(); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		fetched.EachRecord(func(r *kgo.Record) {
			process(r)
			done++
			r.Recycle()
		})
		m.at(done)
		if time.Since(last) < l.commit && done < l.records {
			continue
		}
		l.flush()
		if err := end(); err != nil {
			return err
		}
		if err := l.failed(); err != nil {
			return err
		}
		if done < l.records {
			if err := begin(); err != nil {
				return err
			}
		}
		last = time.Now()
	}
	return m.report("loop", 0)
}

func (l *loop) failed() error {
	l.errMu.Lock()
	defer l.errMu.Unlock()
	return l.err
}

func (l *loop) produce(r *kgo.Record) {
	l.client.Produce(context.Background(), r, func(_ *kgo.Record, err error) {
		if err != nil {
			l.errMu.Lock()
			l.err = err
			l.errMu.Unlock()
		}
	})
}

// stateless keeps the records whose first byte is even and inverts their bytes.
func (l *loop) stateless(r *kgo.Record) {
	if keep(r.Value) {
		l.produce(&kgo.Record{Key: r.Key, Value: invert(r.Value), Timestamp: r.Timestamp})
	}
}

func (l *loop) count(r *kgo.Record) { l.touch(r.Key, r.Timestamp) }

// tumbling counts per key and window; the map's key is the key on the changelog without its sequence number.
func (l *loop) tumbling(r *kgo.Record) {
	start := r.Timestamp.UnixMilli() / windowSize.Milliseconds() * windowSize.Milliseconds()
	var buf [32]byte
	l.touch(binary.BigEndian.AppendUint64(append(buf[:0], r.Key...), uint64(start)), r.Timestamp)
}

func (l *loop) touch(key []byte, at time.Time) {
	e := l.counts[string(key)]
	if e == nil {
		e = &entry{key: append([]byte(nil), key...)}
		l.counts[string(e.key)] = e
	}
	e.count++
	if at.After(e.time) {
		e.time = at
	}
	if !e.dirty {
		e.dirty = true
		l.dirty = append(l.dirty, e)
	}
}

// flush writes what changed since the last commit, to the output and to the changelog.
func (l *loop) flush() {
	for _, e := range l.dirty {
		e.dirty = false
		v := binary.BigEndian.AppendUint64(nil, e.count)
		l.produce(&kgo.Record{Key: e.key, Value: v, Timestamp: e.time})
		l.produce(&kgo.Record{Topic: l.changelog(), Key: e.key, Value: v, Timestamp: e.time})
	}
	l.dirty = l.dirty[:0]
}

// recordPool recycles the slices of records that the client decodes fetches into.
type recordPool struct{ p sync.Pool }

func (p *recordPool) GetRecords(n int) []kgo.Record {
	if s, ok := p.p.Get().(*[]kgo.Record); ok && cap(*s) >= n {
		return (*s)[:0]
	}
	return make([]kgo.Record, 0, n)
}

func (p *recordPool) PutRecords(s []kgo.Record) { p.p.Put(&s) }

// job is what the loop and Moldau are asked to do.
type job struct {
	broker, in, out, app, workload, state string
	records                               int
	exactlyOnce                           bool
	commit                                time.Duration
	brokerPID                             int
	profile                               string
}

// changelog is where the loop writes its counts a second time.
func (j job) changelog() string { return j.app + "-counts-changelog" }

const windowSize = 5 * time.Second

func keep(value []byte) bool { return value[0]&1 == 0 }

func invert(value []byte) []byte {
	out := make([]byte, len(value))
	for i, b := range value {
		out[i] = ^b
	}
	return out
}

func parseJob(name string, args []string) (job, error) {
	var j job
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.StringVar(&j.broker, "broker", "127.0.0.1:9092", "bootstrap address")
	fs.StringVar(&j.in, "in", "in", "input topic")
	fs.StringVar(&j.out, "out", "out", "output topic")
	fs.StringVar(&j.app, "app", name, "consumer group, application and transactional id")
	fs.StringVar(&j.workload, "workload", "count", "stateless, count or tumbling")
	fs.StringVar(&j.state, "state", "", "state directory (moldau only)")
	fs.IntVar(&j.records, "records", 5_000_000, "stop after so many input records")
	fs.BoolVar(&j.exactlyOnce, "exactly-once", false, "one transaction per commit")
	fs.DurationVar(&j.commit, "commit", 100*time.Millisecond, "commit interval")
	fs.StringVar(&j.profile, "profile", "", "write a CPU profile to this file")
	fs.IntVar(&j.brokerPID, "broker-pid", 0, "report this process's CPU time too")
	if err := fs.Parse(args); err != nil || j.profile == "" {
		return j, err
	}
	f, err := os.Create(j.profile)
	if err != nil {
		return j, err
	}
	return j, pprof.StartCPUProfile(f) // main stops it
}
