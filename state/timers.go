package state

import (
	"encoding/binary"
	"math"
	"time"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/internal/table"
	"github.com/moldau/moldau/serde"
)

// Timers names a store of durable timers, one per key, that a processor sets and that call it back; see Scope.OnTimer of package
// stream. They survive restarts, are taken back with the epoch that set them, and their calls are committed with what these do.
// By default they are in the task's stream time: a call comes with the first record that brings it to the timer's time or later.
//
// Its changelog is a key-value store's with two records per timer: 'k' and the key, with the time in ms as 8 bytes big-endian;
// and 't', the time and the key.
type Timers[K any] struct {
	spec *flow.StoreSpec
	keys serde.Serde[K]
	wall bool
}

// NewTimers declares a store of timers.
func NewTimers[K any](name string, k serde.Serde[K]) Timers[K] {
	h := Timers[K]{spec: newSpec(flow.KeyValue, name), keys: k}
	h.spec.Ordered = true
	h.spec.New = func(env flow.StoreEnv) (flow.Store, error) { return table.NewKV(env, serde.Bytes, serde.Bytes) }
	written(h.spec, k, serde.Bytes)
	return h
}

// Spec is for the project's own packages.
func (h Timers[K]) Spec() *flow.StoreSpec { return h.spec }

// WallClock takes the times of timers from the wall clock. They are looked at every 100 ms.
func (h Timers[K]) WallClock() Timers[K] { h.wall = true; return h }

// Open is called by a processor in Init, once per task.
func (h Timers[K]) Open(o Opener) *TimerStore[K] {
	return &TimerStore[K]{kv: OpenKeyValue[[]byte, []byte](o, h.spec), keys: h.keys, wall: h.wall, next: math.MinInt64}
}

// TimerStore is a task's timers as its processors see them.
type TimerStore[K any] struct {
	kv   *KV[[]byte, []byte]
	keys serde.Serde[K]
	wall bool
	next int64 // no timer is earlier; math.MinInt64: not known
}

// Wall says whether the times are those of the wall clock.
func (s *TimerStore[K]) Wall() bool { return s.wall }

// Set sets the timer of a key, in place of the one it may have. A time that has come calls at the next occasion.
func (s *TimerStore[K]) Set(k K, at time.Time) {
	key, ok := s.key(k)
	if !ok {
		return
	}
	s.drop(key)
	ms := at.UnixMilli()
	s.kv.Put(key, binary.BigEndian.AppendUint64(nil, uint64(ms)))
	s.kv.Put(queued(ms, key[1:]), []byte{1})
	s.next = min(s.next, ms)
}

// Cancel takes the timer of a key away.
func (s *TimerStore[K]) Cancel(k K) {
	if key, ok := s.key(k); ok {
		s.drop(key)
	}
}

// Get is the time of a key's timer.
func (s *TimerStore[K]) Get(k K) (at time.Time, ok bool) {
	key, ok := s.key(k)
	if !ok {
		return at, false
	}
	ms, ok := s.at(key)
	return utc(ms), ok
}

// Due takes away the timers up to now, in the order of their times and of the bytes of their keys, and calls f for each until it
// returns false. A timer that f sets is left for the next call. It is for the project's own packages.
func (s *TimerStore[K]) Due(now int64, f func(k K, at int64) bool) {
	if s.next > now {
		return
	}
	var due [][]byte
	for entry := range s.kv.From([]byte{'t'}) {
		if timeOf(entry) > now {
			break
		}
		due = append(due, append([]byte{}, entry...))
	}
	for _, entry := range due {
		key := append([]byte{'k'}, entry[9:]...)
		at, ok := s.at(key)
		if !ok || at != timeOf(entry) {
			continue // f has cancelled or moved it
		}
		s.drop(key)
		k, err := s.keys.Decode(entry[9:])
		if c, node := s.kv.step(); c == nil || fail(c, node, err) || !f(k, at) {
			return
		}
	}
	s.next = math.MaxInt64
	for entry := range s.kv.From([]byte{'t'}) {
		s.next = timeOf(entry)
		break
	}
}

// Next is a time before which no timer is due, negative if none is known yet; ok=false: there is none. It is for the project's own
// packages.
func (s *TimerStore[K]) Next() (at int64, ok bool) { return s.next, s.next != math.MaxInt64 }

func (s *TimerStore[K]) key(k K) (key []byte, ok bool) {
	c, node := s.kv.step()
	if c == nil {
		return nil, false
	}
	key, err := s.keys.Encode([]byte{'k'}, k)
	return key, !fail(c, node, err)
}

func (s *TimerStore[K]) at(key []byte) (ms int64, ok bool) {
	b, ok := s.kv.Get(key)
	if !ok || len(b) != 8 {
		return 0, false
	}
	return int64(binary.BigEndian.Uint64(b)), true
}

func (s *TimerStore[K]) drop(key []byte) {
	if ms, ok := s.at(key); ok {
		s.kv.Delete(key)
		s.kv.Delete(queued(ms, key[1:]))
	}
}

// queued is a timer's place in the queue: times before the epoch come first.
func queued(ms int64, key []byte) []byte {
	b := binary.BigEndian.AppendUint64([]byte{'t'}, uint64(ms)^1<<63)
	return append(b, key...)
}

func timeOf(entry []byte) int64 { return int64(binary.BigEndian.Uint64(entry[1:]) ^ 1<<63) }
