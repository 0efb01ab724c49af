package table

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/serde"
)

// KV is a key-value store.
type KV[K, V any] struct{ kv[K, V] }

// kv is a KV whichever way it keeps values.
type kv[K, V any] interface {
	flow.Store
	// Get is the current value, committed or not, and its time. It must not be written through.
	Get(k K) (v V, at int64, ok bool, err error)
	// Touch finds or makes an entry and notes what undo needs. It comes before At, Set and Unset, and before a user function sees the
	// value, which it may then write through.
	Touch(k K) (Ref, error)
	// At is the value of a touched entry; not live: it has none.
	At(r Ref) (v V, at int64, live bool)
	// Set gives it a value. Headers are only for Changes; they are copied.
	Set(r Ref, v V, at int64, headers []flow.Header)
	// Unset takes its value away.
	Unset(r Ref, at int64, headers []flow.Header)
	// Changes calls f for every key that was set or unset since the last call of this epoch, once, in order of last update. Old is the value
	// as of that call, or as of the start of the epoch. A key that has no value and had none is left out.
	Changes(f func(k K, c Change[V]) error) error
	// NeedOld says whether Changes is to fill in Old, which may cost a decoding each; the default is true.
	NeedOld(bool)
	// Range calls f for the keys between from and to, both inclusive and nil for open, in order of their
	// serialized bytes, until it returns false. f may change the store; keys it adds may or may not be seen.
	Range(from, to *K, f func(k K, v V, at int64) bool) error
	// RangeReverse is Range from the last to the first.
	RangeReverse(from, to *K, f func(k K, v V, at int64) bool) error
	// Prefix is Range over the keys whose serialized bytes begin with p.
	Prefix(p []byte, f func(k K, v V, at int64) bool) error
	// Told is Get as of the last Changes, or as of the start of the epoch: as whoever follows those knows it.
	Told(k K) (v V, at int64, ok bool, err error)
	// Committed is Get as of the last Done, whatever epochs are open. The value is the caller's.
	Committed(k K) (v V, at int64, ok bool, err error)
	// CommittedRange is Range as of the last Done.
	CommittedRange(from, to *K, f func(k K, v V, at int64) bool) error
}

// NewKV makes the store of one task.
func NewKV[K, V any](env flow.StoreEnv, k serde.Serde[K], v serde.Serde[V]) (*KV[K, V], error) {
	if byValue[V]() {
		return newKV[K, V, V](env, k, newPlain(v))
	}
	return newKV[K, V, cell](env, k, newCoded(v))
}

func newKV[K, V, C any](env flow.StoreEnv, k serde.Serde[K], rep rep[V, C]) (*KV[K, V], error) {
	s := &keyValue[K, V, C]{rep: rep, serde: k, needOld: true, ttl: env.Spec.TTL, now: -1}
	if err := s.init(env, rep); err != nil {
		return nil, err
	}
	s.t = s.newTab(0)
	if s.t.complete = env.Tier.Count() == 0; !s.t.complete {
		s.cold = append(s.cold, s.t)
	}
	s.load, s.moved = s.take, func(_, to *tab[none, C]) { s.t, s.aged = to, 0 }
	if !ofTasks(env) {
		return &KV[K, V]{guarded[K, V]{s, &sync.Mutex{}}}, nil
	}
	return &KV[K, V]{s}, nil
}

type keyValue[K, V, C any] struct {
	core[none, C]
	rep     rep[V, C]
	serde   serde.Serde[K]
	t       *tab[none, C]
	needOld bool
	ttl     int64  // ms; 0: none
	now     int64  // stream time of the task
	aged    uint32 // the place up to which values have been looked at for their age
}

// Advance: see flow.Store.
func (s *keyValue[K, V, C]) Advance(streamTime int64) { s.now = streamTime }

// old is whether a value of that time has outlived the TTL. Reads ask it, so that it does not matter when values are removed.
func (s *keyValue[K, V, C]) old(at int64) bool { return s.ttl > 0 && at <= s.now-s.ttl }

// agedKeys is how many entries one commit looks at for their age.
const agedKeys = 4096

// age removes some of the values in memory that have outlived the TTL. It comes after the last Changes of an epoch: that they go is
// told to nobody, since when they do depends on what is in memory.
func (s *keyValue[K, V, C]) age() {
	if s.ttl <= 0 {
		return
	}
	for range min(agedKeys, s.t.top) {
		if s.aged++; s.aged > s.t.top {
			s.aged = 1
		}
		if e := s.t.at(s.aged); e.bits&live != 0 && s.old(e.time) {
			s.touch(s.t, s.aged, e, false)
			s.unset(e, e.time, nil)
		}
	}
}

// Seal: see flow.Store.
func (s *keyValue[K, V, C]) Seal(epoch uint32, out *flow.Effects) error {
	s.age()
	return s.core.Seal(epoch, out)
}

// encode readies k for a search; the key is good until the next call of the store.
func (s *keyValue[K, V, C]) encode(k K) (keyed, error) {
	b, err := s.serde.Encode(s.key[:0], k)
	if err != nil {
		return keyed{}, s.wrap(fmt.Sprintf("encoding key %v", k), err)
	}
	s.setKey(b)
	return s.lookup(), nil
}

// find is k's entry, read from the tier if need be; 0: none.
func (s *keyValue[K, V, C]) find(k *keyed) (uint32, error) {
	if ref := s.t.head(k); ref != 0 || s.t.complete || !s.t.filter.may(k.hash) {
		return ref, nil
	}
	b, ok, err := s.env.Tier.Get(s.buf[:0], k.bytes)
	s.buf = b
	if err != nil || !ok {
		return 0, s.reading(k.bytes, err)
	}
	if err := s.take(s.t, k, none{}, b); err != nil {
		return 0, s.reading(k.bytes, err)
	}
	return s.t.head(k), nil
}

// take makes an entry of what the tier has.
func (c *core[S, C]) take(t *tab[S, C], k *keyed, sub S, value []byte) error {
	if len(value) < 8 {
		return ErrDamaged
	}
	cell, err := c.cells.load(value[8:])
	if err != nil {
		return err
	}
	_, e := t.insert(k, sub)
	e.cell, e.time, e.bits = cell, int64(binary.BigEndian.Uint64(value)), e.bits|live
	return nil
}

func (c *core[S, C]) reading(key []byte, err error) error {
	if err == nil {
		return nil
	}
	return c.wrap(fmt.Sprintf("reading key %q from the tier", key), err)
}

func (s *keyValue[K, V, C]) Get(k K) (v V, at int64, ok bool, err error) {
	key, err := s.encode(k)
	if err != nil {
		return v, 0, false, err
	}
	ref, err := s.find(&key)
	if err != nil || ref == 0 {
		return v, 0, false, err
	}
	e := s.t.at(ref)
	if e.bits&live == 0 || s.old(e.time) {
		return v, 0, false, nil
	}
	e.bits |= hot
	v, err = s.rep.view(&e.cell)
	if err != nil {
		return v, 0, false, s.reading(key.bytes, err)
	}
	return v, e.time, true, nil
}

func (s *keyValue[K, V, C]) Touch(k K) (Ref, error) {
	key, err := s.encode(k)
	if err != nil {
		return Ref{}, err
	}
	ref, err := s.find(&key)
	if err != nil {
		return Ref{}, err
	}
	var e *entry[none, C]
	born := ref == 0
	if born {
		ref, e = s.t.insert(&key, none{})
	} else {
		e = s.t.at(ref)
	}
	if s.old(e.time) && e.bits&live != 0 {
		first := e.mark != s.mark
		s.touch(s.t, ref, e, false)
		s.unset(e, e.time, nil)
		if first {
			s.open().undo[e.undo].bits |= unseen
		}
	}
	return s.ready(s.t, ref, e, born)
}

// ready makes an entry one that may be set, and its value one that may be written through.
func (c *core[S, C]) ready(t *tab[S, C], ref uint32, e *entry[S, C], born bool) (Ref, error) {
	e.bits |= hot
	c.touch(t, ref, e, born)
	if e.bits&live != 0 && c.coded {
		if err := c.cells.hold(&e.cell); err != nil {
			return Ref{}, c.reading(t.key(e), err)
		}
	}
	return Ref{t.id, ref}, nil
}

func (s *keyValue[K, V, C]) At(r Ref) (v V, at int64, ok bool) {
	e := s.touched(r)
	if e.bits&live == 0 {
		return v, e.time, false
	}
	return must(s.rep.view(&e.cell)), e.time, true
}

// must is for values that Touch has decoded.
func must[V any](v V, err error) V {
	if err != nil {
		panic(err)
	}
	return v
}

func (s *keyValue[K, V, C]) Set(r Ref, v V, at int64, headers []flow.Header) {
	e := s.touched(r)
	s.rep.set(&e.cell, v)
	e.time, e.bits = at, e.bits|live
	s.updated(e, headers)
}

func (s *keyValue[K, V, C]) Unset(r Ref, at int64, headers []flow.Header) {
	s.unset(s.touched(r), at, headers)
}

func (s *keyValue[K, V, C]) NeedOld(on bool) { s.needOld = on }

func (s *keyValue[K, V, C]) Changes(f func(k K, c Change[V]) error) error {
	return s.changes(func(t *tab[none, C], e *entry[none, C], r *undo[C], headers []flow.Header) error {
		k, err := s.serde.Decode(t.key(e))
		if err != nil {
			return s.reading(t.key(e), err)
		}
		ch, err := change(s.rep, &e.cell, e.time, e.bits, r, s.needOld)
		if err != nil {
			return s.reading(t.key(e), err)
		}
		ch.Headers = headers
		return f(k, ch)
	})
}

// change tells an entry, whose state is given, from what it was.
func change[V, C any](rep rep[V, C], cell *C, time int64, bits uint32, r *undo[C], needOld bool) (ch Change[V], err error) {
	ch.Time, ch.Live, ch.WasLive = time, bits&live != 0, r.seen()
	if ch.Live {
		if ch.New, err = rep.view(cell); err != nil {
			return ch, err
		}
	}
	if ch.WasLive && needOld {
		ch.Old, err = rep.own(&r.cell)
	}
	return ch, err
}

func (s *keyValue[K, V, C]) Range(from, to *K, f func(k K, v V, at int64) bool) error {
	return s.scan(from, to, false, s.current, f)
}

func (s *keyValue[K, V, C]) RangeReverse(from, to *K, f func(k K, v V, at int64) bool) error {
	return s.scan(from, to, true, s.current, f)
}

func (s *keyValue[K, V, C]) Prefix(p []byte, f func(k K, v V, at int64) bool) error {
	return s.merge(bounds{p, behind(p)}, false, s.current, f)
}

func (s *keyValue[K, V, C]) CommittedRange(from, to *K, f func(k K, v V, at int64) bool) error {
	return s.scan(from, to, false, s.asCommitted, f)
}

func (s *keyValue[K, V, C]) Told(k K) (v V, at int64, ok bool, err error) {
	e, err := s.entry(k)
	switch {
	case e == nil:
		return v, 0, false, err
	case e.mark == s.mark:
		return s.was(e, s.mark-1)
	}
	e.bits |= hot
	return s.current(e) // nearly always, and it decodes nothing that is decoded already
}

func (s *keyValue[K, V, C]) Committed(k K) (v V, at int64, ok bool, err error) {
	e, err := s.entry(k)
	if e == nil {
		return v, 0, false, err
	}
	return s.was(e, s.done)
}

// entry is k's; nil: there is none.
func (s *keyValue[K, V, C]) entry(k K) (*entry[none, C], error) {
	key, err := s.encode(k)
	if err != nil {
		return nil, err
	}
	ref, err := s.find(&key)
	if err != nil || ref == 0 {
		return nil, err
	}
	return s.t.at(ref), nil
}

func (s *keyValue[K, V, C]) current(e *entry[none, C]) (v V, at int64, ok bool, err error) {
	if e.bits&live == 0 || s.old(e.time) {
		return v, 0, false, nil
	}
	v, err = s.rep.view(&e.cell)
	return v, e.time, err == nil, err
}

func (s *keyValue[K, V, C]) asCommitted(e *entry[none, C]) (V, int64, bool, error) {
	return s.was(e, s.done)
}

// was is an entry as it was when the log after mark began; the value is the caller's.
func (s *keyValue[K, V, C]) was(e *entry[none, C], mark uint32) (v V, at int64, ok bool, err error) {
	cell, at, ok := s.before(e, mark)
	if !ok || s.old(at) {
		return v, 0, false, nil
	}
	v, err = s.rep.own(&cell)
	return v, at, err == nil, err
}

type reader[C, V any] = func(e *entry[none, C]) (v V, at int64, ok bool, err error)

func (s *keyValue[K, V, C]) scan(from, to *K, reverse bool, read reader[C, V], f func(K, V, int64) bool) error {
	var r bounds
	var err error
	if from != nil {
		if r.from, err = s.serde.Encode([]byte{}, *from); err != nil {
			return s.wrap(fmt.Sprintf("encoding key %v", *from), err)
		}
	}
	if to != nil {
		if r.to, err = s.serde.Encode(nil, *to); err != nil {
			return s.wrap(fmt.Sprintf("encoding key %v", *to), err)
		}
		r.to = after(r.to)
	}
	return s.merge(r, reverse, read, f)
}

// merge walks along what is in memory and, if that is not all, along the tier; memory wins.
func (s *keyValue[K, V, C]) merge(r bounds, reverse bool, read reader[C, V], f func(K, V, int64) bool) (err error) {
	give := func(key []byte, v V, at int64) bool {
		k, e := s.serde.Decode(key)
		if e != nil {
			err = s.reading(key, e)
			return false
		}
		return f(k, v, at)
	}
	visit := func(ref uint32) bool {
		e := s.t.at(ref)
		v, at, ok, e2 := read(e)
		if e2 != nil {
			err = s.reading(s.t.key(e), e2)
			return false
		}
		return !ok || give(s.t.key(e), v, at)
	}
	walk := s.t.cursor(r, reverse)
	if s.t.complete {
		for ref := walk.next(); ref != 0 && visit(ref); ref = walk.next() {
		}
		return err
	}
	ref := walk.next()
	scan := s.env.Tier.Scan
	sign := 1
	if reverse {
		scan, sign = s.reverser(), -1
	}
	going := true
	// before visits what memory has up to key.
	before := func(key []byte) bool {
		for ref != 0 && going {
			c := sign * bytes.Compare(s.t.key(s.t.at(ref)), key)
			if c > 0 {
				break
			}
			if c < 0 {
				going = visit(ref)
			}
			ref = walk.next()
		}
		return going
	}
	serr := scan(r.from, r.to, func(key, value []byte) bool {
		if !before(key) {
			return false
		}
		look := s.searching(key)
		if ref := s.t.head(&look); ref != 0 {
			going = visit(ref)
			return going
		}
		if len(value) < 8 {
			err, going = s.reading(key, ErrDamaged), false
			return false
		}
		at := int64(binary.BigEndian.Uint64(value))
		if s.old(at) {
			return true
		}
		v, e := s.rep.decode(value[8:])
		if e != nil {
			err, going = s.reading(key, e), false
			return false
		}
		going = give(key, v, at)
		return going
	})
	if serr != nil {
		return s.wrap("reading a range from the tier", serr)
	}
	for ; ref != 0 && going; ref = walk.next() {
		going = visit(ref)
	}
	return err
}

// reverser walks the tier from the end. A tier that cannot do it is read forwards and kept.
func (c *core[S, C]) reverser() func(from, to []byte, f func(key, value []byte) bool) error {
	if t, ok := c.env.Tier.(interface {
		ScanReverse(from, to []byte, f func(key, value []byte) bool) error
	}); ok {
		return t.ScanReverse
	}
	return func(from, to []byte, f func(key, value []byte) bool) error {
		var all [][2][]byte
		err := c.env.Tier.Scan(from, to, func(key, value []byte) bool {
			all = append(all, [2][]byte{slices.Clone(key), slices.Clone(value)})
			return true
		})
		for i := len(all) - 1; i >= 0 && err == nil && f(all[i][0], all[i][1]); i-- {
		}
		return err
	}
}
