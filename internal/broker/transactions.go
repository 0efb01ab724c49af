package broker

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/moldau/moldau/internal/broker/log"
	"github.com/moldau/moldau/internal/broker/txn"
)

// transactionalIDExpiry is how long an unused transactional id is remembered (transactional.id.expiration.ms).
const transactionalIDExpiry = 7 * 24 * time.Hour

// coordinatorEpoch is what markers carry: there is one coordinator, and it never changes.
const coordinatorEpoch = 0

// transactions is the transaction coordinator.
type transactions struct {
	b   *Broker
	ids *producerIDs

	mu      sync.Mutex
	entries map[string]*transaction
}

// transaction is a transactional id. Its lock is held from the check of the producer until the log has taken what the
// producer writes: nothing of a transaction can land behind its end.
type transaction struct {
	mu     sync.Mutex
	state  *txn.Transaction
	last   *future // the last write of the state
	open   bool    // the log knows, or is about to, that the transaction is open
	alarm  *alarm  // the transaction's timeout
	broken atomic.Bool
}

func newTransactions(b *Broker) *transactions {
	return &transactions{b: b, ids: &producerIDs{log: b.log}, entries: map[string]*transaction{}}
}

// restore takes a stored id back in. Its open transaction goes on, unless part of it may be lost.
func (c *transactions) restore(id string, value []byte) error {
	t, err := txn.Unmarshal(id, value)
	if err != nil {
		return fmt.Errorf("broker: %w", err)
	}
	e := c.enter(t)
	c.b.alarms.set(e.alarm, t.Deadline())
	return nil
}

// enter adds an id.
func (c *transactions) enter(t *txn.Transaction) *transaction {
	e := &transaction{state: t, open: t.State() == txn.Ongoing}
	e.alarm = newAlarm(func(now time.Time) { c.expire(e, now) })
	c.entries[t.ID()] = e
	return e
}

// lock returns a locked id, or nil if nobody has used it. Forgotten ids count as unused.
func (c *transactions) lock(id string) *transaction {
	c.mu.Lock()
	e := c.entries[id]
	c.mu.Unlock()
	if e == nil {
		return nil
	}
	e.mu.Lock()
	c.mend(e)
	if e.state.State() == txn.Dead {
		e.mu.Unlock()
		return nil
	}
	return e
}

// lockNew is lock, but makes an id that nobody has used.
func (c *transactions) lockNew(id string, now time.Time, producerID func() int64) *transaction {
	for {
		if e := c.lock(id); e != nil {
			return e
		}
		c.mu.Lock()
		if e := c.entries[id]; e == nil {
			e = c.enter(txn.New(id, producerID(), now))
			e.mu.Lock()
			c.mu.Unlock()
			return e
		}
		c.mu.Unlock()
	}
}

// mend takes an id back to what the log holds of it, after a write failed: what had been changed for that write is not so.
func (c *transactions) mend(e *transaction) {
	if !e.broken.Swap(false) {
		return
	}
	id := e.state.ID()
	if e.last != nil {
		<-e.last.done // it may be later than the one that failed, and durable
	}
	e.last = nil
	for key, value := range c.b.log.Records(kindTransact) {
		if key != id {
			continue
		}
		if t, err := txn.Unmarshal(id, value); err == nil {
			e.state, e.open = t, t.State() == txn.Ongoing
			c.b.alarms.set(e.alarm, t.Deadline())
			return
		}
	}
	c.forget(e)
}

// forget takes an id out. It is locked.
func (c *transactions) forget(e *transaction) {
	e.state.Forget(c.b.cfg.Now().Add(time.Hour))
	c.b.alarms.set(e.alarm, time.Time{})
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.entries[e.state.ID()] == e {
		delete(c.entries, e.state.ID())
	}
}

func (e *transaction) put() log.Put {
	return log.Put{Kind: kindTransact, Key: e.state.ID(), Value: e.state.Marshal()}
}

// submit writes what a step of the id asks for, and of the groups it touches. What opens a transaction is durable before it is
// answered: a power loss may take what is written later, but not the knowledge that something may be gone, by which the
// transaction is fenced.
func (c *transactions) submit(e *transaction, w log.Write, wait log.Wait, touched ...*consumers) (*future, []log.Result) {
	ongoing := e.state.State() == txn.Ongoing
	if ongoing && !e.open {
		wait = log.WaitSync
	}
	e.open = ongoing
	f := newFuture()
	results := c.b.log.Submit(w, wait, func(err error) {
		if err != nil {
			e.broken.Store(true)
			for _, g := range touched {
				g.broken.Store(true)
			}
		}
		f.set(err)
	})
	e.last = f
	for _, g := range touched {
		g.last = f
	}
	c.b.alarms.set(e.alarm, e.state.Deadline())
	return f, results
}

// end writes the end of a transaction: its state, the markers and the offsets, all or nothing.
func (c *transactions) end(e *transaction, ending *txn.Ending) *future {
	w := log.Write{Puts: []log.Put{e.put()}}
	for _, tp := range ending.Partitions {
		// A topic that is gone took its part of the transaction with it.
		if p := c.b.catalog.topicByID(tp.Topic).partition(tp.Partition); p != nil {
			w.Markers = append(w.Markers, log.Marker{
				Partition: p, ProducerID: ending.ProducerID, Epoch: ending.MarkerEpoch,
				CoordinatorEpoch: coordinatorEpoch, Commit: ending.Commit, TV2: ending.TV2,
			})
		}
	}
	groups, puts := c.b.groups.endTransaction(ending)
	w.Puts = append(w.Puts, puts...)
	f, results := c.submit(e, w, log.WaitSync, groups...)
	for _, g := range groups {
		g.mu.Unlock()
	}
	for i, r := range results {
		if r.Err != nil {
			// The partition has seen a later epoch: somebody wrote the marker by hand.
			c.b.slog.Warn("transaction marker refused", "transactional_id", e.state.ID(), "partition", w.Markers[i].Partition.String(), "err", r.ErrMessage)
		}
	}
	return f
}

// expire ends a transaction that has timed out.
func (c *transactions) expire(e *transaction, now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	c.mend(e)
	if ending := e.state.Expire(now); ending != nil {
		c.b.slog.Info("transaction timed out and is aborted", "transactional_id", e.state.ID(), "producer_id", ending.ProducerID, "epoch", ending.DataEpoch, "timeout", e.state.Timeout())
		c.end(e, ending)
		return
	}
	c.b.alarms.set(e.alarm, e.state.Deadline())
}

// fenceAll aborts every open transaction: what its producers wrote may be lost in part.
func (c *transactions) fenceAll(now time.Time) {
	for _, e := range c.all() {
		e.mu.Lock()
		if ending := e.state.Fence(now); ending != nil {
			c.b.slog.Warn("transaction aborted: a power loss may have taken part of it", "transactional_id", e.state.ID())
			c.end(e, ending)
		}
		e.mu.Unlock()
	}
}

func (c *transactions) all() []*transaction {
	c.mu.Lock()
	defer c.mu.Unlock()
	es := make([]*transaction, 0, len(c.entries))
	for _, e := range c.entries {
		es = append(es, e)
	}
	return es
}

// forgetUnused takes out ids nobody has used for long.
func (c *transactions) forgetUnused(now time.Time) {
	for _, e := range c.all() {
		e.mu.Lock()
		c.mend(e)
		if e.state.Forget(now.Add(-transactionalIDExpiry)) {
			c.submit(e, log.Write{Puts: []log.Put{{Kind: kindTransact, Key: e.state.ID()}}}, log.WaitNone)
			c.forget(e)
		}
		e.mu.Unlock()
	}
}

// produce appends the batches of a request with a transactional id. The partitions become part of the transaction in
// the same write, for clients that rely on it.
func (c *transactions) produce(id string, version int16, p *producing) *future {
	var producer txn.Producer
	var parts []txn.Partition
	for i, a := range p.appends {
		pr, ok := transactional(a.Batch)
		if !ok {
			continue
		}
		if parts != nil && pr != producer {
			p.refuse(kerr.InvalidProducerIDMapping, "the batches of a request must be of one producer")
			return nil
		}
		producer = pr
		parts = append(parts, p.owners[i])
	}
	if parts == nil {
		f := newFuture()
		p.finish(c.b.log.Submit(log.Write{Appends: p.appends}, log.WaitSync, f.set))
		return f
	}
	e := c.lock(id)
	if e == nil {
		c.b.log.Refused(p.appends)
		p.refuse(kerr.InvalidProducerIDMapping, "unknown transactional id")
		return nil
	}
	defer e.mu.Unlock()
	w := log.Write{}
	if version >= 12 {
		changed, err := e.state.Add(c.b.cfg.Now(), producer, parts)
		if err != nil {
			c.b.log.Refused(p.appends)
			p.refuse(produceError(err), "")
			return nil
		}
		if changed {
			w.Puts = append(w.Puts, e.put())
		}
	} else {
		c.verify(e, version, producer, p)
	}
	w.Appends = p.appends
	if len(w.Appends) == 0 {
		return nil
	}
	if len(w.Puts) == 0 {
		f := newFuture()
		p.finish(c.b.log.Submit(w, log.WaitNone, f.set))
		return f
	}
	f, results := c.submit(e, w, log.WaitNone)
	p.finish(results)
	return f
}

// verify refuses batches for partitions that older clients did not add to the transaction before.
func (c *transactions) verify(e *transaction, version int16, producer txn.Producer, p *producing) {
	p.keep(func(i int) bool {
		if _, ok := transactional(p.appends[i].Batch); !ok {
			return true
		}
		err := e.state.Verify(producer, p.owners[i])
		if err == nil {
			return true
		}
		if err == kerr.TransactionAbortable && version < 11 {
			err = kerr.InvalidTxnState
		}
		c.b.log.Refused(p.appends[i : i+1])
		refusePartition(p.targets[i], produceError(err), "")
		return false
	})
}

// produceError is how an error of the transaction is told to a producer.
func produceError(err error) *kerr.Error {
	if err == kerr.ProducerFenced {
		return kerr.InvalidProducerEpoch
	}
	return err.(*kerr.Error)
}

// producerIDs hands out producer ids. The log knows up to where they may be in use, a block at a time.
type producerIDs struct {
	log  *log.Log
	mu   sync.Mutex
	next int64
	end  int64   // of the block
	last *future // the write of the block
}

const producerIDBlock = 1000

// keyProducerIDs is the record of the end of the block.
const keyProducerIDs = "producer.ids"

// take returns an id that nobody has, usable once the future is durable.
func (p *producerIDs) take() (int64, *future) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.last != nil {
		select {
		case <-p.last.done:
			if p.last.err != nil {
				p.end = p.next // the block was not written
			}
		default:
		}
	}
	if p.next == p.end {
		p.end += producerIDBlock
		p.last = newFuture()
		p.log.Submit(log.Write{Puts: []log.Put{{Kind: kindCluster, Key: keyProducerIDs, Value: fmt.Appendf(nil, "%d", p.end)}}}, log.WaitSync, p.last.set)
	}
	p.next++
	return p.next - 1, p.last
}

// restore continues behind the last block.
func (p *producerIDs) restore(value []byte) error {
	if _, err := fmt.Fscanf(strings.NewReader(string(value)), "%d", &p.end); err != nil {
		return fmt.Errorf("broker: the record of producer ids is %q: %w", value, err)
	}
	p.next = p.end
	return nil
}
