package table

import (
	"encoding/binary"
	"fmt"
	"slices"
	"unsafe"

	"github.com/moldau/moldau/internal/flow"
)

// core is what all stores have in common: entries, epochs, sealing, what goes down to the tier and comes up from it. It knows
// keys as bytes and values as cells.
type core[S suffix[S], C any] struct {
	env       flow.StoreEnv
	cells     cells[C]
	coded     bool // cells keep bytes
	seeds     seeds
	tabs      []*tab[S, C] // by id; nil: free
	segmented bool         // tier keys begin with a segment
	all       bounds       // if they do not: where they are in the tier
	logs      []*log[C]
	spare     []*log[C]
	mark      uint32 // of the open log
	done      uint32 // of the last one that is done
	seen      int64  // the store's own stream time: the greatest suffix time set
	seq       uint32 // the number last given to an entry, where entries are numbered
	pos       int64  // what Position says
	out       []byte // sealed bytes; what has been given away never changes
	key       []byte // of the call in hand, with room for 16
	buf       []byte
	worth     int64                                                   // see the constant
	marks     uint32                                                  // see the constant
	moved     func(from, to *tab[S, C])                               // says that a tab has been replaced
	cold      []*tab[S, C]                                            // to be warmed up
	warmed    []byte                                                  // the last key read of the first of them
	load      func(t *tab[S, C], k *keyed, sub S, value []byte) error // brings in a key that is not in memory
	write     func(l *log[C], t *tab[S, C], e *entry[S, C], out *flow.Effects) error
	foremost  func(sub S) bool // says that the store's stream time is that of this suffix; nil: of none
	fetched   uint32           // so that nothing of fetching is optimised away
	tight     bool             // Shrink has been called: what is restored goes past RAM
}

func (c *core[S, C]) init(env flow.StoreEnv, cells cells[C]) error {
	c.env, c.cells, c.coded, c.seeds, c.seen = env, cells, cells.coded(), newSeeds(), -1
	c.worth, c.marks, c.write = worth, marks, c.seal
	c.key = make([]byte, 0, 64)
	if env.Spec.Unlogged && env.Tier.Count() > 0 {
		// Nothing says which epoch it would be of.
		if err := env.Tier.DropRange(nil, nil); err != nil {
			return c.wrap("dropping what an unlogged store has left", err)
		}
	}
	c.pos = env.Tier.Position()
	c.turn()
	return nil
}

// wrap says where an error happened.
func (c *core[S, C]) wrap(doing string, err error) error {
	return fmt.Errorf("store %q, partition %d: %s: %w", c.env.Spec.Name, c.env.Partition, doing, err)
}

func (c *core[S, C]) newTab(segment int64) *tab[S, C] {
	id := slices.Index(c.tabs, nil)
	if id < 0 {
		id = len(c.tabs)
		c.tabs = append(c.tabs, nil)
	}
	c.tabs[id] = newTab[S, C](uint32(id), segment, c.env.Spec.Ordered)
	return c.tabs[id]
}

// lookup prepares the key in c.key for a search.
func (c *core[S, C]) lookup() keyed { return c.seeds.look(c.key) }

// searching readies encoded bytes for a search.
func (c *core[S, C]) searching(b []byte) keyed {
	c.setKey(append(c.key[:0], b...))
	return c.lookup()
}

func (c *core[S, C]) setKey(b []byte) {
	if cap(b) < 16 {
		b = slices.Grow(b, 16)
	}
	c.key = b
}

// unset takes a value away.
func (c *core[S, C]) unset(e *entry[S, C], at int64, headers []flow.Header) {
	if e.bits&live != 0 {
		l := c.open()
		l.dead = append(l.dead, e.undo)
	}
	c.cells.cool(&e.cell)
	var zero C
	e.cell, e.time, e.bits = zero, at, e.bits&^live
	c.updated(e, headers)
}

// touched panics where an operator sets what it has not touched.
func (c *core[S, C]) touched(r Ref) *entry[S, C] {
	e := c.tabs[r.tab].at(r.at)
	if e.mark != c.mark {
		panic(fmt.Sprintf("store %q: an entry is set that was not touched since the last Changes or Seal", c.env.Spec.Name))
	}
	return e
}

// chunk gives memory to append about n sealed bytes to.
func (c *core[S, C]) chunk(n int) []byte {
	if cap(c.out)-len(c.out) < n {
		c.out = make([]byte, 0, max(n, min(max(2*cap(c.out), 4<<10), 64<<10)))
	}
	return c.out
}

// Seal: see flow.Store.
func (c *core[S, C]) Seal(epoch uint32, out *flow.Effects) error {
	i := 0
	for c.logs[i].sealed {
		i++
	}
	logs, open := c.logs[i:], c.open()
	first := logs[0].mark
	for _, l := range logs {
		out.Records = append(out.Records, l.unkept...)
		for i, u := range l.order {
			c.fetch(l, i)
			if u == stale {
				continue
			}
			r := &l.undo[u]
			t := c.tabs[r.tab]
			e := t.at(r.ref)
			if e.mark != l.mark && !c.lastSet(e, l, first) {
				continue
			}
			if e.bits&live == 0 {
				if _, _, was := c.before(e, first-1); !was && (c.foremost == nil || !c.foremost(e.sub)) {
					continue // made and gone within the epoch: nobody has heard of it
				}
			}
			if err := c.write(open, t, e, out); err != nil {
				return err
			}
		}
		l.sealed, l.epoch = true, epoch
	}
	c.settle(open)
	c.turn()
	c.cells.rest()
	return nil
}

// changes calls f for every entry that was set since the last call, in order of last update, and begins a new log: what f
// was told is what comes next is told against.
func (c *core[S, C]) changes(f func(t *tab[S, C], e *entry[S, C], r *undo[C], headers []flow.Header) error) error {
	l := c.open()
	if len(l.undo) == 0 {
		return nil
	}
	if c.coded {
		if err := c.encodeAll(l); err != nil {
			return err
		}
	}
	c.settle(l)
	c.turn()
	for i, u := range l.order {
		c.fetch(l, i)
		if u == stale {
			continue
		}
		r := &l.undo[u]
		t := c.tabs[r.tab]
		if e := t.at(r.ref); e.bits&live != 0 || r.seen() {
			if err := f(t, e, r, l.headersOf(uint32(i+1))); err != nil {
				return err
			}
		}
	}
	return nil
}

// encodeAll gives every cell that was set in a log an encoding to keep.
func (c *core[S, C]) encodeAll(l *log[C]) (err error) {
	for i, u := range l.order {
		c.fetch(l, i)
		if u == stale {
			continue
		}
		r := &l.undo[u]
		t := c.tabs[r.tab]
		if e := t.at(r.ref); e.bits&live != 0 {
			if c.buf, err = c.cells.encode(c.buf[:0], &e.cell); err != nil {
				return c.wrap(fmt.Sprintf("encoding the value of key %q", t.key(e)), err)
			}
		}
	}
	return nil
}

// settle ends a log whose cells have all been encoded: it notes which cells it has replaced, and drops decoded values that were
// handed out to be written through but never set.
func (c *core[S, C]) settle(l *log[C]) {
	if !c.coded {
		return
	}
	for i := range l.undo {
		r := &l.undo[i]
		if e := c.tabs[r.tab].at(r.ref); e.pos == 0 {
			c.cells.cool(&e.cell)
		} else if r.bits&live != 0 {
			l.garbage = append(l.garbage, r.cell)
		}
	}
}

// seal writes one entry: [segment] key suffix time value. The changelog gets it without segment and time.
func (c *core[S, C]) seal(l *log[C], t *tab[S, C], e *entry[S, C], out *flow.Effects) error {
	b := c.chunk(int(e.size) + 64)
	from := len(b)
	if c.segmented {
		b = appendSegment(b, t.segment)
	}
	log := len(b)
	b = append(b, t.key(e)...)
	b = e.sub.append(b)
	mid := len(b)
	var value []byte
	if e.bits&live != 0 {
		b = binary.BigEndian.AppendUint64(b, uint64(e.time))
		var err error
		if b, err = c.cells.encode(b, &e.cell); err != nil {
			return c.wrap(fmt.Sprintf("encoding the value of key %q", t.key(e)), err)
		}
		value = b[mid:len(b):len(b)]
	}
	c.out = b
	l.out += int64(len(b) - from)
	l.changes = append(l.changes, flow.TierChange{Key: b[from:mid:mid], Value: value})
	if c.env.Changelog != nil {
		o := flow.Out{Topic: c.env.Changelog, Partition: c.env.Partition, Time: e.time, Key: b[log:mid:mid]}
		if value != nil {
			o.Value, o.Headers = value[8:], c.env.Spec.LogHeaders
		}
		out.Records = append(out.Records, o)
	}
	return nil
}

func appendSegment(b []byte, segment int64) []byte {
	return binary.BigEndian.AppendUint64(b, uint64(segment)^1<<63)
}

// Undo: see flow.Store.
func (c *core[S, C]) Undo(epoch uint32) error {
	for n := len(c.logs) - 1; n >= 0 && (!c.logs[n].sealed || c.logs[n].epoch >= epoch); n-- {
		l := c.logs[n]
		for i := len(l.undo) - 1; i >= 0; i-- {
			c.revert(&l.undo[i])
		}
		c.seen, c.seq = l.seen, l.seq
		c.logs = c.logs[:n]
		c.mark = l.mark - 1
		c.recycle(l)
	}
	c.turn()
	return nil
}

func (c *core[S, C]) revert(r *undo[C]) {
	t := c.tabs[r.tab]
	e := t.at(r.ref)
	c.cells.revert(&e.cell, r.cell)
	if r.born || r.mark <= c.done && r.bits&live == 0 {
		t.remove(c.seeds, r.ref)
		return
	}
	e.cell, e.time, e.mark, e.undo, e.pos = r.cell, r.time, r.mark, r.undo, r.pos
	e.bits = e.bits&^live | r.bits&live
}

// Done: see flow.Store.
func (c *core[S, C]) Done(epoch uint32, next int64) error {
	n := 0
	for c.logs[n].sealed && c.logs[n].epoch <= epoch {
		n++
	}
	for i, l := range c.logs[:n] {
		at := int64(-1)
		if i == n-1 {
			at = next
		}
		if len(l.changes) > 0 || at >= 0 {
			if err := c.env.Tier.Apply(l.changes, at); err != nil {
				c.logs = slices.Delete(c.logs, 0, i)
				return c.wrap("handing an epoch down to the tier", err)
			}
		}
		c.done = l.mark
		for _, u := range l.dead {
			r := &l.undo[u]
			t := c.tabs[r.tab]
			if e := t.at(r.ref); e.mark == l.mark && e.bits&live == 0 && e.bits&used != 0 {
				c.cells.drop(&e.cell)
				t.remove(c.seeds, r.ref)
			}
		}
		for i := range l.garbage {
			c.cells.release(l.garbage[i])
		}
		c.recycle(l)
	}
	c.logs = slices.Delete(c.logs, 0, n) // at once: there may be one for each update
	if c.mark >= c.marks {
		c.renumber()
	}
	if next >= 0 {
		c.pos = next
	}
	return c.warm()
}

func (c *core[S, C]) Position() int64 { return c.pos }

// Memory: see flow.Store.
func (c *core[S, C]) Memory() int64 {
	n := c.cells.memory() + int64(cap(c.out)) + c.env.Tier.Memory()
	for _, t := range c.tabs {
		if t != nil {
			n += c.size(t)
		}
	}
	for _, l := range c.logs {
		n += l.memory()
	}
	return n
}

// size is what a tab holds, and what its values hold besides, as far as that can be known.
func (c *core[S, C]) size(t *tab[S, C]) int64 {
	n := int64(t.entries)*(int64(unsafe.Sizeof(entry[S, C]{}))+c.cells.beside()) + int64(len(t.slots))*8 + t.keys.used + t.filter.memory()
	if t.tree != nil {
		n += int64(t.tree.Len()) * 24
	}
	return n
}

func (l *log[C]) memory() int64 {
	return int64(cap(l.undo))*int64(unsafe.Sizeof(undo[C]{})) + 4*int64(cap(l.order)+cap(l.dead)) +
		int64(cap(l.bytes)) + 48*int64(cap(l.changes)) + l.out
}

func (c *core[S, C]) Close() error { return c.env.Tier.Close() }
