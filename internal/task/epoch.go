package task

import (
	"fmt"

	"github.com/moldau/moldau/internal/flow"
)

// Epoch is what must be committed together. Epochs overlap by one: the next one may be computed while this one is being
// committed.
type Epoch struct {
	N uint32
	// Records are the sinks' records that were not taken, the results held back until now, and the changelog records.
	Records []flow.Out
	// Offsets are the input positions to commit, by topic: those that moved, and at least one if anything happened; all, if inputs may
	// come and go.
	Offsets map[string]Position
	// Dirty is false if nothing happened since the last one: then nothing was sealed, N is 0, and neither Done nor Undo follows.
	Dirty bool
	// Sequence is in every metadata of Offsets; a commit took place if and only if it is found there again.
	Sequence int64
}

// Position is an offset to commit.
type Position struct {
	Next     int64
	Metadata string
}

// snapshot is what Undo goes back to, as of the start of an epoch; stores have their own.
type snapshot struct {
	epoch      uint32
	queues     []queueStart
	streamTime int64
	sequence   int64
	cells      []int64
	wired      int
}

type queueStart struct{ next, committed, partitionTime int64 }

func (t *Task) snapshot() snapshot {
	s := snapshot{epoch: t.epoch, streamTime: t.streamTime, sequence: t.sequence, wired: t.wired}
	for _, q := range t.queues {
		s.queues = append(s.queues, queueStart{q.next, q.committed, q.partitionTime})
	}
	for _, c := range t.cells {
		s.cells = append(s.cells, c.value)
	}
	return s
}

// Seal ends the epoch at a record boundary: operators that hold results back emit them, parents before children, then
// stores append their changelog records. now is the wall clock, ms. After an error the task can only be undone or closed.
//
// While calls are under way the epoch cannot end: nothing is sealed, Dirty is false and Sealing true. From then on Step takes up
// no records; it asks for a commit when the calls have landed, and Seal is to be called again.
func (t *Task) Seal(now int64) (*Epoch, error) {
	if t.broken != nil {
		return nil, t.broken
	}
	t.asked = false
	moved := false
	for _, q := range t.queues {
		moved = moved || q.next != q.committed
	}
	if !t.dirty && !moved {
		return &Epoch{}, nil
	}
	t.sealing = true
	if err := t.flush(now); err != nil {
		return nil, t.breakdown(err)
	}
	if t.calls.open > 0 {
		return &Epoch{}, nil
	}
	t.sealing, t.flushed = false, 0
	for _, s := range t.stores {
		if err := s.Seal(t.epoch, &t.effects); err != nil {
			return nil, t.breakdown(fmt.Errorf("task %s: sealing store %q: %w", t.id, s.name, err))
		}
	}
	t.sequence++
	e := &Epoch{N: t.epoch, Records: t.take(), Offsets: t.offsets(), Dirty: true, Sequence: t.sequence}
	t.epoch++
	t.dirty = false
	t.starts = append(t.starts, t.snapshot())
	return e, nil
}

// flush has operators emit what they hold back. Each waits for the calls of those before it.
func (t *Task) flush(now int64) error {
	c := &t.ctx
	for ; t.flushed < len(t.flushers) && t.calls.open == 0; t.flushed++ {
		f := t.flushers[t.flushed]
		c.Now, c.Time, c.Headers, c.KeyNull, c.Null = now, t.streamTime, nil, false, false
		c.Topic, c.Partition, c.Offset, c.Input, c.InHand = "", t.config.Partition, -1, 0, -1
		c.StreamTime, c.Err, c.Fatal, c.Wrote = t.streamTime, nil, false, false
		c.Node, t.hand, t.doing = f.node, nil, flushing
		t.guard(f)
		t.calls.settle(0, false)
		if c.Err != nil {
			return t.failure()
		}
	}
	return nil
}

// guard flushes, and turns a panic into an error.
func (t *Task) guard(f flusher) {
	defer t.ctx.Recover()
	f.Flush(&t.ctx)
}

// offsets are the positions that moved; one that did not, if none did, to carry the sequence.
func (t *Task) offsets() map[string]Position {
	numbers := map[string]int64{sequenceName: t.sequence}
	for _, c := range t.cells {
		if c.keep && c.value != -1 {
			numbers[c.name] = c.value
		}
	}
	offsets := map[string]Position{}
	put := func(q *queue) {
		name := offsetName + q.topic
		numbers[name] = q.next
		offsets[q.topic] = Position{q.next, Metadata{q.partitionTime, numbers}.String()}
		delete(numbers, name)
		q.committed = q.next
	}
	for _, q := range t.queues {
		if q.next >= 0 && (q.next != q.committed || t.whole) {
			put(q)
		}
	}
	for _, q := range t.queues {
		if len(offsets) == 0 && q.next >= 0 {
			put(q)
		}
	}
	return offsets
}

// Done says that an epoch has been committed. ends holds, per changelog topic, the offset after its last record of
// that epoch; topics that got none are absent. A store whose changelog is a source topic is as far as the epoch has read.
func (t *Task) Done(epoch uint32, ends map[string]int64) error {
	for _, s := range t.stores {
		next, ok := ends[s.changelog]
		if !ok || s.changelog == "" {
			next = -1
		}
		if s.sourced {
			next = t.read(s.changelog, epoch)
		}
		if err := s.Store.Done(epoch, next); err != nil {
			return fmt.Errorf("task %s: store %q after the commit of epoch %d: %w", t.id, s.name, epoch, err)
		}
	}
	for len(t.starts) > 1 && t.starts[0].epoch <= epoch {
		t.starts = t.starts[1:]
	}
	for _, q := range t.queues {
		for at := range q.troubles { //lint:ordered it only deletes
			if at < t.starts[0].queues[q.index].next {
				delete(q.troubles, at)
			}
		}
	}
	return nil
}

// read is the position of a source topic at the end of a sealed epoch; -1: none.
func (t *Task) read(topic string, epoch uint32) int64 {
	q := t.byName[topic]
	if q == nil {
		return -1
	}
	for _, s := range t.starts {
		if s.epoch > epoch {
			return s.queues[q.index].next
		}
	}
	return -1
}

// Undo takes back an epoch and later ones, sealed or not. Queued input is let go of, since the client has it all: seek each
// topic to the offset returned and add from there; records fetched before the seek must not be added. Whatever
// operators keep outside of stores starts afresh, as after a crash.
func (t *Task) Undo(epoch uint32) (map[string]int64, error) {
	at := len(t.starts) - 1
	for at >= 0 && t.starts[at].epoch != epoch {
		at--
	}
	if at < 0 {
		panic(fmt.Sprintf("task %s: undo of epoch %d, which is not open", t.id, epoch))
	}
	for _, s := range t.stores {
		if err := s.Store.Undo(epoch); err != nil {
			return nil, t.breakdown(fmt.Errorf("task %s: undoing epoch %d in store %q: %w", t.id, epoch, s.name, err))
		}
	}
	s := t.starts[at]
	t.starts = t.starts[:at+1]
	t.epoch, t.sequence, t.streamTime = epoch, s.sequence, s.streamTime
	t.dirty, t.asked, t.broken = false, false, nil
	t.sealing, t.flushed = false, 0
	t.calls.drop()
	t.age()
	t.effects.Undo(0)
	positions := map[string]int64{}
	for i, q := range t.queues {
		q.clear()
		q.next, q.committed, q.partitionTime = s.queues[i].next, s.queues[i].committed, s.queues[i].partitionTime
		q.added, q.end, q.deadline = q.next, -1, 0
		if q.next >= 0 {
			positions[q.topic] = q.next
		}
	}
	// Those made since do not exist yet; wiring makes them again.
	t.cells, t.wired = t.cells[:len(s.cells)], s.wired
	for i, c := range t.cells {
		c.value = s.cells[i]
	}
	closers := t.closers
	t.closers = nil
	for i := len(closers) - 1; i >= 0; i-- {
		if err := closers[i](); err != nil {
			return nil, t.breakdown(fmt.Errorf("task %s: closing an operator: %w", t.id, err))
		}
	}
	if err := t.wire(nil); err != nil {
		return nil, t.breakdown(err)
	}
	return positions, nil
}

// Current is the epoch being computed.
func (t *Task) Current() uint32 { return t.epoch }

// Sealing says that Seal waits for calls.
func (t *Task) Sealing() bool { return t.sealing }

// Open are the epochs that have been sealed and are neither done nor undone.
func (t *Task) Open() int { return len(t.starts) - 1 }
