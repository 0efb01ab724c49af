package histories

import (
	"cmp"
	"slices"
)

// ends finds offsets of partitions that went back, and transactions that hang.
func (c *checker) ends() {
	byTP := map[TP][]Ends{}
	for _, e := range slices.Concat(c.h.Ends, c.h.Closing) {
		byTP[e.At] = append(byTP[e.At], e)
		if e.Stable > e.High || e.Start > e.Stable {
			c.report(EndsWentBack, "%s begins at %d, is stable below %d and ends at %d", e.At, e.Start, e.Stable, e.High)
		}
	}
	// Who reads an offset has been told that all up to it is stable, or for others that it is there.
	for i := range c.h.Polls {
		p := &c.h.Polls[i]
		highest := map[TP]int64{}
		for _, r := range p.Reads {
			highest[r.At] = max(highest[r.At], r.Offset+1)
		}
		for at, next := range highest {
			e := Ends{At: at, Begin: p.Begin, End: p.End, Start: -1, Stable: -1, High: next}
			if p.Committed {
				e.Stable = next
			}
			byTP[at] = append(byTP[at], e)
		}
	}
	for at, list := range byTP {
		var stable, high int64
		eachBefore(list, func(e *Ends) (int64, int64) { return e.Begin, e.End }, func(earlier *Ends) {
			stable, high = max(stable, earlier.Stable), max(high, earlier.High)
		}, func(e *Ends) {
			if e.Start < 0 {
				return // who reads says where it is, not where the end is
			}
			if e.Stable < stable {
				c.report(EndsWentBack, "%s was stable below %d and later only below %d", at, stable, e.Stable)
			}
			if e.High < high && !c.h.PowerLoss {
				c.report(EndsWentBack, "%s ended at %d and later at %d", at, high, e.High)
			}
		})
	}
	for _, e := range c.h.Closing {
		if e.Stable < e.High {
			c.report(HungTransaction, "%s is stable below %d of %d, and no transaction is open", e.At, e.Stable, e.High)
		}
	}
}

// eachBefore goes through things in the order they began; of each, seen is called for all that had ended before it, and
// then judge.
func eachBefore[T any](list []T, span func(*T) (begin, end int64), seen, judge func(*T)) {
	begun, ended := make([]*T, len(list)), make([]*T, len(list))
	for i := range list {
		begun[i], ended[i] = &list[i], &list[i]
	}
	slices.SortStableFunc(begun, func(a, b *T) int { x, _ := span(a); y, _ := span(b); return cmp.Compare(x, y) })
	slices.SortStableFunc(ended, func(a, b *T) int { _, x := span(a); _, y := span(b); return cmp.Compare(x, y) })
	for _, t := range begun {
		begin, _ := span(t)
		for len(ended) > 0 {
			if _, end := span(ended[0]); end >= begin {
				break
			}
			seen(ended[0])
			ended = ended[1:]
		}
		judge(t)
	}
}

// told is something known of a group's offset: that it was committed, or that it was read.
type told struct {
	begin, end int64
	offset     int64
	read       bool
}

type groupTP struct {
	group string
	at    TP
}

// positions finds offsets of groups that went back, and those that nobody committed. Groups that copy only go forward.
func (c *checker) positions() {
	known := map[groupTP][]told{}
	asked := map[groupTP]map[int64]int64{} // when the commit of an offset was first asked for
	for i := range c.h.Ops {
		op := &c.h.Ops[i]
		for _, o := range op.Offsets {
			g := groupTP{op.Group, o.At}
			if op.Outcome == Committed {
				known[g] = append(known[g], told{op.Begin, op.End, o.Offset, false})
			}
			if op.Outcome != Aborted {
				if asked[g] == nil {
					asked[g] = map[int64]int64{}
				}
				if t, ok := asked[g][o.Offset]; !ok || op.Asked < t {
					asked[g][o.Offset] = op.Asked
				}
			}
		}
	}
	for _, p := range c.h.Positions {
		g := groupTP{p.Group, p.At}
		known[g] = append(known[g], told{p.Begin, p.End, p.Offset, true})
		if p.Offset < 0 {
			continue
		}
		if t, ok := asked[g][p.Offset]; !ok {
			c.report(PhantomCommit, "group %s is at %s offset %d, which nobody committed", p.Group, p.At, p.Offset)
		} else if t > p.End {
			c.report(PhantomCommit, "group %s was at %s offset %d %d ns before its commit was asked for", p.Group, p.At, p.Offset, t-p.End)
		}
	}
	for g, list := range known {
		highest := int64(-1)
		eachBefore(list, func(t *told) (int64, int64) { return t.begin, t.end }, func(earlier *told) {
			highest = max(highest, earlier.offset)
		}, func(t *told) {
			if t.read && t.offset < highest {
				c.report(LostCommit, "group %s was at %s offset %d and later at %d", g.group, g.at, highest, t.offset)
			}
		})
	}
}

// groups finds records that a copying group has taken up twice, or passed over.
func (c *checker) groups() {
	type copied struct {
		group string
		from  Value
	}
	made := map[copied]Value{}
	groups := map[string]bool{}
	for i := range c.h.Ops {
		op := &c.h.Ops[i]
		if op.Group == "" {
			continue
		}
		for _, w := range op.Writes {
			groups[op.Group] = groups[op.Group] || w.From != 0
			if _, ok := c.final[w.Value]; !ok || w.From == 0 {
				continue
			}
			k := copied{op.Group, w.From}
			if other, again := made[k]; again && other != w.Value && !c.twice[w.From] {
				c.report(ProcessedTwice, "group %s has made %d and %d of %d", op.Group, other, w.Value, w.From)
			}
			made[k] = w.Value
		}
	}
	at := map[groupTP]Position{}
	for _, p := range c.h.Positions {
		if g := (groupTP{p.Group, p.At}); p.End >= at[g].End {
			at[g] = p
		}
	}
	for _, r := range c.h.Final {
		for group, copies := range groups {
			if !copies {
				continue
			}
			p, ok := at[groupTP{group, r.At}]
			if !ok || p.Offset <= r.Offset {
				continue
			}
			if _, ok := made[copied{group, r.Value}]; !ok {
				c.report(Unprocessed, "group %s is at %s offset %d and has made nothing of %d at offset %d", group, r.At, p.Offset, r.Value, r.Offset)
			}
		}
	}
}
