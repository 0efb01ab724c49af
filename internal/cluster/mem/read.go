package mem

import (
	"bytes"
	"context"
	"fmt"

	"github.com/moldau/moldau/internal/cluster"
	"github.com/moldau/moldau/internal/flow"
)

// cursors reads partitions; Member and Reader are built on it. Called with the log locked.
type cursors struct {
	log *Log
	at  map[cluster.TP]*cursor
}

type cursor struct {
	next   int64
	topic  [16]byte // as of the seek
	paused bool
}

func (c *cursors) seek(offsets map[cluster.TP]int64) {
	for tp, at := range offsets {
		cur := c.at[tp]
		if cur == nil {
			cur = &cursor{}
			c.at[tp] = cur
		}
		if p, t, err := c.log.partition(tp); err == nil {
			cur.topic = t.id
			if at < 0 {
				at = p.start
			}
		}
		cur.next = at
	}
}

func (c *cursors) pause(tps []cluster.TP, paused bool) {
	for _, tp := range tps {
		if cur := c.at[tp]; cur != nil {
			cur.paused = paused
		}
	}
}

// poll brings a batch of each partition that has moved.
func (c *cursors) poll() ([]cluster.Batch, error) {
	var batches []cluster.Batch
	for _, tp := range sortedTPs(c.at) {
		b, err := c.fetch(tp, c.at[tp])
		if err != nil {
			if len(batches) > 0 {
				break // next time
			}
			return nil, fmt.Errorf("fetching %s-%d from offset %d: %w", tp.Topic, tp.Partition, c.at[tp].next, err)
		}
		if b.Next > 0 {
			batches = append(batches, b)
		}
	}
	return batches, nil
}

func (c *cursors) fetch(tp cluster.TP, cur *cursor) (cluster.Batch, error) {
	if cur.paused {
		return cluster.Batch{}, nil
	}
	p, t, err := c.log.partition(tp)
	switch {
	case err != nil:
		return cluster.Batch{}, err
	case t.id != cur.topic:
		return cluster.Batch{}, cluster.ErrRecreated
	case cur.next < p.start || cur.next > p.end:
		return cluster.Batch{}, cluster.ErrOutOfRange
	}
	limit := c.log.MaxBatchRecords
	if limit == 0 {
		limit = 500
	}
	stable, next := p.stable(), cur.next
	var records []flow.In
	for _, e := range p.entries {
		if e.offset < cur.next || e.offset >= stable {
			continue
		}
		if len(records) == limit {
			stable = min(stable, e.offset)
			break
		}
		if !e.marker && (e.txn == nil || e.txn.state == committed) {
			records = append(records, clone(e.record))
		}
	}
	if next = max(next, stable); next == cur.next {
		return cluster.Batch{}, nil
	}
	cur.next = next
	return cluster.Batch{TP: tp, Records: records, Next: next, Release: func() { scribble(records) }}, nil
}

func clone(r flow.In) flow.In {
	r.Key, r.Value, r.Headers = bytes.Clone(r.Key), bytes.Clone(r.Value), cloneHeaders(r.Headers)
	return r
}

// scribble makes whoever keeps bytes of a released batch notice.
func scribble(records []flow.In) {
	for i := range records {
		r := &records[i]
		for _, b := range [][]byte{r.Key, r.Value} {
			for j := range b {
				b[j] = 0xdd
			}
		}
		*r = flow.In{Offset: -1, Time: -1}
	}
}

// reader implements cluster.Reader.
type reader struct {
	cursors
	closed bool
}

// Reader makes a reader of partitions outside any group.
func (c *Conn) Reader() (cluster.Reader, error) {
	return &reader{cursors: cursors{log: c.log, at: map[cluster.TP]*cursor{}}}, nil
}

func (r *reader) Assign(from map[cluster.TP]int64) {
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	for tp := range r.at {
		if _, ok := from[tp]; !ok {
			delete(r.at, tp)
		}
	}
	r.seek(from)
}

func (r *reader) Poll(context.Context) ([]cluster.Batch, error) {
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	if r.closed {
		return nil, cluster.ErrClosed
	}
	return r.poll()
}

func (c *cursors) Position(tp cluster.TP) (int64, bool) {
	c.log.mu.Lock()
	defer c.log.mu.Unlock()
	if cur := c.at[tp]; cur != nil {
		return cur.next, true
	}
	return 0, false
}

func (r *reader) Close() {
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	r.closed = true
}
