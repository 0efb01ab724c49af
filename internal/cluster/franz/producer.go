package franz

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/moldau/moldau/internal/cluster"
	"github.com/moldau/moldau/internal/flow"
)

// producer implements cluster.Producer. What concerns transactions is in txn.go.
type producer struct {
	c   *Cluster
	cfg cluster.ProducerConfig
	cl  *kgo.Client // nil before the first Init, and after one that failed half-way
	txn txn

	known bool // txn.id and txn.epoch are ours
	asked int  // how often a new epoch was asked for since, without an answer

	slabs slabs
	settling

	mu      sync.Mutex
	written int   // records acknowledged since Begin
	failed  error // the first record that failed for good since Begin
}

// Producer makes a producer; Init comes first.
func (c *Cluster) Producer(cfg cluster.ProducerConfig) (cluster.Producer, error) {
	if cfg.TransactionTimeout == 0 {
		cfg.TransactionTimeout = 10 * time.Second
	}
	return &producer{c: c, cfg: cfg, settling: settling{rulesOf: c.rulesOf}}, nil
}

func (p *producer) client() (*kgo.Client, error) {
	opts := []kgo.Opt{
		kgo.RecordPartitioner(partitioner{}),
		kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.ProducerBatchMaxBytesFn(p.c.batchLimit),
		// Records wait this long for company; Flush ends it.
		kgo.ProducerLinger(5 * time.Millisecond),
		// The worker bounds what is in flight; blocking it inside the client would only hide it.
		kgo.MaxBufferedRecords(1 << 20),
	}
	if p.cfg.TransactionalID != "" {
		opts = append(opts, kgo.TransactionalID(p.cfg.TransactionalID), kgo.TransactionTimeout(p.cfg.TransactionTimeout))
	}
	return p.c.client(opts...)
}

var errNoInit = errors.New("producer used before Init")

func (p *producer) name() string {
	if p.cfg.TransactionalID == "" {
		return "the idempotent producer"
	}
	return fmt.Sprintf("producer %q", p.cfg.TransactionalID)
}

func (p *producer) Produce(records []flow.Out, done func(map[cluster.TP]int64, error)) {
	if p.cl == nil {
		done(nil, errNoInit)
		return
	}
	if len(records) == 0 {
		done(nil, nil)
		return
	}
	c := &call{p: p, cl: p.cl, done: done, left: len(records), total: len(records)}
	promise := c.finished // bound once, not per record
	ctx := context.Background()
	p.sending.Lock()
	defer p.sending.Unlock()
	held := false
	for at := 0; at < len(records); {
		slab := p.slabs.get(len(records) - at)
		c.slabs = append(c.slabs, slab)
		for i := range slab {
			if at == len(records) {
				break
			}
			o, r := &records[at], &slab[i]
			r.Topic, r.Partition, r.Key, r.Value = o.Topic.Name, o.Partition, o.Key, o.Value
			r.Timestamp, r.Headers = time.UnixMilli(o.Time), headersOut(o.Headers)
			r.sink, r.input, r.inHand = o.Sink, o.Input, o.InHand
			if held = held || p.held.Load(); !held {
				p.cl.Produce(ctx, &r.Record, promise)
				c.sent++
			}
			at++
		}
	}
	if held {
		p.waiting = append(p.waiting, c)
		p.settleSoon(p.cl)
	}
}

// item is a record on its way, and where it comes from.
type item struct {
	kgo.Record
	sink, input int16
	inHand      int64
}

// call is one Produce. kgo runs promises one after another, so they need no lock among themselves.
type call struct {
	p       *producer
	cl      *kgo.Client
	done    func(map[cluster.TP]int64, error)
	total   int // records
	sent    int // that kgo has, or had; the others wait
	left    int // whose fate is not known
	slabs   [][]item
	ends    []end
	last    int // the end that was moved last; the next record is likely for the same partition
	err     error
	refused []flow.Refusal
}

type end struct {
	cluster.TP
	offset int64
}

func (c *call) finished(r *kgo.Record, err error) {
	switch {
	case err == nil:
		if c.p.held.Load() {
			c.p.passed(r)
		}
		c.reach(r)
	case refusal(err):
		c.p.suspect(c, r, err)
		return
	default:
		c.fail(produceError(r, err))
	}
	c.settle(1)
}

// settle takes note that the fate of n records is known.
func (c *call) settle(n int) {
	if c.left -= n; c.left > 0 {
		return
	}
	var ends map[cluster.TP]int64
	if len(c.ends) > 0 {
		ends = make(map[cluster.TP]int64, len(c.ends))
		for _, e := range c.ends {
			ends[e.TP] = e.offset
		}
	}
	c.p.mu.Lock()
	if c.p.failed == nil {
		c.p.failed = c.err
	}
	if len(ends) > 0 {
		c.p.written++
	}
	c.p.mu.Unlock()
	for _, s := range c.slabs {
		c.p.slabs.put(s)
	}
	if c.err == nil && len(c.refused) > 0 {
		c.err = &cluster.Refused{Records: c.refused}
	}
	c.done(ends, c.err)
}

func (c *call) reach(r *kgo.Record) {
	if c.last < len(c.ends) {
		if e := &c.ends[c.last]; e.Partition == r.Partition && e.Topic == r.Topic {
			e.offset = max(e.offset, r.Offset+1)
			return
		}
	}
	for i := range c.ends {
		if e := &c.ends[i]; e.Partition == r.Partition && e.Topic == r.Topic {
			e.offset, c.last = max(e.offset, r.Offset+1), i
			return
		}
	}
	c.last = len(c.ends)
	c.ends = append(c.ends, end{cluster.TP{Topic: r.Topic, Partition: r.Partition}, r.Offset + 1})
}

// produceError says what happened to a record. Whether an epoch that is too old means that another has taken over, or
// only that the transaction took too long, is for End and Init to find out.
func produceError(r *kgo.Record, err error) error {
	e := wrap(err, "producing to %s-%d", r.Topic, r.Partition)
	if errors.Is(e, cluster.ErrFenced) {
		return fmt.Errorf("producing to %s-%d: %w: %w", r.Topic, r.Partition, cluster.ErrAborted, err)
	}
	return e
}

// slabs recycles the records handed to kgo, in two sizes: for the record or two of a quiet moment and for the rest. A
// slab in use belongs to one call; idle ones keep pointing to what they held last, until the pools forget them.
type slabs struct{ small, large sync.Pool }

const (
	smallSlab = 16
	largeSlab = 512
)

func (s *slabs) get(n int) []item {
	pool, size := &s.large, largeSlab
	if n <= smallSlab {
		pool, size = &s.small, smallSlab
	}
	if r, ok := pool.Get().(*[]item); ok {
		return *r
	}
	return make([]item, size)
}

func (s *slabs) put(r []item) {
	if len(r) == smallSlab {
		s.small.Put(&r)
		return
	}
	s.large.Put(&r)
}

func (p *producer) Flush() {
	if p.cl != nil {
		push(p.cl)
	}
}

// push sends what waits for company: with a context that has ended kgo does so, and does not wait itself.
func push(cl *kgo.Client) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = cl.Flush(ctx)
}

// Abandon drops what is queued. Requests on the way are waited for, because their answers say which sequence numbers
// the broker has seen; if ctx ends first they are given up, and only Init makes the producer usable again.
func (p *producer) Abandon(ctx context.Context) error {
	if p.cl == nil {
		return nil
	}
	p.giveUp.Store(true)
	defer p.calm(ctx)
	if err := p.cl.AbortBufferedRecords(ctx); err != nil {
		p.txn.broken = true
		p.cl.UnsafeAbortBufferedRecords()
		if err := p.cl.Flush(context.WithoutCancel(ctx)); err != nil {
			return wrap(err, "abandoning the records of %s", p.name())
		}
	}
	return nil
}

func (p *producer) Close() {
	if p.cl != nil {
		p.giveUp.Store(true)
		p.cl.Close()
		p.calm(context.Background())
	}
}

// partitioner sends a record where it says, and one without a partition to the same as the last until its batch is full.
type partitioner struct{}

func (partitioner) ForTopic(string) kgo.TopicPartitioner { return &sticky{} }

type sticky struct {
	at  int
	any bool // a record without a partition is going through
}

func (s *sticky) RequiresConsistency(r *kgo.Record) bool { return r.Partition >= 0 }

func (s *sticky) Partition(r *kgo.Record, n int) int {
	if s.any = r.Partition < 0; !s.any {
		return int(r.Partition)
	}
	return s.at % n
}

// OnNewBatch moves on; kgo then asks again.
func (s *sticky) OnNewBatch() {
	if s.any {
		s.at++
	}
}
