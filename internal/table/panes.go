package table

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/serde"
)

// panes is what stores by key and time have in common. Entries lie in panes of interval ms, a table each, so that expiry drops
// tables. What has expired is not found, whether or not its table has been dropped.
type panes[K, V any, S timed[S], C any] struct {
	core[S, C]
	rep       rep[V, C]
	serde     serde.Serde[K]
	needOld   bool
	retention int64
	interval  int64
	coarse    int64         // what is kept is kept in whole segments of so many ms; 0: exactly
	all       []*pane[S, C] // by segment
	last      *pane[S, C]   // the one used last
	numbered  bool          // entries have numbers, and are found by key only
	saved     int64         // stream time as the tier has it
	savedSeq  uint32
	refs      []uint32 // scratch of fetch, as a stack
}

type pane[S timed[S], C any] struct {
	*tab[S, C]
	times []int64 // those there ever were in memory, ascending
	any   bool    // times are not noted: there may be any
}

// panesKept is into how many panes the retention is cut: more make expiry finer and searches in a pane shorter, but each
// costs some memory, whatever is in it.
const panesKept = 256

// buffersKept is the same where a search goes over most of the retention, from one time to another, and not to one start.
const buffersKept = 4

// minSegment is the least length of a segment of Kafka Streams' RocksDB stores, in ms; the length is half the retention.
const minSegment = 60_000

// day is how much a pane holds where nothing ever expires, in ms.
const day = 24 * 60 * 60 * 1000

func (s *panes[K, V, S, C]) begin(env flow.StoreEnv, k serde.Serde[K], rep rep[V, C]) error {
	s.rep, s.serde, s.needOld, s.retention = rep, k, true, env.Spec.Retention
	if s.retention <= 0 && !s.numbered {
		s.retention = math.MaxInt64
	}
	s.interval = max(s.retention/panesKept, 1)
	switch {
	case s.retention == math.MaxInt64:
		s.interval = day
	case s.numbered:
		s.interval = max(s.retention/buffersKept, 1)
	}
	if env.Spec.BySegment && s.retention < math.MaxInt64 {
		s.coarse = max(s.retention/2, minSegment)
	}
	if err := s.init(env, rep); err != nil {
		return err
	}
	s.load = func(t *tab[S, C], k *keyed, _ S, _ []byte) error { return s.bring(s.pane(t.segment), k) }
	s.moved = func(from, to *tab[S, C]) { s.pane(from.segment).tab = to }
	s.foremost = func(sub S) bool { return sub.time() == s.seen } // what has expired must not come back with a restore
	return s.discover()
}

func (p *pane[S, C]) note(at int64) {
	if n := len(p.times); p.any || n > 0 && p.times[n-1] == at {
		return
	}
	if i, found := slices.BinarySearch(p.times, at); !found {
		p.times = slices.Insert(p.times, i, at)
	}
}

// between is whether there may be something in memory with a time between from and to.
func (p *pane[S, C]) between(from, to int64) bool {
	if p.any {
		return true
	}
	i, _ := slices.BinarySearch(p.times, from)
	return i < len(p.times) && p.times[i] <= to
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

func (s *panes[K, V, S, C]) segment(at int64) int64 { return floorDiv(at, s.interval) }

// expired is by the store's own stream time: what has expired is not seen any more.
func (s *panes[K, V, S, C]) expired(at, seen int64) bool { return seen >= 0 && at <= seen-s.retention }

// gone is expired, too, unless expiry is by segment: then what is not seen any more may be there, and be written again, until
// its segment goes.
func (s *panes[K, V, S, C]) gone(at, seen int64) bool { return seen >= 0 && at < s.floor(seen) }

// floor is the first time that is not gone.
func (s *panes[K, V, S, C]) floor(seen int64) int64 {
	switch {
	case seen < 0 || s.retention == math.MaxInt64:
		return math.MinInt64
	case s.coarse > 0:
		return floorDiv(seen-s.retention, s.coarse) * s.coarse
	default:
		return seen - s.retention + 1
	}
}

// clamp leaves out what has expired.
func (s *panes[K, V, S, C]) clamp(q query) int64 {
	seen := s.seenAs(q)
	if seen < 0 || s.retention == math.MaxInt64 {
		return q.from
	}
	if q.hidden {
		return max(q.from, s.floor(seen))
	}
	return max(q.from, seen-s.retention+1)
}

// metaKey holds the interval, the stream time and, if entries are numbered, the last number in the tier, before every segment.
var metaKey = string([]byte{0})

const metaVersion = 1

func (s *panes[K, V, S, C]) meta(seen int64, seq uint32) flow.TierChange {
	s.saved, s.savedSeq = seen, seq
	b := append(s.chunk(32), metaVersion)
	b = binary.BigEndian.AppendUint64(b, uint64(s.interval))
	b = binary.BigEndian.AppendUint64(b, uint64(seen))
	if s.numbered {
		b = binary.BigEndian.AppendUint32(b, seq)
	}
	n := len(s.out)
	s.out = b
	return flow.TierChange{Key: []byte(metaKey), Value: b[n:len(b):len(b)]}
}

// discover finds what a tier from an earlier run holds. The interval stays the one it was written with.
func (s *panes[K, V, S, C]) discover() error {
	s.segmented, s.saved = true, -1
	b, ok, err := s.env.Tier.Get(nil, []byte(metaKey))
	if err != nil {
		return s.wrap("opening the tier", err)
	}
	if !ok {
		return nil
	}
	size := 17
	if s.numbered {
		size += 4
	}
	if len(b) != size || b[0] != metaVersion || int64(binary.BigEndian.Uint64(b[1:])) <= 0 {
		return s.wrap("opening the tier", fmt.Errorf("%w: panes of an unknown layout, %x; delete the task's state directory, the state is in the changelog", ErrDamaged, b))
	}
	s.interval = int64(binary.BigEndian.Uint64(b[1:]))
	s.seen = int64(binary.BigEndian.Uint64(b[9:]))
	s.saved, s.open().seen = s.seen, s.seen
	if s.numbered {
		s.seq = binary.BigEndian.Uint32(b[17:])
		s.savedSeq, s.open().seq = s.seq, s.seq
	}
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
func (s *panes[K, V, S, C]) make(segment int64) *pane[S, C] {
	p := &pane[S, C]{tab: s.newTab(segment), any: s.numbered}
	p.complete = true
	s.all = slices.Insert(s.all, s.index(segment), p)
	return p
}

func (s *panes[K, V, S, C]) index(segment int64) int {
	i, _ := slices.BinarySearchFunc(s.all, segment, func(p *pane[S, C], seg int64) int { return cmp.Compare(p.segment, seg) })
	return i
}

// pane is the one of a segment; nil: there is none.
func (s *panes[K, V, S, C]) pane(segment int64) *pane[S, C] {
	if s.last != nil && s.last.segment == segment {
		return s.last
	}
	if i := s.index(segment); i < len(s.all) && s.all[i].segment == segment {
		s.last = s.all[i]
		return s.last
	}
	return nil
}

// expire drops the panes that no open epoch can still reach or bring back.
func (s *panes[K, V, S, C]) expire() error {
	seen := s.logs[0].seen
	if seen < 0 || s.retention == math.MaxInt64 {
		return nil
	}
	end := floorDiv(s.floor(seen), s.interval) // the first segment with a time that is not gone
	n := s.index(end)
	if n == 0 {
		return nil
	}
	for _, p := range s.all[:n] {
		if s.coded {
			for ref := uint32(1); ref <= p.top; ref++ {
				s.cells.drop(&p.at(ref).cell)
			}
		}
		s.tabs[p.id] = nil
	}
	s.all, s.last = slices.Delete(s.all, 0, n), nil
	if err := s.env.Tier.DropRange(appendSegment(nil, math.MinInt64), appendSegment(nil, end)); err != nil {
		return s.wrap("dropping what has expired from the tier", err)
	}
	return nil
}

// Advance: see flow.Store. Entries go by the store's own stream time.
func (s *panes[K, V, S, C]) Advance(int64) {}

// Done: see flow.Store.
func (s *panes[K, V, S, C]) Done(epoch uint32, next int64) error {
	for i := len(s.logs) - 1; i > 0; i-- {
		if l := s.logs[i-1]; l.sealed && l.epoch <= epoch {
			if next := s.logs[i]; next.seen != s.saved || next.seq != s.savedSeq {
				l.changes = append(l.changes, s.meta(next.seen, next.seq))
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
func (s *panes[K, V, S, C]) Restore(records []flow.In, next int64) error {
	err := s.restore(records, next, func(r *flow.In, sub S) *tab[S, C] {
		at := sub.time()
		if s.seq = sub.number(); r.Value != nil || !s.numbered || s.coarse == 0 { // else it was skipped, and moved nothing
			s.seen = max(s.seen, at)
		}
		if s.gone(at, s.seen) {
			return nil
		}
		seg := s.segment(at)
		p := s.pane(seg)
		if p == nil {
			p = s.make(seg)
			p.complete = !s.tight
			p.filter.known = s.tight
		}
		p.note(at)
		return p.tab
	}, func() []flow.TierChange {
		if s.seen == s.saved && s.seq == s.savedSeq {
			return nil
		}
		return []flow.TierChange{s.meta(s.seen, s.seq)}
	})
	if err != nil {
		return err
	}
	s.open().seen, s.open().seq = s.seen, s.seq
	return s.expire()
}

func (s *panes[K, V, S, C]) encode(k K) (keyed, error) {
	b, err := s.serde.Encode(s.key[:0], k)
	if err != nil {
		return keyed{}, s.wrap(fmt.Sprintf("encoding key %v", k), err)
	}
	s.setKey(b)
	return s.lookup(), nil
}

// bring reads all entries of a key of a pane from the tier, if it is not in memory: it is there with everything or not
// at all.
func (s *panes[K, V, S, C]) bring(p *pane[S, C], k *keyed) error {
	if p.complete || p.head(k) != 0 || !p.filter.may(k.hash) {
		return nil
	}
	return s.fill(p, *k)
}

// fill is the rest of bring, apart from it so that a key that is not looked for below stays on the stack.
func (s *panes[K, V, S, C]) fill(p *pane[S, C], k keyed) error {
	base := append(appendSegment(s.buf[:0], p.segment), k.bytes...)
	from := binary.BigEndian.AppendUint64(slices.Clip(base), uint64(p.segment*s.interval))
	to := behind(base)
	if end := (p.segment + 1) * s.interval; end > p.segment*s.interval {
		to = binary.BigEndian.AppendUint64(slices.Clip(base), uint64(end))
	}
	s.buf = base
	var bad error
	err := s.env.Tier.Scan(from, to, func(key, value []byte) bool {
		b, sub, ok := (*new(S)).split(key[8:])
		if !ok {
			bad = ErrDamaged
			return false
		}
		if !bytes.Equal(b, k.bytes) {
			return true // a longer key
		}
		bad = s.take(p.tab, &k, sub, value)
		p.note(sub.time())
		return bad == nil
	})
	if err == nil {
		err = bad
	}
	return s.reading(k.bytes, err)
}

// find is an entry, expired or not; 0: none.
func (s *panes[K, V, S, C]) find(k K, sub S) (*pane[S, C], uint32, error) {
	key, err := s.encode(k)
	if err != nil {
		return nil, 0, err
	}
	p := s.pane(s.segment(sub.time()))
	if p == nil {
		return nil, 0, nil
	}
	if err := s.bring(p, &key); err != nil {
		return nil, 0, err
	}
	return p, p.find(&key, sub), nil
}

func (s *panes[K, V, S, C]) get(k K, sub S) (v V, at int64, ok bool, err error) {
	p, ref, err := s.find(k, sub)
	if err != nil || ref == 0 || s.expired(sub.time(), s.seen) {
		return v, 0, false, err
	}
	e := p.at(ref)
	e.bits |= hot
	return s.current(e)
}

func (s *panes[K, V, S, C]) wasTold(k K, sub S) (v V, at int64, ok bool, err error) {
	p, ref, err := s.find(k, sub)
	if err != nil || ref == 0 || s.expired(sub.time(), s.open().seen) {
		return v, 0, false, err
	}
	e := p.at(ref)
	if e.mark == s.mark {
		return s.was(e, s.mark-1)
	}
	e.bits |= hot
	return s.current(e)
}

func (s *panes[K, V, S, C]) wasCommitted(k K, sub S) (v V, at int64, ok bool, err error) {
	p, ref, err := s.find(k, sub)
	if err != nil || ref == 0 || s.expired(sub.time(), s.logs[0].seen) {
		return v, 0, false, err
	}
	return s.was(p.at(ref), s.done)
}

func (s *panes[K, V, S, C]) touchAt(k K, sub S) (r Ref, expired bool, err error) {
	if s.gone(sub.time(), s.seen) {
		return Ref{}, true, nil
	}
	key, err := s.encode(k)
	if err != nil {
		return Ref{}, false, err
	}
	seg := s.segment(sub.time())
	p := s.pane(seg)
	if p == nil {
		p = s.make(seg)
		s.last = p
	}
	if err := s.bring(p, &key); err != nil {
		return Ref{}, false, err
	}
	ref := p.find(&key, sub)
	born := ref == 0
	var e *entry[S, C]
	if born {
		ref, e = p.insert(&key, sub)
		p.note(sub.time())
	} else {
		e = p.at(ref)
	}
	first := e.mark != s.mark
	r, err = s.ready(p.tab, ref, e, born)
	if first && s.coarse > 0 && s.expired(sub.time(), s.seen) {
		s.open().undo[e.undo].bits |= unseen
	}
	return r, false, err
}

func (s *panes[K, V, S, C]) At(r Ref) (v V, at int64, ok bool) {
	e := s.touched(r)
	if e.bits&live == 0 || s.coarse > 0 && s.expired(e.sub.time(), s.seen) {
		return v, e.time, false
	}
	return must(s.rep.view(&e.cell)), e.time, true
}

func (s *panes[K, V, S, C]) Set(r Ref, v V, at int64, headers []flow.Header) {
	e := s.touched(r)
	s.rep.set(&e.cell, v)
	e.time, e.bits = at, e.bits|live
	s.seen = max(s.seen, e.sub.time())
	s.updated(e, headers)
}

func (s *panes[K, V, S, C]) Unset(r Ref, at int64, headers []flow.Header) {
	e := s.touched(r)
	s.seen = max(s.seen, e.sub.time())
	s.unset(e, at, headers)
}

func (s *panes[K, V, S, C]) NeedOld(on bool) { s.needOld = on }

func (s *panes[K, V, S, C]) changed(f func(k K, sub S, c Change[V]) error) error {
	return s.changes(func(t *tab[S, C], e *entry[S, C], r *undo[C], headers []flow.Header) error {
		k, err := s.serde.Decode(t.key(e))
		if err != nil {
			return s.reading(t.key(e), err)
		}
		ch, err := change(s.rep, &e.cell, e.time, e.bits, r, s.needOld)
		if err != nil {
			return s.reading(t.key(e), err)
		}
		ch.Headers = headers
		return f(k, e.sub, ch)
	})
}

func (s *panes[K, V, S, C]) current(e *entry[S, C]) (v V, at int64, ok bool, err error) {
	if e.bits&live == 0 {
		return v, 0, false, nil
	}
	v, err = s.rep.view(&e.cell)
	return v, e.time, err == nil, err
}

func (s *panes[K, V, S, C]) asCommitted(e *entry[S, C]) (V, int64, bool, error) {
	return s.was(e, s.done)
}

// was is an entry as it was when the log after mark began; the value is the caller's.
func (s *panes[K, V, S, C]) was(e *entry[S, C], mark uint32) (v V, at int64, ok bool, err error) {
	cell, at, ok := s.before(e, mark)
	if !ok {
		return v, 0, false, nil
	}
	v, err = s.rep.own(&cell)
	return v, at, err == nil, err
}
