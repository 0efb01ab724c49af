package window

import (
	"errors"
	"iter"
	"math"
	"time"
)

// TimeWindows are windows of one fixed size, [start, start+size), aligned to the epoch.
type TimeWindows struct {
	size, advance, grace time.Duration
	from                 int64 // unlimited windows: the start, ms
}

// Tumbling windows follow one another: every time is in exactly one (TimeWindows.ofSizeWithNoGrace).
func Tumbling(size time.Duration) TimeWindows { return TimeWindows{size: size, advance: size} }

// Hopping windows start every advance and overlap: a time is in about size/advance of them (TimeWindows.advanceBy).
func Hopping(size, advance time.Duration) TimeWindows {
	return TimeWindows{size: size, advance: advance}
}

// Unlimited is one window that starts at from and never closes (UnlimitedWindows.startOn). The zero from is the epoch.
func Unlimited(from time.Time) TimeWindows {
	w := TimeWindows{size: Forever, advance: Forever}
	if !from.IsZero() {
		w.from = from.UnixMilli()
	}
	return w
}

// Grace is how much later than the end of a window its records may come; the default is 0. A window closes when stream
// time reaches end+grace.
func (w TimeWindows) Grace(d time.Duration) TimeWindows { w.grace = d; return w }

// Validate names every mistake: 0 < advance <= size, grace >= 0, whole milliseconds.
func (w TimeWindows) Validate() error {
	var p problems
	if w.unlimited() {
		if w.advance != Forever || w.grace != 0 {
			p.say("an unlimited window never closes; it takes neither advance nor grace period")
		}
		if w.from < 0 {
			p.say("the window starts at %d ms; no record is older than the epoch", w.from)
		}
		return errors.Join(p...)
	}
	if w.size <= 0 {
		p.say("the size is %v; it must be positive", w.size)
	}
	if w.advance <= 0 || w.advance > w.size {
		p.say("windows of %v advance by %v; the advance must be positive and no more than the size", w.size, w.advance)
	}
	p.whole("the size", w.size)
	if w.advance != w.size {
		p.whole("the advance", w.advance)
	}
	p.grace(w.grace)
	return errors.Join(p...)
}

func (w TimeWindows) unlimited() bool { return w.size == Forever }

// SizeMS is the size in milliseconds; unlimited windows have [math.MaxInt64].
func (w TimeWindows) SizeMS() int64 { return sizeMS(w.size) }

func sizeMS(d time.Duration) int64 {
	if d == Forever {
		return math.MaxInt64
	}
	return d.Milliseconds()
}

// AdvanceMS is the distance between two starts in milliseconds.
func (w TimeWindows) AdvanceMS() int64 { return sizeMS(w.advance) }

// GraceMS is the grace period in milliseconds.
func (w TimeWindows) GraceMS() int64 { return w.grace.Milliseconds() }

// RetentionMS is how long a store must keep a window, counted from its start.
func (w TimeWindows) RetentionMS() int64 { return add(w.SizeMS(), w.GraceMS()) }

// EndMS is the end of the window that starts at start.
func (w TimeWindows) EndMS(start int64) int64 { return add(start, w.SizeMS()) }

// For is the starts of the windows that ts falls into, oldest first. No window starts before the epoch, so a
// negative ts has none.
func (w TimeWindows) For(ts int64) iter.Seq[int64] {
	return func(yield func(start int64) bool) {
		if w.unlimited() {
			if ts >= w.from {
				yield(w.from)
			}
			return
		}
		size, advance := w.SizeMS(), w.AdvanceMS()
		for start := max(0, ts-size+advance) / advance * advance; start <= ts; start += advance {
			if !yield(start) || start > math.MaxInt64-advance {
				return
			}
		}
	}
}

// Closed says whether the window that starts at start takes no more records: end <= streamTime - grace.
func (w TimeWindows) Closed(start, streamTime int64) bool {
	return !w.unlimited() && add(w.EndMS(start), w.GraceMS()) <= streamTime
}
