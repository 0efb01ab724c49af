package table

import (
	"fmt"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/serde"
)

// Records is a store of all records of a key, by time: what one side of a join of two streams waits for the other with. Records of
// one key and time stay side by side, in the order in which they came, told apart by a number.
type Records[K, V any] struct{ records[K, V] }

// records is a Records whichever way it keeps values. A record is there as long as its time is greater than the store's stream time
// less the retention; the store's stream time is the greatest time ever put into it, as in Kafka Streams.
type records[K, V any] interface {
	flow.Store
	// Put adds a record. expired: it is too old, and was not added. It takes a number and goes to the changelog all the same,
	// as in Kafka Streams.
	Put(k K, at int64, v V) (expired bool, err error)
	// Skip takes note of a null value, as Kafka Streams does: it is not kept, but takes a number, goes to the changelog and, unless
	// expiry is by segment, moves the store's stream time. expired: a record of that time would have been too old.
	Skip(k K, at int64) (expired bool, err error)
	// Fetch calls f for the records of k between from and to, both inclusive, by time and number, until it returns false. f must not
	// write to the store, nor through v.
	Fetch(k K, from, to int64, f func(at int64, v V) bool) error
	// FetchAll is Fetch over all keys, by time, number and serialized key bytes.
	FetchAll(from, to int64, f func(k K, at int64, v V) bool) error
}

// NewRecords makes the store of one task; env.Spec.Retention says how long records are kept, math.MaxInt64: for ever.
func NewRecords[K, V any](env flow.StoreEnv, k serde.Serde[K], v serde.Serde[V]) (*Records[K, V], error) {
	if byValue[V]() {
		return newRecords[K, V, V](env, k, v, newPlain(v))
	}
	return newRecords[K, V, cell](env, k, v, newCoded(v))
}

func newRecords[K, V, C any](env flow.StoreEnv, k serde.Serde[K], v serde.Serde[V], rep rep[V, C]) (*Records[K, V], error) {
	s := &recorded[K, V, C]{values: v}
	s.numbered = true
	if err := s.begin(env, k, rep); err != nil {
		return nil, err
	}
	return &Records[K, V]{s}, nil
}

type recorded[K, V, C any] struct {
	panes[K, V, stamp, C]
	values serde.Serde[V]
	found  []Ref // scratch of Fetch, as a stack
}

// lastNumber is the greatest: then they begin again, with 0.
const lastNumber = 1<<31 - 1

func (s *recorded[K, V, C]) Skip(k K, at int64) (expired bool, err error) {
	s.seq = (s.seq + 1) & lastNumber
	if !s.env.Spec.BySegment {
		s.seen = max(s.seen, at)
		expired = s.expired(at, s.seen)
	}
	return expired, s.log(k, at, nil)
}

func (s *recorded[K, V, C]) Put(k K, at int64, v V) (expired bool, err error) {
	s.seq = (s.seq + 1) & lastNumber
	s.seen = max(s.seen, at)
	r, expired, err := s.touchAt(k, stamp{at, s.seq})
	switch {
	case err != nil:
	case expired:
		err = s.log(k, at, &v)
	default:
		s.Set(r, v, at, nil)
	}
	return expired, err
}

// log has the changelog get a record that is not kept.
func (s *recorded[K, V, C]) log(k K, at int64, v *V) error {
	if s.env.Changelog == nil {
		return nil
	}
	key, err := s.encode(k)
	if err != nil {
		return err
	}
	b := s.chunk(len(key.bytes) + 64)
	from := len(b)
	b = stamp{at, s.seq}.append(append(b, key.bytes...))
	o := flow.Out{Topic: s.env.Changelog, Partition: s.env.Partition, Time: at, Key: b[from:len(b):len(b)]}
	if v != nil {
		mid := len(b)
		if b, err = s.values.Encode(b, *v); err != nil {
			return s.wrap(fmt.Sprintf("encoding the value of key %q", key.bytes), err)
		}
		o.Key, o.Value = b[from:mid:mid], b[mid:len(b):len(b)]
	}
	s.out = b
	l := s.open()
	l.out += int64(len(b) - from)
	l.unkept = append(l.unkept, o)
	return nil
}

func (s *recorded[K, V, C]) Fetch(k K, from, to int64, f func(at int64, v V) bool) error {
	from = s.clamp(query{from: from})
	if from > to || len(s.all) == 0 {
		return nil
	}
	key, err := s.encode(k)
	if err != nil {
		return err
	}
	base := len(s.found)
	defer func() { s.found = s.found[:base] }()
	// What is found last comes first: a chain has the last record first.
	last := s.segment(to)
	for i := len(s.all) - 1; i >= 0; i-- {
		p := s.all[i]
		if p.segment > last {
			continue
		}
		if p.segment < s.segment(from) {
			break
		}
		if err := s.bring(p, &key); err != nil {
			return err
		}
		for ref := p.head(&key); ref != 0; ref = p.at(ref).next {
			e := p.at(ref)
			if e.sub.at < from {
				break
			}
			if e.sub.at <= to && e.bits&live != 0 {
				e.bits |= hot
				s.found = append(s.found, Ref{p.id, ref})
			}
		}
	}
	found := s.found[base:]
	for i := len(found) - 1; i >= 0; i-- {
		t := s.tabs[found[i].tab]
		e := t.at(found[i].at)
		v, err := s.rep.view(&e.cell)
		if err != nil {
			return s.reading(t.key(e), err)
		}
		if !f(e.sub.at, v) {
			return nil
		}
	}
	return nil
}

func (s *recorded[K, V, C]) FetchAll(from, to int64, f func(k K, at int64, v V) bool) error {
	return s.fetchAll(query{from: from, to: to}, func(k K, sub stamp, v V, _ int64) bool { return f(k, sub.at, v) })
}
