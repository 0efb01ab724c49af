package streamtest

import (
	"time"

	"github.com/moldau/moldau/internal/table"
	"github.com/moldau/moldau/state"
	"github.com/moldau/moldau/stream"
	"github.com/moldau/moldau/window"
)

// Get reads a key of a table, committed or not, from whichever task has it.
func Get[K, V any](d *Driver, h state.Table[K, V], k K) (v V, ok bool) {
	d.tb.Helper()
	for _, s := range d.Stores(h.Spec().Name) {
		v, _, ok, err := s.(interface {
			Get(K) (V, int64, bool, error)
		}).Get(k)
		d.must(err)
		if ok {
			return v, true
		}
	}
	return v, false
}

// GetAsOf reads a key of a versioned store as of a time, committed or not, from whichever task has it.
func GetAsOf[K, V any](d *Driver, h state.Versioned[K, V], k K, at time.Time) (v V, ok bool) {
	d.tb.Helper()
	for _, s := range d.Stores(h.Spec().Name) {
		v, _, ok, err := s.(*table.Versions[K, V]).AsOf(k, at.UnixMilli())
		d.must(err)
		if ok {
			return v, true
		}
	}
	return v, false
}

// Rows are all rows of a table that is not versioned, committed or not: by partition, then in the order of key bytes.
func Rows[K, V any](d *Driver, h state.Table[K, V]) (rows []stream.Record[K, V]) {
	d.tb.Helper()
	for _, s := range d.Stores(h.Spec().Name) {
		d.must(s.(*table.KV[K, V]).Range(nil, nil, func(k K, v V, at int64) bool {
			rows = append(rows, stream.Record[K, V]{Key: k, Value: v, Time: time.UnixMilli(at).UTC()})
			return true
		}))
	}
	return rows
}

// Pane is one window of a window store. Time is that of the last record in it.
type Pane[K, V any] struct {
	Key   K
	Start time.Time
	Value V
	Time  time.Time
}

// Panes are all windows of a store, committed or not: by partition, start and key bytes.
func Panes[K, V any](d *Driver, h state.Window[K, V]) (panes []Pane[K, V]) {
	d.tb.Helper()
	for _, s := range d.Stores(h.Spec().Name) {
		d.must(s.(*table.Windows[K, V]).FetchAll(0, 1<<62, func(k K, start int64, v V, at int64) bool {
			panes = append(panes, Pane[K, V]{k, time.UnixMilli(start).UTC(), v, time.UnixMilli(at).UTC()})
			return true
		}))
	}
	return panes
}

// Sessions are all sessions of a store, committed or not: by partition, end, start and key bytes. Time is that of the record
// that last changed one.
func Sessions[K, V any](d *Driver, h state.Session[K, V]) (sessions []stream.Record[window.Key[K], V]) {
	d.tb.Helper()
	for _, s := range d.Stores(h.Spec().Name) {
		d.must(s.(*table.Sessions[K, V]).FindAll(0, 1<<62, func(k K, start, end int64, v V, at int64) bool {
			key := window.Key[K]{Key: k, Span: window.Millis(start, end)}
			sessions = append(sessions, stream.Record[window.Key[K], V]{Key: key, Value: v, Time: time.UnixMilli(at).UTC()})
			return true
		}))
	}
	return sessions
}
