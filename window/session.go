package window

import (
	"errors"
	"time"
)

// SessionWindows are runs of records of one key with no gap longer than a given one (SessionWindows.ofInactivityGap). A
// session is [first record, last record]; a new record joins and merges every session within the gap, records exactly a
// gap apart included.
type SessionWindows struct{ gap, grace time.Duration }

// Session windows end after a gap without records.
func Session(gap time.Duration) SessionWindows { return SessionWindows{gap: gap} }

// Grace is how much later than the end of a session, gap included, its records may come; the default is 0.
func (w SessionWindows) Grace(d time.Duration) SessionWindows { w.grace = d; return w }

// Validate names every mistake: gap > 0, grace >= 0, whole milliseconds.
func (w SessionWindows) Validate() error {
	var p problems
	if w.gap <= 0 {
		p.say("the inactivity gap is %v; it must be positive", w.gap)
	}
	p.whole("the inactivity gap", w.gap)
	p.grace(w.grace)
	return errors.Join(p...)
}

// GapMS is the inactivity gap in milliseconds.
func (w SessionWindows) GapMS() int64 { return w.gap.Milliseconds() }

// GraceMS is the grace period in milliseconds.
func (w SessionWindows) GraceMS() int64 { return w.grace.Milliseconds() }

// RetentionMS is how long a store must keep a session, counted from its end.
func (w SessionWindows) RetentionMS() int64 { return add(w.GapMS(), w.GraceMS()) }

// Reach is the times between which a session that a record of time ts joins must have a record: sessions whose end is
// at least from and whose start is at most to. from is negative within a gap of the epoch.
func (w SessionWindows) Reach(ts int64) (from, to int64) { return ts - w.GapMS(), add(ts, w.GapMS()) }

// Closed says whether a session that ends at end takes no more records: end < streamTime - grace - gap. A
// record is late when the session it would make, merged with those in its reach, is closed.
func (w SessionWindows) Closed(end, streamTime int64) bool {
	return add(end, w.RetentionMS()) < streamTime
}
