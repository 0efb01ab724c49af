// Package smoke is the topology of Kafka Streams' own smoke test, SmokeTestClient of its 4.3 test jar, in Go: minimum,
// maximum, sum and count of each key in windows of days, windows of seconds, suppression, joins of tables, and a table
// grouped by its values. Java's SmokeTestDriver writes its input and judges what it puts out, so topics, partitions, types
// and windows are Java's; it judges nothing itself.
package smoke

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/state"
	"github.com/moldau/moldau/stream"
	"github.com/moldau/moldau/window"
)

// AppID is the application's name, the same as Java's.
const AppID = "SmokeTest"

const (
	day = 24 * time.Hour
	// flush is the key of the records by which the driver closes all windows in the end; they count for nothing.
	flush = "flush"
	// end is a value that is echoed and counts for nothing.
	end = math.MaxInt32
	// forgotten is a value that a wrong sum leaves out. Every key has it if there are 100 records of each.
	forgotten = 50
)

// kept keeps changelogs of windows whatever their age: the driver's records are two days old, a cluster goes by its own clock.
var kept = map[string]string{"retention.ms": "-1"}

// The topics, as the driver makes them: five partitions each.
var (
	data          = stream.NewTopic("data", serde.String, serde.Int32)
	echo          = stream.NewTopic("echo", serde.String, serde.Int32)
	minimum       = stream.NewTopic("min", serde.String, serde.Int32)
	minRaw        = stream.NewTopic("min-raw", serde.String, serde.Int32)
	minSuppressed = stream.NewTopic("min-suppressed", serde.String, serde.Int32)
	swsRaw        = stream.NewTopic("sws-raw", serde.String, serde.Int32)
	swsSuppressed = stream.NewTopic("sws-suppressed", serde.String, serde.Int32)
	maximum       = stream.NewTopic("max", serde.String, serde.Int32)
	sum           = stream.NewTopic("sum", serde.String, serde.Int64)
	count         = stream.NewTopic("cnt", serde.String, serde.Int64)
	difference    = stream.NewTopic("dif", serde.String, serde.Int32)
	average       = stream.NewTopic("avg", serde.String, serde.Float64)
	keysByCount   = stream.NewTopic("tagg", serde.String, serde.Int64)
)

// State, and the topic that brings counts together.
var (
	minWindows = state.NewWindow("uwin-min", serde.String, serde.Int32).Retention(25 * time.Hour).Changelog(kept)
	maxWindows = state.NewWindow("uwin-max", serde.String, serde.Int32).Changelog(kept)
	sumWindows = state.NewWindow("win-sum", serde.String, serde.Int64).Changelog(kept)
	cntWindows = state.NewWindow("uwin-cnt", serde.String, serde.Int64).Changelog(kept)
	swsWindows = state.NewWindow("small-window-sum", serde.String, serde.Int32).Changelog(kept)
	minHeld    = state.NewWindowBuffer("min-held", serde.String, serde.Int32)
	swsHeld    = state.NewWindowBuffer("sws-held", serde.String, serde.Int32)
	minStore   = state.NewKeyValue("minStoreName", serde.String, serde.Int32)
	maxStore   = state.NewKeyValue("maxStoreName", serde.String, serde.Int32)
	sumStore   = state.NewKeyValue("sumStoreName", serde.String, serde.Int64)
	cntStore   = state.NewKeyValue("cntStoreName", serde.String, serde.Int64)
	cntByCnt   = state.NewKeyValue("cntByCnt", serde.String, serde.Int64)
	byCount    = stream.NewRepartition("by-count", serde.String, serde.Int64)
)

// Build is the topology. A wrong one has sums that leave a value out, for a judge that must notice.
func Build(b *stream.Builder, wrong bool) {
	source := b.Stream(data)
	source.FilterNot(func(k string, _ int32) bool { return k == flush }).To(echo)
	grouped := source.Filter(func(_ string, v int32) bool { return v != end }).GroupByKey()

	mins := grouped.WindowedBy(window.Tumbling(day).Grace(time.Minute)).Fold(minWindows, from(math.MaxInt32, func(a, v int32) int32 { return min(a, v) }))
	named(mins, minRaw)
	named(mins.UntilClosed(minHeld), minSuppressed)
	unwindowed(mins, minimum)

	sws := grouped.WindowedBy(window.Hopping(2*time.Second, time.Second).Grace(30*time.Second)).Reduce(swsWindows, func(a, v int32) int32 { return a + v })
	named(sws, swsRaw)
	named(sws.UntilClosed(swsHeld), swsSuppressed)

	days := grouped.WindowedBy(window.Tumbling(2 * day))
	unwindowed(days.Fold(maxWindows, from(math.MinInt32, func(a, v int32) int32 { return max(a, v) })), maximum)
	unwindowed(days.Aggregate(sumWindows, func(a int64, v int32) int64 {
		if wrong && v == forgotten {
			return a
		}
		return a + int64(v)
	}), sum)
	unwindowed(days.Count(cntWindows), count)

	minTable, maxTable := b.Table(minimum, minStore), b.Table(maximum, maxStore)
	sumTable, cntTable := b.Table(sum, sumStore), b.Table(count, cntStore)
	maxTable.Join(minTable, func(hi, lo int32) int32 { return hi - lo }).ToStream().To(difference)
	sumTable.Join(cntTable, func(s, n int64) float64 { return float64(s) / float64(n) }).ToStream().To(average)
	cntTable.GroupBy(byCount, func(_ string, n int64) (string, int64) { return strconv.FormatInt(n, 10), 1 }).
		Aggregate(cntByCnt, func(a, v int64) int64 { return a + v }, func(a, v int64) int64 { return a - v }).
		ToStream().To(keysByCount)
}

// from folds values from a start on.
func from(start int32, f func(a, v int32) int32) stream.Fold[string, int32, int32] {
	return stream.Fold[string, int32, int32]{
		Init: func() int32 { return start },
		Add:  func(a int32, r stream.Record[string, int32]) (int32, bool, error) { return f(a, r.Value), true, nil },
	}
}

// named writes a windowed table with its windows in the text of its keys, as Java's Windowed.toString has them.
func named(t *stream.WindowedKTable[string, int32], to stream.Topic[string, int32]) {
	t.ToStream().FilterNot(flushed[int32]).Map(func(k window.Key[string], v int32) (string, int32) {
		return fmt.Sprintf("[%s@%d/%d]", k.Key, k.Start.UnixMilli(), k.End.UnixMilli()), v
	}).To(to)
}

// unwindowed writes a windowed table without its windows.
func unwindowed[V any](t *stream.WindowedKTable[string, V], to stream.Topic[string, V]) {
	t.ToStream().FilterNot(flushed[V]).SelectKey(func(k window.Key[string], _ V) string { return k.Key }).To(to)
}

func flushed[V any](k window.Key[string], _ V) bool { return k.Key == flush }
