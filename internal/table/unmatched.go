package table

import (
	"encoding/binary"
	"fmt"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/serde"
)

// Unmatched holds the records of both sides of a left or outer join of two streams that have met none of the other side, oldest
// first, until it is certain that none will come. Its keys and values are those of Kafka Streams' store of that purpose: time,
// side (1: left) and key; a list of values, since there may be several of one key and time, each with its side.
type Unmatched[K any] struct {
	*KV[waiting[K], []byte]
	list []byte
}

// waiting is where a record waits: 8 bytes of time, one of side, the key.
type waiting[K any] struct {
	at   int64
	left bool
	key  K
}

// NewUnmatched makes the store of one task.
func NewUnmatched[K any](env flow.StoreEnv, k serde.Serde[K]) (*Unmatched[K], error) {
	spec := *env.Spec
	spec.Ordered = true
	env.Spec = &spec
	kv, err := NewKV[waiting[K], []byte](env, waitingSerde[K]{k}, serde.Bytes)
	if err != nil {
		return nil, err
	}
	kv.NeedOld(false)
	return &Unmatched[K]{KV: kv}, nil
}

// Add has a record wait. value appends its serialized value.
func (u *Unmatched[K]) Add(k K, at int64, left bool, value func(dst []byte) ([]byte, error)) error {
	ref, err := u.Touch(waiting[K]{at, left, k})
	if err != nil {
		return err
	}
	old, _, live := u.At(ref)
	if !live {
		old = []byte{listOfAnySize, 0, 0, 0, 0}
	}
	b := append(u.list[:0], old...)
	binary.BigEndian.PutUint32(b[1:], binary.BigEndian.Uint32(b[1:])+1)
	size := len(b)
	b = append(b, 0, 0, 0, 0, side(left))
	if b, err = value(b); err != nil {
		return err
	}
	binary.BigEndian.PutUint32(b[size:], uint32(len(b)-size-4))
	u.list = b
	u.Set(ref, append([]byte(nil), b...), at, nil)
	return nil
}

// Drop has the records of a key, time and side wait no longer: they have met one.
func (u *Unmatched[K]) Drop(k K, at int64, left bool) (dropped bool, err error) {
	w := waiting[K]{at, left, k}
	if _, _, ok, err := u.Get(w); err != nil || !ok {
		return false, err
	}
	ref, err := u.Touch(w)
	if err != nil {
		return false, err
	}
	u.Unset(ref, at, nil)
	return true, nil
}

// Each calls f for each record that waits, by time, right before left, key bytes and arrival, until it returns false. f may
// drop records: those of the same key, time and side are given nevertheless.
func (u *Unmatched[K]) Each(f func(k K, at int64, left bool, value []byte) bool) error {
	var bad error
	err := u.Range(nil, nil, func(w waiting[K], list []byte, _ int64) bool {
		if len(list) < 5 || list[0] != listOfAnySize {
			bad = u.damaged(w, list)
			return false
		}
		n := binary.BigEndian.Uint32(list[1:])
		for b := list[5:]; n > 0; n-- {
			if len(b) < 5 {
				bad = u.damaged(w, list)
				return false
			}
			size := binary.BigEndian.Uint32(b)
			if size < 1 || uint64(len(b)) < 4+uint64(size) || b[4] != side(w.left) {
				bad = u.damaged(w, list)
				return false
			}
			if !f(w.key, w.at, w.left, b[5:4+size]) {
				return false
			}
			b = b[4+size:]
		}
		return true
	})
	if err == nil {
		err = bad
	}
	return err
}

func (u *Unmatched[K]) damaged(w waiting[K], list []byte) error {
	return fmt.Errorf("%w: records waiting at %d under key %v are %x", ErrDamaged, w.at, w.key, list)
}

// listOfAnySize begins a list of values of Kafka's ListSerializer, which then gives the size of each.
const listOfAnySize = 1

func side(left bool) byte {
	if left {
		return 1
	}
	return 0
}

type waitingSerde[K any] struct{ key serde.Serde[K] }

func (s waitingSerde[K]) Encode(dst []byte, w waiting[K]) ([]byte, error) {
	dst = binary.BigEndian.AppendUint64(dst, uint64(w.at))
	return s.key.Encode(append(dst, side(w.left)), w.key)
}

func (s waitingSerde[K]) Decode(b []byte) (w waiting[K], err error) {
	if len(b) < 9 {
		return w, ErrDamaged
	}
	w.at, w.left = int64(binary.BigEndian.Uint64(b)), b[8] != 0
	w.key, err = s.key.Decode(b[9:])
	return w, err
}
