package histories

import (
	"slices"
	"testing"
)

var (
	p0 = TP{"t", 0}
	p1 = TP{"t", 1}
)

// sound is a history without fault: two records, a transaction over two partitions, one that was aborted, and a copy.
func sound() *History {
	in := TP{"in", 0}
	return &History{
		Ops: []Op{
			{Client: "a", Begin: 1, End: 10, Writes: []Write{{Value: 1, At: p0, Offset: 0}, {Value: 2, At: p0, Offset: 1}}},
			{Client: "b", Txn: true, Begin: 11, Asked: 15, End: 20, Outcome: Committed, Writes: []Write{{Value: 3, At: p0, Offset: 2}, {Value: 4, At: p1, Offset: 0}}},
			{Client: "b", Txn: true, Begin: 21, End: 30, Outcome: Aborted, Writes: []Write{{Value: 5, At: p0, Offset: 4}}},
			{Client: "a", Begin: 31, End: 40, Writes: []Write{{Value: 6, At: in, Offset: 0}}},
			{Client: "c", Txn: true, Begin: 41, Asked: 45, End: 50, Outcome: Committed, Group: "copy", Offsets: []PartitionOffset{{in, 1}},
				Reads: []Read{{6, in, 0}}, Writes: []Write{{Value: 7, At: p1, Offset: 2, From: 6}}},
		},
		Polls: []Poll{
			{Session: "r", Committed: true, Begin: 12, End: 22, Reads: []Read{{1, p0, 0}, {2, p0, 1}, {3, p0, 2}}},
			{Session: "u", Begin: 22, End: 29, Reads: []Read{{2, p0, 1}, {3, p0, 2}, {5, p0, 4}}},
		},
		Ends: []Ends{
			{At: p0, Begin: 5, End: 6, Stable: 1, High: 2},
			{At: p0, Begin: 23, End: 24, Stable: 4, High: 5},
		},
		Positions: []Position{
			{Group: "copy", At: in, Begin: 42, End: 44, Offset: -1},
			{Group: "copy", At: in, Begin: 51, End: 52, Offset: 1},
		},
		Closing:  []Ends{{At: p0, Begin: 60, End: 61, Stable: 6, High: 6}, {At: p1, Begin: 60, End: 61, Stable: 4, High: 4}},
		Final:    []Read{{1, p0, 0}, {2, p0, 1}, {3, p0, 2}, {4, p1, 0}, {6, in, 0}, {7, p1, 2}},
		FinalAll: []Read{{1, p0, 0}, {2, p0, 1}, {3, p0, 2}, {5, p0, 4}, {4, p1, 0}, {6, in, 0}, {7, p1, 2}},
	}
}

// without takes a record out of what is there at the end.
func (h *History) without(v Value) {
	gone := func(r Read) bool { return r.Value == v }
	h.Final, h.FinalAll = slices.DeleteFunc(h.Final, gone), slices.DeleteFunc(h.FinalAll, gone)
}

func (h *History) add(r Read) { h.Final, h.FinalAll = append(h.Final, r), append(h.FinalAll, r) }

func TestCheck(t *testing.T) {
	in := TP{"in", 0}
	for _, c := range []struct {
		name string
		edit func(*History)
		want []Kind
	}{
		{"nothing", func(*History) {}, nil},
		{"an acknowledged record is gone", func(h *History) { h.without(2); h.Polls = nil }, []Kind{LostWrite}},
		{"the last record is gone", func(h *History) { h.without(6); h.without(7); h.Ops, h.Positions = h.Ops[:4], nil }, []Kind{Unseen}},
		{"a record without an answer is gone", func(h *History) { h.without(2); h.Polls = nil; h.Ops[0].Writes[1].Offset = -1 }, nil},
		{"it was read", func(h *History) { h.without(2); h.Polls = h.Polls[:1]; h.Ops[0].Writes[1].Offset = -1 }, []Kind{LostWrite}},
		{"a committed transaction is gone", func(h *History) { h.without(3); h.without(4); h.Polls = nil }, []Kind{LostWrite}},
		{"one without an answer is gone", func(h *History) { h.without(3); h.without(4); h.Polls = nil; h.Ops[1].Outcome = Unknown }, nil},
		{"half of it is gone", func(h *History) { h.without(4) }, []Kind{TornTransaction}},
		{"half of one without an answer is there", func(h *History) { h.without(4); h.Ops[1].Outcome = Unknown }, []Kind{TornTransaction}},
		{"a record twice", func(h *History) { h.add(Read{2, p0, 5}) }, []Kind{Duplicate}},
		{"acknowledged elsewhere", func(h *History) { h.Ops[0].Writes[1].Offset = 5 }, []Kind{Duplicate}},
		{"two records at one place", func(h *History) { h.Ops[0].Writes = append(h.Ops[0].Writes, Write{Value: 9, At: p0, Offset: 1}) }, []Kind{InconsistentOffsets, LostWrite}},
		{"a record from nowhere", func(h *History) { h.add(Read{99, p1, 9}) }, []Kind{PhantomRead}},
		{"a record in another partition", func(h *History) { h.Ops[0].Writes[1].At = p1; h.Ops[0].Writes[1].Offset = -1 }, []Kind{PhantomRead}},
		{"an aborted record is there", func(h *History) { h.Final = append(h.Final, Read{5, p0, 4}) }, []Kind{AbortedRead}},
		{"an aborted record was read", func(h *History) { h.Polls[1].Committed = true; h.Ends = nil }, []Kind{AbortedRead, Unseen}},
		{"read before the commit was asked for", func(h *History) { h.Polls[0].End = 14 }, []Kind{UncommittedRead}},
		{"its own record", func(h *History) { h.Ops[1].Reads = []Read{{3, p0, 2}} }, []Kind{UncommittedRead}},
		{"sent in another order", func(h *History) {
			h.Ops[0].Writes[0], h.Ops[0].Writes[1] = h.Ops[0].Writes[1], h.Ops[0].Writes[0]
		}, []Kind{Reordered}},
		{"taken back", func(h *History) { slices.Reverse(h.Polls[0].Reads) }, []Kind{NonmonotonicPoll}},
		{"taken back to what the power has left", func(h *History) { slices.Reverse(h.Polls[1].Reads); h.PowerLoss = true }, nil},
		{"a record passed over", func(h *History) { h.Polls[0].Reads = slices.Delete(h.Polls[0].Reads, 1, 2) }, []Kind{PollSkip}},
		{"an aborted record passed over", func(h *History) {
			h.Polls[1].Reads = []Read{{3, p0, 2}}
			h.Polls = append(h.Polls, Poll{Session: "u", Begin: 30, End: 31, Reads: []Read{{99, p0, 5}}})
			h.Ops[0].Writes = append(h.Ops[0].Writes, Write{Value: 99, At: p0, Offset: 5})
			h.add(Read{99, p0, 5})
		}, []Kind{PollSkip}},
		{"the stable offset goes back", func(h *History) { h.Ends[1].Stable = 0 }, []Kind{EndsWentBack}},
		{"the high watermark goes back", func(h *History) { h.Ends[0].High = 9 }, []Kind{EndsWentBack}},
		{"the power fails and the high watermark goes back", func(h *History) { h.Ends[0].High = 9; h.PowerLoss = true }, nil},
		{"less is stable than was read", func(h *History) { h.Ends[1].Stable = 2 }, []Kind{EndsWentBack}},
		{"more is stable than there is", func(h *History) { h.Ends[1].Stable = 6 }, []Kind{EndsWentBack}},
		{"a transaction hangs", func(h *History) { h.Closing[1].Stable = 3 }, []Kind{HungTransaction}},
		{"an offset goes back", func(h *History) { h.Positions[1].Offset = -1 }, []Kind{LostCommit}},
		{"an offset from nowhere", func(h *History) { h.Positions[1].Offset = 7 }, []Kind{PhantomCommit}},
		{"an offset before its commit", func(h *History) { h.Positions[0].Offset = 1 }, []Kind{PhantomCommit}},
		{"an offset of an aborted transaction", func(h *History) {
			h.Ops[4].Outcome = Aborted
			h.without(7)
		}, []Kind{PhantomCommit, Unprocessed}},
		{"taken up twice", func(h *History) {
			again := h.Ops[4]
			again.Begin, again.Asked, again.End, again.Writes = 53, 54, 55, []Write{{Value: 8, At: p1, Offset: 5, From: 6}}
			h.Ops = append(h.Ops, again)
			h.add(Read{8, p1, 5})
		}, []Kind{ProcessedTwice}},
		{"passed over", func(h *History) {
			h.Ops[3].Writes = append(h.Ops[3].Writes, Write{Value: 10, At: in, Offset: 1})
			h.add(Read{10, in, 1})
			h.Positions[1].Offset = 2
			h.Ops[4].Offsets[0].Offset = 2
		}, []Kind{Unprocessed}},
		{"the end is not reached", func(h *History) {
			h.Unfinished, h.Closing, h.Final, h.FinalAll = true, nil, nil, nil
		}, nil},
		{"it is not, and an offset goes back", func(h *History) {
			h.Unfinished, h.Closing, h.Final, h.FinalAll = true, nil, nil, nil
			h.Positions[1].Offset = -1
		}, []Kind{LostCommit}},
		{"two transactions read from each other", func(h *History) {
			h.Ops[1].Reads, h.Ops[4].Reads = []Read{{7, p1, 2}}, append(h.Ops[4].Reads, Read{3, p0, 2})
		}, []Kind{Circular}},
	} {
		h := sound()
		c.edit(h)
		var got []Kind
		found := Check(h)
		for _, a := range found {
			got = append(got, a.Kind)
		}
		slices.Sort(got)
		slices.Sort(c.want)
		if !slices.Equal(slices.Compact(got), c.want) {
			t.Errorf("%s: %v, want %q", c.name, found, c.want)
		}
	}
}
