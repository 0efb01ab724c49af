package log

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// segment is a file with batches of one partition exactly as readers get them. The partition's last one grows, the
// others never change: compaction replaces them by others. Its fields but base and gen are guarded by the partition's
// mu, and only the flusher changes them.
type segment struct {
	p        *Partition
	base     int64  // no batch starts below
	gen      uint32 // of the file; compaction gives each a new one
	size     int64  // bytes that count; the file may have remains of a crash behind them
	next     int64  // offset behind the last batch
	maxTS    int64
	created  int64  // wall clock of its first batch, ms
	sealed   bool   // takes no more batches
	unsynced bool   // was written to since the last checkpoint
	sum      uint32 // of a compacted one: what vouches for its index
	horizon  int64  // when the first deletion or marker compaction left may go, ms; 0: there is none
}

func (s *segment) name() string {
	if s.gen == 0 {
		return fmt.Sprintf("%020d", s.base)
	}
	return fmt.Sprintf("%020d.%d", s.base, s.gen)
}

func (s *segment) path() string      { return s.p.log.fs.PathJoin(s.p.dir(), s.name()+".log") }
func (s *segment) indexPath() string { return s.p.log.fs.PathJoin(s.p.dir(), s.name()+".index") }

// corrupt says where a segment is not what was written, and what can be done.
func (s *segment) corrupt(pos int64, cause error) error {
	s.p.mu.Lock()
	next := s.next
	s.p.mu.Unlock()
	return fmt.Errorf("%s, file %s at byte %d: %w: %w (restore the file from a copy, or delete the records below offset %d with kafka-delete-records)",
		s.p, s.path(), pos, ErrCorrupt, cause, next)
}

// maxSegment keeps positions in an index 32 bits wide.
const maxSegment = math.MaxUint32

// full says that a batch of n bytes, ending at last, belongs into another segment.
func (s *segment) full(c *Config, n int, last, now int64) bool {
	return s.size > 0 && (s.size+int64(n) > min(c.SegmentBytes, maxSegment) || now-s.created >= c.SegmentMS || last-s.base > math.MaxInt32)
}

// openSegment is a segment with its file and index.
type openSegment struct {
	s    *segment
	load sync.Once
	err  error // of load
	f    vfs.File

	ready atomic.Bool // load went well

	reserved int64 // what lies below has space of its own; of the flusher

	mu    sync.RWMutex
	index index

	// Guarded by segmentFiles.mu.
	refs       int
	discarded  bool // the file is to be deleted
	prev, next *openSegment
}

// segmentFiles keeps a bounded number of segments open, those used last.
type segmentFiles struct {
	fs   vfs.FS
	max  int
	mu   sync.Mutex
	open map[*segment]*openSegment
	head openSegment // of the ring by use; head.next was used last
}

func (c *segmentFiles) init(fs vfs.FS, max int) {
	c.fs, c.max, c.open = fs, max, map[*segment]*openSegment{}
	c.head.next, c.head.prev = &c.head, &c.head
}

// get opens s, whose first size bytes count; create makes the file. Every get needs a put.
func (c *segmentFiles) get(s *segment, size int64, create bool) (*openSegment, error) {
	c.mu.Lock()
	o := c.open[s]
	if o == nil {
		o = &openSegment{s: s}
		c.open[s] = o
	} else {
		o.prev.next, o.next.prev = o.next, o.prev
	}
	o.prev, o.next = &c.head, c.head.next
	o.prev.next, o.next.prev = o, o
	o.refs++
	c.mu.Unlock()
	o.load.Do(func() { o.err = o.read(c.fs, size, create) })
	if o.err != nil {
		err := o.err
		c.forget(o)
		c.put(o)
		return nil, err
	}
	o.ready.Store(true)
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.index.size() < size { // who opened it had seen less
		if err := o.index.extend(o.f, s, size); err != nil {
			c.put(o)
			return nil, err
		}
	}
	return o, nil
}

// ifOpen returns s if it is open, else nil. What it returns needs a put.
func (c *segmentFiles) ifOpen(s *segment) *openSegment {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := c.open[s]
	if o == nil || !o.ready.Load() {
		return nil
	}
	o.refs++
	return o
}

// read opens the file and builds the index.
func (o *openSegment) read(fs vfs.FS, size int64, create bool) error {
	path := o.s.path()
	if !create {
		// OpenReadWrite would make a missing file.
		if _, err := fs.Stat(path); err != nil {
			return err
		}
	}
	var err error
	if o.f, err = fs.OpenReadWrite(path, vfs.WriteCategoryUnspecified); err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.index = loadIndex(fs, o.s.indexPath(), o.s, size)
	if o.s.gen > 0 && o.index.size() != size {
		// Offsets in a compacted segment have gaps, so only the whole of it can be vouched for.
		o.index = index{}
	}
	if err := o.index.extend(o.f, o.s, size); err != nil {
		return errors.Join(err, o.f.Close())
	}
	if o.s.gen > 0 {
		if err := o.index.finish(fs, o.s.indexPath()); err != nil {
			return errors.Join(err, o.f.Close())
		}
		if o.index.outsideSum() != o.s.sum {
			return errors.Join(o.s.corrupt(0, errors.New("offsets or lengths of batches are not those written")), o.f.Close())
		}
	}
	return nil
}

func (c *segmentFiles) forget(o *openSegment) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open[o.s] == o {
		delete(c.open, o.s)
	}
	if o.next != nil {
		o.prev.next, o.next.prev = o.next, o.prev
		o.prev, o.next = nil, nil
	}
}

func (c *segmentFiles) put(o *openSegment) {
	c.mu.Lock()
	o.refs--
	var victims []*openSegment
	if o.refs == 0 && o.next == nil && o.err == nil {
		victims = append(victims, o) // was forgotten while in use
	}
	for v := c.head.prev; len(c.open) > c.max && v != &c.head; {
		older := v.prev
		if v.refs == 0 {
			delete(c.open, v.s)
			v.prev.next, v.next.prev = v.next, v.prev
			v.prev, v.next = nil, nil
			victims = append(victims, v)
		}
		v = older
	}
	c.mu.Unlock()
	for _, v := range victims {
		v.close(c.fs)
	}
}

func (o *openSegment) close(fs vfs.FS) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.discarded {
		_ = o.f.Close()
		return
	}
	// A lost index entry costs reading the segment again, a lost file descriptor nothing.
	_ = o.index.save(fs, o.s.indexPath())
	_ = o.f.Close()
}

// drop closes s, whose file is to be deleted, as soon as nobody uses it.
func (c *segmentFiles) drop(s *segment) {
	c.mu.Lock()
	o := c.open[s]
	if o == nil {
		c.mu.Unlock()
		return
	}
	o.refs++
	o.discarded = true
	c.mu.Unlock()
	c.forget(o)
	c.put(o)
}

// close closes all segments; nobody may use one.
func (c *segmentFiles) close() {
	c.mu.Lock()
	open := c.open
	c.open = map[*segment]*openSegment{}
	c.head.next, c.head.prev = &c.head, &c.head
	c.mu.Unlock()
	for _, o := range open {
		if o.f != nil {
			o.close(c.fs)
		}
	}
}
