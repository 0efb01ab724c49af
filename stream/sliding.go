package stream

import "github.com/moldau/moldau/internal/flow"

// pane is one window as a sliding aggregate finds it. Its time is the greatest of the records in it.
type pane[A any] struct {
	start, at int64
	v         A
}

// slide folds a record into the sliding windows that hold it, and makes those that it calls for: the one that ends with it, the one that
// starts behind it if there is a later record, and the one that starts behind the record before it. It is Kafka Streams'
// algorithm, updates in its order. false: it gives no final results now.
func (p *panes[K, V, A]) slide(c *flow.Ctx, closed int64, k K, v V) bool {
	ts, diff := c.Time, p.w.sliding.DiffMS()
	if ts+diff < closed {
		p.env.Dropped(p.node, expired)
		return false
	}
	if ts < diff {
		p.slideEarly(c, closed, k, v)
		return false
	}
	p.scratch = p.scratch[:0]
	err := p.store.FetchReverse(k, max(0, ts-2*diff), ts+1, func(start int64, v A, at int64) bool {
		p.scratch = append(p.scratch, pane[A]{start, at, v})
		return start+diff >= ts // the first that ends before the record is the last that matters
	})
	if err != nil {
		c.Break(p.node, err)
		return true
	}
	var left, right *pane[A] // what the windows to be made start from
	var hasLeft, hasRight bool
	previous := int64(-1) // the time of the record before
	for i := range p.scratch {
		w := &p.scratch[i]
		switch end := w.start + diff; {
		case w.start == ts+1:
			hasRight = true
		case end > ts:
			if right == nil && !hasRight && w.at > ts {
				right = p.copy(c, w)
			} else if right == nil {
				right = w
			}
			p.again(c, closed, k, v, w)
		case end == ts:
			hasLeft = true
			p.again(c, closed, k, v, w)
			if w.at >= ts {
				return true
			}
			previous = w.at
		default:
			left, previous = w, w.at
		}
		if c.Err != nil {
			return true
		}
	}
	if previous >= 0 && previous+1+diff >= ts && !p.has(previous+1) {
		p.begin(c, closed, k, v, previous+1, nil)
	}
	if !hasLeft && c.Err == nil {
		if previous < ts-diff {
			left = nil
		}
		if left != nil {
			left = p.copy(c, left)
		}
		p.begin(c, closed, k, v, ts-diff, left)
	}
	if !hasRight && right != nil && right.at > ts && c.Err == nil {
		p.follow(c, k, ts+1, right)
	}
	return true
}

// slideEarly is slide for a record whose own window would start before the epoch: [0, diff] stands for it.
func (p *panes[K, V, A]) slideEarly(c *flow.Ctx, closed int64, k K, v V) {
	ts := c.Time
	p.scratch = p.scratch[:0]
	err := p.store.Fetch(k, 0, ts+1, func(start int64, v A, at int64) bool {
		p.scratch = append(p.scratch, pane[A]{start, at, v})
		return true
	})
	if err != nil {
		c.Break(p.node, err)
		return
	}
	var combined, right *pane[A]
	hasRight := false
	previous := int64(-1)
	for i := range p.scratch {
		switch w := &p.scratch[i]; {
		case w.start == 0:
			combined = w
			if w.at < ts {
				previous = w.at
			}
		case w.start <= ts:
			right = w
		default:
			hasRight = true
		}
	}
	if right == nil && combined != nil && combined.at > ts {
		right = combined
	}
	if right != nil {
		if right.at > ts && !hasRight {
			right = p.copy(c, right)
		} else {
			right = nil
		}
	}
	for i := range p.scratch {
		if w := &p.scratch[i]; w.start > 0 && w.start <= ts && c.Err == nil {
			p.again(c, closed, k, v, w)
		}
	}
	if right != nil && c.Err == nil {
		p.follow(c, k, ts+1, right)
	}
	if previous >= 0 && !p.has(previous+1) && c.Err == nil {
		p.begin(c, closed, k, v, previous+1, nil)
	}
	switch {
	case c.Err != nil:
	case combined == nil:
		p.begin(c, closed, k, v, 0, nil)
	default:
		p.again(c, closed, k, v, combined)
	}
}

func (p *panes[K, V, A]) has(start int64) bool {
	for i := range p.scratch {
		if p.scratch[i].start == start {
			return true
		}
	}
	return false
}

// copy is a pane whose value no aggregator writes through.
func (p *panes[K, V, A]) copy(c *flow.Ctx, w *pane[A]) *pane[A] {
	own := *w
	var err error
	if own.v, err = p.store.Clone(w.v); err != nil {
		c.Break(p.node, err)
	}
	return &own
}

// again folds the record into a window that is there.
func (p *panes[K, V, A]) again(c *flow.Ctx, closed int64, k K, v V, w *pane[A]) {
	if p.w.end(w.start) < closed {
		p.env.Dropped(p.node, expired)
		return
	}
	if ref, ok := p.touch(c, k, w.start); ok {
		p.update(c, ref, k, v, w.start)
	}
}

// begin makes a window of the record and of what from holds, if that is not nil.
func (p *panes[K, V, A]) begin(c *flow.Ctx, closed int64, k K, v V, start int64, from *pane[A]) {
	if p.w.end(start) < closed {
		p.env.Dropped(p.node, expired)
		return
	}
	var old A
	if from != nil {
		old = from.v
	}
	if ref, ok := p.touch(c, k, start); ok && c.Err == nil {
		p.from(c, ref, k, v, start, old, c.Time, from != nil, false)
	} else {
		p.pass(c, k, v, start, old, from != nil)
	}
}

// follow makes a window of what from holds, which the record is not in.
func (p *panes[K, V, A]) follow(c *flow.Ctx, k K, start int64, from *pane[A]) {
	ch := change[A]{New: from.v, Live: true}
	if ref, ok := p.touch(c, k, start); ok && c.Err == nil {
		p.set(c, ref, k, start, ch, from.at, false)
	} else if p.every && c.Err == nil {
		p.give(c, k, start, ch, from.at)
	}
}
