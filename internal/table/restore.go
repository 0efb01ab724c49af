package table

import (
	"encoding/binary"
	"fmt"

	"github.com/moldau/moldau/internal/flow"
)

// Restore: see flow.Store.
func (s *keyValue[K, V, C]) Restore(records []flow.In, next int64) error {
	return s.restore(records, next, func(*flow.In, none) *tab[none, C] { return s.t }, nil)
}

// restore takes committed records into memory, if there is room, and hands them down. pane says which tab a record belongs
// to; nil: none, it has expired. more, if there is one, adds to what the tier is given.
func (c *core[S, C]) restore(records []flow.In, next int64, pane func(r *flow.In, sub S) *tab[S, C], more func() []flow.TierChange) error {
	if len(c.logs) != 1 || len(c.open().undo) > 0 {
		panic(fmt.Sprintf("store %q: restoring while an epoch is open", c.env.Spec.Name))
	}
	changes := make([]flow.TierChange, 0, len(records))
	for i := range records {
		r := &records[i]
		key, sub, ok := (*new(S)).split(r.Key)
		if !ok {
			return c.wrap(fmt.Sprintf("restoring offset %d, key %q", r.Offset, r.Key), ErrDamaged)
		}
		t := pane(r, sub)
		if t == nil {
			continue
		}
		if err := c.replace(t, key, sub, r); err != nil {
			return c.wrap(fmt.Sprintf("restoring offset %d, key %q", r.Offset, r.Key), err)
		}
		b := c.chunk(len(r.Key) + len(r.Value) + 16)
		from := len(b)
		if c.segmented {
			b = appendSegment(b, t.segment)
		}
		b = append(b, r.Key...)
		mid := len(b)
		change := flow.TierChange{Key: b[from:mid:mid]}
		if r.Value != nil {
			b = append(binary.BigEndian.AppendUint64(b, uint64(r.Time)), r.Value...)
			change.Value = b[mid:len(b):len(b)]
		}
		c.out = b
		changes = append(changes, change)
	}
	if more != nil {
		changes = append(changes, more()...)
	}
	if err := c.env.Tier.Apply(changes, next); err != nil {
		return c.wrap("handing restored records down to the tier", err)
	}
	c.pos = next
	return nil
}

// replace gives an entry its restored value. What is not in memory stays out of it if there is no room.
func (c *core[S, C]) replace(t *tab[S, C], key []byte, sub S, r *flow.In) error {
	k := c.searching(key)
	if !t.complete && t.head(&k) == 0 {
		if r.Value != nil {
			t.filter.add(k.hash)
		}
		return nil
	}
	ref := t.find(&k, sub)
	if ref != 0 {
		c.cells.drop(&t.at(ref).cell)
	}
	if r.Value == nil {
		if ref != 0 {
			t.remove(c.seeds, ref)
		}
		return nil
	}
	cell, err := c.cells.load(r.Value)
	if err != nil {
		return err
	}
	var e *entry[S, C]
	if ref == 0 {
		_, e = t.insert(&k, sub)
	} else {
		e = t.at(ref)
	}
	e.cell, e.time, e.bits = cell, r.Time, e.bits|live
	return nil
}
