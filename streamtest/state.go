package streamtest

import (
	"github.com/moldau/moldau/internal/table"
	"github.com/moldau/moldau/state"
)

// Get reads a key of a table, committed or not, from whichever task has it.
func Get[K, V any](d *Driver, h state.Table[K, V], k K) (v V, ok bool) {
	d.tb.Helper()
	for _, s := range d.Stores(h.Spec().Name) {
		v, _, ok, err := s.(*table.KV[K, V]).Get(k)
		d.must(err)
		if ok {
			return v, true
		}
	}
	return v, false
}
