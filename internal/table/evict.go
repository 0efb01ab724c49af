package table

// Shrink: see flow.Store. It lets go of entries that the tier has, those not used lately first, whole chains at a time, so that
// a key is in memory with everything or not at all.
func (c *core[S, C]) Shrink(want int64) int64 {
	c.tight = true
	c.cells.rest()
	var freed int64
	for _, t := range c.tabs {
		if t == nil || t.entries == 0 {
			continue
		}
		if t.complete {
			t.complete, t.filter = false, filter{known: true}
		}
		// Twice round: once to take away the marks of use.
		for left := 2 * int(t.top); left > 0 && freed < want; left -= batch {
			before := c.size(t) + c.cells.memory()
			c.sweep(t, batch)
			freed += before - c.size(t) - c.cells.memory()
		}
		c.compact(t)
	}
	c.cells.compact(c.eachCell)
	return freed
}

// sweep has the hand go over n places.
func (c *core[S, C]) sweep(t *tab[S, C], n int) {
	for range n {
		if t.hand++; t.hand > t.top {
			t.hand = 1
		}
		e := t.at(t.hand)
		if e.bits&used == 0 {
			continue
		}
		if e.bits&hot != 0 {
			e.bits &^= hot
			continue
		}
		k := c.searching(t.key(e))
		clean := true
		for ref := t.head(&k); ref != 0 && clean; ref = t.at(ref).next {
			e := t.at(ref)
			clean = e.mark <= c.done && e.bits&hot == 0
		}
		if !clean {
			continue
		}
		t.filter.add(k.hash)
		t.evicted = true
		for ref := t.head(&k); ref != 0; ref = t.head(&k) {
			c.cells.drop(&t.at(ref).cell)
			t.remove(c.seeds, ref)
		}
	}
}
