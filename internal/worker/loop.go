package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/moldau/moldau/internal/cluster"
	"github.com/moldau/moldau/internal/commit"
	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/internal/task"
)

// worker is the goroutine that steps a set of tasks and commits them together. All its fields but the box and the atomics
// belong to it.
type worker struct {
	n        *Node
	index    int
	box      *mailbox[func()]
	courier  chan errand
	producer cluster.Producer
	m        *commit.Machine
	hosted   []*hosted
	byName   map[string]*hosted

	held    []taken // effects of the open epoch that have not been handed to the producer
	spare   [][]flow.Out
	ends    map[uint32]map[cluster.TP]int64
	began   int64 // when the sealed epoch was sealed, ms
	ended   bool
	err     error
	stopped bool

	turn     int    // records that a task takes before the next one has its turn
	turnOf   string // the task that has it, or had it last
	lastCare int64
	dropped  map[task.Drop]told
	// unreported: something was committed since the last report.
	unreported bool
	choked     bool // over the memory budget, with a commit under way that will make room
	flying     int64
	tasks      atomic.Int32 // how many it has or is about to have
	queued     int64        // bytes in the queues of tasks
	memory     int64
}

// taken are effects of one task, and about what they cost in memory.
type taken struct {
	from    *hosted
	records []flow.Out
	bytes   int64
}

// recordCost is about what a record under way to the broker costs besides its bytes.
const recordCost = 200

func newWorker(n *Node, index int, producer cluster.Producer) *worker {
	w := &worker{n: n, index: index, box: newMailbox[func()](), courier: make(chan errand, 1), producer: producer, turn: 64, dropped: map[task.Drop]told{}}
	w.begin()
	return w
}

// begin sets up an empty worker, at the start and after a restart.
func (w *worker) begin() {
	w.m = commit.New(commit.Config{Transactional: w.n.cfg.Transactional, Interval: w.n.cfg.CommitInterval.Milliseconds(),
		GiveUp: w.n.cfg.TransactionTimeout.Milliseconds() / 2, Writer: w.n.writer})
	w.hosted, w.byName, w.held, w.ends = nil, map[string]*hosted{}, nil, map[uint32]map[cluster.TP]int64{}
	w.choked, w.flying, w.err = false, 0, nil
}

// A turn is so many records that it takes about turnTime: long enough to amortise a look at the clock and the mailbox,
// short enough that a commit, a query and the other tasks need not wait for functions that are slow.
const (
	turnTime = 5 // ms
	turnMost = 4096
)

// adapt finds the size of a turn from how long one took.
func (w *worker) adapt(took int64) {
	switch {
	case took > turnTime:
		w.turn = max(w.turn/2, 1)
	case took < turnTime/2:
		w.turn = min(w.turn*2, turnMost)
	}
}

// run is the worker's goroutine.
func (w *worker) run() {
	defer func() {
		if v := recover(); v != nil {
			panic(v) // a bug of ours
		}
		if !w.ended {
			w.exited()
		}
	}()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for !w.ended {
		for _, f := range w.box.take() {
			f()
			w.play()
		}
		if w.ended {
			break
		}
		now := w.n.millis()
		w.m.Tick(now)
		w.play()
		worked := w.step(now)
		if now-w.lastCare >= careInterval {
			w.care(now)
		}
		if !worked && !w.ended {
			w.wait(timer, now)
		}
	}
}

// exited ends a worker whose goroutine an author's function has ended. What it did since the last commit is done again.
func (w *worker) exited() {
	w.err = fmt.Errorf("worker %d: task %s: %w", w.index, w.turnOf, errGoexit)
	w.n.failAs(w.err, w.n.respond(w.err))
	w.end(false)
}

// wait sleeps until something comes or is due.
func (w *worker) wait(timer *time.Timer, now int64) {
	wake := now + 1000
	if at, ok := w.m.Next(); ok {
		wake = min(wake, at)
	}
	if w.m.MayStep() && !w.n.paused.Load() {
		for _, h := range w.hosted {
			if !h.leaving {
				wake = min(wake, h.task.Wake())
			}
		}
	}
	if w.queued > 0 || w.unreported || w.waitsForEnds() {
		wake = min(wake, w.lastCare+careInterval)
	}
	timer.Reset(time.Duration(max(wake-now, 1)) * time.Millisecond)
	select {
	case <-w.box.signal:
	case <-timer.C:
	}
}

// step gives every task a turn; false: none had anything to do.
func (w *worker) step(now int64) (worked bool) {
	if w.choked && !w.m.Busy() {
		w.choked = false
	}
	for _, h := range w.hosted {
		if !w.m.MayStep() || w.choked || w.n.paused.Load() || w.flying > w.n.flyingLimit() {
			return worked
		}
		if h.leaving {
			continue
		}
		n, err := w.stepTask(h, now)
		if n >= w.turn {
			at := w.n.millis()
			w.adapt(at - now)
			now = at
		}
		if n > 0 {
			w.measure(h)
		}
		records := h.task.Take()
		punctuated := h.task.Stats().Punctuations != h.punctuals
		h.punctuals = h.task.Stats().Punctuations
		switch {
		case err != nil: // everything that is open will be taken back
			w.failedStep(h, err)
		case len(records) > 0:
			w.take(h, records)
			w.m.Collected()
			worked = true
		default:
			h.task.Recycle(records)
			if n > 0 || punctuated {
				w.m.Worked()
				worked = true
			}
		}
		if err == nil && h.task.CommitRequested() {
			w.m.Hurry()
		}
		w.play()
		if w.ended || !slices.Contains(w.hosted, h) {
			return true // the list has changed under us
		}
	}
	return worked
}

func (w *worker) stepTask(h *hosted, now int64) (int, error) {
	w.enter(h)
	if len(h.sub.Globals) > 0 {
		w.n.globalLock.RLock()
		defer w.n.globalLock.RUnlock()
	}
	return h.task.Step(now, w.turn)
}

// failedStep: a record failed. Either it is left out, and what it changed is taken back together with the rest of the
// epoch; or the application stops, with everything before the epoch committed.
func (w *worker) failedStep(h *hosted, err error) {
	if errors.Is(err, flow.ErrLater) {
		w.m.Again(err)
		return
	}
	if e, ok := errors.AsType[*task.Error](err); ok && e.Undo {
		w.n.log.Warn("a record is left out or tried again; something of it is done already, so the epoch is computed again", "error", err)
		w.m.Retract(err)
		return
	}
	w.m.Reject(err)
}

func (w *worker) take(h *hosted, records []flow.Out) {
	var bytes int64
	for i := range records {
		bytes += int64(len(records[i].Key)+len(records[i].Value)) + recordCost
	}
	w.held = append(w.held, taken{h, records, bytes})
	w.flying += bytes
	if n := len(w.spare); n > 0 {
		h.task.Recycle(w.spare[n-1])
		w.spare = w.spare[:n-1]
	}
}

// What others ask of a worker; all of it runs on its goroutine.

func (w *worker) adopt(h *hosted) {
	w.tasks.Add(1)
	w.box.put(func() {
		h.caller.w = w
		w.hosted = append(w.hosted, h)
		w.byName[h.name] = h
		w.m.Join(h.name, h.sequence)
		w.askEnds()
		w.n.nowRunning(h.slot, w)
	})
}

// deliver hands over a batch. seeks tells how often its partition had been sought when it was fetched, held that the poller has paused
// the partition until all of it has been taken up.
func (w *worker) deliver(s *slot, b cluster.Batch, seeks int, held bool) {
	bytes := task.Cost(b.Records)
	w.n.count(bytes)
	w.box.put(func() {
		h := w.byName[s.name]
		if h == nil || h.slot != s || h.leaving { // who opens the task next resumes the partition
			w.n.count(-bytes)
			if b.Release != nil {
				b.Release()
			}
			return
		}
		if held {
			h.paused[b.TP] = 0
		}
		h.queued += bytes
		w.queued += bytes
		fresh := seeks == h.seeks[b.TP]
		switch {
		case fresh:
			h.task.Add(b.Topic, b.Records, b.Next, b.Release)
		case b.Release != nil:
			b.Release()
		}
		w.measure(h)
		if fresh && len(b.Records) == 0 {
			w.m.Worked() // past a marker: the position has moved
		} else if fresh && h.arrived == 0 {
			h.arrived = w.n.millis()
		}
	})
}

// measure counts what a task has queued, and has partitions fetched again whose queues are short enough.
func (w *worker) measure(h *hosted) {
	var queued int64
	for _, tp := range h.slot.tps {
		_, bytes := h.task.Buffered(tp.Topic)
		queued += bytes
		if most, paused := h.paused[tp]; paused && bytes <= most {
			delete(h.paused, tp)
			w.n.poller.member.Resume(tp)
		}
	}
	w.count(queued - h.queued)
	h.queued = queued
}

// count changes what the worker's tasks have queued.
func (w *worker) count(bytes int64) {
	w.queued += bytes
	w.n.count(bytes)
}

// count changes what has been polled and not yet taken up, and tells the poller when there is room again.
func (n *Node) count(bytes int64) {
	after, enough := n.backlog.Add(bytes), n.backlogLimit()/2
	if after <= enough && after-bytes > enough {
		select {
		case n.poller.room <- struct{}{}:
		default:
		}
	}
}

func (w *worker) giveUp(slots []*slot, lost bool) {
	w.box.put(func() {
		var names []string
		for _, s := range slots {
			if h := w.byName[s.name]; h != nil && h.slot == s && (lost || !h.leaving) {
				h.leaving = true
				names = append(names, s.name)
			}
		}
		switch {
		case len(names) == 0:
		case lost:
			w.m.Lost(names...)
		default:
			w.m.Revoke(names...)
		}
	})
}

func (w *worker) stop() { w.box.put(func() { w.m.Stop() }) }

// abandon ends the worker at once; nothing more is committed.
func (w *worker) abandon() {
	w.box.put(func() {
		if !w.ended {
			w.end(false)
		}
	})
}

// remove takes a task out, closes it and tells the poller.
func (w *worker) remove(h *hosted, flush bool) {
	delete(w.byName, h.name)
	w.count(-h.queued)
	h.queued = 0
	w.hosted = slices.DeleteFunc(w.hosted, func(o *hosted) bool { return o == h })
	w.tasks.Add(-1)
	w.n.notRunning(h.slot)
	w.enter(h)
	w.n.closeTask(h, flush)
	w.n.poller.box.put(func() { w.n.poller.closed(h.slot) })
}

// end closes everything that the worker has.
func (w *worker) end(flush bool) {
	for len(w.hosted) > 0 {
		w.remove(w.hosted[0], flush)
	}
	w.ended = true
}

// closeRest closes tasks that were handed over when the worker had already ended. Its goroutine is gone.
func (w *worker) closeRest() {
	for _, f := range w.box.take() {
		f()
	}
	w.end(false)
}

// restart begins again with a new producer, after the old one was replaced or broke. Tasks are opened anew.
func (w *worker) restart(cause error) error {
	for len(w.hosted) > 0 {
		w.remove(w.hosted[0], true)
	}
	w.producer.Close()
	p, err := w.n.newProducer(w.n.work, w.index)
	if err != nil {
		return fmt.Errorf("%w, and starting again failed: %w", cause, err)
	}
	w.producer = p
	w.n.metrics.restarted()
	w.begin()
	return nil
}

// asks says whether a task is told where its inputs end: it cannot go on before it knows.
func (w *worker) asks(h *hosted) bool {
	return !h.leaving && (len(h.slot.tps) > 1 && w.n.cfg.MaxIdle >= 0 || h.task.Asks())
}

func (w *worker) waitsForEnds() bool { return slices.ContainsFunc(w.hosted, w.asks) }

// askEnds asks for the ends of empty inputs: one that is empty at its end does not hold up the others, nor stream time.
func (w *worker) askEnds() {
	var tps []cluster.TP
	for _, h := range w.hosted {
		if !w.asks(h) {
			continue
		}
		for _, tp := range h.slot.tps {
			if records, _ := h.task.Buffered(tp.Topic); records == 0 {
				tps = append(tps, tp)
			}
		}
	}
	if len(tps) > 0 {
		w.n.warden.askEnds(w, tps)
	}
}

func (w *worker) knowEnds(ends map[cluster.TP]int64) {
	w.box.put(func() {
		for _, h := range w.hosted {
			for _, tp := range h.slot.tps {
				if end, ok := ends[tp]; ok {
					h.task.Caught(tp.Topic, end)
				}
			}
		}
	})
}

// courierRun asks the cluster what the machine wants to know, one question at a time, while the worker goes on.
func (w *worker) courierRun(ctx context.Context) {
	for a := range w.courier {
		w.ask(ctx, a)
	}
}

func (w *worker) sealTask(h *hosted, now int64) (*task.Epoch, error) {
	w.enter(h)
	if len(h.sub.Globals) > 0 {
		w.n.globalLock.RLock()
		defer w.n.globalLock.RUnlock()
	}
	return h.task.Seal(now)
}

func (w *worker) undoTask(h *hosted, epoch uint32) (map[string]int64, error) {
	w.enter(h)
	if len(h.sub.Globals) > 0 {
		w.n.globalLock.RLock()
		defer w.n.globalLock.RUnlock()
	}
	return h.task.Undo(epoch)
}
