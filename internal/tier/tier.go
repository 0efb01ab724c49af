// Package tier is what lies below a table: an ordered map from bytes to bytes on disk, and with it the changelog offset
// that it reflects. It is the only importer of Pebble in the project; [Mem] is the same without a disk, for simulation.
//
// There is one [DB] per task, in the task's directory, and a tier in it per store. A task that moves away is dropped by
// deleting a directory, a damaged file costs one task and not all, and the lock says which task is in use. Pebble's cost per
// database is kept small by sharing the block cache and by never using its memtable: what tables hand down gathers
// in a hash table here, last write per key, and goes down sorted, as an sstable that also holds position, topic id and
// wall time. Ingesting it is one atomic, durable step; so a crash finds data and position of one moment, without a
// write-ahead log, and costs the tail of the changelog since the last flush.
//
// The package knows no stores, no serdes and no Kafka. It starts no goroutines but Pebble's own.
package tier

import (
	"errors"
	"fmt"

	"github.com/moldau/moldau/internal/flow"
)

var (
	// ErrLocked is an open of a directory that another process, or another task of this one, has open.
	ErrLocked = errors.New("state directory is in use")
	// ErrFormat is a directory written by a version of Moldau whose format this one does not know.
	ErrFormat = errors.New("unknown format of state directory")
	// ErrDamaged is a file that does not hold what was written. The remedy is to delete the task's directory: its state is
	// in the changelog.
	ErrDamaged = errors.New("state directory is damaged")
)

// DB holds the tiers of one task. One goroutine at a time uses it, and everything in it.
//
// A worker opens it, opens every store of the task, restores from Store.Position, and then calls MaybeFlush after every
// commit. Close does not flush: a clean stop calls Flush first.
type DB interface {
	// Store opens or makes the tier of a store. If what is there must not be used any more, by what e says of the
	// changelog, the tier is there to read but Stale gives the reason; see [Store].
	Store(name string, e Expect) (Store, error)
	// MaybeFlush makes what has gathered durable if it is much or old. now is the wall clock, ms.
	MaybeFlush(now int64) error
	// Flush makes everything that has gathered durable.
	Flush(now int64) error
	// Memory is what the DB holds in RAM, in bytes, apart from its stores' own and the shared block cache.
	Memory() int64
	Close() error
}

// Store is a tier and its age. A worker that finds Stale not empty calls Rebuild and gives the table the result: an empty
// tier beside the old one. Once that has reached the end of the changelog it calls Settle, which drops the old one. A crash
// in between finds the new one, as far as it had come, and goes on from there.
type Store interface {
	flow.Tier
	// ScanReverse is Scan from the last key of [from, to) to the first.
	ScanReverse(from, to []byte, f func(key, value []byte) bool) error
	// Advance says that what the next Apply brings comes from one of several partitions that fill the store together, and where it
	// ends: it counts with that Apply or not at all. The next of such an Apply is -1.
	Advance(partition int32, next int64)
	// Positions are how far the store has come in those partitions, one after the other; -1, and beyond the last one: it has not begun.
	Positions() []int64
	// Stale is why what is here must be rebuilt from the changelog; empty: it need not.
	Stale() string
	// Rebuild gives an empty tier, whose position is -1, beside this one. This one must not be used any more.
	Rebuild() (Store, error)
	// Settle says that the end of the changelog has been reached: from here on the store is as young as its last flush. It
	// drops what Rebuild left beside.
	Settle() error
}

// Expect is what is known of a store's changelog when it is opened. The zero value expects nothing.
type Expect struct {
	TopicID  [16]byte // zero: not known
	LogStart int64    // the first offset still there
	LogEnd   int64    // the offset after the last one
	Asked    bool     // LogEnd is known; without, nothing is said of it
	Parts    []Part   // of several partitions that fill the store together; there is no LogStart and no LogEnd then
	Now      int64    // wall clock, ms
	// DeleteRetention is the topic's delete.retention.ms: tombstones are there for so long. A store that has missed more
	// than this would bring deleted keys back to life. 0: not known.
	DeleteRetention int64
}

// found is what a tier says of itself.
type found struct {
	position int64
	topicID  [16]byte
	savedAt  int64 // when it was last at the end of its changelog, ms
	parts
}

// stale compares. A store without position has nothing that could be wrong.
func (e Expect) stale(f found) string {
	var none [16]byte
	switch {
	case f.position < 0 && len(f.at) == 0:
		return ""
	case e.TopicID != none && f.topicID != none && e.TopicID != f.topicID:
		return fmt.Sprintf("the changelog is another topic of the same name (topic id %x, the store was written from %x)", e.TopicID, f.topicID)
	case f.position >= 0 && f.position < e.LogStart:
		return fmt.Sprintf("the changelog starts at offset %d, the store ends at %d", e.LogStart, f.position)
	case e.Asked && f.position > e.LogEnd:
		return fmt.Sprintf("the changelog ends at offset %d, the store is at %d: records of it were lost", e.LogEnd, f.position)
	case e.DeleteRetention > 0 && f.savedAt > 0 && e.Now-f.savedAt > e.DeleteRetention:
		return fmt.Sprintf("the store was at the end of its changelog %d ms ago, the changelog keeps tombstones for %d ms (delete.retention.ms)", e.Now-f.savedAt, e.DeleteRetention)
	}
	return f.parts.stale(e)
}
