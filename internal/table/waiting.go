package table

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"slices"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/serde"
)

// Waiting is a store of records that wait until stream time is past their own. They lie in the order of their times, then of
// their serialized keys, then as they came. Its changelog is that of Kafka Streams' RocksDBTimeOrderedKeyValueBuffer.
type Waiting[K, V any] struct {
	flow.Store
	kv *KV[waitKey[K], Waiter[V]]
}

// Waiter is a record that waits, with what its context was.
type Waiter[V any] struct {
	Time, Offset int64
	Topic        string
	Partition    int32
	Headers      []flow.Header
	Value        V
}

// waitKey is a record's place. An edge is the one before all of its time.
type waitKey[K any] struct {
	time int64
	key  K
	n    int32
	edge bool
}

// NewWaiting makes the store of one task.
func NewWaiting[K, V any](env flow.StoreEnv, k serde.Serde[K], v serde.Serde[V]) (*Waiting[K, V], error) {
	spec := *env.Spec
	spec.Ordered, env.Spec = true, &spec
	kv, err := NewKV(env, waitKeySerde[K]{k}, waiterSerde[V]{v})
	return &Waiting[K, V]{kv, kv}, err
}

// Put adds the record in hand. n is a number that the caller counts up, so that records of one time and key are kept apart.
func (w *Waiting[K, V]) Put(c *flow.Ctx, k K, v V, n *int64) error {
	r := Waiter[V]{Time: c.Time, Offset: c.Offset, Topic: c.Topic, Partition: c.Partition, Headers: slices.Clone(c.Headers), Value: v}
	for i := range r.Headers {
		r.Headers[i].Value = bytes.Clone(r.Headers[i].Value)
	}
	for {
		*n = (max(*n, 0) + 1) & math.MaxInt32
		ref, err := w.kv.Touch(waitKey[K]{time: c.Time, key: k, n: int32(*n)})
		if err != nil {
			return err
		}
		if _, _, taken := w.kv.At(ref); !taken { // by somebody who counted anew, as Kafka Streams does after a restart
			w.kv.Set(ref, r, c.Time, nil)
			return nil
		}
	}
}

// Release takes the records whose times are between from and to, both inclusive, out of the store, and calls f for each, in order,
// until it returns false.
func (w *Waiting[K, V]) Release(from, to int64, f func(k K, r Waiter[V]) bool) error {
	var bad error
	err := w.kv.Range(&waitKey[K]{time: from, edge: true}, &waitKey[K]{time: to + 1, edge: true}, func(k waitKey[K], r Waiter[V], _ int64) bool {
		ref, err := w.kv.Touch(k)
		if err != nil {
			bad = err
			return false
		}
		w.kv.Unset(ref, k.time, nil)
		return f(k.key, r)
	})
	if err == nil {
		err = bad
	}
	return err
}

// First is the earliest time of a record that waits, from a time on.
func (w *Waiting[K, V]) First(from int64) (at int64, ok bool, err error) {
	err = w.kv.Range(&waitKey[K]{time: from, edge: true}, nil, func(k waitKey[K], _ Waiter[V], _ int64) bool {
		at, ok = k.time, true
		return false
	})
	return at, ok, err
}

var errWaiter = errors.New("not a record of a buffer of a stream-table join")

// waitKeySerde writes a byte 0, the time, the key and the number.
type waitKeySerde[K any] struct{ of serde.Serde[K] }

func (s waitKeySerde[K]) Encode(dst []byte, k waitKey[K]) ([]byte, error) {
	dst = binary.BigEndian.AppendUint64(append(dst, 0), uint64(k.time))
	if k.edge {
		return dst, nil
	}
	dst, err := s.of.Encode(dst, k.key)
	return binary.BigEndian.AppendUint32(dst, uint32(k.n)), err
}

func (s waitKeySerde[K]) Decode(b []byte) (k waitKey[K], err error) {
	if len(b) < 13 || b[0] != 0 {
		return k, errWaiter
	}
	k.time, k.n = int64(binary.BigEndian.Uint64(b[1:])), int32(binary.BigEndian.Uint32(b[len(b)-4:]))
	k.key, err = s.of.Decode(b[9 : len(b)-4])
	return k, err
}

// waiterSerde writes what Kafka Streams writes of a buffered record: its context, which is time, offset, topic, partition and headers;
// then a prior and an old value, which there never are here, and the value, each with its length before it, -1 for null;
// then 8 bytes that are 0.
type waiterSerde[V any] struct{ of serde.Serde[V] }

func appendSized(dst, b []byte, null bool) []byte {
	if null {
		return binary.BigEndian.AppendUint32(dst, math.MaxUint32)
	}
	return append(binary.BigEndian.AppendUint32(dst, uint32(len(b))), b...)
}

func (s waiterSerde[V]) Encode(dst []byte, r Waiter[V]) ([]byte, error) {
	dst = binary.BigEndian.AppendUint64(dst, uint64(r.Time))
	dst = binary.BigEndian.AppendUint64(dst, uint64(r.Offset))
	dst = appendSized(dst, []byte(r.Topic), false)
	dst = binary.BigEndian.AppendUint32(dst, uint32(r.Partition))
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(r.Headers)))
	for _, h := range r.Headers {
		dst = appendSized(appendSized(dst, []byte(h.Key), false), h.Value, h.Value == nil)
	}
	dst = appendSized(appendSized(dst, nil, true), nil, true)
	size := len(dst)
	dst, err := s.of.Encode(append(dst, 0, 0, 0, 0), r.Value)
	if err != nil {
		return dst, err
	}
	binary.BigEndian.PutUint32(dst[size:], uint32(len(dst)-size-4))
	return binary.BigEndian.AppendUint64(dst, 0), nil
}

// sizedReader takes numbers and strings off the front of what Kafka Streams has written; once it has failed it gives nothing.
type sizedReader struct {
	b    []byte
	fail bool
}

func (r *sizedReader) take(n int) []byte {
	if r.fail || n < 0 || len(r.b) < n {
		r.fail = true
		return make([]byte, 8)
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

func (r *sizedReader) int64() int64 { return int64(binary.BigEndian.Uint64(r.take(8))) }
func (r *sizedReader) int32() int32 { return int32(binary.BigEndian.Uint32(r.take(4))) }

// sized is a string with its length before it; nil: null.
func (r *sizedReader) sized() []byte {
	n := r.int32()
	if n == -1 || r.fail {
		return nil
	}
	return r.take(int(n))
}

func (s waiterSerde[V]) Decode(b []byte) (r Waiter[V], err error) {
	in := &sizedReader{b: b}
	r.Time, r.Offset = in.int64(), in.int64()
	r.Topic = string(in.sized())
	r.Partition = in.int32()
	for n := in.int32(); n > 0 && !in.fail; n-- {
		key := in.sized()
		r.Headers = append(r.Headers, flow.Header{Key: string(key), Value: bytes.Clone(in.sized())})
	}
	in.sized()
	if n := in.int32(); n >= 0 { // an old value; -1: none, -2: the prior one
		in.take(int(n))
	}
	value := in.sized()
	in.take(8)
	if in.fail || value == nil || len(in.b) > 0 {
		return r, errWaiter
	}
	r.Value, err = s.of.Decode(value)
	return r, err
}
