package mem

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/moldau/moldau/internal/cluster"
	"github.com/moldau/moldau/internal/flow"
)

// txn is one transaction, open or ended.
type txn struct {
	id      string
	state   txnState
	parts   []cluster.TP
	offsets map[string]map[cluster.TP]cluster.Offset // by group
}

type txnState int

const (
	pending txnState = iota
	committed
	aborted
)

// writer is what the cluster knows of a transactional id.
type writer struct {
	epoch    int64
	open     *txn
	timedOut bool // the latest epoch came from a time-out, not from a producer
}

// holds tells whether the writer holds up readers of the partition.
func (w *writer) holds(l *Log, tp cluster.TP) bool {
	p, _, err := l.partition(tp)
	if err != nil || w.open == nil {
		return false
	}
	_, ok := p.open[w.open]
	return ok
}

// fence gives the id a new epoch and aborts what the old one left open.
func (l *Log) fence(w *writer) {
	l.writeMarkers(func(*txn) bool { return true }) // whoever initialises waits for them
	if w.open != nil {
		l.end(w.open, false)
		l.writeMarkers(func(*txn) bool { return true })
		w.open = nil
	}
	w.epoch++
	w.timedOut = false
}

// end decides a transaction.
func (l *Log) end(t *txn, commit bool) {
	t.state = aborted
	if commit {
		t.state = committed
	}
	l.endings = append(l.endings, t)
	if !l.holdMarkers {
		l.writeMarkers(func(e *txn) bool { return e == t })
	}
}

// writeMarkers completes transactions that were decided: readers go on, offsets are no longer pending.
func (l *Log) writeMarkers(which func(*txn) bool) {
	var rest []*txn
	for _, t := range l.endings {
		if !which(t) {
			rest = append(rest, t)
			continue
		}
		for _, tp := range t.parts {
			if p, _, err := l.partition(tp); err == nil {
				if _, ok := p.open[t]; ok {
					delete(p.open, t)
					p.append(t, true, flow.In{})
				}
			}
		}
		for _, id := range sortedKeys(t.offsets) {
			g := l.group(id)
			for tp, o := range t.offsets[id] {
				g.pending[tp]--
				if t.state == committed {
					g.offsets[tp] = o
				}
			}
		}
	}
	l.endings = rest
}

// producer implements cluster.Producer.
type producer struct {
	conn    *Conn
	log     *Log
	id      string // transactional, or empty
	inited  bool
	epoch   int64
	open    bool
	unknown bool // the last End gave no answer
	failed  error
	held    []*call
	closed  bool
}

// call is one Produce whose acknowledgement is held back.
type call struct {
	done    func(map[cluster.TP]int64, error)
	ends    map[cluster.TP]int64
	err     error
	refused []flow.Refusal
	acked   bool
}

// Producer makes a producer; Init comes first.
func (c *Conn) Producer(cfg cluster.ProducerConfig) (cluster.Producer, error) {
	return &producer{conn: c, log: c.log, id: cfg.TransactionalID}, nil
}

var (
	errNoInit = errors.New("producer used before Init")
	errDead   = errors.New("the process was killed")
)

func (p *producer) name() string { return fmt.Sprintf("producer %q", p.id) }

func (p *producer) usable() error {
	switch {
	case p.conn.dead:
		return errDead
	case p.closed:
		return fmt.Errorf("%s: %w", p.name(), cluster.ErrClosed)
	case !p.inited:
		return errNoInit
	}
	return nil
}

// writer returns the producer's standing with the cluster: fenced if another has its id, aborted if its epoch timed out.
func (p *producer) writer() (*writer, error) {
	w := p.log.writers[p.id]
	switch {
	case w.epoch == p.epoch:
		return w, nil
	case w.timedOut && w.epoch == p.epoch+1:
		return w, fmt.Errorf("%s: the transaction took too long: %w", p.name(), cluster.ErrAborted)
	}
	return w, fmt.Errorf("%s at epoch %d, the cluster at %d: %w", p.name(), p.epoch, w.epoch, cluster.ErrFenced)
}

func (p *producer) Init(context.Context) error {
	l := p.log
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.conn.dead {
		return errDead
	}
	if f := l.Faults.Init; f != nil {
		if err := f(p.id); err != nil {
			return err
		}
	}
	if p.id == "" {
		p.inited = true
		return nil
	}
	w := l.writers[p.id]
	if w == nil {
		w = &writer{}
		l.writers[p.id] = w
	}
	if p.inited {
		if _, err := p.writer(); errors.Is(err, cluster.ErrFenced) {
			return err
		}
	}
	l.fence(w)
	p.inited, p.epoch, p.open, p.unknown, p.failed = true, w.epoch, false, false, nil
	return nil
}

func (p *producer) Produce(records []flow.Out, done func(map[cluster.TP]int64, error)) {
	l := p.log
	l.mu.Lock()
	if err := p.usable(); err != nil {
		l.mu.Unlock()
		done(nil, err)
		return
	}
	c := &call{done: done}
	for i := range records {
		err := p.produce(c, &records[i])
		if errors.Is(err, cluster.ErrTooLarge) {
			o := &records[i]
			c.refused = append(c.refused, flow.Refusal{Topic: o.Topic.Name, Partition: o.Partition, Sink: o.Sink, Input: o.Input, InHand: o.InHand, Time: o.Time, Err: err})
			continue
		}
		if err != nil {
			if c.err == nil {
				c.err = err
			}
			if p.failed == nil {
				p.failed = err
			}
		}
	}
	if c.err == nil && len(c.refused) > 0 {
		c.err = &cluster.Refused{Records: c.refused}
	}
	p.held = append(p.held, c)
	ack := func() { p.ack(c) }
	if l.holdAcks {
		l.acks = append(l.acks, ack)
		l.mu.Unlock()
		return
	}
	l.mu.Unlock()
	ack()
}

// ack calls a done function, once.
func (p *producer) ack(c *call) {
	p.log.mu.Lock()
	due := !c.acked && !p.conn.dead
	c.acked = true
	p.held = slices.DeleteFunc(p.held, func(o *call) bool { return o == c })
	p.log.mu.Unlock()
	if due {
		c.done(c.ends, c.err)
	}
}

func (p *producer) produce(c *call, o *flow.Out) error {
	l := p.log
	where := fmt.Sprintf("producing to %s-%d", o.Topic.Name, o.Partition)
	t := l.topics[o.Topic.Name]
	if t == nil {
		return fmt.Errorf("%s: %w", where, cluster.ErrMissingTopic)
	}
	n := o.Partition
	if n < 0 {
		n = int32(t.next % len(t.partitions))
		t.next++
	}
	tp := cluster.TP{Topic: o.Topic.Name, Partition: n}
	part, _, err := l.partition(tp)
	if err != nil {
		return fmt.Errorf("%s: %w", where, err)
	}
	if len(o.Key)+len(o.Value) > l.maxRecord() {
		return fmt.Errorf("%s: %d bytes: %w", where, len(o.Key)+len(o.Value), cluster.ErrTooLarge)
	}
	if f := l.Faults.Produce; f != nil {
		if err := f(p.id, *o); err != nil {
			return fmt.Errorf("%s: %w", where, err)
		}
	}
	var open *txn
	if p.id != "" {
		w, err := p.writer()
		if err != nil {
			return fmt.Errorf("%s: %w: %v", where, cluster.ErrAborted, err)
		}
		if !p.open {
			return fmt.Errorf("%s: no transaction is open", where)
		}
		open = p.join(w)
		if !slices.Contains(open.parts, tp) {
			open.parts = append(open.parts, tp)
		}
	}
	offset := part.append(open, false, flow.In{Time: o.Time, Key: bytes.Clone(o.Key), Value: bytes.Clone(o.Value), Headers: cloneHeaders(o.Headers)})
	if c.ends == nil {
		c.ends = map[cluster.TP]int64{}
	}
	c.ends[tp] = offset + 1
	return nil
}

// join returns the open transaction; the first thing in it opens it.
func (p *producer) join(w *writer) *txn {
	if w.open == nil {
		w.open = &txn{id: p.id, offsets: map[string]map[cluster.TP]cluster.Offset{}}
	}
	return w.open
}

func (p *producer) Flush() {}

func (p *producer) Begin() error {
	p.log.mu.Lock()
	defer p.log.mu.Unlock()
	if err := p.usable(); err != nil || p.id == "" {
		return err
	}
	if p.open || p.unknown {
		return fmt.Errorf("%s: the transaction before has not ended", p.name())
	}
	p.open, p.failed = true, nil
	return nil
}

func (p *producer) CommitOffsets(_ context.Context, meta cluster.GroupMetadata, offsets map[cluster.TP]cluster.Offset) error {
	l := p.log
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := p.usable(); err != nil {
		return err
	}
	if !p.open {
		return fmt.Errorf("%s: offsets can only be added to an open transaction", p.name())
	}
	if f := l.Faults.CommitOffsets; f != nil {
		if err := f(p.id); err != nil {
			return err
		}
	}
	w, err := p.writer()
	if err != nil {
		if errors.Is(err, cluster.ErrAborted) {
			p.open, p.epoch = false, w.epoch
		}
		return err
	}
	g := l.group(meta.Group)
	if err := g.check(meta); err != nil {
		return err
	}
	t := p.join(w)
	if t.offsets[meta.Group] == nil {
		t.offsets[meta.Group] = map[cluster.TP]cluster.Offset{}
	}
	for tp, o := range offsets {
		if _, ok := t.offsets[meta.Group][tp]; !ok {
			g.pending[tp]++
		}
		t.offsets[meta.Group][tp] = o
	}
	return nil
}

func (p *producer) End(_ context.Context, commit bool) error {
	l := p.log
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := p.usable(); err != nil {
		return err
	}
	if !p.open {
		if commit && p.id != "" {
			return fmt.Errorf("%s: there is no open transaction to commit", p.name())
		}
		return nil
	}
	p.open = false
	w, err := p.writer()
	switch {
	case errors.Is(err, cluster.ErrFenced):
		return err
	case err != nil && commit: // as with a real cluster, where the request may have been repeated
		p.unknown = true
		return fmt.Errorf("%w: %v", cluster.ErrUnknown, err)
	case err != nil:
		p.epoch = w.epoch
		return nil
	}
	fault := Ended
	if f := l.Faults.End; f != nil {
		fault = f(p.id, commit)
	}
	cause := p.failed
	switch {
	case fault == LostBefore:
		p.unknown = true
		return fmt.Errorf("%s: the request was lost: %w", p.name(), cluster.ErrUnknown)
	case fault == Refused:
		commit, cause = false, errors.New("refused by the cluster")
	case commit && cause != nil:
		commit = false
	default:
		cause = nil
	}
	if w.open != nil {
		l.end(w.open, commit)
		w.open = nil
	}
	if fault == LostAfter {
		p.unknown = true
		return fmt.Errorf("%s: the answer was lost: %w", p.name(), cluster.ErrUnknown)
	}
	if cause != nil {
		return fmt.Errorf("%s: %w: %w", p.name(), cluster.ErrAborted, cause)
	}
	return nil
}

func (p *producer) Abandon(context.Context) error {
	p.log.mu.Lock()
	calls := slices.Clone(p.held)
	for _, c := range calls {
		if c.err == nil {
			c.ends, c.err = nil, fmt.Errorf("%s abandoned its records: %w", p.name(), cluster.ErrAborted)
		}
	}
	p.log.mu.Unlock()
	for _, c := range calls {
		p.ack(c)
	}
	return nil
}

func (p *producer) Close() {
	p.log.mu.Lock()
	defer p.log.mu.Unlock()
	p.closed = true
}

func cloneHeaders(h []flow.Header) []flow.Header {
	var out []flow.Header
	for _, x := range h {
		out = append(out, flow.Header{Key: x.Key, Value: bytes.Clone(x.Value)})
	}
	return out
}
