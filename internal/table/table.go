// Package table holds the state of a task in memory: typed stores with epochs. An update is a search in a hash table and
// a write to a slot; what a transaction would need to take it back is noted once per key and epoch; at the end of an epoch each key
// that changed is encoded once, for the changelog and for the tier below.
//
// A value that can be written through a copy (it holds pointers, slices, maps or interfaces) is kept as bytes, with a
// decoded value beside them while it is in use, so that a function may write into what it is given and an undo still finds
// what was. All other values are kept as they are.
//
// A table may hold less than there is: then what is missing is read from the tier, a filter in memory answers for keys that
// are nowhere, and Shrink lets entries go that the tier has. What an open epoch has touched stays.
//
// The package knows neither Kafka nor a disk nor the clock, and starts nothing. One goroutine at a time uses a store.
package table

import (
	"errors"
	"reflect"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/serde"
)

// Ref is an entry that was touched. It is good until the store's next Changes, Seal or Undo.
type Ref struct{ tab, at uint32 }

// Change is an update of one key: what it was before and is now. Without WasLive there was no value, without Live there
// is none any more.
type Change[V any] struct {
	Old, New      V
	WasLive, Live bool
	Time          int64 // of the last update, ms
	Headers       []flow.Header
}

// ErrDamaged is something in the tier or on the changelog that is not what this store would have written.
var ErrDamaged = errors.New("damaged store")

// byValue is whether V can be kept as it is.
func byValue[V any]() bool { return !shares(reflect.TypeFor[V]()) }

func newCoded[V any](v serde.Serde[V]) *coded[V] {
	return &coded[V]{serde: v, worth: worth, flat: reflect.TypeFor[V]() == reflect.TypeFor[[]byte]()}
}
