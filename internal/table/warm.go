package table

import "math"

// warmKeys is how many keys of the tier one Done reads.
const warmKeys = 2048

// warm goes on reading what an earlier run has left in the tier, a little with each commit: into memory while there is room, into
// the filter when there is none. At the end of it a miss need not be looked up any more, or seldom.
func (c *core[S, C]) warm() error {
	for left := warmKeys; left > 0 && len(c.cold) > 0; {
		t := c.cold[0]
		if c.tabs[t.id] != t { // dropped
			c.cold, c.warmed = c.cold[1:], nil
			continue
		}
		n, bad := 0, error(nil)
		r := c.below(t)
		if c.warmed != nil {
			r.from = after(c.warmed)
		}
		err := c.env.Tier.Scan(r.from, r.to, func(key, value []byte) bool {
			n++
			c.warmed = append(c.warmed[:0], key...)
			if c.segmented {
				key = key[8:]
			}
			k, sub, ok := (*new(S)).split(key)
			if !ok {
				bad = ErrDamaged
				return false
			}
			look := c.searching(k)
			switch {
			case t.head(&look) != 0:
			case c.tight:
				t.filter.add(look.hash)
			default:
				bad = c.load(t, &look, sub, value)
			}
			return bad == nil && n < left
		})
		if err == nil {
			err = bad
		}
		if err != nil {
			return c.wrap("reading the tier", err)
		}
		if left -= n; left > 0 {
			t.filter.known, t.complete = true, !c.tight && !t.evicted
			c.cold, c.warmed = c.cold[1:], nil
		}
	}
	return nil
}

// below is where the tier has what belongs to a tab.
func (c *core[S, C]) below(t *tab[S, C]) bounds {
	if !c.segmented {
		return c.all
	}
	r := bounds{from: appendSegment(nil, t.segment)}
	if t.segment < math.MaxInt64 {
		r.to = appendSegment(nil, t.segment+1)
	}
	return r
}
