package table

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"
)

// item is an entry in an ordered index: a number decides nearly every comparison without a look at the entry.
type item struct {
	prefix uint64
	ref    uint32 // 0: the tab's pivot, which is before its equals
}

// pivot is a place in the order where no entry need be.
type pivot[S any] struct {
	key []byte
	sub S
}

func prefix(b []byte) uint64 {
	if len(b) >= 8 {
		return binary.BigEndian.Uint64(b)
	}
	var p [8]byte
	copy(p[:], b)
	return binary.BigEndian.Uint64(p[:])
}

func (t *tab[S, C]) item(ref uint32) item {
	e := t.at(ref)
	if p, ok := e.sub.lead(); ok {
		return item{p, ref}
	}
	return item{prefix(t.key(e)), ref}
}

// order is that of suffixes, then of serialized key bytes: by time where there is a time.
func (t *tab[S, C]) order(a, b item) int {
	if c := cmp.Compare(a.prefix, b.prefix); c != 0 {
		return c
	}
	ak, as := t.whole(a)
	bk, bs := t.whole(b)
	if c := as.compare(bs); c != 0 {
		return c
	}
	if c := bytes.Compare(ak, bk); c != 0 {
		return c
	}
	return cmp.Compare(min(a.ref, 1), min(b.ref, 1))
}

func (t *tab[S, C]) whole(i item) ([]byte, S) {
	if i.ref == 0 {
		return t.pivot.key, t.pivot.sub
	}
	e := t.at(i.ref)
	return t.key(e), e.sub
}

func (t *tab[S, C]) less(a, b item) bool { return t.order(a, b) < 0 }

// bounds is a range of keys, [from, to); nil is open.
type bounds struct{ from, to []byte }

func (r bounds) has(key []byte) bool {
	return (r.from == nil || bytes.Compare(key, r.from) >= 0) && (r.to == nil || bytes.Compare(key, r.to) < 0)
}

// after is the least key greater than b.
func after(b []byte) []byte { return append(slices.Clone(b), 0) }

// behind is the least key greater than all that begin with b; nil if there is none.
func behind(b []byte) []byte {
	b = slices.Clone(b)
	for i := len(b) - 1; i >= 0; i-- {
		if b[i] != 0xff {
			b[i]++
			return b[:i+1]
		}
	}
	return nil
}

// batch is how many entries a walk along an ordered index takes at a time, and few how many at first: many walks end early.
const (
	batch = 64
	few   = 8
)

// cursor goes along the entries of a range of keys in order, dead ones included. Meanwhile the table may change: nothing
// is ever removed during a step. Entries that are added may or may not be seen.
type cursor[S suffix[S], C any] struct {
	t       *tab[S, C]
	r       bounds
	reverse bool
	items   []item
	more    bool // there may be others behind items
	at      int
}

func (t *tab[S, C]) cursor(r bounds, reverse bool) *cursor[S, C] {
	c := &cursor[S, C]{t: t, r: r, reverse: reverse}
	if t.tree != nil {
		c.more = r.from == nil || r.to == nil || bytes.Compare(r.from, r.to) < 0
		return c
	}
	for ref := uint32(1); ref <= t.top; ref++ {
		if e := t.at(ref); e.bits&used != 0 && r.has(t.key(e)) {
			c.items = append(c.items, t.item(ref))
		}
	}
	slices.SortFunc(c.items, t.order)
	if reverse {
		slices.Reverse(c.items)
	}
	return c
}

// next is the next entry; 0: there is none.
func (c *cursor[S, C]) next() uint32 {
	if c.at == len(c.items) {
		if !c.more {
			return 0
		}
		var last item
		if c.at > 0 {
			last = c.items[c.at-1]
		}
		switch cap(c.items) {
		case 0:
			c.items = make([]item, few)
		case few:
			c.items = make([]item, batch)
		}
		n := c.t.next(c.items[:cap(c.items)], c.r, c.reverse, last)
		c.items, c.at, c.more = c.items[:n], 0, n == cap(c.items)
		if n == 0 {
			return 0
		}
	}
	c.at++
	return c.items[c.at-1].ref
}

// next fills items with what follows last in the index; a last without ref is the start of the range.
func (t *tab[S, C]) next(items []item, r bounds, reverse bool, last item) (n int) {
	take := func(i item) bool {
		if i == last {
			return true
		}
		if key := t.key(t.at(i.ref)); reverse && r.from != nil && bytes.Compare(key, r.from) < 0 ||
			!reverse && r.to != nil && bytes.Compare(key, r.to) >= 0 {
			return false
		}
		items[n] = i
		n++
		return n < len(items)
	}
	edge := r.from
	if reverse {
		edge = r.to
	}
	if last.ref == 0 && edge != nil {
		t.pivot.key = edge
		last = item{prefix: prefix(edge)}
	}
	switch start := last.ref != 0 || edge != nil; {
	case reverse && start:
		t.tree.DescendLessOrEqual(last, take)
	case reverse:
		t.tree.Descend(take)
	case start:
		t.tree.AscendGreaterOrEqual(last, take)
	default:
		t.tree.Ascend(take)
	}
	return n
}
