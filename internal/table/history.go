package table

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/moldau/moldau/internal/flow"
)

// versionedFormat is of the tier's rows, and of the one at metaKey, which holds the stream time.
const versionedFormat = 1

func (s *versioned[K, V, C]) meta(seen int64) flow.TierChange {
	b := append(s.chunk(16), versionedFormat)
	b = binary.BigEndian.AppendUint64(b, uint64(seen))
	n := len(s.out)
	s.out = b
	return flow.TierChange{Key: []byte(metaKey), Value: b[n:len(b):len(b)]}
}

// discover finds what a tier from an earlier run holds.
func (s *versioned[K, V, C]) discover() error {
	b, ok, err := s.env.Tier.Get(nil, []byte(metaKey))
	if err != nil || !ok {
		return s.reading([]byte(metaKey), err)
	}
	if len(b) != 9 || b[0] != versionedFormat {
		return s.wrap("opening the tier", fmt.Errorf("%w: versions of an unknown layout, %x; delete the task's state directory, the state is in the changelog", ErrDamaged, b))
	}
	s.seen = int64(binary.BigEndian.Uint64(b[1:]))
	s.saved, s.swept, s.open().seen = s.seen, s.seen, s.seen
	return nil
}

// Done: see flow.Store.
func (s *versioned[K, V, C]) Done(epoch uint32, next int64) error {
	for i := len(s.logs) - 1; i > 0; i-- {
		if l := s.logs[i-1]; l.sealed && l.epoch <= epoch {
			if seen := s.logs[i].seen; seen != s.saved {
				l.changes = append(l.changes, s.meta(seen))
				s.saved = seen
			}
			break
		}
	}
	if err := s.core.Done(epoch, next); err != nil {
		return err
	}
	return s.sweep()
}

// Restore: see flow.Store. Records are put in their order, as they were.
func (s *versioned[K, V, C]) Restore(records []flow.In, next int64) error {
	if len(s.logs) != 1 || len(s.open().undo) > 0 {
		panic(fmt.Sprintf("store %q: restoring while an epoch is open", s.env.Spec.Name))
	}
	changes := make([]flow.TierChange, 0, len(records)+1)
	for i := range records {
		r := &records[i]
		if r.Time < s.seen-s.retention {
			continue
		}
		change, err := s.replay(r)
		if err != nil {
			return s.wrap(fmt.Sprintf("restoring offset %d, key %q", r.Offset, r.Key), err)
		}
		changes = append(changes, change)
	}
	if s.seen != s.saved {
		changes, s.saved = append(changes, s.meta(s.seen)), s.seen
	}
	if err := s.env.Tier.Apply(changes, next); err != nil {
		return s.wrap("handing restored records down to the tier", err)
	}
	s.pos, s.open().seen = next, s.seen
	return nil
}

// replay puts one committed version.
func (s *versioned[K, V, C]) replay(r *flow.In) (flow.TierChange, error) {
	if r.Key == nil || r.Time < 0 {
		return flow.TierChange{}, ErrDamaged
	}
	k := s.searching(r.Key)
	if err := s.bring(&k); err != nil {
		return flow.TierChange{}, err
	}
	at := version(r.Time)
	s.seen = max(s.seen, r.Time)
	p := s.spot(&k, at, r.Value == nil)
	if p.ref != 0 {
		s.cells.drop(&s.t.at(p.ref).cell)
	}
	b := s.chunk(len(r.Key) + len(r.Value) + 16)
	from := len(b)
	b = at.append(append(b, r.Key...))
	mid := len(b)
	change := flow.TierChange{Key: b[from:mid:mid]}
	s.out = b
	if p.forget {
		s.t.remove(s.seeds, p.ref)
		return change, nil
	}
	var c C
	if r.Value != nil {
		var err error
		if c, err = s.cells.load(r.Value); err != nil {
			return change, err
		}
	}
	b = append(append(b, byte(p.kind)), r.Value...)
	s.out, change.Value = b, b[mid:len(b):len(b)]
	var e *entry[version, C]
	if p.ref == 0 {
		_, e = s.t.insert(&k, at)
	} else {
		e = s.t.at(p.ref)
	}
	e.cell, e.time, e.bits = c, p.kind, e.bits|live
	return change, nil
}

const (
	// sweepRows is how many rows of the tier one Done looks at.
	sweepRows = 1024
	// sweeps is how often expired versions are looked for while stream time moves on by one retention.
	sweeps = 4
)

// sweep goes along the tier, a little with each commit, and takes out the versions that nobody can see any more: those that ended
// before history, and deletions before it that nothing follows.
func (s *versioned[K, V, C]) sweep() error {
	seen := s.logs[0].seen
	if s.place == nil {
		if seen-s.swept <= s.retention/sweeps {
			return nil
		}
		s.swept, s.place = seen, s.all.from
	}
	oldest := version(s.swept - s.retention)
	var gone, dead [][]byte // rows; keys that may have ended
	var last struct {
		row, key []byte
		at       version
		deletion bool
	}
	n, bad := 0, error(nil)
	err := s.env.Tier.Scan(s.place, nil, func(row, value []byte) bool {
		key, at, ok := version(0).split(row)
		if !ok || len(value) == 0 {
			bad = ErrDamaged
			return false
		}
		switch same := last.row != nil && bytes.Equal(key, last.key); {
		case same && at < oldest:
			gone = append(gone, last.row)
		case !same && last.deletion && last.at < oldest:
			dead = append(dead, last.key)
		}
		last.row = slices.Clone(row)
		last.key, last.at, last.deletion = last.row[:len(key)], at, int64(value[0])&deletion != 0
		n++
		return n < sweepRows
	})
	if err == nil {
		err = bad
	}
	if err != nil {
		return s.wrap("looking for expired versions in the tier", err)
	}
	s.place = last.row // once more, for what follows it
	if n < sweepRows {
		s.place = nil
		if last.deletion && last.at < oldest {
			dead = append(dead, last.key)
		}
	}
	for _, key := range dead {
		if gone, err = s.buried(gone, key, oldest); err != nil {
			return s.reading(key, err)
		}
	}
	return s.drop(gone)
}

// buried appends all rows of a key if the last one is a deletion before history. A longer key may have hidden others from sweep.
func (s *versioned[K, V, C]) buried(gone [][]byte, key []byte, oldest version) ([][]byte, error) {
	n, over := len(gone), false
	err := s.stored(key, func(at version, value []byte) error {
		gone = append(gone, at.append(slices.Clone(key)))
		over = at < oldest && int64(value[0])&deletion != 0
		return nil
	})
	if !over {
		gone = gone[:n]
	}
	return gone, err
}

// drop takes rows out of the tier and of memory.
func (s *versioned[K, V, C]) drop(gone [][]byte) error {
	changes := make([]flow.TierChange, 0, len(gone))
	for _, row := range gone {
		key, at, _ := version(0).split(row)
		k := s.searching(key)
		if ref := s.t.find(&k, at); ref != 0 {
			s.cells.drop(&s.t.at(ref).cell)
			s.t.remove(s.seeds, ref)
		}
		changes = append(changes, flow.TierChange{Key: row})
	}
	if len(changes) == 0 {
		return nil
	}
	if err := s.env.Tier.Apply(changes, -1); err != nil {
		return s.wrap("dropping expired versions from the tier", err)
	}
	return nil
}
