package log

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sync/errgroup"
)

// A checkpoint is taken while others write, and while the flusher, who takes it, goes on flushing: nobody waits for its
// syncs. It need not show one moment: replaying the write-ahead log from where the checkpoint began brings what it recorded
// early up to date and passes over what it recorded late. It must not show anything that is not durable, though, nor may a
// file go that the last durable checkpoint names.

// There are two copies of it, because nothing could make it anew: the write-ahead log only goes back to the last one. What
// the one before named is let go of when both are durable, so either will do.
var checkpointNames = [...]string{"checkpoint", "checkpoint.copy"}

// markName is an empty file that says that there has been a checkpoint: a directory without one is not a new log then.
const markName = "in-use"

// checkpointFiles is after how many files of the write-ahead log a checkpoint is due. Few cost syncs, many cost disk and
// the time a start takes to replay them.
const checkpointFiles = 8

// walGrown is about how many bytes the write-ahead log, with what it refers to, has gained since the last checkpoint.
func (l *Log) walGrown() int64 {
	now, then := lsn(l.published.Load()), lsn(l.checkpointed.Load())
	return int64(now.file()-then.file())*l.o.WALBytes + now.off() - then.off() + l.referred.Load()
}

// Checkpoint brings everything into segments, so that the next start has nothing to replay and files nobody needs are
// deleted. The log does this by itself now and then.
func (l *Log) Checkpoint() error {
	reply := make(chan error, 1)
	select {
	case l.checkpointNow <- reply:
	case <-l.stopFlush:
		return ErrClosed
	}
	return <-reply
}

// checkpoint records the state and lets go of what came before. Only the flusher calls it; last is for Close, when
// nobody writes any more.
func (l *Log) checkpoint(last bool) error {
	from := lsn(l.published.Load())
	changed := l.changed.Swap(false)
	if from == lsn(l.checkpointed.Load()) && !changed && (!last || l.clean) {
		return nil
	}
	if err := l.takeCheckpoint(from, last); err != nil {
		l.changed.Store(l.changed.Load() || changed)
		return fmt.Errorf("checkpoint in %s: %w", l.o.Dir, err)
	}
	return nil
}

func (l *Log) takeCheckpoint(from lsn, last bool) error {
	s := state{from: from, clean: last, epoch: l.epoch, bootID: l.o.BootID}
	referred := l.referred.Load()
	parts, states, undone := l.orderedState()
	s.table = l.table.clone()
	// What the states count on must be visible to be flushed.
	if err := l.settle(last); err != nil {
		return err
	}
	l.mu.Lock()
	undone -= l.undone
	l.mu.Unlock()
	if undone != 0 {
		return errUndone
	}
	for i, p := range parts {
		if err := p.flush(states[i].end); err != nil {
			return err
		}
	}
	now := l.o.Now().UnixMilli()
	l.growing.Lock()
	for _, p := range parts {
		p.trim(now)
	}
	l.growing.Unlock()
	garbage := l.takeGarbage(now, from, last)
	if err := l.recordSegments(&s, parts, states); err != nil {
		l.keepGarbage(garbage)
		return err
	}
	// Flushing went on meanwhile; what the segments are said to hold must not get lost from the write-ahead log.
	err := l.settle(last)
	if err == nil {
		err = l.meanwhile(func() error { return l.writeCheckpoint(&s) })
	}
	if err != nil {
		l.keepGarbage(garbage)
		return err
	}
	l.clean = last
	l.checkpointed.Store(uint64(from))
	l.referred.Add(-referred)
	l.wal.vouch(from)
	upTo := from
	if last {
		upTo = makeLSN(from.file()+1, 0)
	}
	return errors.Join(l.wal.release(upTo), l.removeGarbage(garbage))
}

// errUndone says that a checkpoint would show what was ordered and then not written. It is tried again.
var errUndone = errors.New("a write failed while it was taken")

// orderedState copies what order decides, of each partition with anything to say, and returns the count of failures before.
func (l *Log) orderedState() ([]*Partition, []partState, uint64) {
	l.mu.Lock()
	all := slices.Collect(maps.Values(l.parts))
	undone := l.undone
	l.mu.Unlock()
	slices.SortFunc(all, func(a, b *Partition) int { return compareIDs(a.id, b.id) })
	parts := all[:0]
	var states []partState
	for _, p := range all {
		l.mu.Lock()
		if p.end > 0 {
			ps := partState{id: p.id, end: p.end, epochs: slices.Clone(p.epochs)}
			if len(p.producers) > 0 {
				ps.producers = make(map[int64]producer, len(p.producers))
				for pid, s := range p.producers {
					ps.producers[pid] = *s
				}
			}
			parts = append(parts, p)
			states = append(states, ps)
		}
		l.mu.Unlock()
	}
	return parts, states, undone
}

// settle waits until what was queued so far is durable and visible.
func (l *Log) settle(last bool) error {
	if last {
		return l.wal.sync()
	}
	err := l.await(l.barrier())
	if err == nil && l.o.Durability != Sync && l.wal.behind() {
		err = l.meanwhile(l.syncNow)
	}
	return err
}

// meanwhile runs f, which waits for the disk, in a goroutine of its own and flushes while it runs.
func (l *Log) meanwhile(f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	return l.await(done)
}

// await waits for done and flushes while it does: the committer may be waiting for the flusher, which is who calls this.
func (l *Log) await(done <-chan error) error {
	kick(l.flushNow) // the committer's own kick may be what led here
	for {
		select {
		case err := <-done:
			return err
		case <-l.flushNow:
			_ = l.reportFlush(l.flushDirty) // the checkpoint meets the same error when it flushes
		}
	}
}

// recordSegments notes where the bytes are and makes them durable. Nothing may fail but a sync, which is final: the
// marks of what must be synced are taken off.
func (l *Log) recordSegments(s *state, parts []*Partition, states []partState) error {
	known := make(map[*Partition]partState, len(parts))
	for i, p := range parts {
		known[p] = states[i]
	}
	var syncs []func() error
	// All of one moment, and what has come since the checkpoint began is synced too: where a power loss takes a batch that the
	// write-ahead log refers to, the log ends, and no segment may be said to hold more.
	l.growing.Lock()
	l.mu.Lock()
	all := slices.Collect(maps.Values(l.parts))
	l.mu.Unlock()
	slices.SortFunc(all, func(a, b *Partition) int { return compareIDs(a.id, b.id) })
	for _, p := range all {
		ps, ok := known[p]
		p.mu.Lock()
		if p.gone {
			p.mu.Unlock()
			continue
		}
		ps.logStart, ps.flushed, ps.cleaned, ps.compacted = p.logStart, p.flushed, p.cleaned, p.compacted
		for _, a := range p.txns.aborted {
			if a.marker < ps.end {
				ps.aborted = append(ps.aborted, a)
			}
		}
		for _, seg := range p.segs {
			if seg.unsynced {
				syncs = append(syncs, func() error { return l.syncSegment(seg) })
				seg.unsynced = false
			}
			ps.segs = append(ps.segs, segState{
				base: seg.base, size: seg.size, next: seg.next, maxTS: seg.maxTS, created: seg.created,
				horizon: seg.horizon, gen: seg.gen, sum: seg.sum, sealed: seg.sealed,
			})
		}
		if p.newFiles {
			syncs = append(syncs, func() error { return l.syncPartitionDir(p) })
			p.newFiles = false
		}
		p.mu.Unlock()
		if ok {
			s.parts = append(s.parts, ps)
		}
	}
	l.growing.Unlock()
	for _, g := range l.discardedSince(s.from) {
		for _, seg := range g.segs {
			syncs = append(syncs, func() error { return l.syncSegment(seg) })
		}
		if g.dir != "" {
			syncs = append(syncs, func() error { return syncDir(l.fs, g.dir) })
		}
	}
	if l.newDirs.Swap(false) {
		syncs = append(syncs, func() error { return syncDir(l.fs, l.fs.PathJoin(l.o.Dir, "partitions")) })
	}
	// Many at once: a journal commits them together.
	var g errgroup.Group
	g.SetLimit(16)
	err := l.meanwhile(func() error {
		for _, sync := range syncs {
			g.Go(sync)
		}
		return g.Wait()
	})
	if err != nil {
		// The kernel may have dropped what it could not write; the write-ahead log still has it.
		l.fail(nil, err, true)
	}
	return err
}

func (p *Partition) isGone() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.gone
}

func (l *Log) syncSegment(s *segment) error {
	o := l.files.ifOpen(s)
	if o == nil {
		f, err := l.fs.OpenReadWrite(s.path(), vfs.WriteCategoryUnspecified)
		if err != nil {
			return err
		}
		return errors.Join(f.SyncData(), f.Close())
	}
	defer l.files.put(o)
	if err := o.f.SyncData(); err != nil {
		return fmt.Errorf("sync %s: %w", s.path(), err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	_ = o.index.save(l.fs, s.indexPath()) // without it the next start reads the segment
	return nil
}

func (l *Log) syncPartitionDir(p *Partition) error {
	if err := syncDir(l.fs, p.dir()); err != nil && !p.isGone() {
		return err
	}
	return nil
}

// writeCheckpoint replaces the checkpoint's files.
func (l *Log) writeCheckpoint(s *state) error {
	b := s.encode()
	for _, name := range checkpointNames {
		path := l.fs.PathJoin(l.o.Dir, name)
		if err := writeFile(l.fs, path+".tmp", slices.Clone(b)); err != nil { // a vfs may write into what it is given
			return err
		}
		if err := l.fs.Rename(path+".tmp", path); err != nil {
			return err
		}
	}
	if err := syncDir(l.fs, l.o.Dir); err != nil {
		return err
	}
	if !l.marked {
		if err := errors.Join(writeFile(l.fs, l.fs.PathJoin(l.o.Dir, markName), nil), syncDir(l.fs, l.o.Dir)); err != nil {
			return err
		}
		l.marked = true
	}
	l.checkpointEvery.Store(max(checkpointFiles*l.o.WALBytes, 4*int64(len(b))))
	return nil
}

// writeFile writes a file and syncs it, not its directory.
func writeFile(fs vfs.FS, path string, b []byte) error {
	f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// trim lets go of segments nobody can read any more, and seals what is due. With log.growing held.
func (p *Partition) trim(now int64) {
	c := p.cfg.Load()
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for n < len(p.segs) && p.segs[n].next <= p.logStart && p.segs[n].next > p.segs[n].base {
		n++
	}
	if n > 0 {
		p.log.discardFiles(p.segs[:n:n], now+c.FileDeleteDelayMS, 0)
		p.segs = slices.Delete(slices.Clone(p.segs), 0, n)
	}
	if p.lastIsOld(now, c) {
		p.segs[len(p.segs)-1].sealed = true
	}
}

// sealDue says that the segment that grows is old enough to grow no more.
func (p *Partition) sealDue(now int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lastIsOld(now, p.cfg.Load())
}

// lastIsOld is sealDue with p.mu held.
func (p *Partition) lastIsOld(now int64, c *Config) bool {
	if len(p.segs) == 0 || !c.Compact && !c.Delete {
		return false
	}
	age := c.SegmentMS
	if c.Compact && c.MaxCompactionLagMS > 0 {
		age = min(age, c.MaxCompactionLagMS)
	}
	s := p.segs[len(p.segs)-1]
	return !s.sealed && s.size > 0 && now-s.created >= age
}
