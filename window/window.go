// Package window is window arithmetic: which windows a time falls into, when a window closes, how long a store must
// keep it, and how a windowed key is written in a topic. It keeps no state and knows no clock.
//
// Times are those of records, in milliseconds since the epoch; stream time is the greatest of them that an operator
// has seen. One law holds for all kinds: a window is closed when no record that is at most the grace period behind
// stream time could still change it. These are Kafka Streams' rules to the millisecond.
//
// The types are values and their methods return copies. Validate reports every mistake at once; the other methods
// count on its having been asked.
package window

import (
	"fmt"
	"math"
	"time"
)

// A Span is the time of one window: [Start, End) for tumbling, hopping and unlimited windows, [Start, End] for
// sliding and session windows. The spans this package makes are in UTC, so they compare with ==.
type Span struct{ Start, End time.Time }

// Millis is the span between two times in milliseconds since the epoch.
func Millis(start, end int64) Span {
	return Span{time.UnixMilli(start).UTC(), time.UnixMilli(end).UTC()}
}

func (s Span) String() string {
	const layout = "2006-01-02T15:04:05.000Z07:00"
	if s.End.UnixMilli() == math.MaxInt64 {
		return s.Start.Format(layout) + "/.."
	}
	return s.Start.Format(layout) + "/" + s.End.Format(layout)
}

// A Key is a key in one of its windows (Kafka Streams' Windowed).
type Key[K any] struct {
	Key K
	Span
}

func (k Key[K]) String() string { return fmt.Sprintf("%v@%v", k.Key, k.Span) }

// Forever is the size of an unlimited window.
const Forever time.Duration = math.MaxInt64

// add is a+b for b >= 0, held at the last time there is.
func add(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// problems gathers what Validate finds.
type problems []error

func (p *problems) say(format string, args ...any) {
	*p = append(*p, fmt.Errorf("window: "+format, args...))
}

// whole says that time in Kafka has no parts of a millisecond.
func (p *problems) whole(what string, d time.Duration) {
	if d%time.Millisecond != 0 {
		p.say("%s is %v; time is counted in whole milliseconds", what, d)
	}
}

// grace says what is wrong with a grace period.
func (p *problems) grace(d time.Duration) {
	if d < 0 {
		p.say("the grace period is %v; it must not be negative", d)
	}
	p.whole("the grace period", d)
}
