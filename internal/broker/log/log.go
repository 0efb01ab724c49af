// Package log keeps what the broker was given: record batches by partition, and one keyed table of the coordinators'
// records (topics, groups, transactions). Everything enters through one shared group-commit log; batches are copied on
// to the segments of their partitions later. It validates batches, numbers them, guards idempotent producers, knows
// the last stable offset and the aborted transactions, compacts, deletes and recovers.
//
// It refuses to know the wire protocol, groups or who may do what: package broker does.
package log

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Log is the storage of a broker. Its methods may be called from any goroutine.
type Log struct {
	o         Options
	fs        vfs.FS
	logger    *slog.Logger
	lock      io.Closer
	codecs    codecs
	files     segmentFiles
	wal       wal
	table     table
	budget    budget
	readBufs  sync.Pool
	epoch     int32 // leader epoch; fixed once open
	recovered Recovery

	// mu orders writes: what is checked and numbered under it goes to the write-ahead log in that order.
	mu      sync.Mutex
	parts   map[PartitionID]*Partition
	queue   []*entry
	undone  uint64 // counts failures that took back what was ordered
	failed  error  // a sync failed; nothing is written any more
	closing bool

	committed bool // the committer is gone

	// growing guards the segments that grow, and flushing: the flusher writes to them, and under Durability OS the committer.
	growing sync.Mutex

	// Of the committer.
	queued     chan struct{}
	stopCommit chan struct{}
	begun      bool // something was synced since the start
	fresh      []cachedAt
	published  atomic.Uint64 // lsn below which everything is visible

	// Of the flusher.
	flushNow, flushSoon chan struct{}
	flushed             chan flushReport
	flushes             atomic.Uint64
	referred            atomic.Int64 // bytes the write-ahead log refers to since the last checkpoint
	checkpointNow       chan chan error
	stopFlush           chan struct{}
	flushing            gather
	newDirs             atomic.Bool // a partition got its directory since the last checkpoint
	idle                atomic.Bool // nothing was written since the last checkpoint
	clean               bool        // the checkpoint on disk says that nothing follows
	marked              bool        // markName is there; of the flusher
	changed             atomic.Bool // segments changed since the last checkpoint
	checkpointed        atomic.Uint64
	checkpointEvery     atomic.Int64
	dirtyMu             sync.Mutex
	dirty               []*Partition
	garbageMu           sync.Mutex
	garbage             []garbage

	commitDone, flushDone chan struct{}

	stopKeepers context.CancelFunc
	keepers     sync.WaitGroup
	compacting  sync.Mutex // one partition at a time
}

// maxOpenSegments bounds the file descriptors of segments.
const maxOpenSegments = 512

// Recovery says what opening found.
type Recovery struct {
	// Clean says that the log had been closed properly.
	Clean bool
	// MayHaveLost says that what was written but not synced may be gone: after a power loss, or where that cannot be
	// told. Acknowledged data is not concerned under Sync, but open transactions are: their producers must be fenced.
	// The leader epoch has risen.
	MayHaveLost bool
	// Frames is how many writes were replayed, Bytes how long they were.
	Frames, Bytes int64
}

// Recovery says what opening found.
func (l *Log) Recovery() Recovery { return l.recovered }

// Err is nil as long as the log takes writes. After a failed sync it does not, until it is opened again.
func (l *Log) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.writable()
}

// Open opens the log in o.Dir, or begins one, and recovers what a crash left.
func Open(o Options) (*Log, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	o = o.withDefaults()
	if o.BootID == "" {
		o.BootID = bootID(o.FS)
	}
	l := &Log{
		o: o, fs: o.FS, logger: o.Logger, parts: map[PartitionID]*Partition{},
		queued: make(chan struct{}, 1), stopCommit: make(chan struct{}),
		flushNow: make(chan struct{}, 1), flushSoon: make(chan struct{}, 1), flushed: make(chan flushReport, 1),
		checkpointNow: make(chan chan error), stopFlush: make(chan struct{}),
		commitDone: make(chan struct{}), flushDone: make(chan struct{}),
	}
	l.budget.max = o.CacheBytes
	l.files.init(o.FS, o.openSegments)
	l.checkpointEvery.Store(checkpointFiles * o.WALBytes)
	l.wal = wal{fs: o.FS, dir: o.FS.PathJoin(o.Dir, "wal"), fileSize: o.WALBytes, lazy: o.Durability == OS, out: gather{min: o.LargeBatch, eager: o.Durability == Sync}}
	l.flushing.min = o.LargeBatch
	if err := l.open(); err != nil {
		l.files.close()
		l.codecs.close()
		if l.lock != nil {
			err = errors.Join(err, l.lock.Close())
		}
		return nil, err
	}
	go l.commitLoop()
	go l.flushLoop()
	ctx, cancel := context.WithCancel(context.Background())
	l.stopKeepers = cancel
	l.keepers.Go(func() { l.keepHouse(ctx) })
	l.keepers.Go(func() { l.keepCompact(ctx) })
	l.idle.Store(true)
	l.wakeFlusher()
	return l, nil
}

// Close writes out what is queued, takes a checkpoint and lets go of the directory. Readers must be done.
func (l *Log) Close() error {
	l.mu.Lock()
	if l.closing {
		l.mu.Unlock()
		return ErrClosed
	}
	l.closing = true
	l.mu.Unlock()
	l.stopKeepers()
	l.keepers.Wait()
	close(l.stopCommit)
	<-l.commitDone // it may need the flusher to get there
	close(l.stopFlush)
	<-l.flushDone
	var err error
	l.mu.Lock()
	failed := l.failed
	l.mu.Unlock()
	if failed == nil {
		err = l.checkpoint(true)
	}
	l.files.close()
	l.codecs.close()
	if failed == nil {
		err = errors.Join(err, l.wal.close())
	} else {
		l.wal.abandon()
	}
	return errors.Join(err, l.lock.Close())
}

// bootID asks the kernel which boot this is; "" where it does not tell.
func bootID(fs vfs.FS) string {
	if vfs.Root(fs) != vfs.Default {
		return ""
	}
	f, err := fs.Open("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 64))
	if err != nil {
		return ""
	}
	return string(b)
}
