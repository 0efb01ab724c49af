package worker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/moldau/moldau/internal/cluster"
	"github.com/moldau/moldau/internal/commit"
	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/internal/task"
)

// play carries out what the commit machine asks for.
func (w *worker) play() {
	for !w.ended {
		actions := w.m.Take()
		if len(actions) == 0 {
			return
		}
		for _, a := range actions {
			w.act(a)
		}
	}
}

func (w *worker) act(a commit.Action) {
	switch a.Kind {
	case commit.Seal:
		w.seal()
	case commit.Begin:
		if err := w.producer.Begin(); err != nil {
			// The transaction cannot be opened: the same as if its first record had failed.
			w.m.Again(err)
		}
	case commit.Produce:
		w.produce(a.Epoch)
	case commit.CommitOffsets, commit.CommitPlain, commit.End, commit.Abort, commit.Init, commit.Compare:
		w.courier <- errand{a, w.owners(a.Tasks)}
	case commit.Done:
		w.done(a)
	case commit.Undo:
		w.undo(a)
	case commit.Release, commit.Rebuild:
		for _, name := range a.Tasks {
			if h := w.byName[name]; h != nil {
				w.remove(h, a.Kind == commit.Release)
			}
		}
	case commit.Fail:
		w.failed(a.Err)
	case commit.Stopped:
		w.stopped = true
		w.end(true)
	}
}

// seal ends the epoch in every task.
func (w *worker) seal() {
	now := w.n.millis()
	var parts []commit.Part
	any := len(w.held) > 0
	for _, h := range w.hosted {
		e, err := w.sealTask(h, now)
		if err != nil {
			w.failedStep(h, err)
			return
		}
		if !e.Dirty {
			continue
		}
		h.sealed, h.sealedAt = e.N, map[cluster.TP]cluster.Offset{}
		h.sealedIn, h.arrived = h.arrived, 0
		for topic, p := range e.Offsets {
			h.sealedAt[cluster.TP{Topic: topic, Partition: h.slot.id.Partition}] = cluster.Offset{At: p.Next, Metadata: p.Metadata}
		}
		if len(e.Records) > 0 {
			w.take(h, e.Records)
			any = true
		}
		parts = append(parts, commit.Part{Task: h.name, Positions: h.sealedAt})
	}
	w.began = now
	if w.m.Sealed(parts, any); !any {
		w.producer.Flush() // else produce does it
	}
}

func (w *worker) produce(epoch uint32) {
	var bytes int64
	for _, t := range w.held {
		bytes += t.bytes
	}
	w.send(epoch, w.held, bytes)
	w.held = w.held[:0]
}

// send hands records to the producer; bytes is what they are counted as until they have been acknowledged.
func (w *worker) send(epoch uint32, records []taken, bytes int64) {
	c := &call{left: len(records), parts: make([]part, len(records))}
	c.done = func() { w.box.put(func() { w.acked(epoch, bytes, c) }) }
	for i, t := range records {
		w.n.metrics.produced(len(t.records))
		c.parts[i] = part{call: c, from: t.from}
		w.producer.Produce(t.records, c.parts[i].done)
		if clear(t.records); len(w.spare) < spares {
			w.spare = append(w.spare, t.records[:0])
		}
		records[i] = taken{}
	}
	if epoch != w.m.Epoch() { // sealed: nothing comes any more to fill batches with
		w.producer.Flush()
	}
}

// call gathers the acknowledgements of several produce calls into one.
type call struct {
	parts []part
	mu    sync.Mutex
	left  int
	ends  map[cluster.TP]int64
	err   error
	done  func()
}

// part is what one task has in a call.
type part struct {
	*call
	from    *hosted
	refused []flow.Refusal
}

func (p *part) done(ends map[cluster.TP]int64, err error) {
	c := p.call
	c.mu.Lock()
	if c.ends == nil {
		c.ends = ends
	} else {
		for tp, at := range ends {
			c.ends[tp] = max(c.ends[tp], at)
		}
	}
	if r, ok := errors.AsType[*cluster.Refused](err); ok {
		p.refused = r.Records
	} else if c.err == nil {
		c.err = err
	}
	c.left--
	last := c.left == 0
	c.mu.Unlock()
	if last {
		c.done()
	}
}

// spares is how many slices of effects are kept for the next turns.
const spares = 8

func (w *worker) acked(epoch uint32, bytes int64, c *call) {
	have := w.ends[epoch]
	if have == nil {
		have = map[cluster.TP]int64{}
		w.ends[epoch] = have
	}
	for tp, at := range c.ends {
		have[tp] = max(have[tp], at)
	}
	if c.err == nil && !w.m.Spoilt() && w.refused(epoch, bytes, c) {
		return
	}
	w.flying -= bytes
	w.m.Acked(epoch, c.err)
}

// refused has the policies decide about records that the broker has refused. What is left out is as if its sink had done so; true: dead
// letters are written in its stead, and the call is acknowledged with them.
func (w *worker) refused(epoch uint32, bytes int64, c *call) bool {
	var letters []taken
	for i := range c.parts {
		p := &c.parts[i]
		if len(p.refused) == 0 {
			continue
		}
		w.enter(p.from)
		records, err := p.from.task.Refused(p.refused, w.n.millis())
		if err != nil {
			w.failedStep(p.from, err)
			return false
		}
		w.n.log.Warn("records that the broker refuses are left out", "task", p.from.name, "records", len(p.refused), "one of them", p.refused[0].Err)
		if len(records) > 0 {
			letters = append(letters, taken{from: p.from, records: records})
		}
	}
	if len(letters) > 0 {
		w.send(epoch, letters, bytes)
	}
	return len(letters) > 0
}

// done: an epoch is committed.
func (w *worker) done(a commit.Action) {
	now := w.n.millis()
	ends := w.ends[a.Epoch]
	delete(w.ends, a.Epoch)
	w.unreported = true
	w.n.metrics.committed(time.Duration(now-w.began) * time.Millisecond)
	for _, name := range a.Tasks {
		h := w.byName[name]
		next := map[string]int64{}
		for _, s := range h.stores {
			if at, ok := ends[s.changelog]; ok && s.changelog.Topic != "" {
				next[s.changelog.Topic] = at
			}
		}
		err := h.task.Done(h.sealed, next)
		for tp, o := range h.sealedAt {
			h.committed[tp] = o.At
		}
		if h.sealedIn > 0 {
			w.n.metrics.latency(time.Duration(now-h.sealedIn) * time.Millisecond)
		}
		h.sealed, h.sealedAt, h.sealedIn = 0, nil, 0
		if err == nil && h.db != nil {
			err = h.db.MaybeFlush(now)
		}
		if err != nil {
			// The commit stands. What lies on disk is behind, and will be restored from the changelog.
			w.failed(permanent{err})
			return
		}
	}
}

// undo takes an epoch back in every task and reads again from where it began.
func (w *worker) undo(a commit.Action) {
	why := w.m.Cause()
	reason := "tasks were taken away"
	if why != nil {
		reason = why.Error()
		if _, ok := errors.AsType[*flow.Panic](why); ok {
			reason, _, _ = strings.Cut(reason, "\n\n") // the stack is told of where the record is
		}
	}
	w.n.metrics.undone()
	w.n.emit(Event{Kind: EpochUndone, Worker: w.index, Reason: reason})
	if e, ok := errors.AsType[*task.Error](why); !ok || !e.Undo { // else failedStep has told
		w.n.log.Warn("uncommitted work is taken back and will be done again", "worker", w.index, "reason", reason)
	}
	w.held, w.ends, w.flying = nil, map[uint32]map[cluster.TP]int64{}, 0
	for _, h := range append([]*hosted(nil), w.hosted...) {
		epoch := h.sealed
		if epoch == 0 {
			epoch = h.task.Current()
		}
		h.sealed, h.sealedAt, h.sealedIn, h.arrived = 0, nil, 0, 0
		positions, err := w.undoTask(h, epoch)
		if err != nil {
			w.n.log.Error("task is opened anew", "task", h.name, "error", err)
			w.remove(h, false)
			continue
		}
		if h.leaving {
			continue
		}
		h.punctuals = h.task.Stats().Punctuations
		w.measure(h)
		offsets := map[cluster.TP]int64{}
		for topic, at := range positions {
			tp := cluster.TP{Topic: topic, Partition: h.slot.id.Partition}
			offsets[tp] = at
			h.seeks[tp]++
		}
		seeks := maps.Clone(h.seeks)
		w.n.poller.box.put(func() { w.n.poller.seek(h.slot, offsets, seeks) })
	}
}

// failed ends the worker, or begins it again if that may help.
func (w *worker) failed(err error) {
	err = fmt.Errorf("worker %d: %w", w.index, err)
	if errors.Is(err, cluster.ErrFenced) && !w.n.stopping() && w.n.mayRestart() {
		w.n.log.Warn("the producer was replaced, by a successor of a process that was not heard of or by a copy of it; starting again", "worker", w.index, "error", err)
		if err = w.restart(err); err == nil {
			return
		}
	} else if errors.Is(err, cluster.ErrFenced) {
		err = fmt.Errorf("%w; if another process runs with a copy of this state directory, stop one of the two and give it a directory of its own", err)
	}
	response := w.n.respond(err)
	if response == ReplaceWorker && !w.n.stopping() && w.n.mayRestart() {
		w.n.log.Warn("the worker is replaced", "worker", w.index, "error", err)
		if err = w.restart(err); err == nil {
			return
		}
	}
	w.err = err
	w.n.failAs(err, response) // before the end, so that the poller does not open its tasks anew
	w.end(true)
}

// errand is an action for the courier, and for Compare whose the inputs are: what a task reads may change meanwhile.
type errand struct {
	commit.Action
	owners map[cluster.TP]commit.Task
}

// owners are the inputs of tasks.
func (w *worker) owners(tasks []commit.Task) map[cluster.TP]commit.Task {
	owners := map[cluster.TP]commit.Task{}
	for _, name := range tasks {
		for _, tp := range w.byName[name].slot.tps {
			owners[tp] = name
		}
	}
	return owners
}

// ask carries out one of the actions that are answered, on the courier's goroutine.
func (w *worker) ask(ctx context.Context, a errand) {
	ctx, cancel := context.WithTimeout(ctx, w.n.cfg.TransactionTimeout)
	defer cancel()
	var err error
	switch a.Kind {
	case commit.CommitOffsets:
		err = w.producer.CommitOffsets(ctx, w.n.poller.member.Group(), a.Offsets)
	case commit.CommitPlain:
		err = w.n.poller.member.Commit(ctx, a.Offsets)
	case commit.End:
		err = w.producer.End(ctx, true)
	case commit.Abort:
		err = w.producer.Abandon(ctx)
		if err == nil && a.Transaction {
			err = w.producer.End(ctx, false)
		}
	case commit.Init:
		err = w.producer.Init(ctx)
	case commit.Compare:
		got, err := w.sequences(ctx, a.owners)
		w.box.put(func() { w.m.Compared(got, err) })
		return
	}
	if err != nil && errors.Is(err, cluster.ErrMissingTopic) && w.n.passes(err) {
		err = fmt.Errorf("%s", err) // it is tried again
	}
	w.box.put(func() { w.m.Answer(err) })
}

// sequences reads the committed sequence of each task.
func (w *worker) sequences(ctx context.Context, owner map[cluster.TP]commit.Task) (map[commit.Task]commit.Sequence, error) {
	tps := slices.Collect(maps.Keys(owner))
	offsets, err := w.n.admin.Committed(ctx, w.n.cfg.App, tps...)
	if err != nil {
		return nil, err
	}
	got := map[commit.Task]commit.Sequence{}
	for tp, o := range offsets {
		s, err := commit.ReadSequence(o.Metadata)
		if err != nil {
			return nil, permanent{err}
		}
		if s.Number > got[owner[tp]].Number {
			got[owner[tp]] = s
		}
	}
	return got, nil
}
