package tier

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"syscall" //lint:os only the names of errors

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Shared is what all directories of a process have in common: the cache of blocks and that of open files.
type Shared struct {
	blocks *pebble.Cache
	files  *pebble.FileCache
}

// NewShared makes room for bytes of blocks and a number of open files. Close it after every DB that uses it.
func NewShared(bytes int64, files int) *Shared {
	return &Shared{pebble.NewCache(bytes), pebble.NewFileCache(4, files)}
}

// Memory is what the cache of blocks holds at the moment, in bytes.
func (s *Shared) Memory() int64 { return s.blocks.Metrics().Size }

// Close lets go of the caches.
func (s *Shared) Close() {
	s.files.Unref()
	s.blocks.Unref()
}

// Options are how to open a directory. The zero value is valid.
type Options struct {
	FS     vfs.FS  // nil: the disk
	Shared *Shared // nil: caches of its own, of 8 MB and 64 files
	// FlushBytes is how much may gather before MaybeFlush flushes; 0: 32 MB. Apply itself flushes at four times this.
	FlushBytes int64
	// FlushAge is how old what has gathered may grow before MaybeFlush flushes, ms; 0: 30 s. It is about how much changelog
	// a kill costs.
	FlushAge int64
	// Fatal is told that the disk failed in a way after which nothing written may be trusted. It must not return. nil: panic.
	Fatal func(message string)
	// Log is told of errors in the background that Pebble tries again. nil: nobody is.
	Log func(message string)
}

const (
	formatKey     = "\x00format" // before all stores: no name begins with a zero
	formatVersion = 1
	ingestPrefix  = "moldau-flush-"
)

// directory is a DB on disk.
type directory struct {
	dir    string
	o      Options
	db     *pebble.DB
	popts  *pebble.Options
	lock   *pebble.Lock
	own    *Shared
	stores []*store
	iter   *pebble.Iterator // for single reads; nil: to be made
	since  int64            // when the oldest of what has gathered came, by the wall clock; 0: nothing has
	now    int64            // the last wall clock told
	serial int
}

// Open opens or makes the directory of a task.
func Open(dir string, o Options) (DB, error) {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.FlushBytes == 0 {
		o.FlushBytes = 32 << 20
	}
	if o.FlushAge == 0 {
		o.FlushAge = 30_000
	}
	if o.Fatal == nil {
		o.Fatal = func(message string) { panic(message) }
	}
	d := &directory{dir: dir, o: o}
	if err := d.open(); err != nil {
		return nil, errors.Join(err, d.release())
	}
	return d, nil
}

func (d *directory) open() (err error) {
	if err := d.o.FS.MkdirAll(d.dir, 0o755); err != nil {
		return fmt.Errorf("making state directory %s: %w", d.dir, err)
	}
	if d.lock, err = pebble.LockDirectory(d.dir, d.o.FS); err != nil {
		if locked(err) {
			return fmt.Errorf("%w: %s is open in another process or by another task of this one; stop that, or use another state directory (%v)", ErrLocked, d.dir, err)
		}
		return fmt.Errorf("locking state directory %s: %w", d.dir, err)
	}
	if err := d.sweep(); err != nil {
		return fmt.Errorf("clearing state directory %s: %w", d.dir, err)
	}
	if d.o.Shared == nil {
		d.own = NewShared(8<<20, 64)
		d.o.Shared = d.own
	}
	d.popts = d.options()
	if d.db, err = pebble.Open(d.dir, d.popts); err != nil {
		d.db = nil
		return d.opening(err)
	}
	return d.checkFormat()
}

func locked(err error) bool {
	var path *fs.PathError
	if errors.As(err, &path) {
		return false
	}
	return errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EACCES) || strings.Contains(err.Error(), "lock held by current process")
}

func (d *directory) opening(err error) error {
	switch {
	case strings.Contains(err.Error(), "unknown format major version"):
		return fmt.Errorf("%w: %s was written by a later version of Moldau; use that one, or delete the directory: the state is in the changelog (%v)", ErrFormat, d.dir, err)
	case pebble.IsCorruptionError(err):
		return d.damaged(err)
	}
	return fmt.Errorf("opening state directory %s: %w", d.dir, err)
}

func (d *directory) damaged(err error) error {
	return fmt.Errorf("%w: %s; delete the directory: the state is in the changelog (%v)", ErrDamaged, d.dir, err)
}

// wrap says where an error of the disk happened.
func (d *directory) wrap(doing string, err error) error {
	if pebble.IsCorruptionError(err) {
		return d.damaged(err)
	}
	return fmt.Errorf("%s in state directory %s: %w", doing, d.dir, err)
}

// sweep removes files of flushes that a crash cut short.
func (d *directory) sweep() error {
	names, err := d.o.FS.List(d.dir)
	if err != nil {
		return err
	}
	for _, n := range names {
		if strings.HasPrefix(n, ingestPrefix) {
			if err := d.o.FS.Remove(d.o.FS.PathJoin(d.dir, n)); err != nil {
				return err
			}
		}
	}
	return nil
}

// options: no write-ahead log, since flushes are ingested; filters for hits on all levels but the last; blocks of 8 KB, for
// misses of the cache; compactions one at a time.
func (d *directory) options() *pebble.Options {
	o := &pebble.Options{
		FS: d.o.FS, Cache: d.o.Shared.blocks, FileCache: d.o.Shared.files, Lock: d.lock,
		DisableWAL: true, NoSyncOnClose: true,
		FormatMajorVersion:          pebble.FormatNewest,
		MemTableSize:                1 << 20, // only Pebble's own bookkeeping goes through it
		MemTableStopWritesThreshold: 4,
		L0CompactionThreshold:       4,
		L0StopWritesThreshold:       1000,
		LBaseMaxBytes:               64 << 20,
		CompactionConcurrencyRange:  func() (int, int) { return 1, 1 },
		Logger:                      logger{d},
		EventListener: &pebble.EventListener{
			BackgroundError: func(err error) { d.say(err.Error()) },
			// The read that has met it returns it; by default Pebble would end the process first.
			DataCorruption: func(i pebble.DataCorruptionInfo) { d.say("damaged file " + i.Path) },
		},
	}
	for i := range o.Levels {
		l := &o.Levels[i]
		l.BlockSize = 8 << 10
		l.IndexBlockSize = 64 << 10
		l.FilterPolicy = bloom.FilterPolicy(10)
		l.FilterType = pebble.TableFilter
		l.Compression = func() *sstable.CompressionProfile { return sstable.NoCompression }
		if i >= 3 {
			l.Compression = func() *sstable.CompressionProfile { return sstable.SnappyCompression }
		}
	}
	o.Levels[6].FilterPolicy = nil
	o.EnsureDefaults()
	return o
}

func (d *directory) say(message string) {
	if d.o.Log != nil {
		d.o.Log("state directory " + d.dir + ": " + message)
	}
}

// logger passes on what Pebble cannot go on from.
type logger struct{ d *directory }

func (logger) Infof(string, ...any)                {}
func (l logger) Errorf(format string, args ...any) { l.d.say(fmt.Sprintf(format, args...)) }
func (l logger) Fatalf(format string, args ...any) {
	l.d.o.Fatal("state directory " + l.d.dir + ": " + fmt.Sprintf(format, args...))
}

func (d *directory) checkFormat() error {
	b, closer, err := d.db.Get([]byte(formatKey))
	if errors.Is(err, pebble.ErrNotFound) {
		if err := d.db.Set([]byte(formatKey), []byte{formatVersion}, pebble.NoSync); err != nil {
			return d.wrap("writing the format", err)
		}
		return d.flushed(d.db.Flush())
	}
	if err != nil {
		return d.opening(err)
	}
	defer closer.Close()
	if len(b) != 1 || b[0] != formatVersion {
		return fmt.Errorf("%w: %s has format %v, this version of Moldau knows %d; use the one that wrote it, or delete the directory: the state is in the changelog",
			ErrFormat, d.dir, b, formatVersion)
	}
	return nil
}

func (d *directory) flushed(err error) error {
	if err != nil {
		return d.wrap("flushing", err)
	}
	return nil
}

func (d *directory) Store(name string, e Expect) (Store, error) {
	d.now = max(d.now, e.Now)
	s := &store{d: d, name: name, expect: e, gather: newGather()}
	if err := s.open(); err != nil {
		return nil, err
	}
	d.stores = append(d.stores, s)
	return s, nil
}

func (d *directory) MaybeFlush(now int64) error {
	d.now = max(d.now, now)
	var size int64
	for _, s := range d.stores {
		s.refresh(now)
		size += s.gather.size()
	}
	if d.since == 0 && d.changed() {
		d.since = now
	}
	if size >= d.o.FlushBytes || d.since != 0 && now-d.since >= d.o.FlushAge {
		return d.Flush(now)
	}
	return nil
}

func (d *directory) changed() bool {
	return slices.ContainsFunc(d.stores, func(s *store) bool { return s.changed })
}

func (d *directory) Flush(now int64) error {
	d.now = max(d.now, now)
	for _, s := range d.stores {
		s.refresh(now)
	}
	return d.flush(d.stores)
}

func (d *directory) Memory() int64 { return int64(d.db.Metrics().MemTable.Size) }

func (d *directory) Close() error { return d.release() }

func (d *directory) release() (err error) {
	d.closeIter()
	if d.db != nil {
		err = d.db.Close()
		d.db = nil
	}
	if d.lock != nil {
		err = errors.Join(err, d.lock.Close())
		d.lock = nil
	}
	if d.own != nil {
		d.own.Close()
		d.own = nil
	}
	if err != nil {
		return fmt.Errorf("closing state directory %s: %w", d.dir, err)
	}
	return nil
}
