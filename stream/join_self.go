package stream

import (
	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/internal/table"
	"github.com/moldau/moldau/window"
)

// selfJoin joins a stream with itself over one store: each record meets those before it as the left one and as the right one, and, in
// between, itself, in the order in which a join over two stores would give it.
type selfJoin[K, V, R any] struct {
	results[K, R]
	w       window.JoinWindows
	records *table.Records[K, V]
	time    *int64 // the greatest time so far
	both    func(K, V, V) (R, error)

	// Of the record in hand.
	c             *flow.Ctx
	k             K
	v             V
	own           bool // it has still to meet itself
	first, second func(at int64, v V) bool
}

func newSelfJoin[K, V, R any](env flow.Env, node int, store string, w window.JoinWindows, both func(K, V, V) (R, error), down fn[K, R]) fn[K, V] {
	p := &selfJoin[K, V, R]{results: results[K, R]{env, node, nullness[R](), down}, w: w, both: both,
		records: env.Store(store).(*table.Records[K, V]), time: env.Cell(store+"@time", true)}
	p.first, p.second = p.asLeft, p.asRight
	return p.process
}

func (p *selfJoin[K, V, R]) process(c *flow.Ctx, k K, v V) {
	switch {
	case c.KeyNull:
		p.env.Dropped(p.node, nullKey)
		return
	case c.Null:
		p.env.Dropped(p.node, nullValue)
		c.Wrote = true
		late, err := p.records.Skip(k, c.Time)
		p.put(c, late, err)
		return
	}
	c.Wrote = true
	*p.time = max(*p.time, c.Time)
	p.c, p.k, p.v = c, k, v
	p.own = c.Time > *p.time-p.w.RetentionMS()+1
	from, to := p.w.Reach(c.Time)
	if err := p.records.Fetch(k, from, to, p.first); err != nil {
		c.Break(p.node, err)
	}
	if c.Err != nil {
		return
	}
	from, to = p.w.Reverse().Reach(c.Time)
	if err := p.records.Fetch(k, from, to, p.second); err != nil {
		c.Break(p.node, err)
	}
	if c.Err == nil {
		p.meetSelf()
	}
	if c.Err != nil {
		return
	}
	late, err := p.records.Put(k, c.Time, v)
	p.put(c, late, err)
}

func (p *selfJoin[K, V, R]) asLeft(at int64, v V) bool {
	return p.pair(p.v, v, at)
}

func (p *selfJoin[K, V, R]) asRight(at int64, v V) bool {
	if at > p.c.Time {
		if p.meetSelf(); p.c.Err != nil {
			return false
		}
	}
	return p.pair(v, p.v, at)
}

func (p *selfJoin[K, V, R]) meetSelf() {
	if p.own {
		p.own = false
		p.pair(p.v, p.v, p.c.Time)
	}
}

func (p *selfJoin[K, V, R]) pair(left, right V, at int64) bool {
	p.c.Node = p.node
	r, err := p.both(p.k, left, right)
	p.give(p.c, p.k, max(at, p.c.Time), r, err)
	return p.c.Err == nil
}
