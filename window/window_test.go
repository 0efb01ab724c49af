package window_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moldau/moldau/window"
)

const ms = time.Millisecond

func TestFor(t *testing.T) {
	for _, c := range []struct {
		name string
		w    window.TimeWindows
		ts   int64
		want []int64
	}{
		{"tumbling, first", window.Tumbling(10 * ms), 0, []int64{0}},
		{"tumbling, last of a window", window.Tumbling(10 * ms), 9, []int64{0}},
		{"tumbling, the end is in the next", window.Tumbling(10 * ms), 10, []int64{10}},
		{"hopping", window.Hopping(10*ms, 5*ms), 12, []int64{5, 10}},
		{"hopping, near the epoch", window.Hopping(10*ms, 3*ms), 5, []int64{0, 3}},
		{"hopping, not a divisor", window.Hopping(10*ms, 4*ms), 13, []int64{4, 8, 12}},
		{"before the epoch", window.Tumbling(10 * ms), -1, nil},
		{"the last time there is", window.Tumbling(10 * ms), math.MaxInt64, []int64{math.MaxInt64 / 10 * 10}},
		{"unlimited", window.Unlimited(time.Time{}), 7, []int64{0}},
		{"unlimited, at its start", window.Unlimited(time.UnixMilli(7)), 7, []int64{7}},
		{"unlimited, before its start", window.Unlimited(time.UnixMilli(8)), 7, nil},
	} {
		if got := slices.Collect(c.w.For(c.ts)); !slices.Equal(got, c.want) {
			t.Errorf("%s: %d falls into %v, want %v", c.name, c.ts, got, c.want)
		}
	}
}

// drawn gives sizes small enough for every window and time to be tried.
func drawn(r *rand.Rand, atLeast int64) time.Duration {
	return time.Duration(atLeast+r.Int64N(12)) * ms
}

func TestForAgainstEveryWindow(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 2000 {
		size := drawn(r, 1)
		advance := ms + time.Duration(r.Int64N(size.Milliseconds()))*ms
		w := window.Hopping(size, advance)
		if err := w.Validate(); err != nil {
			t.Fatal(err)
		}
		ts := r.Int64N(60)
		var want []int64
		for start := int64(0); start <= 60; start += w.AdvanceMS() {
			if start <= ts && ts < start+w.SizeMS() {
				want = append(want, start)
			}
		}
		if got := slices.Collect(w.For(ts)); !slices.Equal(got, want) {
			t.Fatalf("windows of %v by %v: %d falls into %v, want %v", size, advance, ts, got, want)
		}
	}
}

// TestClosedAgainstEveryRecord holds the law that all kinds of windows share: a window is closed when no record that is
// at most grace behind stream time could still change it.
func TestClosedAgainstEveryRecord(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	for range 2000 {
		grace := drawn(r, 0)
		streamTime := r.Int64N(80)
		closed := func(takes func(ts int64) bool) bool {
			for ts := max(0, streamTime-grace.Milliseconds()); ts <= 200; ts++ {
				if takes(ts) {
					return false
				}
			}
			return true
		}
		start, d := r.Int64N(60), drawn(r, 1)

		tumbling := window.Tumbling(d).Grace(grace)
		start0 := start / tumbling.SizeMS() * tumbling.SizeMS()
		if got, want := tumbling.Closed(start0, streamTime), closed(func(ts int64) bool {
			return slices.Contains(slices.Collect(tumbling.For(ts)), start0)
		}); got != want {
			t.Fatalf("tumbling by %v, grace %v: at %d the window from %d is closed: %v, want %v", d, grace, streamTime, start0, got, want)
		}

		sliding := window.Sliding(d).Grace(grace)
		if got, want := sliding.Closed(start, streamTime), closed(func(ts int64) bool {
			return start <= ts && ts <= sliding.EndMS(start)
		}); got != want {
			t.Fatalf("sliding over %v, grace %v: at %d the window from %d is closed: %v, want %v", d, grace, streamTime, start, got, want)
		}

		session := window.Session(d).Grace(grace)
		if got, want := session.Closed(start, streamTime), closed(func(ts int64) bool {
			from, to := session.Reach(ts)
			return from <= start && start <= to
		}); got != want {
			t.Fatalf("session with gap %v, grace %v: at %d the session until %d is closed: %v, want %v", d, grace, streamTime, start, got, want)
		}

		join := window.Within(d).Before(drawn(r, -3)).After(drawn(r, -3)).Grace(grace)
		if join.Validate() != nil {
			continue
		}
		if got, want := join.Closed(start, streamTime), closed(func(ts int64) bool { return meets(join, start, ts) }); got != want {
			t.Fatalf("join %+v: at %d the left record of %d is done: %v, want %v", join, streamTime, start, got, want)
		}
		if got, want := join.Reverse().Closed(start, streamTime), closed(func(ts int64) bool { return meets(join, ts, start) }); got != want {
			t.Fatalf("join %+v: at %d the right record of %d is done: %v, want %v", join, streamTime, start, got, want)
		}
	}
}

// meets is what a join window means, from before and after alone.
func meets(w window.JoinWindows, left, right int64) bool {
	return left-w.BeforeMS() <= right && right <= left+w.AfterMS()
}

func TestJoinReachFromBothSides(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	for range 5000 {
		w := window.Within(drawn(r, 0)).Before(drawn(r, -5)).After(drawn(r, -5))
		if w.Validate() != nil {
			continue
		}
		left, right := r.Int64N(40), r.Int64N(40)
		want := meets(w, left, right)
		if from, to := w.Reach(left); to != 0 && (from <= right && right <= to) != want {
			t.Fatalf("%+v: the left record of %d meets the right one of %d: want %v, reach %d to %d", w, left, right, want, from, to)
		}
		if from, to := w.Reverse().Reach(right); to != 0 && (from <= left && left <= to) != want {
			t.Fatalf("%+v: the right record of %d meets the left one of %d: want %v, reach %d to %d", w, right, left, want, from, to)
		}
	}
}

// TestRetention wants a store to hold whatever a record within grace may still need.
func TestRetention(t *testing.T) {
	for _, c := range []struct {
		name      string
		got, want int64
	}{
		{"tumbling", window.Tumbling(10 * ms).Grace(5 * ms).RetentionMS(), 15},
		{"hopping", window.Hopping(10*ms, 3*ms).RetentionMS(), 10},
		{"unlimited", window.Unlimited(time.Time{}).RetentionMS(), math.MaxInt64},
		{"sliding", window.Sliding(10 * ms).Grace(5 * ms).RetentionMS(), 25},
		{"session", window.Session(10 * ms).Grace(5 * ms).RetentionMS(), 15},
		{"join", window.Within(10 * ms).Before(3 * ms).Grace(5 * ms).RetentionMS(), 18},
	} {
		if c.got != c.want {
			t.Errorf("%s: %d ms, want %d", c.name, c.got, c.want)
		}
	}
}

func TestUnlimitedNeverCloses(t *testing.T) {
	w := window.Unlimited(time.Time{})
	if w.Closed(0, math.MaxInt64) || w.EndMS(0) != math.MaxInt64 {
		t.Errorf("closed: %v, end: %d", w.Closed(0, math.MaxInt64), w.EndMS(0))
	}
}

func TestValidateNamesEveryMistake(t *testing.T) {
	for _, c := range []struct {
		name string
		w    interface{ Validate() error }
		want []string
	}{
		{"tumbling", window.Tumbling(time.Hour).Grace(6 * time.Hour), nil},
		{"hopping", window.Hopping(time.Hour, time.Minute), nil},
		{"unlimited", window.Unlimited(time.UnixMilli(5)), nil},
		{"sliding", window.Sliding(0), nil},
		{"session", window.Session(time.Minute), nil},
		{"join", window.Within(0), nil},
		{"join, only later", window.Within(time.Hour).Before(-time.Minute), nil},

		{"zero value", window.TimeWindows{}, []string{"the size is 0s; it must be positive"}},
		{"hopping, all wrong", window.Hopping(1500*time.Microsecond, 2500*time.Microsecond).Grace(-1), []string{
			"windows of 1.5ms advance by 2.5ms", "the size is 1.5ms; time is counted in whole milliseconds",
			"the advance is 2.5ms", "the grace period is -1ns; it must not be negative"}},
		{"unlimited with grace", window.Unlimited(time.Time{}).Grace(ms), []string{"an unlimited window never closes"}},
		{"unlimited, early", window.Unlimited(time.UnixMilli(-1)), []string{"no record is older than the epoch"}},
		{"sliding", window.Sliding(-ms).Grace(-ms), []string{"the time difference is -1ms", "the grace period is -1ms"}},
		{"session", window.Session(0).Grace(-ms), []string{"the inactivity gap is 0s", "the grace period is -1ms"}},
		{"join", window.Within(ms).Before(-2 * ms).Grace(-ms), []string{"ends before it starts", "the grace period is -1ms"}},
		{"join, parts", window.Within(1), []string{"before is 1ns", "after is 1ns"}},
		{"forever is a size only", window.Tumbling(ms).Grace(window.Forever), []string{"the grace period is"}},
	} {
		err := c.w.Validate()
		if (err == nil) != (c.want == nil) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %v, want %q in it", c.name, err, want)
			}
		}
	}
}

func TestSpanText(t *testing.T) {
	for _, c := range []struct {
		s    window.Span
		want string
	}{
		{window.Millis(0, 3600_000), "1970-01-01T00:00:00.000Z/1970-01-01T01:00:00.000Z"},
		{window.Millis(1, math.MaxInt64), "1970-01-01T00:00:00.001Z/.."},
	} {
		if got := c.s.String(); got != c.want {
			t.Errorf("got %s, want %s", got, c.want)
		}
	}
	if k := (window.Key[string]{Key: "ORD", Span: window.Millis(0, 1)}); k.String() != "ORD@1970-01-01T00:00:00.000Z/1970-01-01T00:00:00.001Z" {
		t.Errorf("got %s", k)
	}
}
