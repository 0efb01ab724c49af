package table

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math"
	"slices"
)

// query is which entries are asked for: those of some times, as they are now or as of the last Done, from the first to the
// last or the other way round.
type query struct {
	from, to  int64
	reverse   bool
	committed bool
	hidden    bool // also those that have expired and are not gone
}

// seenAs is the stream time that decides what has expired.
func (s *panes[K, V, S, C]) seenAs(q query) int64 {
	if q.committed {
		return s.logs[0].seen
	}
	return s.seen
}

func (s *panes[K, V, S, C]) read(q query, e *entry[S, C]) (v V, at int64, ok bool, err error) {
	if q.committed {
		return s.asCommitted(e)
	}
	return s.current(e)
}

// eachPane calls f for the panes that may hold times between from and to. f may make panes.
func (s *panes[K, V, S, C]) eachPane(q query, f func(p *pane[S, C]) (more bool, err error)) error {
	if q.from > q.to {
		return nil
	}
	first, last := s.segment(q.from), s.segment(q.to)
	all := s.all[s.index(first):]
	if last < math.MaxInt64 {
		all = s.all[s.index(first):s.index(last+1)]
	}
	if len(all) > 1 {
		all = slices.Clone(all)
		if q.reverse {
			slices.Reverse(all)
		}
	}
	for _, p := range all {
		if more, err := f(p); !more || err != nil {
			return err
		}
	}
	return nil
}

// fetch gives the entries of a key whose times are between from and to, by suffix. f may change the store.
func (s *panes[K, V, S, C]) fetch(k K, q query, f func(sub S, v V, at int64) bool) error {
	q.from = s.clamp(q)
	return s.eachPane(q, func(p *pane[S, C]) (bool, error) {
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
			if e.sub.time() < q.from {
				break
			}
			if e.sub.time() <= q.to {
				e.bits |= hot
				s.refs = append(s.refs, ref)
			}
		}
		refs := s.refs[base:len(s.refs):len(s.refs)]
		if !q.reverse { // a chain has the last one first
			slices.Reverse(refs)
		}
		for _, ref := range refs {
			e := p.at(ref)
			v, at, ok, err := s.read(q, e)
			if err != nil {
				return false, s.reading(p.key(e), err)
			}
			if ok && !f(e.sub, v, at) {
				return false, nil
			}
		}
		return true, nil
	})
}

// row is an entry in memory or, if ref is 0, as the tier has it.
type row[S any] struct {
	sub   S
	ref   uint32
	key   []byte
	value []byte
}

// rows are a pane's entries whose times are between from and to, by suffix and key.
func (s *panes[K, V, S, C]) rows(p *pane[S, C], q query) (rows []row[S], err error) {
	switch {
	case p.tree != nil:
		p.pivot.sub = (*new(S)).least(q.from)
		lead, _ := p.pivot.sub.lead()
		p.tree.AscendGreaterOrEqual(item{prefix: lead}, func(i item) bool {
			e := p.at(i.ref)
			if e.sub.time() > q.to {
				return false
			}
			rows = append(rows, row[S]{sub: e.sub, ref: i.ref, key: p.key(e)})
			return true
		})
		if p.complete {
			return rows, nil
		}
	case p.between(q.from, q.to):
		for ref := uint32(1); ref <= p.top; ref++ {
			if e := p.at(ref); e.bits&used != 0 && q.from <= e.sub.time() && e.sub.time() <= q.to {
				rows = append(rows, row[S]{sub: e.sub, ref: ref, key: p.key(e)})
			}
		}
	}
	if !p.complete {
		var bad error
		r := s.below(p.tab)
		err = s.env.Tier.Scan(r.from, r.to, func(key, value []byte) bool {
			k, sub, ok := (*new(S)).split(key[8:])
			if !ok || len(value) < 8 {
				bad = s.reading(key, ErrDamaged)
				return false
			}
			if sub.time() < q.from || q.to < sub.time() {
				return true
			}
			look := s.searching(k)
			if p.head(&look) == 0 { // else memory has all of the key
				rows = append(rows, row[S]{sub: sub, key: slices.Clone(k), value: slices.Clone(value)})
			}
			return true
		})
		if err == nil {
			err = bad
		}
		if err != nil {
			return nil, s.wrap("reading from the tier", err)
		}
	}
	slices.SortFunc(rows, func(a, b row[S]) int { return cmp.Or(a.sub.compare(b.sub), bytes.Compare(a.key, b.key)) })
	return rows, nil
}

// fetchAll gives the entries of all keys whose times are between from and to, by suffix and key.
func (s *panes[K, V, S, C]) fetchAll(q query, f func(k K, sub S, v V, at int64) bool) error {
	q.from = s.clamp(q)
	return s.eachPane(q, func(p *pane[S, C]) (bool, error) {
		rows, err := s.rows(p, q)
		if err != nil {
			return false, err
		}
		if q.reverse {
			slices.Reverse(rows)
		}
		for _, r := range rows {
			var v V
			var at int64
			ok := true
			if r.ref != 0 {
				v, at, ok, err = s.read(q, p.at(r.ref))
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
			if !f(k, r.sub, v, at) {
				return false, nil
			}
		}
		return true, nil
	})
}
