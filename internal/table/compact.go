package table

import "unsafe"

// worth is how much memory, in bytes, makes compaction worth its while.
const worth = 1 << 16

// compact copies what is left of a tab into new memory if less than half of the old is in use, so that what Shrink has
// let go of is really given back.
func (c *core[S, C]) compact(t *tab[S, C]) {
	size := int64(unsafe.Sizeof(entry[S, C]{}))
	held := int64(t.top)*size + t.keys.held + int64(len(t.slots))*8
	inUse := int64(t.entries)*(size+16) + t.keys.used
	if held < c.worth || held < 2*inUse {
		return
	}
	n := newTab[S, C](t.id, t.segment, t.tree != nil)
	n.complete, n.evicted, n.filter = t.complete, t.evicted, t.filter
	moved := make([]uint32, t.top+1)
	for ref := uint32(1); ref <= t.top; ref++ {
		old := t.at(ref)
		if old.bits&used == 0 {
			continue
		}
		k := c.searching(t.key(old))
		to, e := n.insert(&k, old.sub)
		moved[ref] = to
		e.time, e.cell, e.mark, e.undo, e.pos, e.bits = old.time, old.cell, old.mark, old.undo, old.pos, old.bits
	}
	for _, l := range c.logs {
		for i := range l.undo {
			if r := &l.undo[i]; r.tab == t.id {
				r.ref = moved[r.ref]
			}
		}
	}
	for i := range c.cold {
		if c.cold[i] == t {
			c.cold[i] = n
		}
	}
	c.tabs[t.id] = n
	c.moved(t, n)
}

// eachCell calls f for every cell there is. kept: the same bytes may be another one's as well.
func (c *core[S, C]) eachCell(f func(cell *C, kept bool)) {
	for _, t := range c.tabs {
		if t == nil {
			continue
		}
		for ref := uint32(1); ref <= t.top; ref++ {
			if e := t.at(ref); e.bits&live != 0 {
				f(&e.cell, e.mark > c.done)
			}
		}
	}
	for _, l := range c.logs {
		for i := range l.undo {
			if r := &l.undo[i]; r.bits&live != 0 {
				f(&r.cell, true)
			}
		}
		for i := range l.garbage {
			f(&l.garbage[i], true)
		}
	}
}
