package table

import (
	"github.com/moldau/moldau/internal/flow"
)

// undo is what an entry was before a log first touched it.
type undo[C any] struct {
	tab, ref  uint32
	time      int64
	cell      C
	mark      uint32
	undo, pos uint32
	bits      uint32
	born      bool // it was not there
}

// seen says whether the entry had a value that had not expired when it was touched; it may have since, as time goes on until the commit.
func (r *undo[C]) seen() bool { return r.bits&(live|unseen) == live }

// log is what has happened to entries during an epoch, or a part of one: an epoch has as many logs as Changes was called in it, and one
// more. The last one is open. Marks count logs, so that "touched in this log" is one comparison.
type log[C any] struct {
	mark    uint32
	epoch   uint32 // of sealed ones
	sealed  bool
	undo    []undo[C]
	order   []uint32 // of undo records, by last update; stale: updated again since
	headers []flow.Header
	bytes   []byte
	spans   []span   // by place in order + 1; only if there are headers
	set     int      // records in undo that have a place in order
	dead    []uint32 // of undo records: entries that had no value, or lost it
	garbage []C      // cells that this log has replaced
	changes []flow.TierChange
	unkept  []flow.Out // for the changelog alone
	out     int64      // sealed bytes
	seen    int64      // the store's own stream time when it began
	seq     uint32     // the number last given to an entry when it began
}

type span struct{ from, to int }

const stale = ^uint32(0)

// logOf is the log that an entry was touched in; nil: one that is done.
func (c *core[S, C]) logOf(mark uint32) *log[C] {
	if mark <= c.done {
		return nil
	}
	return c.logs[mark-c.done-1]
}

func (c *core[S, C]) open() *log[C] { return c.logs[len(c.logs)-1] }

// turn begins a new log.
func (c *core[S, C]) turn() {
	c.mark++
	l := &log[C]{}
	if n := len(c.spare); n > 0 {
		l, c.spare = c.spare[n-1], c.spare[:n-1]
	}
	l.mark, l.seen, l.seq = c.mark, c.seen, c.seq
	c.logs = append(c.logs, l)
}

// marks is how far they may count: far enough from the end for all the logs of two epochs.
const marks = 1 << 31

// renumber counts marks from the last log that is done. Where each update is given on at once there is a log for each, and marks would
// come to their end in a day or two.
func (c *core[S, C]) renumber() {
	done := c.done
	for _, t := range c.tabs {
		if t == nil {
			continue
		}
		for ref := uint32(1); ref <= t.top; ref++ {
			e := t.at(ref)
			e.mark = max(e.mark, done) - done
		}
	}
	for _, l := range c.logs {
		l.mark -= done
		for i := range l.undo {
			r := &l.undo[i]
			r.mark = max(r.mark, done) - done
		}
	}
	c.mark, c.done = c.mark-done, 0
}

func (c *core[S, C]) recycle(l *log[C]) {
	if cap(l.undo) > 1<<16 && cap(l.undo) > 4*len(l.undo) {
		return // a peak is over
	}
	clear(l.undo)
	clear(l.garbage)
	clear(l.changes)
	clear(l.unkept)
	*l = log[C]{undo: l.undo[:0], order: l.order[:0], dead: l.dead[:0], garbage: l.garbage[:0], changes: l.changes[:0], unkept: l.unkept[:0]}
	if len(c.spare) < 4 {
		c.spare = append(c.spare, l)
	}
}

// touch remembers what undo needs, once per entry and log.
func (c *core[S, C]) touch(t *tab[S, C], ref uint32, e *entry[S, C], born bool) {
	if e.mark == c.mark {
		return
	}
	l := c.open()
	l.undo = append(l.undo, undo[C]{tab: t.id, ref: ref, time: e.time, cell: e.cell,
		mark: e.mark, undo: e.undo, pos: e.pos, bits: e.bits, born: born})
	e.mark, e.undo, e.pos = c.mark, uint32(len(l.undo)-1), 0
	if e.bits&live == 0 {
		l.dead = append(l.dead, e.undo)
	}
}

// updated appends an entry to the order of updates; an older place of it there becomes stale.
func (c *core[S, C]) updated(e *entry[S, C], headers []flow.Header) {
	l := c.open()
	if e.pos == 0 || e.pos != uint32(len(l.order)) { // else it is the last one anyway
		if e.pos != 0 {
			l.order[e.pos-1] = stale
		} else {
			l.set++
		}
		if len(l.order) > max(2*len(l.undo), 1<<14) {
			c.squeeze(l)
		}
		l.order = append(l.order, e.undo)
		e.pos = uint32(len(l.order))
	}
	if len(headers) > 0 || len(l.spans) >= int(e.pos) {
		l.keep(e.pos, headers)
	}
}

// squeeze takes the stale places out of the order.
func (c *core[S, C]) squeeze(l *log[C]) {
	n := 0
	for i, u := range l.order {
		if u == stale {
			continue
		}
		l.order[n] = u
		if i+1 < len(l.spans) {
			l.spans[n+1] = l.spans[i+1]
		}
		n++
		r := &l.undo[u]
		c.tabs[r.tab].at(r.ref).pos = uint32(n)
	}
	l.order = l.order[:n]
	if len(l.spans) > n+1 {
		l.spans = l.spans[:n+1]
	}
}

// keep copies the headers of an update, which alias a buffer of the client.
func (l *log[C]) keep(pos uint32, headers []flow.Header) {
	for len(l.spans) <= int(pos) {
		l.spans = append(l.spans, span{})
	}
	from := len(l.headers)
	for _, h := range headers {
		if h.Value != nil {
			n := len(l.bytes)
			if l.bytes == nil || cap(l.bytes)-n < len(h.Value) {
				l.bytes, n = make([]byte, 0, max(4<<10, len(h.Value))), 0
			}
			l.bytes = append(l.bytes, h.Value...)
			h.Value = l.bytes[n:len(l.bytes):len(l.bytes)]
		}
		l.headers = append(l.headers, h)
	}
	l.spans[pos] = span{from, len(l.headers)}
}

func (l *log[C]) headersOf(pos uint32) []flow.Header {
	if int(pos) >= len(l.spans) || l.spans[pos].from == l.spans[pos].to {
		return nil
	}
	s := l.spans[pos]
	return l.headers[s.from:s.to:s.to]
}

// committed is an entry's cell as of the last Done.
func (c *core[S, C]) committed(e *entry[S, C]) (cell C, time int64, ok bool) {
	return c.before(e, c.done)
}

// before is an entry's cell as it was when the log after mark began.
func (c *core[S, C]) before(e *entry[S, C], mark uint32) (cell C, time int64, ok bool) {
	cell, time, bits, m, u := e.cell, e.time, e.bits, e.mark, e.undo
	for m > mark {
		r := &c.logOf(m).undo[u]
		if r.born {
			var zero C
			return zero, 0, false
		}
		cell, time, bits, m, u = r.cell, r.time, r.bits, r.mark, r.undo
	}
	return cell, time, bits&live != 0
}

// lastSet says whether l holds an entry's last update of an epoch whose first log is first: a later log may have touched
// it without setting it.
func (c *core[S, C]) lastSet(e *entry[S, C], l *log[C], first uint32) bool {
	m, u, p := e.mark, e.undo, e.pos
	for p == 0 && m > l.mark {
		r := &c.logOf(m).undo[u]
		m, u, p = r.mark, r.undo, r.pos
	}
	return m == l.mark
}
