package franz

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/moldau/moldau/internal/cluster"
	"github.com/moldau/moldau/internal/flow"
)

// settling finds out which records the broker refuses. It refuses a batch, of which one record may be at fault, and kgo then gives
// up all that it has for the partition. So from the first refusal on nothing more is handed to kgo; when all that is under way has been
// answered, those that break a rule of their topic are told from its settings. The others are sent once more in order; those that are
// refused again by halves, until one that is refused was alone. Then comes what has waited, a few at a time. That others wait keeps each
// partition in order, and makes sure who was alone.
//
// kgo may have been given later records of a partition before we hear of the refusal. If they are written and a suspect turns out to
// be good, the order is lost: the transaction fails, and records are sent fewer at a time, from the start, when they come again.
type settling struct {
	sending sync.Mutex // whoever hands records to kgo; guards what follows
	waiting []*call
	careful int // so many records are still sent a few at a time
	few     int // how many that is

	held   atomic.Bool // records are kept back
	giveUp atomic.Bool // the transaction is not going to be committed
	// settled is closed by the goroutine that settles when it ends; nil: there is none. Under producer.mu.
	settled chan struct{}

	// These belong to kgo's promises, and to the goroutine while none is under way.
	suspects []suspect
	// overtaken has the partitions of suspects, and whether another record has been written since: of those that kgo had already. It does
	// no harm as long as the suspects of the partition are refused for good.
	overtaken map[cluster.TP]bool
	rulesOf   func(ctx context.Context, topics ...string) (map[string]rules, error)
}

// suspect is a record that was refused, perhaps because of another of its batch.
type suspect struct {
	c   *call
	r   *kgo.Record
	err error
}

// refusal says whether the broker does not take a record for what it is.
func refusal(err error) bool {
	k, ok := errors.AsType[*kerr.Error](err)
	if !ok {
		return false
	}
	switch k.Code {
	case kerr.MessageTooLarge.Code, kerr.RecordListTooLarge.Code, kerr.InvalidRecord.Code, kerr.InvalidTimestamp.Code, kerr.PolicyViolation.Code:
		return true
	}
	return false
}

// suspect takes note of a record that was refused.
func (p *producer) suspect(c *call, r *kgo.Record, err error) {
	if p.overtaken == nil {
		p.overtaken = map[cluster.TP]bool{}
	}
	p.held.Store(true)
	p.settleSoon(c.cl)
	p.suspects = append(p.suspects, suspect{c, r, err})
	if tp := (cluster.TP{Topic: r.Topic, Partition: r.Partition}); !p.overtaken[tp] {
		p.overtaken[tp] = false
	}
}

// passed takes note of a record that was written after another was refused: one that kgo had been given before it was stopped.
func (p *producer) passed(r *kgo.Record) {
	tp := cluster.TP{Topic: r.Topic, Partition: r.Partition}
	if _, ok := p.overtaken[tp]; ok {
		p.overtaken[tp] = true
	}
}

// settleSoon starts the goroutine that settles, unless it is at work.
func (p *producer) settleSoon(cl *kgo.Client) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.settled == nil {
		p.settled = make(chan struct{})
		go p.settle(cl)
	}
}

const (
	atOnce    = 500     // records are sent where a refusal is likely: it takes less time than kgo waits for company
	carefully = 1 << 16 // records are so sent after the order was lost
	askTime   = time.Second
)

// settle is the goroutine that settles.
func (p *producer) settle(cl *kgo.Client) {
	p.sending.Lock()
	p.held.Store(true) // for whoever comes now; who was handing over has stopped
	p.sending.Unlock()
	for {
		_ = cl.Flush(context.Background()) // answered or given up, by the broker or by who abandons it
		if len(p.suspects) > 0 {
			p.ask(cl)
			continue
		}
		p.sending.Lock()
		if len(p.waiting) == 0 {
			break
		}
		if p.careful == 0 {
			p.few = atOnce
		}
		for room := p.few; room > 0 && len(p.waiting) > 0; {
			c := p.waiting[0]
			n := c.resume(room)
			room -= n
			p.careful = max(p.careful-n, 0)
			if c.sent == c.total {
				p.waiting = p.waiting[1:]
			}
		}
		p.sending.Unlock()
		push(cl)
	}
	p.held.Store(p.careful > 0)
	p.mu.Lock()
	close(p.settled)
	p.settled = nil
	p.mu.Unlock()
	p.sending.Unlock()
}

// convict takes out the suspects that break a rule of their topic, for which they need not be sent again.
func (p *producer) convict(suspects []suspect) (left []suspect) {
	var topics []string
	for _, s := range suspects {
		if !slices.Contains(topics, s.r.Topic) {
			topics = append(topics, s.r.Topic)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), askTime)
	defer cancel()
	all, err := p.rulesOf(ctx, topics...)
	if err != nil {
		return suspects // which may not be allowed; it only takes longer
	}
	now := time.Now()
	for _, s := range suspects {
		if known, ok := all[s.r.Topic]; !ok || !known.broken(s.r, s.err, now) {
			left = append(left, s)
			continue
		}
		s.c.refuse(s.r, s.err)
		s.c.settle(1)
	}
	return left
}

// ask finds out which suspects are refused for what they are.
func (p *producer) ask(cl *kgo.Client) {
	suspects := p.convict(p.suspects)
	p.suspects = nil
	if err := p.try(cl, suspects, nil); errors.Is(err, errOvertaken) {
		p.sending.Lock()
		if p.few = max(p.few/8, 1); p.careful == 0 {
			p.few = atOnce
		}
		p.careful = carefully
		p.sending.Unlock()
	}
	clear(p.overtaken)
}

var (
	errOvertaken = fmt.Errorf("%w: the broker has refused records, and had written later ones of the same partition", cluster.ErrAborted)
	errGivenUp   = fmt.Errorf("%w: records had not been sent", cluster.ErrAborted)
)

// halve sends suspects that were refused together in two parts, one after the other. It returns why no more may be sent, if so.
func (p *producer) halve(cl *kgo.Client, suspects []suspect, stop error) error {
	half := len(suspects) / 2
	stop = p.try(cl, suspects[:half], stop)
	return p.try(cl, suspects[half:], stop)
}

// try sends suspects at once, and those of them that are refused again in smaller parts.
func (p *producer) try(cl *kgo.Client, suspects []suspect, stop error) error {
	if stop == nil && p.giveUp.Load() {
		stop = errGivenUp
	}
	var left []suspect
	refused, passed := map[cluster.TP]bool{}, map[cluster.TP]bool{}
	for i, err := range together(cl, suspects, stop) {
		s := suspects[i]
		tp := cluster.TP{Topic: s.r.Topic, Partition: s.r.Partition}
		switch {
		case err == nil:
			s.c.reach(s.r)
			passed[tp] = passed[tp] || refused[tp]
			if p.overtaken[tp] { // so the order of the partition is turned around
				stop = errOvertaken
				s.c.fail(stop)
			}
		case !refusal(err):
			if stop == nil {
				stop = produceError(s.r, err)
			}
			s.c.fail(stop)
		case len(suspects) == 1:
			s.c.refuse(s.r, err)
		default:
			refused[tp] = true
			left = append(left, s)
			continue
		}
		s.c.settle(1)
	}
	maps.DeleteFunc(passed, func(_ cluster.TP, yes bool) bool { return !yes })
	maps.Copy(p.overtaken, passed)
	if len(left) == 0 {
		return stop
	}
	return p.halve(cl, left, stop)
}

// together sends records at once and waits for the answers; after stop each is answered with that.
func together(cl *kgo.Client, suspects []suspect, stop error) []error {
	errs := make([]error, len(suspects))
	if stop != nil {
		for i := range errs {
			errs[i] = stop
		}
		return errs
	}
	var answered sync.WaitGroup
	answered.Add(len(suspects))
	for i, s := range suspects {
		cl.Produce(context.Background(), s.r, func(_ *kgo.Record, err error) {
			errs[i] = err
			answered.Done()
		})
	}
	push(cl)
	answered.Wait()
	return errs
}

func (c *call) fail(err error) {
	if c.err == nil {
		c.err = err
	}
}

// refuse takes note that a record is refused for what it is.
func (c *call) refuse(r *kgo.Record, err error) {
	for _, slab := range c.slabs {
		for i := range slab {
			if o := &slab[i]; &o.Record == r {
				c.refused = append(c.refused, flow.Refusal{Topic: r.Topic, Partition: r.Partition, Sink: o.sink, Input: o.input, InHand: o.inHand,
					Time: r.Timestamp.UnixMilli(), Err: wrap(err, "the broker refuses it in partition %d", r.Partition)})
			}
		}
	}
}

// resume hands over at most so many of the records that wait, and says how many.
func (c *call) resume(most int) (n int) {
	if c.p.giveUp.Load() {
		n = c.total - c.sent
		c.sent = c.total
		c.fail(errGivenUp)
		c.settle(n)
		return n
	}
	promise, at, from := c.finished, 0, c.sent
	for _, slab := range c.slabs {
		for i := range slab {
			if at >= from && at < c.total && n < most {
				n++
				c.sent++
				c.cl.Produce(context.Background(), &slab[i].Record, promise)
			}
			at++
		}
	}
	return n
}

// calm waits until nothing is kept back any more. If ctx ends first, what is under way is given up.
func (p *producer) calm(ctx context.Context) {
	p.mu.Lock()
	settled := p.settled
	p.mu.Unlock()
	if settled != nil {
		select {
		case <-settled:
		case <-ctx.Done():
			p.txn.broken = true
			p.cl.UnsafeAbortBufferedRecords()
			<-settled
		}
	}
	p.giveUp.Store(false)
}
