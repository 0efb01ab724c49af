package table

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/serde"
)

// Versions is a store of values by key and time: of each key all versions are kept, values and deletions, as long as history is.
type Versions[K, V any] struct{ versions[K, V] }

// Latest is the end of a version that has no later one.
const Latest = math.MaxInt64

// Placement is where Put or Delete has put a version.
type Placement struct {
	To   int64 // when the next version begins, ms; Latest: there is none
	Kept bool  // false: it is older than history goes back, and nothing has changed
}

// versions is a Versions whichever way it keeps values. Times are in ms. History goes back as far as the retention from the store's
// stream time, which is the greatest time of any version put. It doubles as the grace of writes, as in Kafka Streams; the latest
// version of a key never expires.
type versions[K, V any] interface {
	flow.Store
	// Get is the latest version and when it began; not ok: there is none, or it is a deletion. The value must not be
	// written through.
	Get(k K) (v V, from int64, ok bool, err error)
	// Own is Get with a value that nobody else has.
	Own(k K) (v V, from int64, ok bool, err error)
	// AsOf is the version that is valid at a time; none if that is further back than history goes, unless it is the latest.
	AsOf(k K, at int64) (v V, from int64, ok bool, err error)
	// Put adds the version that begins at a time, or replaces it. Delete makes it a deletion.
	Put(k K, v V, at int64) (Placement, error)
	Delete(k K, at int64) (Placement, error)
	// Committed and CommittedAsOf are Get and AsOf as of the last Done, whatever epochs are open. The value is the caller's.
	Committed(k K) (v V, from int64, ok bool, err error)
	CommittedAsOf(k K, at int64) (v V, from int64, ok bool, err error)
	// CommittedHistory calls f for the versions of k that are valid at any time between from and to, both inclusive, the latest
	// first, without deletions, until it returns false. end is when a version ends.
	CommittedHistory(k K, from, to int64, f func(v V, from, end int64) bool) error
}

// NewVersions makes the store of one task; env.Spec.Retention says how far history goes back.
func NewVersions[K, V any](env flow.StoreEnv, k serde.Serde[K], v serde.Serde[V]) (*Versions[K, V], error) {
	if byValue[V]() {
		return newVersions[K, V, V](env, k, newPlain(v))
	}
	return newVersions[K, V, cell](env, k, newCoded(v))
}

func newVersions[K, V, C any](env flow.StoreEnv, k serde.Serde[K], rep rep[V, C]) (*Versions[K, V], error) {
	s := &versioned[K, V, C]{rep: rep, serde: k, retention: env.Spec.Retention, saved: -1}
	if err := s.init(env, rep); err != nil {
		return nil, err
	}
	s.write, s.all = s.seal, bounds{from: []byte(metaKey + "\x00")} // all but metaKey
	s.t = s.newTab(0)
	s.load = func(_ *tab[version, C], k *keyed, _ version, _ []byte) error { return s.bring(k) }
	s.moved = func(_, to *tab[version, C]) { s.t = to }
	if s.t.complete = env.Tier.Count() == 0; !s.t.complete {
		s.cold = append(s.cold, s.t)
	}
	if err := s.discover(); err != nil {
		return nil, err
	}
	return &Versions[K, V]{s}, nil
}

// versioned keeps a version in an entry of its own, so that the chain of a key is its history. It needs no headers and knows no
// Changes: an operator gives each version on at once.
type versioned[K, V, C any] struct {
	core[version, C]
	rep       rep[V, C]
	serde     serde.Serde[K]
	t         *tab[version, C]
	retention int64
	saved     int64    // stream time as the tier has it
	swept     int64    // stream time when the last sweep of expired versions began
	again     []uint32 // the latest versions to be logged once more
	place     []byte   // in the tier, where that sweep goes on; nil: it has ended
}

// What an entry is, in the place of its time, which the suffix says already.
const (
	// deletion: from here on there is no value.
	deletion int64 = 1 << iota
	// late is a deletion that was put before a later version that was there already.
	late
	// over is a value that was put in the place of a deletion.
	over
)

// Seal: see flow.Store. After versions that are out of order the changelog gets the latest of their key once more: compaction
// keeps the last record of a key, and that must be the one which never expires.
func (s *versioned[K, V, C]) Seal(epoch uint32, out *flow.Effects) error {
	s.again = s.again[:0]
	if err := s.core.Seal(epoch, out); err != nil || len(s.again) == 0 {
		return err
	}
	logged := map[uint32]bool{}
	for _, ref := range s.again {
		if logged[ref] {
			continue
		}
		logged[ref] = true
		e := s.t.at(ref)
		b := s.chunk(int(e.size) + 64)
		from := len(b)
		b = append(b, s.t.key(e)...)
		mid := len(b)
		o := flow.Out{Topic: s.env.Changelog, Partition: s.env.Partition, Time: int64(e.sub), Key: b[from:mid:mid]}
		if e.time&deletion == 0 {
			var err error
			if b, err = s.cells.encode(b, &e.cell); err != nil {
				return s.wrap(fmt.Sprintf("encoding the value of key %q", s.t.key(e)), err)
			}
			o.Value = b[mid:len(b):len(b)]
		}
		s.out = b
		out.Records = append(out.Records, o)
	}
	return nil
}

// latest is the first living version of a chain; 0: none.
func (s *versioned[K, V, C]) latest(ref uint32) uint32 {
	for ref != 0 && s.t.at(ref).bits&live == 0 {
		ref = s.t.at(ref).next
	}
	return ref
}

// seal writes one version. The tier gets key and time, then a byte that says what it is, then the value. The changelog is
// Kafka Streams': the raw key, the raw value, and the record's time.
func (s *versioned[K, V, C]) seal(l *log[C], t *tab[version, C], e *entry[version, C], out *flow.Effects) error {
	b := s.chunk(int(e.size) + 64)
	from := len(b)
	b = append(b, t.key(e)...)
	end := len(b)
	b = e.sub.append(b)
	mid := len(b)
	var kept, logged []byte
	if e.bits&live != 0 {
		b = append(b, byte(e.time))
		if e.time&deletion == 0 {
			var err error
			if b, err = s.cells.encode(b, &e.cell); err != nil {
				return s.wrap(fmt.Sprintf("encoding the value of key %q", t.key(e)), err)
			}
			logged = b[mid+1 : len(b) : len(b)]
		}
		kept = b[mid:len(b):len(b)]
	}
	s.out = b
	l.out += int64(len(b) - from)
	l.changes = append(l.changes, flow.TierChange{Key: b[from:mid:mid], Value: kept})
	if s.env.Changelog != nil {
		out.Records = append(out.Records, flow.Out{Topic: s.env.Changelog, Partition: s.env.Partition,
			Time: int64(e.sub), Key: b[from:end:end], Value: logged})
		k := s.searching(b[from:end])
		if ref := s.latest(t.head(&k)); ref != 0 && t.at(ref) != e {
			s.again = append(s.again, ref)
		}
	}
	return nil
}

// reach readies a key, and all of its history, for a search.
func (s *versioned[K, V, C]) reach(k K) (keyed, error) {
	b, err := s.serde.Encode(s.key[:0], k)
	if err != nil {
		return keyed{}, s.wrap(fmt.Sprintf("encoding key %v", k), err)
	}
	s.setKey(b)
	key := s.lookup()
	return key, s.bring(&key)
}

// bring reads all versions of a key from the tier, if it is not in memory: it is there with everything or not at all.
func (s *versioned[K, V, C]) bring(k *keyed) error {
	if s.t.complete || s.t.head(k) != 0 || !s.t.filter.may(k.hash) {
		return nil
	}
	err := s.stored(k.bytes, func(at version, value []byte) error {
		var c C
		kind := int64(value[0])
		if kind&deletion == 0 {
			var err error
			if c, err = s.cells.load(value[1:]); err != nil {
				return err
			}
		}
		_, e := s.t.insert(k, at)
		e.cell, e.time, e.bits = c, kind, e.bits|live
		return nil
	})
	return s.reading(k.bytes, err)
}

// stored calls f for the versions of a key that the tier has, the oldest first.
func (s *versioned[K, V, C]) stored(key []byte, f func(at version, value []byte) error) error {
	base := append(s.buf[:0], key...)
	from, to := version(0).append(base), version(s.seen+1).append(base[:len(base):len(base)])
	s.buf = from
	var bad error
	err := s.env.Tier.Scan(from, to, func(row, value []byte) bool {
		k, at, ok := version(0).split(row)
		switch {
		case !ok || len(value) == 0:
			bad = ErrDamaged
		case len(k) == len(key): // else it is a longer key
			bad = f(at, value)
		}
		return bad == nil
	})
	if err == nil {
		err = bad
	}
	return err
}

// as is a version as it is now, or as of the last Done.
func (s *versioned[K, V, C]) as(e *entry[version, C], committed bool) (c C, kind int64, ok bool) {
	if committed {
		return s.committed(e)
	}
	return e.cell, e.time, e.bits&live != 0
}

// valid is the version that is valid at a time; ok is false where there is none, or a deletion.
func (s *versioned[K, V, C]) valid(k *keyed, at int64, committed bool) (e *entry[version, C], c C, ok bool) {
	seen := s.seen
	if committed {
		seen = s.logs[0].seen
	}
	for ref, first := s.t.head(k), true; ref != 0; ref = e.next {
		e = s.t.at(ref)
		c, kind, there := s.as(e, committed)
		switch {
		case !there:
		case int64(e.sub) <= at:
			e.bits |= hot
			return e, c, kind&deletion == 0
		case first && at < seen-s.retention:
			return e, c, false // only the latest may be older than history
		default:
			first = false
		}
	}
	return nil, c, false
}

func (s *versioned[K, V, C]) Get(k K) (V, int64, bool, error) { return s.AsOf(k, Latest) }

func (s *versioned[K, V, C]) AsOf(k K, at int64) (v V, from int64, ok bool, err error) {
	key, err := s.reach(k)
	if err != nil {
		return v, 0, false, err
	}
	e, _, ok := s.valid(&key, at, false)
	if !ok {
		return v, 0, false, nil
	}
	v, err = s.rep.view(&e.cell)
	return v, int64(e.sub), err == nil, s.reading(key.bytes, err)
}

func (s *versioned[K, V, C]) Own(k K) (v V, from int64, ok bool, err error) {
	key, err := s.reach(k)
	if err != nil {
		return v, 0, false, err
	}
	e, _, ok := s.valid(&key, Latest, false)
	if !ok {
		return v, 0, false, nil
	}
	if s.coded { // what nobody else has comes of an encoding
		s.buf, err = s.cells.encode(s.buf[:0], &e.cell)
	}
	if err == nil {
		v, err = s.rep.own(&e.cell)
	}
	return v, int64(e.sub), err == nil, s.reading(key.bytes, err)
}

func (s *versioned[K, V, C]) Committed(k K) (V, int64, bool, error) {
	return s.CommittedAsOf(k, Latest)
}

func (s *versioned[K, V, C]) CommittedAsOf(k K, at int64) (v V, from int64, ok bool, err error) {
	key, err := s.reach(k)
	if err != nil {
		return v, 0, false, err
	}
	e, c, ok := s.valid(&key, at, true)
	if !ok {
		return v, 0, false, nil
	}
	v, err = s.rep.own(&c)
	return v, int64(e.sub), err == nil, s.reading(key.bytes, err)
}

func (s *versioned[K, V, C]) CommittedHistory(k K, from, to int64, f func(v V, from, end int64) bool) error {
	key, err := s.reach(k)
	if err != nil {
		return err
	}
	end, oldest := int64(Latest), s.logs[0].seen-s.retention
	for ref := s.t.head(&key); ref != 0; {
		e := s.t.at(ref)
		ref = e.next
		c, kind, ok := s.committed(e)
		if !ok {
			continue
		}
		if end <= max(from, oldest) {
			break
		}
		if int64(e.sub) <= to && kind&deletion == 0 {
			v, err := s.rep.own(&c)
			if err != nil {
				return s.reading(key.bytes, err)
			}
			if !f(v, int64(e.sub), end) {
				break
			}
		}
		end = int64(e.sub)
	}
	return nil
}

// spot is where a version goes, and what it is there.
type spot struct {
	ref  uint32 // the entry that begins at its time, live or not; 0: none
	next int64  // when the next version begins
	kind int64
	// forget: the entry goes. Kafka Streams keeps a deletion as the end of what was before; one that takes the place of the latest
	// value, before which there was nothing, leaves nothing behind, and a version put before it later on is the latest.
	forget bool
}

func (s *versioned[K, V, C]) spot(k *keyed, at version, gone bool) spot {
	p := spot{next: Latest}
	var here, before *entry[version, C]
	for ref := s.t.head(k); ref != 0 && before == nil; {
		e := s.t.at(ref)
		switch {
		case e.sub == at:
			p.ref = ref
			if e.bits&live != 0 {
				here = e
			}
		case e.bits&live == 0:
		case e.sub > at:
			p.next = int64(e.sub)
		default:
			before = e
		}
		ref = e.next
	}
	switch {
	case !gone:
		if here != nil && here.time&(deletion|over) != 0 {
			p.kind = over
		}
	case p.next != Latest:
		p.kind = deletion | late
	default:
		p.kind = deletion
		p.forget = here != nil && here.time&(deletion|over) == 0 &&
			(before == nil || before.time&(deletion|late) == deletion)
	}
	return p
}

func (s *versioned[K, V, C]) Put(k K, v V, at int64) (Placement, error) {
	e, p, to, err := s.ready(k, at, false)
	if e != nil {
		s.rep.set(&e.cell, v)
		e.time, e.bits = p.kind, e.bits|live
		s.updated(e, nil)
	}
	return to, err
}

func (s *versioned[K, V, C]) Delete(k K, at int64) (Placement, error) {
	e, p, to, err := s.ready(k, at, true)
	switch {
	case e == nil:
	case p.forget:
		s.unset(e, 0, nil)
	default:
		s.cells.cool(&e.cell)
		var none C
		e.cell, e.time, e.bits = none, p.kind, e.bits|live
		s.updated(e, nil)
	}
	return to, err
}

// ready notes what undo needs; no entry: the version has expired.
func (s *versioned[K, V, C]) ready(k K, at int64, gone bool) (e *entry[version, C], p spot, to Placement, err error) {
	if at < 0 {
		return nil, p, to, s.wrap(fmt.Sprintf("putting key %v", k), fmt.Errorf("a version of %d ms, before the epoch", at))
	}
	if at < s.seen-s.retention {
		return nil, p, to, nil
	}
	key, err := s.reach(k)
	if err != nil {
		return nil, p, to, err
	}
	s.seen = max(s.seen, at)
	p = s.spot(&key, version(at), gone)
	ref, born := p.ref, p.ref == 0
	if born {
		ref, e = s.t.insert(&key, version(at))
	} else {
		e = s.t.at(ref)
	}
	if e.mark == s.mark && e.pos != 0 {
		s.cells.drop(&e.cell) // no undo has it
	}
	e.bits |= hot
	s.touch(s.t, ref, e, born)
	return e, p, Placement{p.next, true}, nil
}

// Advance: see flow.Store. History goes by the store's own stream time.
func (s *versioned[K, V, C]) Advance(int64) {}

// version is when a version of a key begins, ms.
type version int64

func (v version) compare(o version) int {
	switch {
	case v < o:
		return -1
	case v > o:
		return 1
	}
	return 0
}

func (v version) lead() (uint64, bool) { return leadOf(int64(v)) }

func (v version) append(dst []byte) []byte { return binary.BigEndian.AppendUint64(dst, uint64(v)) }

func (version) split(b []byte) ([]byte, version, bool) {
	n := len(b) - 8
	if n < 0 {
		return nil, 0, false
	}
	return b[:n], version(binary.BigEndian.Uint64(b[n:])), true
}
