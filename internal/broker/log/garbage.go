package log

import (
	"errors"
	"slices"
)

// garbage is files nobody reads any more. They go once a checkpoint without them is durable.
type garbage struct {
	segs  []*segment
	dir   string // of a deleted partition
	after int64  // wall clock in ms
	drop  lsn    // a checkpoint taken before may have to be replayed with them
}

// discard lets go of a deleted partition. The write-ahead log may refer to its files as long as it is replayed from before
// the deletion.
func (l *Log) discard(dir string, segs []*segment) {
	l.garbageMu.Lock()
	l.garbage = append(l.garbage, garbage{segs: segs, dir: dir, drop: l.wal.written()})
	l.garbageMu.Unlock()
	l.noteChange()
}

// discardFiles lets go of segments, with a checkpoint taken from drop on.
func (l *Log) discardFiles(segs []*segment, after int64, drop lsn) {
	l.garbageMu.Lock()
	l.garbage = append(l.garbage, garbage{segs: segs, after: after, drop: drop})
	l.garbageMu.Unlock()
	l.noteChange()
}

// noteChange sees to it that a checkpoint is taken before long.
func (l *Log) noteChange() {
	l.changed.Store(true)
	if l.idle.CompareAndSwap(true, false) {
		kick(l.flushSoon)
	}
}

// garbageDue says that there are files to delete whose time has come.
func (l *Log) garbageDue(now int64) bool {
	l.garbageMu.Lock()
	defer l.garbageMu.Unlock()
	return slices.ContainsFunc(l.garbage, func(g garbage) bool { return g.after <= now })
}

// takeGarbage takes what is due for a checkpoint taken at from out of the list.
func (l *Log) takeGarbage(now int64, from lsn, all bool) []garbage {
	l.garbageMu.Lock()
	defer l.garbageMu.Unlock()
	var due, later []garbage
	for _, g := range l.garbage {
		if all || g.after <= now && g.drop <= from {
			due = append(due, g)
		} else {
			later = append(later, g)
		}
	}
	l.garbage = later
	return due
}

// discardedSince is garbage with files that replaying from a checkpoint taken at from may refer to: of partitions before their
// deletion, and of segments before they were compacted.
func (l *Log) discardedSince(from lsn) (list []garbage) {
	l.garbageMu.Lock()
	defer l.garbageMu.Unlock()
	for _, g := range l.garbage {
		if len(g.segs) > 0 && g.drop > from {
			list = append(list, g)
		}
	}
	return list
}

func (l *Log) keepGarbage(g []garbage) {
	l.garbageMu.Lock()
	l.garbage = append(l.garbage, g...)
	l.garbageMu.Unlock()
}

// removeGarbage deletes the files. What fails is tried again by the next unclean start, and costs space only.
func (l *Log) removeGarbage(due []garbage) error {
	var errs []error
	for _, g := range due {
		for _, s := range g.segs {
			l.files.drop(s)
			if g.dir == "" {
				errs = append(errs, removeIfThere(l.fs, s.path()), removeIfThere(l.fs, s.indexPath()))
			}
		}
		if g.dir != "" {
			errs = append(errs, l.fs.RemoveAll(g.dir))
		}
	}
	return errors.Join(errs...)
}
