package histories

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
)

// mostOfAKind bounds the anomalies of one kind: a broker that loses everything need not be told of each record.
const mostOfAKind = 20

// Check finds every kind of anomaly in a history, and of each kind the first few.
func Check(h *History) []Anomaly {
	c := checker{h: h, writes: map[Value]*write{}, final: map[Value]Read{}, twice: map[Value]bool{}, count: map[Kind]int{}}
	c.index()
	c.places()
	c.reads()
	c.transactions()
	c.orders()
	c.polls()
	c.ends()
	c.positions()
	c.groups()
	c.circles()
	slices.SortStableFunc(c.found, func(a, b Anomaly) int { return cmp.Compare(a.Kind, b.Kind) })
	return c.found
}

// write is a record that was sent, and what it was part of.
type write struct {
	Write
	op *Op
}

// acknowledged says that the record must be there.
func (w *write) acknowledged() bool {
	return w.op.Txn && w.op.Outcome == Committed || !w.op.Txn && w.Offset >= 0
}

type checker struct {
	h      *History
	writes map[Value]*write
	final  map[Value]Read    // Final by value
	twice  map[Value]bool    // at two places of Final: they may be taken up twice as well
	sorted map[bool]tpOffset // Final and FinalAll: offsets of each partition, ascending
	found  []Anomaly
	count  map[Kind]int
}

type tpOffset map[TP][]int64

func (c *checker) report(k Kind, format string, args ...any) {
	if c.count[k]++; c.count[k] <= mostOfAKind {
		c.found = append(c.found, Anomaly{k, fmt.Sprintf(format, args...)})
	}
}

func (c *checker) index() {
	for i := range c.h.Ops {
		op := &c.h.Ops[i]
		for _, w := range op.Writes {
			c.writes[w.Value] = &write{w, op}
		}
	}
	for _, r := range c.h.Final {
		if _, ok := c.final[r.Value]; ok {
			c.twice[r.Value] = true
			continue
		}
		c.final[r.Value] = r
	}
	c.sorted = map[bool]tpOffset{true: offsets(c.h.Final), false: offsets(c.h.FinalAll)}
}

func offsets(reads []Read) tpOffset {
	m := tpOffset{}
	for _, r := range reads {
		m[r.At] = append(m[r.At], r.Offset)
	}
	for _, list := range m {
		slices.Sort(list)
	}
	return m
}

// lasting says that what was seen of a record cannot be taken back by a power loss: somebody was promised that it stays.
func (c *checker) lasting(v Value, committed bool) bool {
	w := c.writes[v]
	return !c.h.PowerLoss || committed || w != nil && w.acknowledged()
}

// places finds records at two places and places with two records, in all that was acknowledged and read.
func (c *checker) places() {
	type place struct {
		at     TP
		offset int64
	}
	holds, where := map[place]Value{}, map[Value]place{}
	see := func(v Value, at TP, offset int64, by string) {
		p := place{at, offset}
		if other, ok := holds[p]; !ok {
			holds[p] = v
		} else if other != v {
			c.report(InconsistentOffsets, "%s offset %d is %d and, %s, %d", at, offset, other, by, v)
		}
		if other, ok := where[v]; !ok {
			where[v] = p
		} else if other != p {
			c.report(Duplicate, "%d is at %s offset %d and, %s, at %s offset %d", v, other.at, other.offset, by, at, offset)
		}
	}
	for _, r := range c.h.FinalAll {
		see(r.Value, r.At, r.Offset, "at the end")
	}
	for _, r := range c.h.Final {
		see(r.Value, r.At, r.Offset, "at the end")
	}
	for i := range c.h.Ops {
		for _, w := range c.h.Ops[i].Writes {
			if w.Offset >= 0 && c.lasting(w.Value, false) {
				see(w.Value, w.At, w.Offset, "as acknowledged to "+c.h.Ops[i].Client)
			}
		}
	}
	for i := range c.h.Polls {
		p := &c.h.Polls[i]
		for _, r := range p.Reads {
			if c.lasting(r.Value, p.Committed) {
				see(r.Value, r.At, r.Offset, "as read in "+p.Session)
			}
		}
	}
}

// reads finds records that should not have been read, or not yet, and those that were read or acknowledged and are gone.
func (c *checker) reads() {
	read := func(r Read, committed bool, end int64, by string) {
		w := c.writes[r.Value]
		switch {
		case w == nil || w.At != r.At:
			c.report(PhantomRead, "%s read %d at %s offset %d, which nobody sent there", by, r.Value, r.At, r.Offset)
		case committed && w.op.Txn && w.op.Outcome == Aborted:
			c.report(AbortedRead, "%s read %d at %s offset %d, of an aborted transaction of %s", by, r.Value, r.At, r.Offset, w.op.Client)
		case committed && w.op.Txn && w.op.Asked > end:
			c.report(UncommittedRead, "%s read %d at %s offset %d, %d ns before %s asked for the commit", by, r.Value, r.At, r.Offset, w.op.Asked-end, w.op.Client)
		}
		if committed {
			c.stays(r.Value, r.At, r.Offset, "read by "+by)
		}
	}
	for i := range c.h.Polls {
		p := &c.h.Polls[i]
		for _, r := range p.Reads {
			read(r, p.Committed, p.End, p.Session)
		}
	}
	for i := range c.h.Ops {
		op := &c.h.Ops[i]
		for _, r := range op.Reads {
			if w := c.writes[r.Value]; w != nil && w.op == op {
				c.report(UncommittedRead, "%s read its own %d at %s offset %d before it was committed", op.Client, r.Value, r.At, r.Offset)
			}
		}
		if op.Txn {
			continue
		}
		for _, w := range op.Writes {
			if w.Offset >= 0 {
				c.stays(w.Value, w.At, w.Offset, "acknowledged to "+op.Client)
			}
		}
	}
	const never = 1<<63 - 1
	for _, r := range c.h.Final {
		read(r, true, never, "the reader at the end")
	}
	for _, r := range c.h.FinalAll {
		read(r, false, never, "the reader at the end")
	}
}

// stays finds a promised record that is not there at the end.
func (c *checker) stays(v Value, at TP, offset int64, why string) {
	if _, ok := c.final[v]; ok || c.h.Unfinished {
		return
	}
	if there := c.sorted[true][at]; len(there) == 0 || there[len(there)-1] < offset {
		c.report(Unseen, "%d at %s offset %d, %s, is behind all that is there", v, at, offset, why)
		return
	}
	c.report(LostWrite, "%d at %s offset %d, %s, is gone", v, at, offset, why)
}

// transactions finds those of which not all is there, or nothing though they were committed.
func (c *checker) transactions() {
	for i := range c.h.Ops {
		op := &c.h.Ops[i]
		if !op.Txn || op.Outcome == Aborted || len(op.Writes) == 0 || c.h.Unfinished {
			continue
		}
		var there, gone []Value
		for _, w := range op.Writes {
			if _, ok := c.final[w.Value]; ok {
				there = append(there, w.Value)
			} else {
				gone = append(gone, w.Value)
			}
		}
		switch {
		case len(gone) == 0:
		case len(there) > 0:
			c.report(TornTransaction, "of a transaction of %s, %s, %d are there and %d are not", op.Client, op.Outcome, there, gone)
		case op.Outcome == Committed:
			c.report(LostWrite, "a committed transaction of %s is gone: %d", op.Client, gone)
		}
	}
}

// orders finds records that are there in another order than their client sent them in.
func (c *checker) orders() {
	type line struct {
		client string
		at     TP
	}
	place := map[Value]int64{}
	for _, r := range c.h.FinalAll {
		place[r.Value] = r.Offset
	}
	last := map[line]Read{}
	for i := range c.h.Ops {
		op := &c.h.Ops[i]
		for _, w := range op.Writes {
			offset, ok := place[w.Value]
			if !ok {
				continue
			}
			l := line{op.Client, w.At}
			if before, ok := last[l]; ok && before.Offset > offset {
				c.report(Reordered, "%s sent %d before %d to %s, they are at offsets %d and %d", op.Client, before.Value, w.Value, w.At, before.Offset, offset)
			}
			last[l] = Read{w.Value, w.At, offset}
		}
	}
}

// polls finds consumers that were taken back or had something kept from them.
func (c *checker) polls() {
	type line struct {
		session string
		at      TP
	}
	last := map[line]int64{}
	for i := range c.h.Polls {
		p := &c.h.Polls[i]
		for _, r := range p.Reads {
			l := line{p.Session, r.At}
			before, ok := last[l]
			last[l] = r.Offset
			switch {
			case !ok:
			case c.h.PowerLoss && !p.Committed:
				// What it was given may be gone, and other records in its place.
			case before >= r.Offset:
				c.report(NonmonotonicPoll, "%s read %s at offset %d and then at %d", p.Session, r.At, before, r.Offset)
			default:
				there := c.sorted[p.Committed][r.At]
				if n, _ := slices.BinarySearch(there, before+1); n < len(there) && there[n] < r.Offset {
					c.report(PollSkip, "%s read %s at offset %d and then at %d, but not at %d", p.Session, r.At, before, r.Offset, there[n])
				}
			}
		}
	}
}

// circles finds rings of transactions that read from each other: the strongly connected components of who read from whom.
func (c *checker) circles() {
	next := map[*Op]map[*Op]bool{}
	for i := range c.h.Ops {
		reader := &c.h.Ops[i]
		if !reader.Txn || reader.Outcome == Aborted {
			continue
		}
		for _, r := range reader.Reads {
			if w := c.writes[r.Value]; w != nil && w.op.Txn && w.op != reader {
				if next[w.op] == nil {
					next[w.op] = map[*Op]bool{}
				}
				next[w.op][reader] = true
			}
		}
	}
	// A transaction that nobody reads from, or that reads from nobody, is in no ring; taking those away again and again
	// leaves the rings and what lies between them.
	for {
		read := map[*Op]bool{}
		for _, readers := range next {
			for r := range readers {
				read[r] = true
			}
		}
		before := len(next)
		maps.DeleteFunc(next, func(op *Op, readers map[*Op]bool) bool {
			maps.DeleteFunc(readers, func(r *Op, _ bool) bool { return next[r] == nil })
			return len(readers) == 0 || !read[op]
		})
		if len(next) == before {
			break
		}
	}
	for i := range c.h.Ops {
		if op := &c.h.Ops[i]; next[op] != nil {
			c.report(Circular, "the transaction of %s that began at %d ns is in a ring of transactions that read from each other, or between two", op.Client, op.Begin)
		}
	}
}
