package table

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/serde"
)

// Windows is a store of values by key and window start.
type Windows[K, V any] struct{ windows[K, V] }

// windows is a Windows whichever way it keeps values. Times are in ms. A window is there as long as its start is greater than the store's stream
// time less the retention; the store's stream time is the greatest start ever set in it, as in Kafka Streams.
type windows[K, V any] interface {
	flow.Store
	// Get is the current value, committed or not, and its time. It must not be written through.
	Get(k K, start int64) (v V, at int64, ok bool, err error)
	// Touch finds or makes an entry and notes what undo needs, as KV's does. expired: the window is gone, or would be
	// at once; there is no entry.
	Touch(k K, start int64) (r Ref, expired bool, err error)
	At(r Ref) (v V, at int64, live bool)
	Set(r Ref, v V, at int64, headers []flow.Header)
	Unset(r Ref, at int64, headers []flow.Header)
	// Changes: see KV.
	Changes(f func(k K, start int64, c Change[V]) error) error
	NeedOld(bool)
	// Fetch calls f for the windows of k that start between from and to, both inclusive, by start, until it returns
	// false. f may change the store; windows it adds may or may not be seen.
	Fetch(k K, from, to int64, f func(start int64, v V, at int64) bool) error
	// FetchReverse is Fetch from the last to the first.
	FetchReverse(k K, from, to int64, f func(start int64, v V, at int64) bool) error
	// FetchAll is Fetch over all keys, by start, then by serialized key bytes.
	FetchAll(from, to int64, f func(k K, start int64, v V, at int64) bool) error
	// FetchAllReverse is FetchAll from the last to the first.
	FetchAllReverse(from, to int64, f func(k K, start int64, v V, at int64) bool) error
	// Closing is what an operator that emits when windows close asks for: the windows that start between from and to, as
	// FetchAll gives them. It costs little if there are none.
	Closing(from, to int64, f func(k K, start int64, v V, at int64) bool) error
	// Committed, CommittedFetch and CommittedFetchAll are the same as of the last Done, whatever epochs are open.
	Committed(k K, start int64) (v V, at int64, ok bool, err error)
	CommittedFetch(k K, from, to int64, f func(start int64, v V, at int64) bool) error
	CommittedFetchAll(from, to int64, f func(k K, start int64, v V, at int64) bool) error
}

// NewWindows makes the store of one task; env.Spec.Retention says how long windows are kept, 0: for ever.
func NewWindows[K, V any](env flow.StoreEnv, k serde.Serde[K], v serde.Serde[V]) (*Windows[K, V], error) {
	if byValue[V]() {
		return newWindows[K, V, V](env, k, newPlain(v))
	}
	return newWindows[K, V, cell](env, k, newCoded(v))
}

func newWindows[K, V, C any](env flow.StoreEnv, k serde.Serde[K], rep rep[V, C]) (*Windows[K, V], error) {
	s := &windowed[K, V, C]{rep: rep, serde: k, needOld: true, retention: env.Spec.Retention}
	s.interval = max(s.retention/panesKept, 1)
	if s.retention <= 0 || s.retention == math.MaxInt64 {
		s.retention, s.interval = math.MaxInt64, day
	}
	if err := s.init(env, rep); err != nil {
		return nil, err
	}
	if err := s.discover(); err != nil {
		return nil, err
	}
	s.load = func(t *tab[start, C], k *keyed, _ start, _ []byte) error {
		return s.bring(s.pane(t.segment), k)
	}
	s.moved = func(from, to *tab[start, C]) { s.pane(from.segment).tab = to }
	return &Windows[K, V]{s}, nil
}

// panesKept is into how many panes the retention is cut: more make expiry finer and searches in a pane shorter, but each
// costs some memory, whatever is in it.
const panesKept = 256

// day is how much a pane holds where nothing ever expires, in ms.
const day = 24 * 60 * 60 * 1000

// windowed keeps windows in panes of interval ms of starts: a table each, so that expiry drops tables.
type windowed[K, V, C any] struct {
	core[start, C]
	rep       rep[V, C]
	serde     serde.Serde[K]
	needOld   bool
	retention int64
	interval  int64
	panes     []*pane[C] // by segment
	last      *pane[C]   // the one used last
	saved     int64      // stream time as the tier has it
	refs      []uint32   // scratch of Fetch, as a stack
}

type pane[C any] struct {
	*tab[start, C]
	starts []int64 // those there ever were in memory, ascending
}

func (p *pane[C]) note(at int64) {
	if n := len(p.starts); n > 0 && p.starts[n-1] == at {
		return
	}
	if i, found := slices.BinarySearch(p.starts, at); !found {
		p.starts = slices.Insert(p.starts, i, at)
	}
}

// between is whether a window that starts between from and to may be in memory.
func (p *pane[C]) between(from, to int64) bool {
	i, _ := slices.BinarySearch(p.starts, from)
	return i < len(p.starts) && p.starts[i] <= to
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

func (s *windowed[K, V, C]) segment(at int64) int64 { return floorDiv(at, s.interval) }

// expired is by the store's own stream time.
func (s *windowed[K, V, C]) expired(at, seen int64) bool { return seen >= 0 && at <= seen-s.retention }

// metaKey holds the interval and the stream time in the tier, before every segment.
var metaKey = string([]byte{0})

const metaVersion = 1

func (s *windowed[K, V, C]) meta(seen int64) []byte {
	b := append(s.chunk(32), metaVersion)
	b = binary.BigEndian.AppendUint64(b, uint64(s.interval))
	b = binary.BigEndian.AppendUint64(b, uint64(seen))
	n := len(s.out)
	s.out = b
	return b[n:len(b):len(b)]
}

// discover finds what a tier from an earlier run holds. The interval stays the one it was written with.
func (s *windowed[K, V, C]) discover() error {
	s.segmented, s.saved = true, -1
	b, ok, err := s.env.Tier.Get(nil, []byte(metaKey))
	if err != nil {
		return s.wrap("opening the tier", err)
	}
	if !ok {
		return nil
	}
	if len(b) != 17 || b[0] != metaVersion || int64(binary.BigEndian.Uint64(b[1:])) <= 0 {
		return s.wrap("opening the tier", fmt.Errorf("%w: windows of an unknown layout, %x; delete the task's state directory, the state is in the changelog", ErrDamaged, b))
	}
	s.interval = int64(binary.BigEndian.Uint64(b[1:]))
	s.seen = int64(binary.BigEndian.Uint64(b[9:]))
	s.saved, s.open().seen = s.seen, s.seen
	for from := appendSegment(nil, math.MinInt64); from != nil; {
		at, any := int64(0), false
		err := s.env.Tier.Scan(from, nil, func(key, _ []byte) bool {
			any = len(key) >= 8
			if any {
				at = int64(binary.BigEndian.Uint64(key) ^ 1<<63)
			}
			return false
		})
		if err != nil {
			return s.wrap("opening the tier", err)
		}
		if !any || at == math.MaxInt64 {
			break
		}
		p := s.make(at)
		p.complete, s.cold = false, append(s.cold, p.tab)
		from = appendSegment(nil, at+1)
	}
	return s.expire()
}

// make adds the pane of a segment.
func (s *windowed[K, V, C]) make(segment int64) *pane[C] {
	p := &pane[C]{tab: s.newTab(segment)}
	p.complete = true
	s.panes = slices.Insert(s.panes, s.index(segment), p)
	return p
}

func (s *windowed[K, V, C]) index(segment int64) int {
	i, _ := slices.BinarySearchFunc(s.panes, segment, func(p *pane[C], seg int64) int {
		switch {
		case p.segment < seg:
			return -1
		case p.segment > seg:
			return 1
		}
		return 0
	})
	return i
}

// pane is the one of a segment; nil: there is none.
func (s *windowed[K, V, C]) pane(segment int64) *pane[C] {
	if s.last != nil && s.last.segment == segment {
		return s.last
	}
	if i := s.index(segment); i < len(s.panes) && s.panes[i].segment == segment {
		s.last = s.panes[i]
		return s.last
	}
	return nil
}

// expire drops the panes that no open epoch can still reach or bring back.
func (s *windowed[K, V, C]) expire() error {
	seen := s.logs[0].seen
	if seen < 0 || s.retention == math.MaxInt64 {
		return nil
	}
	end := floorDiv(seen-s.retention+1, s.interval) // the first segment with a start that is not expired
	n := s.index(end)
	if n == 0 {
		return nil
	}
	for _, p := range s.panes[:n] {
		if s.coded {
			for ref := uint32(1); ref <= p.top; ref++ {
				s.cells.drop(&p.at(ref).cell)
			}
		}
		s.tabs[p.id] = nil
	}
	s.panes, s.last = slices.Delete(s.panes, 0, n), nil
	if err := s.env.Tier.DropRange(appendSegment(nil, math.MinInt64), appendSegment(nil, end)); err != nil {
		return s.wrap("dropping expired windows from the tier", err)
	}
	return nil
}

// Advance: see flow.Store. Windows go by the store's own stream time.
func (s *windowed[K, V, C]) Advance(int64) {}

// Done: see flow.Store.
func (s *windowed[K, V, C]) Done(epoch uint32, next int64) error {
	for i := len(s.logs) - 1; i > 0; i-- {
		if l := s.logs[i-1]; l.sealed && l.epoch <= epoch {
			if seen := s.logs[i].seen; seen != s.saved {
				l.changes = append(l.changes, flow.TierChange{Key: []byte(metaKey), Value: s.meta(seen)})
				s.saved = seen
			}
			break
		}
	}
	if err := s.core.Done(epoch, next); err != nil {
		return err
	}
	return s.expire()
}

// Restore: see flow.Store.
func (s *windowed[K, V, C]) Restore(records []flow.In, next int64) error {
	err := s.restore(records, next, func(_ []byte, at start) *tab[start, C] {
		s.seen = max(s.seen, int64(at))
		if s.expired(int64(at), s.seen) {
			return nil
		}
		seg := s.segment(int64(at))
		p := s.pane(seg)
		if p == nil {
			p = s.make(seg)
			p.complete = !s.tight
			p.filter.known = s.tight
		}
		p.note(int64(at))
		return p.tab
	}, func() []flow.TierChange {
		if s.seen == s.saved {
			return nil
		}
		s.saved = s.seen
		return []flow.TierChange{{Key: []byte(metaKey), Value: s.meta(s.seen)}}
	})
	if err != nil {
		return err
	}
	s.open().seen = s.seen
	return s.expire()
}

func (s *windowed[K, V, C]) encode(k K) (keyed, error) {
	b, err := s.serde.Encode(s.key[:0], k)
	if err != nil {
		return keyed{}, s.wrap(fmt.Sprintf("encoding key %v", k), err)
	}
	s.setKey(b)
	return s.lookup(), nil
}

// bring reads all windows of a key of a pane from the tier, if it is not in memory: it is there with everything or
// not at all.
func (s *windowed[K, V, C]) bring(p *pane[C], k *keyed) error {
	if p.complete || p.head(k) != 0 || !p.filter.may(k.hash) {
		return nil
	}
	base := append(appendSegment(s.buf[:0], p.segment), k.bytes...)
	from := binary.BigEndian.AppendUint64(slices.Clip(base), uint64(p.segment*s.interval))
	to := behind(base)
	if end := (p.segment + 1) * s.interval; end > p.segment*s.interval {
		to = binary.BigEndian.AppendUint64(slices.Clip(base), uint64(end))
	}
	s.buf = base
	var bad error
	err := s.env.Tier.Scan(from, to, func(key, value []byte) bool {
		b, at, ok := start(0).split(key[8:])
		if !ok {
			bad = ErrDamaged
			return false
		}
		if !bytes.Equal(b, k.bytes) {
			return true // a longer key
		}
		bad = s.take(p.tab, k, at, value)
		p.note(int64(at))
		return bad == nil
	})
	if err == nil {
		err = bad
	}
	return s.reading(k.bytes, err)
}

// find is an entry; 0: none, or expired.
func (s *windowed[K, V, C]) find(k K, at int64) (*pane[C], uint32, error) {
	key, err := s.encode(k)
	if err != nil {
		return nil, 0, err
	}
	p := s.pane(s.segment(at))
	if p == nil {
		return nil, 0, nil
	}
	if err := s.bring(p, &key); err != nil {
		return nil, 0, err
	}
	return p, p.find(&key, start(at)), nil
}

func (s *windowed[K, V, C]) Get(k K, at int64) (v V, time int64, ok bool, err error) {
	p, ref, err := s.find(k, at)
	if err != nil || ref == 0 || s.expired(at, s.seen) {
		return v, 0, false, err
	}
	e := p.at(ref)
	e.bits |= hot
	return s.current(e)
}

func (s *windowed[K, V, C]) Touch(k K, at int64) (r Ref, expired bool, err error) {
	if s.expired(at, s.seen) {
		return Ref{}, true, nil
	}
	key, err := s.encode(k)
	if err != nil {
		return Ref{}, false, err
	}
	seg := s.segment(at)
	p := s.pane(seg)
	if p == nil {
		p = s.make(seg)
		s.last = p
	}
	if err := s.bring(p, &key); err != nil {
		return Ref{}, false, err
	}
	ref := p.find(&key, start(at))
	born := ref == 0
	var e *entry[start, C]
	if born {
		ref, e = p.insert(&key, start(at))
		p.note(at)
	} else {
		e = p.at(ref)
	}
	r, err = s.ready(p.tab, ref, e, born)
	return r, false, err
}

func (s *windowed[K, V, C]) At(r Ref) (v V, at int64, ok bool) {
	e := s.touched(r)
	if e.bits&live == 0 {
		return v, e.time, false
	}
	return must(s.rep.view(&e.cell)), e.time, true
}

func (s *windowed[K, V, C]) Set(r Ref, v V, at int64, headers []flow.Header) {
	e := s.touched(r)
	s.rep.set(&e.cell, v)
	e.time, e.bits = at, e.bits|live
	s.seen = max(s.seen, int64(e.sub))
	s.updated(e, headers)
}

func (s *windowed[K, V, C]) Unset(r Ref, at int64, headers []flow.Header) {
	e := s.touched(r)
	s.seen = max(s.seen, int64(e.sub))
	s.unset(e, at, headers)
}

func (s *windowed[K, V, C]) NeedOld(on bool) { s.needOld = on }

func (s *windowed[K, V, C]) Changes(f func(k K, start int64, c Change[V]) error) error {
	return s.changes(func(t *tab[start, C], e *entry[start, C], r *undo[C], headers []flow.Header) error {
		k, err := s.serde.Decode(t.key(e))
		if err != nil {
			return s.reading(t.key(e), err)
		}
		ch, err := change(s.rep, &e.cell, e.time, e.bits, r, s.needOld)
		if err != nil {
			return s.reading(t.key(e), err)
		}
		ch.Headers = headers
		return f(k, int64(e.sub), ch)
	})
}

func (s *windowed[K, V, C]) current(e *entry[start, C]) (v V, at int64, ok bool, err error) {
	if e.bits&live == 0 {
		return v, 0, false, nil
	}
	v, err = s.rep.view(&e.cell)
	return v, e.time, err == nil, err
}

func (s *windowed[K, V, C]) asCommitted(e *entry[start, C]) (v V, at int64, ok bool, err error) {
	cell, at, ok := s.committed(e)
	if !ok {
		return v, 0, false, nil
	}
	v, err = s.rep.own(&cell)
	return v, at, err == nil, err
}
