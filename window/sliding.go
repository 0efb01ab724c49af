package window

import (
	"errors"
	"time"
)

// SlidingWindows are the windows [t-diff, t] and [t+1, t+1+diff] of each record's time t: one for every distinct set of
// records that lie within diff of each other (SlidingWindows.ofTimeDifference). Both ends are inclusive.
type SlidingWindows struct{ diff, grace time.Duration }

// Sliding windows span at most diff between their first and last record.
func Sliding(diff time.Duration) SlidingWindows { return SlidingWindows{diff: diff} }

// Grace is how much later than the end of a window its records may come; the default is 0.
func (w SlidingWindows) Grace(d time.Duration) SlidingWindows { w.grace = d; return w }

// Validate names every mistake: diff >= 0, grace >= 0, whole milliseconds.
func (w SlidingWindows) Validate() error {
	var p problems
	if w.diff < 0 {
		p.say("the time difference is %v; it must not be negative", w.diff)
	}
	p.whole("the time difference", w.diff)
	p.grace(w.grace)
	return errors.Join(p...)
}

// DiffMS is the time difference in milliseconds.
func (w SlidingWindows) DiffMS() int64 { return w.diff.Milliseconds() }

// GraceMS is the grace period in milliseconds.
func (w SlidingWindows) GraceMS() int64 { return w.grace.Milliseconds() }

// RetentionMS is how long a store must keep a window, counted from its start: a late record looks back two differences.
func (w SlidingWindows) RetentionMS() int64 {
	return add(w.GraceMS(), add(w.DiffMS(), w.DiffMS()))
}

// EndMS is the last time in the window that starts at start.
func (w SlidingWindows) EndMS(start int64) int64 { return add(start, w.DiffMS()) }

// Closed says whether the window that starts at start takes no more records: end < streamTime - grace. A record of time
// ts is late when Closed(ts, streamTime): then even the youngest window with it, the one that starts with it, is
// closed.
func (w SlidingWindows) Closed(start, streamTime int64) bool {
	return add(w.EndMS(start), w.GraceMS()) < streamTime
}
