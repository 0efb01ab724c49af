package tier

import (
	"maps"
	"slices"
	"sort"

	"github.com/moldau/moldau/internal/flow"
)

// Mem is a DB without a disk. What is not flushed is lost by Crash, as it would be in a directory.
type Mem struct {
	durable  map[string]*memStore
	open     map[string]*memStore
	FlushAge int64 // MaybeFlush flushes what is older, ms; 0: only Flush does
	flushed  int64
}

// NewMem is an empty Mem.
func NewMem() *Mem {
	return &Mem{durable: map[string]*memStore{}, open: map[string]*memStore{}}
}

// Crash is what a process finds that opens it after this one was killed. The receiver must not be used any more.
func (m *Mem) Crash() *Mem {
	n := NewMem()
	n.FlushAge = m.FlushAge
	for name, s := range m.durable { //lint:ordered it fills a map
		n.durable[name] = s
		n.open[name] = s.clone()
		n.open[name].db = n
	}
	return n
}

func (m *Mem) Store(name string, e Expect) (Store, error) {
	s := m.open[name]
	if s == nil {
		s = &memStore{found: found{position: -1, savedAt: e.Now}}
		m.open[name] = s
	}
	s.db, s.name, s.live = m, name, false
	if s.why = e.stale(s.found); s.why == "" && len(s.data) > 0 {
		s.why = s.unplaced(e)
	}
	if s.why == "" && e.TopicID != [16]byte{} {
		s.topicID = e.TopicID
	}
	s.expect = e
	return s, nil
}

func (m *Mem) MaybeFlush(now int64) error {
	if m.FlushAge > 0 && now-m.flushed >= m.FlushAge {
		return m.Flush(now)
	}
	return nil
}

func (m *Mem) Flush(now int64) error {
	m.flushed = now
	for _, s := range m.open { //lint:ordered stores do not know each other
		if s.live {
			s.savedAt = now
		}
		if err := s.Flush(); err != nil {
			return err
		}
	}
	return nil
}

func (m *Mem) Memory() int64 { return 0 }

func (m *Mem) Close() error { return nil }

type memStore struct {
	found
	live   bool // it has reached the end of its changelog
	db     *Mem
	name   string
	expect Expect
	why    string
	data   map[string][]byte
	sorted []string // nil: to be made
	bytes  int64
}

func (s *memStore) clone() *memStore {
	c := *s
	c.data, c.sorted, c.advance = maps.Clone(s.data), nil, nil
	return &c
}

func (s *memStore) Get(dst, key []byte) ([]byte, bool, error) {
	v, ok := s.data[string(key)]
	return append(dst, v...), ok, nil
}

// within are the keys of [from, to), in order.
func (s *memStore) within(from, to []byte) []string {
	if s.sorted == nil {
		s.sorted = slices.Sorted(maps.Keys(s.data))
	}
	lo, hi := 0, len(s.sorted)
	if from != nil {
		lo = sort.SearchStrings(s.sorted, string(from))
	}
	if to != nil {
		hi = max(lo, sort.SearchStrings(s.sorted, string(to)))
	}
	return s.sorted[lo:hi]
}

func (s *memStore) Scan(from, to []byte, f func(key, value []byte) bool) error {
	for _, k := range s.within(from, to) {
		if !f([]byte(k), s.data[k]) {
			break
		}
	}
	return nil
}

func (s *memStore) ScanReverse(from, to []byte, f func(key, value []byte) bool) error {
	for _, k := range slices.Backward(s.within(from, to)) {
		if !f([]byte(k), s.data[k]) {
			break
		}
	}
	return nil
}

func (s *memStore) Apply(changes []flow.TierChange, next int64) error {
	if s.data == nil {
		s.data = map[string][]byte{}
	}
	for _, c := range changes {
		old, had := s.data[string(c.Key)]
		if had {
			s.bytes -= int64(len(c.Key) + len(old))
		}
		if c.Value == nil {
			delete(s.data, string(c.Key))
		} else {
			s.data[string(c.Key)] = slices.Clone(c.Value)
			s.bytes += int64(len(c.Key) + len(c.Value))
		}
		if had != (c.Value != nil) {
			s.sorted = nil
		}
	}
	if next >= 0 {
		s.position = next
	}
	s.applied()
	return nil
}

func (s *memStore) DropRange(from, to []byte) error {
	for _, k := range s.within(from, to) {
		s.bytes -= int64(len(k) + len(s.data[k]))
		delete(s.data, k)
	}
	s.sorted = nil
	return nil
}

func (s *memStore) Position() int64 { return s.position }
func (s *memStore) Count() int64    { return int64(len(s.data)) }
func (s *memStore) Memory() int64   { return s.bytes }
func (s *memStore) Close() error    { return nil }
func (s *memStore) Stale() string   { return s.why }
func (s *memStore) Settle() error   { s.live = true; return nil }

func (s *memStore) Flush() error {
	s.db.durable[s.name] = s.clone()
	return nil
}

func (s *memStore) Rebuild() (Store, error) {
	n := &memStore{db: s.db, name: s.name, expect: s.expect, found: found{position: -1, topicID: s.expect.TopicID, savedAt: s.expect.Now}}
	s.db.open[s.name] = n
	return n, nil
}
