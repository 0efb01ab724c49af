package broker

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/moldau/moldau/internal/broker/histories"
)

// The topics of the workload. Everybody writes to "in" and "mix"; a group copies "in" to "out"; transactions read from and
// write to "mix", which is compacted: no two keys are the same, so of what is committed nothing may go.
var workTopics = []string{"in", "mix", "out"}

const workPartitions = 2

// recorder writes the history down.
type recorder struct {
	start  time.Time
	values atomic.Uint64
	mu     sync.Mutex
	h      histories.History
	odd    []string // what clients met that no history can say
}

func (r *recorder) now() int64 { return int64(time.Since(r.start)) + 1 }

func (r *recorder) op(op *histories.Op) {
	op.End = r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.h.Ops = append(r.h.Ops, *op)
}

func (r *recorder) strange(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.odd) < 20 {
		r.odd = append(r.odd, fmt.Sprintf(format, args...))
	}
}

// record makes a record that op sends.
func (r *recorder) record(op *histories.Op, topic string, partition int32, from histories.Value) *kgo.Record {
	v := histories.Value(r.values.Add(1))
	op.Writes = append(op.Writes, histories.Write{Value: v, At: histories.TP{Topic: topic, Partition: partition}, Offset: -1, From: from})
	b := binary.BigEndian.AppendUint64(nil, uint64(v))
	return &kgo.Record{Topic: topic, Partition: partition, Key: b, Value: b}
}

// produceSync closes a client that does not come back when its time is up: records that it may have sent it keeps until it hears
// what became of them, and a topic that a broker has lost never answers.
func produceSync(ctx context.Context, cl *kgo.Client, recs ...*kgo.Record) kgo.ProduceResults {
	back := make(chan struct{})
	defer close(back)
	stop := context.AfterFunc(ctx, func() {
		select {
		case <-back:
		case <-time.After(time.Second):
			cl.Close()
		}
	})
	defer stop()
	return cl.ProduceSync(ctx, recs...)
}

// acknowledged notes the offsets of records that op sent, in order.
func acknowledged(op *histories.Op, results kgo.ProduceResults) (err error) {
	for _, x := range results {
		v := histories.Value(binary.BigEndian.Uint64(x.Record.Value))
		for i := range op.Writes {
			if w := &op.Writes[i]; w.Value == v && x.Err == nil {
				w.Offset = x.Record.Offset
			}
		}
		if x.Err != nil {
			err = x.Err
		}
	}
	return err
}

// poll notes what a consumer was given and returns it.
func (r *recorder) poll(session string, committed bool, begin int64, fs kgo.Fetches) []histories.Read {
	p := histories.Poll{Session: session, Committed: committed, Begin: begin, End: r.now()}
	fs.EachRecord(func(rec *kgo.Record) {
		v := histories.Value(0)
		if len(rec.Value) == 8 {
			v = histories.Value(binary.BigEndian.Uint64(rec.Value))
		}
		p.Reads = append(p.Reads, histories.Read{Value: v, At: histories.TP{Topic: rec.Topic, Partition: rec.Partition}, Offset: rec.Offset})
	})
	if len(p.Reads) > 0 {
		r.mu.Lock()
		r.h.Polls = append(r.h.Polls, p)
		r.mu.Unlock()
	}
	return p.Reads
}

// workload is clients at work.
type workload struct {
	*recorder
	line *line
	next bool                // groups use the protocol of KIP-848
	ids  map[string][16]byte // of topics
	// broken ends when the broker is gone for good, and all clients with it: they would wait for ever. It ends with the round at
	// the latest, which then waits for closing.
	broken  context.Context
	closing sync.WaitGroup
	// atEnd is what is left to do when everybody has stopped.
	atEnd []func()
}

func (w *workload) client(opts ...kgo.Opt) *kgo.Client {
	cl, err := kgo.NewClient(w.options(opts...)...)
	if err != nil {
		panic(err)
	}
	w.whenBroken(cl.Close)
	return cl
}

func (w *workload) whenBroken(closeClient func()) {
	w.closing.Add(1)
	context.AfterFunc(w.broken, func() {
		defer w.closing.Done()
		closeClient()
	})
}

func (w *workload) options(opts ...kgo.Opt) []kgo.Opt {
	return append([]kgo.Opt{
		kgo.SeedBrokers("moldau.invalid:9092"), kgo.Dialer(w.line.dial), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.MetadataMinAge(50 * time.Millisecond), kgo.RetryBackoffFn(func(int) time.Duration { return 30 * time.Millisecond }),
		kgo.RequestTimeoutOverhead(2 * time.Second), kgo.FetchMaxWait(200 * time.Millisecond), kgo.ProducerLinger(0),
		kgo.TransactionTimeout(20 * time.Second), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
	}, opts...)
}

// person is a client that is killed now and then and then begins again. Each life is a session of its own.
type person struct {
	name string
	rng  *rand.Rand
	live func(ctx context.Context, p *person)

	mu   sync.Mutex
	kill context.CancelFunc
	life int
}

func (p *person) session() string { return fmt.Sprintf("%s.%d", p.name, p.life) }

func (p *person) run(ctx context.Context) {
	for ctx.Err() == nil {
		life, end := context.WithCancel(ctx)
		p.mu.Lock()
		p.kill = end
		p.life++
		p.mu.Unlock()
		p.live(life, p)
		end()
	}
}

func (p *person) die() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.kill != nil {
		p.kill()
	}
}

// rest keeps the history of a length that can be judged.
func (p *person) rest(ctx context.Context, most time.Duration) {
	select {
	case <-time.After(time.Duration(p.rng.Int64N(int64(most)))):
	case <-ctx.Done():
	}
}

func (p *person) target() (string, int32) {
	return workTopics[p.rng.IntN(2)], int32(p.rng.IntN(workPartitions))
}

// plain writes outside of transactions, many records at once.
func (w *workload) plain(ctx context.Context, p *person) {
	cl := w.client()
	stop := context.AfterFunc(ctx, cl.Close) // ends what is on its way
	defer cl.Close()
	defer stop()
	for ctx.Err() == nil {
		op := &histories.Op{Client: p.session(), Begin: w.now()}
		var recs []*kgo.Record
		for range 1 + p.rng.IntN(20) {
			topic, partition := p.target()
			recs = append(recs, w.record(op, topic, partition, 0))
		}
		var done sync.WaitGroup
		done.Add(len(recs))
		for i, rec := range recs {
			cl.Produce(context.Background(), rec, func(rec *kgo.Record, err error) {
				if err == nil {
					op.Writes[i].Offset = rec.Offset
				}
				done.Done()
			})
		}
		done.Wait()
		w.op(op)
		p.rest(ctx, 20*time.Millisecond)
	}
}

// transactional returns a life of transactions. A client that is killed may live on and try to write as its successor does.
func (w *workload) transactional(id string) func(context.Context, *person) {
	var zombie *kgo.Client
	w.atEnd = append(w.atEnd, func() {
		if zombie != nil {
			zombie.Close()
		}
	})
	return func(ctx context.Context, p *person) {
		cl := w.client(kgo.TransactionalID(id))
		defer func() {
			if ctx.Err() != nil && zombie == nil && p.rng.IntN(2) == 0 {
				zombie = cl
				return
			}
			cl.Close()
		}()
		for ctx.Err() == nil {
			if cl.BeginTransaction() != nil {
				return
			}
			op := &histories.Op{Client: p.session(), Txn: true, Begin: w.now(), Outcome: histories.Aborted}
			for range 1 + p.rng.IntN(4) {
				topic, partition := p.target()
				var recs []*kgo.Record
				for range 1 + p.rng.IntN(3) {
					recs = append(recs, w.record(op, topic, partition, 0))
				}
				if acknowledged(op, produceSync(ctx, cl, recs...)) != nil {
					w.op(op)
					return
				}
			}
			if zombie != nil {
				w.haunt(zombie, p)
				zombie = nil
			}
			ok := w.end(ctx, cl, op, p.rng.IntN(4) > 0)
			w.op(op)
			if !ok {
				return
			}
			p.rest(ctx, 20*time.Millisecond)
		}
	}
}

// end ends the transaction of op; false: the client is beyond use.
func (w *workload) end(ctx context.Context, cl *kgo.Client, op *histories.Op, commit bool) bool {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	// Everything has been acknowledged. This waits until kgo has noted the partitions of a topic that it has written to for
	// the first time: before that it knows of nothing to commit or abort, and says nothing (v1.22.2).
	if cl.AbortBufferedRecords(ctx) != nil {
		return false
	}
	if !commit {
		return cl.EndTransaction(ctx, kgo.TryAbort) == nil
	}
	op.Asked = w.now()
	op.Outcome = histories.Unknown
	if cl.EndTransaction(ctx, kgo.TryCommit) != nil {
		return false
	}
	op.Outcome = histories.Committed
	return true
}

// haunt has a client write that has a successor by now. It asks for no commit, so nothing of it may ever be seen.
func (w *workload) haunt(zombie *kgo.Client, p *person) {
	defer zombie.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	op := &histories.Op{Client: p.session() + " zombie", Txn: true, Begin: w.now(), Outcome: histories.Aborted}
	zombie.BeginTransaction() // it may be in one
	topic, partition := p.target()
	acknowledged(op, produceSync(ctx, zombie, w.record(op, topic, partition, 0)))
	w.op(op)
}

// mixed returns a life of transactions that read and write the same topic.
func (w *workload) mixed(id string) func(context.Context, *person) {
	return func(ctx context.Context, p *person) {
		cl := w.client(kgo.TransactionalID(id), kgo.ConsumePartitions(everywhere("mix")), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
		defer cl.Close()
		for ctx.Err() == nil {
			if cl.BeginTransaction() != nil {
				return
			}
			op := &histories.Op{Client: p.session(), Txn: true, Begin: w.now(), Outcome: histories.Aborted}
			for range 1 + p.rng.IntN(4) {
				if p.rng.IntN(2) == 0 {
					op.Reads = append(op.Reads, w.read(ctx, cl, p.session(), true, 20*time.Millisecond)...)
					continue
				}
				rec := w.record(op, "mix", int32(p.rng.IntN(workPartitions)), 0)
				if acknowledged(op, produceSync(ctx, cl, rec)) != nil {
					w.op(op)
					return
				}
			}
			if len(op.Writes) == 0 {
				continue // nothing to end
			}
			ok := w.end(ctx, cl, op, p.rng.IntN(5) > 0)
			w.op(op)
			if !ok {
				return
			}
			p.rest(ctx, 20*time.Millisecond)
		}
	}
}

// everywhere names all partitions of topics, from their start.
func everywhere(topics ...string) map[string]map[int32]kgo.Offset {
	m := map[string]map[int32]kgo.Offset{}
	for _, topic := range topics {
		m[topic] = map[int32]kgo.Offset{}
		for n := range int32(workPartitions) {
			// A consumer that is out of range has met what should not be; it must not begin anew.
			m[topic][n] = kgo.NewOffset().At(0)
		}
	}
	return m
}

// read polls once.
func (w *workload) read(ctx context.Context, cl *kgo.Client, session string, committed bool, wait time.Duration) []histories.Read {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	begin := w.now()
	fs := cl.PollRecords(ctx, 500)
	return w.poll(session, committed, begin, fs)
}

// reader returns a life of reading everything, from the start or from where the life before ended.
func (w *workload) reader(committed bool) func(context.Context, *person) {
	last := map[histories.TP]int64{}
	return func(ctx context.Context, p *person) {
		from := everywhere(workTopics...)
		if p.rng.IntN(3) > 0 {
			for tp, next := range last {
				from[tp.Topic][tp.Partition] = kgo.NewOffset().At(next)
			}
		}
		level := kgo.ReadUncommitted()
		if committed {
			level = kgo.ReadCommitted()
		}
		cl := w.client(kgo.ConsumePartitions(from), kgo.FetchIsolationLevel(level), kgo.ConsumeResetOffset(kgo.NoResetOffset()))
		defer cl.Close()
		for ctx.Err() == nil {
			wait, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
			begin := w.now()
			fs := cl.PollRecords(wait, 1000)
			cancel()
			fs.EachError(func(topic string, partition int32, err error) {
				var k *kerr.Error
				var loss *kgo.ErrDataLoss
				final := errors.As(err, &k) && !k.Retriable
				// kgo keeps the epoch of the last record it returned, not of the aborted ones and markers that it has passed
				// since, and takes the end of that epoch for a loss. What is lost in truth is found in the history.
				final = final || errors.As(err, &loss) && !w.h.PowerLoss
				if final && (committed || !w.h.PowerLoss) {
					w.strange("%s: %s-%d: %v", p.session(), topic, partition, err)
				}
			})
			for _, r := range w.poll(p.session(), committed, begin, fs) {
				last[r.At] = r.Offset + 1
			}
			p.rest(ctx, 50*time.Millisecond)
		}
	}
}

// assignments counts those of a member: between two of them it reads on without a gap.
type assignments struct{ n atomic.Int64 }

func (a *assignments) options() []kgo.Opt {
	next := func(context.Context, *kgo.Client, map[string][]int32) { a.n.Add(1) }
	return []kgo.Opt{kgo.OnPartitionsAssigned(next), kgo.OnPartitionsRevoked(next), kgo.OnPartitionsLost(next)}
}

func (w *workload) member(group string) []kgo.Opt {
	opts := []kgo.Opt{
		kgo.ConsumerGroup(group), kgo.ConsumeTopics("in"), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.SessionTimeout(4 * time.Second), kgo.HeartbeatInterval(300 * time.Millisecond), kgo.RebalanceTimeout(5 * time.Second),
	}
	if w.next {
		opts = append(opts, kgo.ServerSideBalancer())
	}
	return opts
}

// copying returns a life of consuming, transforming and producing: each record of "in" becomes one of "out", and the offset
// is committed with it.
func (w *workload) copying(id string) func(context.Context, *person) {
	return func(ctx context.Context, p *person) {
		var as assignments
		s, err := kgo.NewGroupTransactSession(w.options(append(append(w.member("copy"), as.options()...), kgo.TransactionalID(id))...)...)
		if err != nil {
			panic(err)
		}
		w.whenBroken(s.Close)
		defer s.Close()
		for ctx.Err() == nil {
			n := as.n.Load()
			wait, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
			begin := w.now()
			fs := s.PollRecords(wait, 50)
			cancel()
			session := fmt.Sprintf("%s/%d", p.session(), n)
			if as.n.Load() != n {
				session = fmt.Sprintf("%s/%d-", p.session(), n)
			}
			reads := w.poll(session, true, begin, fs)
			if len(reads) == 0 {
				continue
			}
			if s.Begin() != nil {
				return
			}
			op := &histories.Op{Client: p.session(), Txn: true, Begin: w.now(), Outcome: histories.Aborted, Reads: reads, Group: "copy"}
			next := map[histories.TP]int64{}
			var recs []*kgo.Record
			for _, r := range reads {
				recs = append(recs, w.record(op, "out", r.At.Partition, r.Value))
				next[r.At] = r.Offset + 1
			}
			for at, offset := range next {
				op.Offsets = append(op.Offsets, histories.PartitionOffset{At: at, Offset: offset})
			}
			if acknowledged(op, produceSync(ctx, s.Client(), recs...)) != nil {
				w.op(op)
				return
			}
			commit := kgo.TransactionEndTry(p.rng.IntN(8) > 0)
			if commit {
				op.Asked, op.Outcome = w.now(), histories.Unknown
			}
			end, cancel := context.WithTimeout(ctx, 10*time.Second)
			committed, err := s.End(end, commit)
			cancel()
			if committed {
				op.Outcome = histories.Committed
			} else {
				as.n.Add(1) // it reads once more what it had read
			}
			w.op(op)
			if err != nil {
				return
			}
		}
	}
}

// watching is a life in a group that reads and commits outside of transactions.
func (w *workload) watching(ctx context.Context, p *person) {
	var as assignments
	cl := w.client(append(append(w.member("watch"), as.options()...), kgo.DisableAutoCommit())...)
	defer cl.Close()
	for ctx.Err() == nil {
		n := as.n.Load()
		session := fmt.Sprintf("%s/%d", p.session(), n)
		wait, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		begin := w.now()
		fs := cl.PollRecords(wait, 200)
		cancel()
		if as.n.Load() != n {
			session += "-"
		}
		w.poll(session, true, begin, fs)
		p.rest(ctx, 50*time.Millisecond)
	}
}
