// Package restore brings stores up to date from their changelogs: many partitions at once, batch by batch, each until the
// end that its changelog had when it was added, or for ever.
//
// It decides nothing about what a store is worth: whoever adds one has compared its position with the topic's id and
// start (package tier) and says from where to read. It starts no goroutine; one goroutine at a time uses a Follower.
package restore

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/moldau/moldau/internal/cluster"
	"github.com/moldau/moldau/internal/flow"
)

// Target is a store that follows a partition of a changelog, or of the topic of a global table.
type Target struct {
	cluster.TP
	Store flow.Store
	// Positioned: the store's own position is this partition's.
	Positioned bool
	// Advance is told where a batch ends before the store takes it; nil: nobody is. It is for stores that several partitions fill, and
	// that have a position in each.
	Advance func(next int64)
	// From is the offset to read from; -1: the log start.
	From int64
	// End is where the target is up to date: the end of the partition when it was added.
	End int64
	// Follow goes on after End.
	Follow bool
	// Replay turns each record into one of the store's, where the partition is not the store's own; nil: it is. What lies at or after
	// End is not applied then: the task takes it as input.
	Replay flow.Replay
	// Lock is held while records are applied; nil: nobody else uses the store.
	Lock sync.Locker

	position int64
	caught   bool
	records  int64
	slab     []byte
	scratch  []flow.In
}

// Position is the next offset that will be applied.
func (t *Target) Position() int64 { return t.position }

// Progress is what one Poll has done for a target.
type Progress struct {
	*Target
	Records, Bytes int64 // applied by this Poll
	Total          int64 // applied since Add
	Reached        bool  // this Poll has reached End; unless Follow, the target has been removed
}

// ErrApply is a changelog record that its store did not take.
var ErrApply = errors.New("the store did not take a changelog record")

// Follower reads for a set of targets.
type Follower struct {
	reader  cluster.Reader
	targets map[cluster.TP]*Target
	order   []cluster.TP // as added: what is reported is in this order
	reached []*Target    // up to date as soon as they were added
}

// New makes a Follower that reads with reader and does not close it.
func New(reader cluster.Reader) *Follower {
	return &Follower{reader: reader, targets: map[cluster.TP]*Target{}}
}

// Len is the number of targets.
func (f *Follower) Len() int { return len(f.targets) + len(f.reached) }

// Add takes on targets. A partition can be followed once at a time.
func (f *Follower) Add(targets ...*Target) {
	for _, t := range targets {
		if f.targets[t.TP] != nil {
			panic(fmt.Sprintf("restore: %s[%d] is followed already", t.Topic, t.Partition))
		}
		t.position = t.From
		if t.From >= t.End || t.End == 0 {
			t.caught = true
			f.reached = append(f.reached, t)
			if !t.Follow {
				continue
			}
		}
		f.targets[t.TP] = t
		f.order = append(f.order, t.TP)
	}
	f.assign()
}

// Remove stops following partitions; those that are not followed are ignored.
func (f *Follower) Remove(tps ...cluster.TP) {
	for _, tp := range tps {
		delete(f.targets, tp)
		for i, t := range f.reached {
			if t.TP == tp {
				f.reached = append(f.reached[:i:i], f.reached[i+1:]...)
				break
			}
		}
	}
	f.assign()
}

func (f *Follower) assign() {
	from := make(map[cluster.TP]int64, len(f.targets))
	left := f.order[:0]
	for _, tp := range f.order {
		if t := f.targets[tp]; t != nil {
			left = append(left, tp)
			from[tp] = t.position
		}
	}
	f.order = left
	f.reader.Assign(from)
}

// Poll waits for records, at most until ctx ends, applies them and reports what was done, in the order in which targets
// were added. That ctx ended is no error, that a store refused records always is. After an error the targets are as they
// were, up to what was applied, and reading goes on from there: nothing that was read is passed over.
func (f *Follower) Poll(ctx context.Context) ([]Progress, error) {
	var done []Progress
	for _, t := range f.reached {
		done = append(done, Progress{Target: t, Reached: true})
	}
	f.reached = nil
	if len(done) > 0 || len(f.targets) == 0 {
		return done, nil
	}
	batches, err := f.reader.Poll(ctx)
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		err = nil
	}
	applied := map[*Target]*Progress{}
	for _, b := range batches {
		t := f.targets[b.TP]
		if t == nil || err != nil {
			release(b)
			continue
		}
		p := applied[t]
		if p == nil {
			p = &Progress{Target: t}
			applied[t] = p
		}
		if aerr := f.apply(t, b, p); aerr != nil {
			err = aerr
		}
	}
	if err != nil {
		f.assign() // the reader is past what was released unapplied
		return nil, err
	}
	finished := false
	for _, tp := range f.order {
		t := f.targets[tp]
		p := applied[t]
		// Behind the last record there may be nothing but markers of transactions and what compaction left.
		if at, ok := f.reader.Position(tp); ok && t.upTo(at) > t.position {
			if err := t.restore(nil, at); err != nil {
				f.assign()
				return nil, err
			}
			if p == nil {
				p = &Progress{Target: t}
			}
		}
		if p == nil {
			if t.caught || t.position < t.End {
				continue
			}
			p = &Progress{Target: t} // reached by a Poll that failed for another target
		}
		p.Total = t.records
		if !t.caught && t.position >= t.End {
			t.caught, p.Reached = true, true
			if !t.Follow {
				delete(f.targets, tp)
				finished = true
			}
		}
		done = append(done, *p)
	}
	if finished {
		f.assign()
	}
	return done, nil
}

func release(b cluster.Batch) {
	if b.Release != nil {
		b.Release()
	}
}

func (f *Follower) apply(t *Target, b cluster.Batch, p *Progress) error {
	defer release(b)
	records := b.Records
	for len(records) > 0 && records[0].Offset < t.position { // fetched before the last Assign
		records = records[1:]
	}
	if b.Next <= t.position {
		return nil
	}
	if t.Replay != nil {
		for len(records) > 0 && records[len(records)-1].Offset >= t.End {
			records = records[:len(records)-1]
		}
	}
	for i := range records {
		p.Bytes += int64(len(records[i].Key) + len(records[i].Value))
	}
	p.Records += int64(len(records))
	t.records += int64(len(records))
	return t.restore(records, b.Next)
}

// upTo is how far records before offset at bring the target.
func (t *Target) upTo(at int64) int64 {
	if t.Replay == nil {
		return at
	}
	return min(at, t.End)
}

func (t *Target) restore(records []flow.In, next int64) error {
	next = t.upTo(next)
	at := next
	if !t.Positioned {
		at = -1
	}
	if t.Lock != nil {
		t.Lock.Lock()
		defer t.Lock.Unlock()
	}
	records, err := t.replay(records)
	if err == nil {
		if t.Advance != nil {
			t.Advance(next)
		}
		err = t.Store.Restore(records, at)
	}
	if err != nil {
		return fmt.Errorf("%w: %s[%d] from offset %d: %w", ErrApply, t.Topic, t.Partition, t.position, err)
	}
	t.position = next
	return nil
}

// replay is what the store is to take of records; it is good until the next call.
func (t *Target) replay(records []flow.In) ([]flow.In, error) {
	if t.Replay == nil {
		return records, nil
	}
	clear(t.scratch) // they point to batches that have been released
	t.scratch, t.slab = t.scratch[:0], t.slab[:0]
	for _, r := range records {
		slab, ok, err := t.Replay(t.slab, &r)
		if err != nil {
			return nil, fmt.Errorf("offset %d: %w", r.Offset, err)
		}
		if t.slab = slab; ok {
			t.scratch = append(t.scratch, r)
		}
	}
	return t.scratch, nil
}
