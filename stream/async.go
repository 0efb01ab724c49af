package stream

import (
	"context"
	"math"
	"reflect"
	"time"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/topology"
)

// Async is how MapAsync makes its calls. The zero value is valid.
type Async struct {
	// MaxInFlight is how many calls a task makes at once. Default 64. No more records are taken up while as many again wait for
	// their turn, or 16 times as many results for an earlier one.
	MaxInFlight int
	// Timeout ends the context of a call, whose error the policy is then asked about. Default 10 s.
	Timeout time.Duration
}

// MapAsync replaces each value, null or not, by what f makes of its record; f may take its time, as when it asks a service or a
// database. Many calls are made at once, beside the task, which goes on meanwhile. What comes out is what TryMapValues would
// give: results leave in the order of the records, with their times and headers, so one that is slow holds up those behind it. Operators
// that follow see the stream time of the record; timers in stream time do not wait for results.
//
// Calls for one key are made one after another; records without a key have no order among them. f is called by several goroutines
// and must not change what it is given, nor may anybody else: an aggregator that works in place hands on copies. f must
// heed ctx, which ends after the timeout, and when the task is given up: at a stop, a rebalance, or when an epoch is undone.
//
// The commit of the task waits for its calls, so results and positions are committed together; other tasks do not wait.
// Results are there exactly once, but what f does outside happens at least once: after a crash, a rebalance or a failed commit,
// and when the error policy tries again, it is called again for the same record. Of an error, a panic included, the policy decides;
// a retry repeats the one call.
func (s *KStream[K, V]) MapAsync[V2 any](how Async, f func(ctx context.Context, r Record[K, V]) (V2, error)) *KStream[K, V2] {
	s.b.given(f != nil)
	n := &topology.Node{Kind: "mapAsync", Parents: []*topology.Node{s.n}, At: where()}
	if how.MaxInFlight < 0 || how.Timeout < 0 {
		s.b.graph.Fail(topology.ErrConflict, n.At, "MaxInFlight is %d and Timeout %v: they cannot be negative", how.MaxInFlight, how.Timeout)
	}
	if how.MaxInFlight == 0 {
		how.MaxInFlight = 64
	}
	if how.Timeout == 0 {
		how.Timeout = 10 * time.Second
	}
	null2 := nullness[V2]()
	add(s.b, n, func(env flow.Env, down fn[K, V2]) (fn[K, V], error) {
		ask := env.Calls(n.ID, how.MaxInFlight, how.Timeout)
		return func(c *flow.Ctx, k K, v V) {
			r := record(c, k, v)
			var v2 V2
			call := flow.Call{
				Run: func(ctx context.Context) error {
					return flow.Safely(func() (err error) {
						v2, err = f(ctx, r)
						return err
					})
				},
				Land: func(c *flow.Ctx) {
					c.Null = null2.of(v2)
					down(c, k, v2)
				},
			}
			if !c.KeyNull {
				call.Lane = lane(k)
			}
			ask(c, call)
		}, nil
	})
	return &KStream[K, V2]{s.b, n}
}

// lane is a number that equal keys have in common, whatever their type. That others may have it as well costs time and no more.
// It is not 0.
func lane[K any](k K) uint64 {
	h := fnv(14695981039346656037)
	h.add(reflect.ValueOf(&k).Elem())
	return uint64(h) | 1
}

// fnv is FNV-1a, 64 bits, a number or a byte at a time.
type fnv uint64

func (h *fnv) mix(n uint64) { *h = (*h ^ fnv(n)) * 1099511628211 }

func (h *fnv) add(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		s := v.String()
		for i := range len(s) {
			h.mix(uint64(s[i]))
		}
		h.mix(uint64(len(s)))
	case reflect.Bool:
		if v.Bool() {
			h.mix(1)
		} else {
			h.mix(0)
		}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		h.mix(uint64(v.Int()))
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		h.mix(v.Uint())
	case reflect.Float32, reflect.Float64:
		h.mix(math.Float64bits(v.Float() + 0)) // -0 is equal to 0
	case reflect.Complex64, reflect.Complex128:
		h.mix(math.Float64bits(real(v.Complex()) + 0))
		h.mix(math.Float64bits(imag(v.Complex()) + 0))
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() && v.Type() != reflect.TypeFor[*time.Location]() {
			h.add(v.Elem())
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			h.add(v.Index(i))
		}
		h.mix(uint64(v.Len()))
	case reflect.Struct:
		for i := range v.NumField() {
			h.add(v.Field(i))
		}
	case reflect.Map:
		h.mix(uint64(v.Len())) // it has no order
	}
}
