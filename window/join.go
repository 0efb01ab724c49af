package window

import (
	"errors"
	"time"
)

// JoinWindows say how far apart two records that join may be: a record of time ts on the left meets those of the right
// in [ts-before, ts+after], both ends inclusive (JoinWindows.ofTimeDifference).
type JoinWindows struct{ before, after, grace time.Duration }

// Within d of each other, earlier or later.
func Within(d time.Duration) JoinWindows { return JoinWindows{before: d, after: d} }

// Before sets how much earlier than the left record the right one may be. Negative: it must be that much later.
func (w JoinWindows) Before(d time.Duration) JoinWindows { w.before = d; return w }

// After sets how much later than the left record the right one may be. Negative: it must be that much earlier.
func (w JoinWindows) After(d time.Duration) JoinWindows { w.after = d; return w }

// Grace is how much later than its window a record may come and still join; the default is 0.
func (w JoinWindows) Grace(d time.Duration) JoinWindows { w.grace = d; return w }

// Validate names every mistake: before+after >= 0, grace >= 0, whole milliseconds.
func (w JoinWindows) Validate() error {
	var p problems
	if w.before+w.after < 0 {
		p.say("the join window ends before it starts: before is %v and after is %v; their sum must not be negative", w.before, w.after)
	}
	p.whole("before", w.before)
	p.whole("after", w.after)
	p.grace(w.grace)
	return errors.Join(p...)
}

// Reverse is the window as the right side sees it: before and after change places.
func (w JoinWindows) Reverse() JoinWindows { w.before, w.after = w.after, w.before; return w }

// BeforeMS is in milliseconds and may be negative.
func (w JoinWindows) BeforeMS() int64 { return w.before.Milliseconds() }

// AfterMS is in milliseconds and may be negative.
func (w JoinWindows) AfterMS() int64 { return w.after.Milliseconds() }

// SizeMS is before+after in milliseconds.
func (w JoinWindows) SizeMS() int64 { return w.BeforeMS() + w.AfterMS() }

// GraceMS is the grace period in milliseconds.
func (w JoinWindows) GraceMS() int64 { return w.grace.Milliseconds() }

// RetentionMS is how long each side's buffer must keep a record, counted from its time.
func (w JoinWindows) RetentionMS() int64 { return add(w.SizeMS(), w.GraceMS()) }

// Reach is the times on the other side that a record of time ts joins, both inclusive and none before the epoch.
func (w JoinWindows) Reach(ts int64) (from, to int64) {
	return max(0, ts-w.BeforeMS()), max(0, ts+w.AfterMS())
}

// Closed says whether a record of time ts on the left can no longer meet one on the right:
// ts + after + grace < streamTime. For a record on the right ask Reverse.
func (w JoinWindows) Closed(ts, streamTime int64) bool {
	return ts+w.AfterMS()+w.GraceMS() < streamTime
}
