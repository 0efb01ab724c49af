package log

import (
	"cmp"
	"slices"
	"sort"
)

// openTxn is a transaction whose first batch is visible and whose marker is not.
type openTxn struct {
	pid   int64
	first int64
}

// AbortedTxn is one entry of the list that tells a read_committed reader what to skip.
type AbortedTxn struct {
	ProducerID  int64
	FirstOffset int64
}

// aborted is one aborted transaction of a partition.
type aborted struct {
	pid    int64
	first  int64 // offset of its first batch
	marker int64 // offset of its marker
	stable int64 // last stable offset right behind the marker: later entries start there or above
}

// txns is what readers of a partition must know of its transactions, as far as they are visible. Guarded by the
// partition's mu.
type txns struct {
	open    []openTxn // by first offset
	aborted []aborted // by marker
}

// data sees a visible batch of a transaction.
func (t *txns) data(pid, base int64) {
	for i := range t.open {
		if t.open[i].pid == pid {
			return
		}
	}
	t.open = append(t.open, openTxn{pid: pid, first: base})
}

// end sees a visible marker at offset; hw is the high watermark behind it.
func (t *txns) end(pid, offset, hw int64, commit bool) {
	i := slices.IndexFunc(t.open, func(o openTxn) bool { return o.pid == pid })
	if i < 0 {
		return // a transaction without batches here, or a marker written twice
	}
	first := t.open[i].first
	t.open = slices.Delete(t.open, i, i+1)
	if !commit {
		t.aborted = append(t.aborted, aborted{pid: pid, first: first, marker: offset, stable: t.stable(hw)})
	}
}

// stable is the last stable offset below the high watermark hw.
func (t *txns) stable(hw int64) int64 {
	if len(t.open) > 0 {
		return min(t.open[0].first, hw)
	}
	return hw
}

// between lists the aborted transactions with batches or marker in [from, to), by first offset.
func (t *txns) between(from, to int64) []AbortedTxn {
	list := []AbortedTxn{}
	i := sort.Search(len(t.aborted), func(i int) bool { return t.aborted[i].marker >= from })
	for ; i < len(t.aborted); i++ {
		a := &t.aborted[i]
		if a.first < to {
			list = append(list, AbortedTxn{ProducerID: a.pid, FirstOffset: a.first})
		}
		if a.stable >= to {
			break
		}
	}
	slices.SortFunc(list, func(a, b AbortedTxn) int {
		return cmp.Or(cmp.Compare(a.FirstOffset, b.FirstOffset), cmp.Compare(a.ProducerID, b.ProducerID))
	})
	return list
}

// dropBelow forgets aborted transactions nobody can read any more.
func (t *txns) dropBelow(logStart int64) {
	i := sort.Search(len(t.aborted), func(i int) bool { return t.aborted[i].marker >= logStart })
	t.aborted = slices.Delete(t.aborted, 0, i)
}
