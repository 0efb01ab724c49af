package stream

import (
	"time"

	"github.com/moldau/moldau/internal/flow"
)

// Header is one record header. A nil Value is Kafka's null.
//
//	type Header struct {
//		Key   string
//		Value []byte
//	}
type Header = flow.Header

// Record is what functions see that want more than the value.
type Record[K, V any] struct {
	Key     K
	Value   V
	KeyNull bool // the key is Kafka's null; Key is zero
	Null    bool // the value is Kafka's null; Value is zero
	Time    time.Time
	Headers []Header // valid during the call; whoever keeps them copies them
}

// With is r with another value: key, time and headers stay.
func (r Record[K, V]) With[V2 any](v V2) Record[K, V2] {
	return Record[K, V2]{Key: r.Key, KeyNull: r.KeyNull, Value: v, Null: nullness[V2]().of(v), Time: r.Time, Headers: r.Headers}
}

// WithKey is r with another key.
func (r Record[K, V]) WithKey[K2 any](k K2) Record[K2, V] {
	return Record[K2, V]{Key: k, KeyNull: nullness[K2]().of(k), Value: r.Value, Null: r.Null, Time: r.Time, Headers: r.Headers}
}

// record is the record that a context and a function's arguments make up.
func record[K, V any](c *flow.Ctx, k K, v V) Record[K, V] {
	return Record[K, V]{Key: k, Value: v, KeyNull: c.KeyNull, Null: c.Null, Time: utc(c.Time), Headers: c.Headers}
}

func utc(ms int64) time.Time { return time.UnixMilli(ms).UTC() }
