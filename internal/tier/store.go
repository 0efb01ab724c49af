package tier

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/moldau/moldau/internal/flow"
)

// store is a tier in a directory. Its keys there are name, zero, generation (4 bytes), then 0 for what the tier says of
// itself (and with 4 bytes more of a partition, for its position there) or 1 and the key. Rebuild makes a generation; the
// last one that is not stale counts.
type store struct {
	found
	d       *directory
	name    string
	expect  Expect
	why     string
	gen     uint32
	older   bool // there are generations to be dropped
	live    bool // it has reached the end of its changelog
	gather  *gather
	changed bool // since the last flush
	any     bool // there may be keys on disk
	count   int64
	key     []byte
	closed  bool
}

const (
	aboutItself = 0
	itsKeys     = 1
	metaVersion = 1
	metaLen     = 1 + 8 + 16 + 8
)

func (s *store) base(gen uint32, kind byte) []byte {
	b := append([]byte(s.name), 0)
	return append(binary.BigEndian.AppendUint32(b, gen), kind)
}

// span is where a generation's keys are.
func (s *store) span(gen uint32) (from, to []byte) {
	return s.base(gen, itsKeys), s.base(gen, itsKeys+1)
}

// open finds the generations there are and takes the last one that can be used; if none can, the last one.
func (s *store) open() error {
	it, err := s.d.db.NewIter(&pebble.IterOptions{LowerBound: s.base(0, 0), UpperBound: append([]byte(s.name), 1)})
	if err != nil {
		return s.d.wrap("opening store "+s.name, err)
	}
	defer it.Close()
	s.position, s.savedAt = -1, s.expect.Now
	type generation struct {
		n uint32
		f found
	}
	var all []generation
	head := len(s.name) + 1
	for ok := it.First(); ok; {
		k := it.Key()
		if len(k) < head+5 {
			return s.d.damaged(fmt.Errorf("store %q has a key %x", s.name, k))
		}
		gen := binary.BigEndian.Uint32(k[head:])
		if k[head+4] == aboutItself {
			f, err := readMeta(it.Value())
			if err != nil {
				return fmt.Errorf("opening store %q in state directory %s: %w", s.name, s.d.dir, err)
			}
			for prefix := s.base(gen, aboutItself); it.Next() && bytes.HasPrefix(it.Key(), prefix); {
				if f.at, err = readPart(f.at, it.Key()[len(prefix):], it.Value()); err != nil {
					return fmt.Errorf("opening store %q in state directory %s: %w", s.name, s.d.dir, err)
				}
			}
			all = append(all, generation{gen, f})
		}
		ok = it.SeekGE(s.base(gen+1, 0))
	}
	if err := it.Error(); err != nil {
		return s.d.wrap("opening store "+s.name, err)
	}
	for i, g := range slices.Backward(all) {
		why := s.expect.stale(g.f)
		if i == len(all)-1 || why == "" {
			s.gen, s.found, s.why, s.older = g.n, g.f, why, i > 0
		}
		if why == "" {
			break
		}
	}
	if s.why == "" && s.expect.TopicID != [16]byte{} {
		s.topicID = s.expect.TopicID
	}
	s.count = -1
	from, to := s.span(s.gen)
	it.SetBounds(from, to)
	if s.any = it.First(); s.any && s.why == "" {
		s.why = s.unplaced(s.expect)
	}
	if err := it.Error(); err != nil {
		return s.d.wrap("opening store "+s.name, err)
	}
	return nil
}

func (f found) meta() []byte {
	b := append(make([]byte, 0, metaLen), metaVersion)
	b = binary.BigEndian.AppendUint64(b, uint64(f.position))
	b = append(b, f.topicID[:]...)
	return binary.BigEndian.AppendUint64(b, uint64(f.savedAt))
}

func readMeta(b []byte) (f found, err error) {
	if len(b) != metaLen || b[0] != metaVersion {
		return f, fmt.Errorf("%w: what it says of itself is %x", ErrFormat, b)
	}
	f.position = int64(binary.BigEndian.Uint64(b[1:]))
	copy(f.topicID[:], b[9:])
	f.savedAt = int64(binary.BigEndian.Uint64(b[25:]))
	return f, nil
}

// partKey is where the position in a partition lies, behind what the store says of itself.
func partKey(base []byte, partition int) []byte {
	return binary.BigEndian.AppendUint32(base, uint32(partition))
}

// readPart adds a position. They come in order.
func readPart(at []int64, key, value []byte) ([]int64, error) {
	if len(key) != 4 || len(value) != 8 || int64(binary.BigEndian.Uint32(key)) < int64(len(at)) {
		return nil, fmt.Errorf("%w: position %x of partition %x", ErrFormat, value, key)
	}
	for int64(len(at)) < int64(binary.BigEndian.Uint32(key)) {
		at = append(at, -1)
	}
	return append(at, int64(binary.BigEndian.Uint64(value))), nil
}

// on is key as it is on disk; good until the next call.
func (s *store) on(key []byte) []byte {
	if len(s.key) == 0 {
		s.key = s.base(s.gen, itsKeys)
	}
	s.key = append(s.key[:len(s.name)+6], key...)
	return s.key
}

func (s *store) Get(dst, key []byte) ([]byte, bool, error) {
	if e := s.gather.find(key); e != nil {
		return append(dst, s.gather.value(e)...), e.value >= 0, nil
	}
	if !s.any {
		return dst, false, nil
	}
	it, err := s.d.reader()
	if err != nil {
		return dst, false, err
	}
	k := s.on(key)
	if !it.SeekPrefixGE(k) || !bytes.Equal(it.Key(), k) {
		if err := it.Error(); err != nil {
			return dst, false, s.d.wrap(fmt.Sprintf("reading key %q of store %s", key, s.name), err)
		}
		return dst, false, nil
	}
	v, err := it.ValueAndErr()
	if err != nil {
		return dst, false, s.d.wrap(fmt.Sprintf("reading key %q of store %s", key, s.name), err)
	}
	return append(dst, v...), true, nil
}

// reader is the iterator of single reads: kept, since making one costs more than a seek. What is flushed ends it.
func (d *directory) reader() (*pebble.Iterator, error) {
	if d.iter == nil {
		it, err := d.db.NewIter(nil)
		if err != nil {
			return nil, d.wrap("reading", err)
		}
		d.iter = it
	}
	return d.iter, nil
}

func (d *directory) closeIter() {
	if d.iter != nil {
		d.iter.Close() // a read error has been told by the read
		d.iter = nil
	}
}

func (s *store) Scan(from, to []byte, f func(key, value []byte) bool) error {
	return s.scan(from, to, false, f)
}

func (s *store) ScanReverse(from, to []byte, f func(key, value []byte) bool) error {
	return s.scan(from, to, true, f)
}

// scan merges what has gathered and what is on disk; the former wins.
func (s *store) scan(from, to []byte, reverse bool, f func(key, value []byte) bool) error {
	g := s.gather
	mine := g.within(from, to)
	// give goes on with what has gathered; false: f has had enough.
	give := func() bool {
		i := 0
		if reverse {
			i = len(mine) - 1
		}
		e := &g.entries[mine[i].at]
		if reverse {
			mine = mine[:i]
		} else {
			mine = mine[1:]
		}
		return e.value < 0 || f(g.key(e), g.value(e))
	}
	next := func() []byte {
		if reverse {
			return g.key(&g.entries[mine[len(mine)-1].at])
		}
		return g.key(&g.entries[mine[0].at])
	}
	if s.any {
		lower, upper := s.span(s.gen)
		head := len(lower)
		if from != nil {
			lower = append(lower, from...)
		}
		if to != nil {
			upper = append(s.base(s.gen, itsKeys), to...)
		}
		if bytes.Compare(lower, upper) >= 0 {
			return nil
		}
		it, err := s.d.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
		if err != nil {
			return s.d.wrap("reading store "+s.name, err)
		}
		defer it.Close()
		first, step := it.First, it.Next
		if reverse {
			first, step = it.Last, it.Prev
		}
	disk:
		for ok := first(); ok; ok = step() {
			key := it.Key()[head:]
			for len(mine) > 0 {
				c := bytes.Compare(next(), key)
				if reverse {
					c = -c
				}
				if c > 0 {
					break
				}
				if !give() {
					return nil
				}
				if c == 0 {
					continue disk
				}
			}
			v, err := it.ValueAndErr()
			if err != nil {
				return s.d.wrap("reading store "+s.name, err)
			}
			if !f(key, v) {
				return nil
			}
		}
		if err := it.Error(); err != nil {
			return s.d.wrap("reading store "+s.name, err)
		}
	}
	for len(mine) > 0 {
		if !give() {
			return nil
		}
	}
	return nil
}

func (s *store) Apply(changes []flow.TierChange, next int64) error {
	s.gather.apply(changes)
	if next >= 0 {
		s.position = next
	}
	s.changed = s.applied() || s.changed || len(changes) > 0 || next >= 0
	if s.gather.size() >= 4*s.d.o.FlushBytes {
		return s.Flush()
	}
	return nil
}

// DropRange takes effect at once, ahead of the position: what is dropped has expired, and would again.
func (s *store) DropRange(from, to []byte) error {
	for _, o := range s.gather.within(from, to) {
		if e := &s.gather.entries[o.at]; e.value >= 0 {
			s.gather.overwrite(e, nil)
		}
	}
	if !s.any {
		return nil
	}
	lower, upper := s.span(s.gen)
	if from != nil {
		lower = append(lower, from...)
	}
	if to != nil {
		upper = append(s.base(s.gen, itsKeys), to...)
	}
	if bytes.Compare(lower, upper) >= 0 {
		return nil
	}
	return s.excise(lower, upper)
}

func (s *store) excise(from, to []byte) error {
	s.d.closeIter()
	s.count = -1
	if err := s.d.db.Excise(context.Background(), pebble.KeyRange{Start: from, End: to}); err != nil {
		return s.d.wrap("dropping a range of store "+s.name, err)
	}
	return nil
}

func (s *store) Position() int64 { return s.position }

func (s *store) Count() int64 {
	n := int64(s.gather.puts)
	if s.any {
		if s.count < 0 {
			s.count = s.estimate()
		}
		n += max(s.count, 1)
	}
	return n
}

// estimate counts the entries of the files that hold the store's keys.
func (s *store) estimate() int64 {
	from, to := s.span(s.gen)
	levels, err := s.d.db.SSTables(pebble.WithProperties(), pebble.WithKeyRangeFilter(from, to))
	if err != nil {
		return 1 // not certainly empty; a read will tell the error
	}
	n := int64(0)
	for _, l := range levels {
		for _, t := range l {
			n += int64(t.Properties.NumEntries) - 2*int64(t.Properties.NumDeletions)
		}
	}
	return max(n, 1)
}

func (s *store) Memory() int64 { return s.gather.memory() }
func (s *store) Stale() string { return s.why }
func (s *store) Flush() error  { return s.d.flush([]*store{s}) }

func (s *store) Close() error {
	s.closed = true
	s.d.stores = slices.DeleteFunc(s.d.stores, func(o *store) bool { return o == s })
	return nil
}

func (s *store) Rebuild() (Store, error) {
	n := &store{d: s.d, name: s.name, expect: s.expect, gather: newGather(), gen: s.gen + 1, older: true,
		found: found{position: -1, topicID: s.expect.TopicID, savedAt: s.expect.Now}}
	s.d.stores = append(slices.DeleteFunc(s.d.stores, func(o *store) bool { return o == s }), n)
	return n, nil
}

func (s *store) Settle() error {
	s.live = true
	if !s.older {
		return nil
	}
	if err := s.Flush(); err != nil { // the new one must be there before the old one goes
		return err
	}
	if err := s.excise(s.base(0, 0), s.base(s.gen, 0)); err != nil {
		return err
	}
	s.older = false
	return nil
}

// refresh has a store that gets no changes written anyway, long before its tombstones would be in doubt.
func (s *store) refresh(now int64) {
	if s.live && s.expect.DeleteRetention > 0 && now-s.savedAt > s.expect.DeleteRetention/4 {
		s.changed = true
	}
}

// flush writes what has gathered in stores as one sorted file each, position included, and has Pebble take them in one step.
func (d *directory) flush(stores []*store) error {
	stores = slices.DeleteFunc(slices.Clone(stores), func(s *store) bool { return !s.changed })
	slices.SortFunc(stores, func(a, b *store) int { return bytes.Compare(a.base(0, 0), b.base(0, 0)) })
	var paths []string
	for _, s := range stores {
		if s.live {
			s.savedAt = d.now
		}
		d.serial++
		path := d.o.FS.PathJoin(d.dir, fmt.Sprintf("%s%d", ingestPrefix, d.serial))
		if err := s.write(path); err != nil {
			return d.wrap("writing store "+s.name, err)
		}
		paths = append(paths, path)
	}
	if len(paths) == 0 {
		return nil
	}
	d.closeIter()
	if err := d.db.Ingest(context.Background(), paths); err != nil {
		return d.wrap("flushing", err)
	}
	for _, s := range stores {
		s.any = s.any || s.gather.puts > 0
		s.changed, s.count = false, -1
		s.gather.reset()
	}
	if !d.changed() {
		d.since = 0
	}
	return nil
}

func (s *store) write(path string) (err error) {
	f, err := s.d.o.FS.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	w := sstable.NewWriter(objstorageprovider.NewFileWritable(f), s.d.popts.MakeWriterOptions(0, s.d.db.TableFormat()))
	defer func() {
		if cerr := w.Close(); err == nil {
			err = cerr
		}
	}()
	if err := w.Set(s.base(s.gen, aboutItself), s.meta()); err != nil {
		return err
	}
	for p, at := range s.at {
		if at < 0 {
			continue
		}
		if err := w.Set(partKey(s.base(s.gen, aboutItself), p), binary.BigEndian.AppendUint64(nil, uint64(at))); err != nil {
			return err
		}
	}
	for _, o := range s.gather.order() {
		e := &s.gather.entries[o.at]
		key := s.on(s.gather.key(e))
		if e.value >= 0 {
			err = w.Set(key, s.gather.value(e))
		} else if s.any {
			err = w.Delete(key)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
