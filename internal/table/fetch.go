package table

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math"
	"slices"
)

type windowReader[C, V any] = func(e *entry[start, C]) (v V, at int64, ok bool, err error)

func (s *windowed[K, V, C]) Committed(k K, at int64) (v V, time int64, ok bool, err error) {
	p, ref, err := s.find(k, at)
	if err != nil || ref == 0 || s.expired(at, s.logs[0].seen) {
		return v, 0, false, err
	}
	return s.asCommitted(p.at(ref))
}

func (s *windowed[K, V, C]) Fetch(k K, from, to int64, f func(start int64, v V, at int64) bool) error {
	return s.fetch(k, from, to, s.seen, false, s.current, f)
}

func (s *windowed[K, V, C]) FetchReverse(k K, from, to int64, f func(start int64, v V, at int64) bool) error {
	return s.fetch(k, from, to, s.seen, true, s.current, f)
}

func (s *windowed[K, V, C]) CommittedFetch(k K, from, to int64, f func(start int64, v V, at int64) bool) error {
	return s.fetch(k, from, to, s.logs[0].seen, false, s.asCommitted, f)
}

func (s *windowed[K, V, C]) FetchAll(from, to int64, f func(k K, start int64, v V, at int64) bool) error {
	return s.fetchAll(from, to, s.seen, false, s.current, f)
}

func (s *windowed[K, V, C]) FetchAllReverse(from, to int64, f func(k K, start int64, v V, at int64) bool) error {
	return s.fetchAll(from, to, s.seen, true, s.current, f)
}

func (s *windowed[K, V, C]) Closing(from, to int64, f func(k K, start int64, v V, at int64) bool) error {
	return s.fetchAll(from, to, s.seen, false, s.current, f)
}

func (s *windowed[K, V, C]) CommittedFetchAll(from, to int64, f func(k K, start int64, v V, at int64) bool) error {
	return s.fetchAll(from, to, s.logs[0].seen, false, s.asCommitted, f)
}

// clamp leaves out what has expired.
func (s *windowed[K, V, C]) clamp(from, seen int64) int64 {
	if seen < 0 || s.retention == math.MaxInt64 {
		return from
	}
	return max(from, seen-s.retention+1)
}

// eachPane calls f for the panes that may hold starts between from and to. f may make panes.
func (s *windowed[K, V, C]) eachPane(from, to int64, reverse bool, f func(p *pane[C]) (more bool, err error)) error {
	if from > to {
		return nil
	}
	first, last := s.segment(from), s.segment(to)
	panes := s.panes[s.index(first):]
	if last < math.MaxInt64 {
		panes = s.panes[s.index(first):s.index(last+1)]
	}
	if len(panes) > 1 {
		panes = slices.Clone(panes)
		if reverse {
			slices.Reverse(panes)
		}
	}
	for _, p := range panes {
		if more, err := f(p); !more || err != nil {
			return err
		}
	}
	return nil
}

func (s *windowed[K, V, C]) fetch(k K, from, to, seen int64, reverse bool, read windowReader[C, V], f func(int64, V, int64) bool) error {
	from = s.clamp(from, seen)
	return s.eachPane(from, to, reverse, func(p *pane[C]) (bool, error) {
		key, err := s.encode(k)
		if err != nil {
			return false, err
		}
		if err := s.bring(p, &key); err != nil {
			return false, err
		}
		base := len(s.refs)
		defer func() { s.refs = s.refs[:base] }()
		for ref := p.head(&key); ref != 0; ref = p.at(ref).next {
			e := p.at(ref)
			if int64(e.sub) < from {
				break
			}
			if int64(e.sub) <= to {
				e.bits |= hot
				s.refs = append(s.refs, ref)
			}
		}
		refs := s.refs[base:len(s.refs):len(s.refs)]
		if !reverse { // a chain has the last one first
			slices.Reverse(refs)
		}
		for _, ref := range refs {
			e := p.at(ref)
			v, at, ok, err := read(e)
			if err != nil {
				return false, s.reading(p.key(e), err)
			}
			if ok && !f(int64(e.sub), v, at) {
				return false, nil
			}
		}
		return true, nil
	})
}

// row is a window in memory or, if ref is 0, as the tier has it.
type row struct {
	start int64
	ref   uint32
	key   []byte
	value []byte
}

// rows are a pane's windows that start between from and to, by start and key.
func (s *windowed[K, V, C]) rows(p *pane[C], from, to int64) (rows []row, err error) {
	switch {
	case p.tree != nil:
		p.pivot.sub = start(from)
		lead, _ := start(from).lead()
		p.tree.AscendGreaterOrEqual(item{prefix: lead}, func(i item) bool {
			e := p.at(i.ref)
			if int64(e.sub) > to {
				return false
			}
			rows = append(rows, row{start: int64(e.sub), ref: i.ref, key: p.key(e)})
			return true
		})
		if p.complete {
			return rows, nil
		}
	case p.between(from, to):
		for ref := uint32(1); ref <= p.top; ref++ {
			if e := p.at(ref); e.bits&used != 0 && from <= int64(e.sub) && int64(e.sub) <= to {
				rows = append(rows, row{start: int64(e.sub), ref: ref, key: p.key(e)})
			}
		}
	}
	if !p.complete {
		var bad error
		err = s.env.Tier.Scan(appendSegment(nil, p.segment), appendSegment(nil, p.segment+1), func(key, value []byte) bool {
			k, at, ok := start(0).split(key[8:])
			if !ok || len(value) < 8 {
				bad = s.reading(key, ErrDamaged)
				return false
			}
			if int64(at) < from || to < int64(at) {
				return true
			}
			look := s.searching(k)
			if p.head(&look) == 0 { // else memory has all of the key
				rows = append(rows, row{start: int64(at), key: slices.Clone(k), value: slices.Clone(value)})
			}
			return true
		})
		if err == nil {
			err = bad
		}
		if err != nil {
			return nil, s.wrap("reading windows from the tier", err)
		}
	}
	slices.SortFunc(rows, func(a, b row) int {
		if c := cmp.Compare(a.start, b.start); c != 0 {
			return c
		}
		return bytes.Compare(a.key, b.key)
	})
	return rows, nil
}

func (s *windowed[K, V, C]) fetchAll(from, to, seen int64, reverse bool, read windowReader[C, V], f func(K, int64, V, int64) bool) error {
	from = s.clamp(from, seen)
	return s.eachPane(from, to, reverse, func(p *pane[C]) (bool, error) {
		rows, err := s.rows(p, from, to)
		if err != nil {
			return false, err
		}
		if reverse {
			slices.Reverse(rows)
		}
		for _, r := range rows {
			var v V
			var at int64
			ok := true
			if r.ref != 0 {
				v, at, ok, err = read(p.at(r.ref))
			} else {
				at = int64(binary.BigEndian.Uint64(r.value))
				v, err = s.rep.decode(r.value[8:])
			}
			if err != nil {
				return false, s.reading(r.key, err)
			}
			if !ok {
				continue
			}
			k, err := s.serde.Decode(r.key)
			if err != nil {
				return false, s.reading(r.key, err)
			}
			if !f(k, r.start, v, at) {
				return false, nil
			}
		}
		return true, nil
	})
}
