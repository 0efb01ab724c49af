package log

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/cockroachdb/errors/oserror"
	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	lockName   = "lock"
	formatName = "format"
	// format is written where the directory has none, or formatBefore: an earlier version does not know what the log may hold from
	// then on, which is references to batches in segments.
	format       = "moldau broker log 2\n"
	formatBefore = "moldau broker log 1\n"
)

// open locks the directory, reads the checkpoint and replays what was written behind it.
func (l *Log) open() error {
	fs, dir := l.fs, l.o.Dir
	if err := fs.MkdirAll(l.wal.dir, 0o755); err != nil {
		return err
	}
	if err := fs.MkdirAll(fs.PathJoin(dir, "partitions"), 0o755); err != nil {
		return err
	}
	var err error
	if l.lock, err = fs.Lock(fs.PathJoin(dir, lockName)); err != nil {
		return fmt.Errorf("open the broker's log in %s: %w by another process; stop that one or use another directory (%w)", dir, ErrLocked, err)
	}
	if err := l.checkFormat(); err != nil {
		return err
	}
	if l.marked, err = exists(fs, fs.PathJoin(dir, markName)); err != nil {
		return err
	}
	s, err := l.readCheckpoint()
	if err != nil {
		return err
	}
	// A process killed while it replaced the checkpoint leaves one that a power loss would take back, and with it what
	// is about to be deleted would be needed again.
	if err := syncDir(fs, dir); err != nil {
		return err
	}
	nums, err := walFiles(fs, l.wal.dir)
	if err != nil {
		return err
	}
	chain, err := l.walChain(nums, s.from)
	if err != nil {
		return err
	}
	l.epoch = s.epoch
	sameBoot := s.bootID != "" && s.bootID == l.o.BootID
	for _, c := range chain {
		l.epoch = max(l.epoch, c.header.epoch)
		sameBoot = c.header.bootID != "" && c.header.bootID == l.o.BootID
	}
	l.restore(s)
	l.recovered.Clean = s.clean && len(chain) == 0
	l.recovered.MayHaveLost = !l.recovered.Clean && !sameBoot
	if l.recovered.MayHaveLost {
		if err := l.distrustIndexes(); err != nil {
			return err
		}
	}
	end, refers, err := l.replay(chain, s.from)
	if err != nil {
		return err
	}
	// What was replayed may live in the page cache of a process that was killed. From here on it counts as synced.
	for _, c := range chain {
		if err := l.syncWALFile(c.num); err != nil {
			return err
		}
	}
	if l.recovered.MayHaveLost {
		l.epoch++
	}
	for _, p := range l.parts {
		p.beginEpoch(l.epoch, p.end)
	}
	l.clean = l.recovered.Clean
	l.checkpointed.Store(uint64(s.from))
	l.published.Store(uint64(end))
	l.changed.Store(!l.clean)
	l.wal.synced, l.wal.vouched, l.wal.end = end, end, end
	l.wal.header = walHeader{prevEnd: end, epoch: l.epoch, bootID: l.o.BootID}
	l.wal.nextNum = s.from.file() + 1
	for _, n := range nums {
		l.wal.nextNum = max(l.wal.nextNum, n+1)
	}
	if refers {
		// Segments may be laid out anew from here on, and what the log refers to must stay for as long as it does.
		if err := l.takeCheckpoint(end, true); err != nil {
			return err
		}
		chain = nil
	}
	if err := l.tidyWAL(nums, chain, s.from); err != nil {
		return err
	}
	if !l.recovered.Clean {
		if err := l.tidyPartitions(s); err != nil {
			return err
		}
		l.logger.Info("broker log: recovered", "dir", dir, "frames", l.recovered.Frames, "bytes", l.recovered.Bytes, "power_loss_possible", l.recovered.MayHaveLost)
	}
	// Every directory made above must be there after a power loss. The one above may not be ours to open.
	if err := syncDir(fs, fs.PathDir(dir)); err != nil && !oserror.IsPermission(err) {
		return err
	}
	return errors.Join(syncDir(fs, l.wal.dir), syncDir(fs, dir))
}

func (l *Log) syncWALFile(num uint32) error {
	path := l.wal.path(walName(num))
	f, err := l.fs.OpenReadWrite(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	if err := errors.Join(f.SyncData(), f.Close()); err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	return nil
}

func (l *Log) checkFormat() error {
	path := l.fs.PathJoin(l.o.Dir, formatName)
	b, err := readFile(l.fs, path)
	switch {
	case oserror.IsNotExist(err), err == nil && string(b) == formatBefore:
		// The directory is synced before anything else is written to it.
		if err := writeFile(l.fs, path+".tmp", []byte(format)); err != nil {
			return err
		}
		return l.fs.Rename(path+".tmp", path)
	case err != nil:
		return err
	case string(b) != format:
		return fmt.Errorf("open the broker's log: %w: %s says %.64q, this version knows %q; use the version that wrote it, or another directory", ErrFormat, path, b, format)
	}
	return nil
}

// readCheckpoint returns the checkpoint from the first of its copies that is whole. It returns an empty state where there
// has never been one.
func (l *Log) readCheckpoint() (*state, error) {
	var errs []error
	missing := 0
	for _, name := range checkpointNames {
		path := l.fs.PathJoin(l.o.Dir, name)
		b, err := readFile(l.fs, path)
		if err == nil {
			var s *state
			if s, err = decodeState(b); err == nil {
				if len(errs) > 0 && missing < len(errs) {
					l.logger.Error("broker log: a copy of the checkpoint is damaged, another one is used", "err", errors.Join(errs...))
				}
				if len(errs) > 0 {
					s.clean = false // so that the next checkpoint is written even if nothing else is
				}
				return s, nil
			}
		}
		if oserror.IsNotExist(err) {
			missing++
		}
		errs = append(errs, fmt.Errorf("%s: %w", path, err))
	}
	if missing < len(checkpointNames) {
		return nil, fmt.Errorf("open the broker's log: no copy of the checkpoint can be read (restore the directory from a copy, or begin with another one): %w", errors.Join(errs...))
	}
	if l.marked {
		return nil, fmt.Errorf("open the broker's log in %s: %w: both copies of the checkpoint are missing (restore the directory from a copy, or begin with another one)", l.o.Dir, ErrCorrupt)
	}
	return &state{from: makeLSN(0, 0), clean: true, bootID: l.o.BootID}, nil
}

func exists(fs vfs.FS, path string) (bool, error) {
	_, err := fs.Stat(path)
	if oserror.IsNotExist(err) {
		return false, nil
	}
	return err == nil, err
}

func readFile(fs vfs.FS, path string) ([]byte, error) {
	f, err := fs.Open(path)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(f)
	return b, errors.Join(err, f.Close())
}

// restore makes the partitions and the table of a checkpoint.
func (l *Log) restore(s *state) {
	l.table.kinds = s.table
	for _, m := range s.table {
		for key, value := range m {
			l.table.size += int64(len(key) + len(value))
		}
	}
	for i := range s.parts {
		ps := &s.parts[i]
		p := l.partition(ps.id)
		p.end, p.epochs = ps.end, ps.epochs
		p.producers = make(map[int64]*producer, len(ps.producers))
		for pid, q := range ps.producers {
			p.producers[pid] = &q
			if q.txnFirst >= 0 {
				p.txns.open = append(p.txns.open, openTxn{pid, q.txnFirst})
			}
		}
		slices.SortFunc(p.txns.open, func(a, b openTxn) int { return int(a.first - b.first) })
		p.txns.aborted = ps.aborted
		p.logStart, p.hw, p.flushed, p.cleaned, p.compacted = ps.logStart, ps.end, ps.flushed, ps.cleaned, ps.compacted
		for _, ss := range ps.segs {
			p.segs = append(p.segs, &segment{
				p: p, base: ss.base, gen: ss.gen, sum: ss.sum, size: ss.size, next: ss.next, maxTS: ss.maxTS,
				created: ss.created, horizon: ss.horizon, sealed: ss.sealed,
			})
		}
	}
}

// tidyWAL removes the files of the write-ahead log nobody needs, and finds the spare.
func (l *Log) tidyWAL(nums []uint32, chain []walFile, from lsn) error {
	names, err := l.fs.List(l.wal.dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		switch num, ok := walNumber(name); {
		case ok && slices.ContainsFunc(chain, func(c walFile) bool { return c.num == num }):
			l.wal.live = append(l.wal.live, num)
		case strings.HasPrefix(name, walSpare) && len(l.wal.spares) < maxSpares && fileSize(l.fs, l.wal.path(name)) == l.wal.fileSize:
			l.wal.spares = append(l.wal.spares, name)
		default:
			if err := removeIfThere(l.fs, l.wal.path(name)); err != nil {
				return err
			}
		}
	}
	slices.Sort(l.wal.live)
	return nil
}

// distrustIndexes removes the indexes of the segments that have grown since the checkpoint. They may know batches that were
// lost: others will take their place, and what is saved of those may be lost in turn.
func (l *Log) distrustIndexes() error {
	for _, p := range l.parts {
		if len(p.segs) == 0 {
			continue
		}
		if err := removeIfThere(l.fs, p.segs[len(p.segs)-1].indexPath()); err != nil {
			return err
		}
		p.newFiles = true // or a later power loss brings it back
	}
	return nil
}

// tidyPartitions removes files a crash left that the checkpoint does not name.
func (l *Log) tidyPartitions(s *state) error {
	root := l.fs.PathJoin(l.o.Dir, "partitions")
	dirs, err := l.fs.List(root)
	if err != nil {
		return err
	}
	known := make(map[string]*Partition, len(l.parts))
	for _, p := range l.parts {
		known[p.id.dirName()] = p
	}
	// Deleted since the checkpoint: the next start may have to begin from it once more.
	deleted := map[string]bool{}
	for i := range s.parts {
		if id := s.parts[i].id; l.parts[id] == nil {
			deleted[id.dirName()] = true
		}
	}
	for _, d := range dirs {
		if deleted[d] {
			continue
		}
		dir := l.fs.PathJoin(root, d)
		p := known[d]
		if p == nil || len(p.segs) == 0 {
			if err := l.fs.RemoveAll(dir); err != nil {
				return err
			}
			continue
		}
		keep := make(map[string]bool, len(p.segs))
		for _, s := range p.segs {
			keep[s.name()] = true
		}
		files, err := l.fs.List(dir)
		if err != nil {
			return err
		}
		for _, name := range files {
			if keep[strings.TrimSuffix(strings.TrimSuffix(name, ".index"), ".log")] {
				continue
			}
			if err := removeIfThere(l.fs, l.fs.PathJoin(dir, name)); err != nil {
				return err
			}
			p.newFiles = true // or a later power loss brings it back
		}
	}
	return nil
}
