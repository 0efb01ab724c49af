package worker

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"

	"github.com/moldau/moldau/internal/assign"
	"github.com/moldau/moldau/internal/cluster"
	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/internal/task"
)

// TaskStatus says how a task does, as of a moment ago.
type TaskStatus struct {
	Task         string
	Worker       int
	Records      int64 // stepped since it was opened
	Skipped      int64
	Punctuations int64
	Dropped      []task.Drop
	DroppedCount []int64
	StreamTime   int64
	Buffered     int64 // bytes of input that wait
	Inputs       []InputStatus
	Stores       []StoreStatus
}

// InputStatus is how far a task is in one partition. End is -1 while it is not known.
type InputStatus struct {
	cluster.TP
	Committed, End int64
}

// Lag is how many offsets are not committed; 0 while it is not known.
func (i InputStatus) Lag() int64 {
	if i.End < 0 {
		return 0
	}
	return max(i.End-i.Committed, 0)
}

// StoreStatus is what a store holds in memory.
type StoreStatus struct {
	Store  string
	Memory int64
}

// report publishes the figures of a worker's tasks.
func (w *worker) report() {
	w.unreported = false
	status := make([]TaskStatus, 0, len(w.hosted))
	for _, h := range w.hosted {
		st := h.task.Stats()
		s := TaskStatus{Task: h.name, Worker: w.index, Records: st.Records, Skipped: st.Skipped, Punctuations: st.Punctuations, StreamTime: h.task.StreamTime()}
		for d, count := range st.Dropped {
			s.Dropped, s.DroppedCount = append(s.Dropped, d), append(s.DroppedCount, count)
		}
		for _, tp := range h.slot.tps {
			_, bytes := h.task.Buffered(tp.Topic)
			s.Buffered += bytes
			s.Inputs = append(s.Inputs, InputStatus{TP: tp, Committed: h.committed[tp], End: -1})
		}
		for _, o := range h.stores {
			s.Stores = append(s.Stores, StoreStatus{o.name, o.store.Memory()})
		}
		status = append(status, s)
	}
	w.tellDropped(status)
	w.n.mu.Lock()
	defer w.n.mu.Unlock()
	for _, s := range status {
		if w.n.running[s.Task] == w {
			w.n.status[s.Task] = s
		}
	}
}

// droppedEvery is how long an operator's drops go untold after some were told, ms.
const droppedEvery = 60_000

// told is how many records an operator of the worker's tasks had dropped when that was last logged.
type told struct{ count, at int64 }

// tellDropped logs what operators and the error policy have left out: at once, and then every minute, so that nobody looks for records in
// vain.
func (w *worker) tellDropped(status []TaskStatus) {
	sums := map[task.Drop]int64{}
	for _, s := range status {
		sums[task.Drop{Node: "any", Reason: "error policy"}] += s.Skipped
		for i, d := range s.Dropped {
			sums[d] += s.DroppedCount[i]
		}
	}
	for d, sum := range sums {
		last, before := w.dropped[d]
		switch {
		case sum < last.count: // tasks have gone
			last.count = sum
		case sum > last.count && (!before || w.lastCare-last.at >= droppedEvery):
			w.n.log.Info("records are left out", "worker", w.index, "operator", d.Node, "reason", d.Reason, "records", sum-last.count)
			last = told{sum, w.lastCare}
		default:
			continue
		}
		w.dropped[d] = last
	}
}

// Status lists the running tasks, by name.
func (n *Node) Status() []TaskStatus {
	n.mu.Lock()
	defer n.mu.Unlock()
	var all []TaskStatus
	for _, name := range slices.Sorted(maps.Keys(n.status)) {
		s := n.status[name]
		s.Inputs = slices.Clone(s.Inputs)
		for i, in := range s.Inputs {
			if end, ok := n.ends[in.TP]; ok {
				s.Inputs[i].End = end
			}
		}
		all = append(all, s)
	}
	return all
}

// committed are the committed positions of the running tasks.
func (n *Node) committed() map[cluster.TP]int64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	at := map[cluster.TP]int64{}
	for _, s := range n.status {
		for _, in := range s.Inputs {
			at[in.TP] = in.Committed
		}
	}
	return at
}

func (n *Node) setEnds(ends map[cluster.TP]int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ends = ends
}

func (n *Node) setAssigned(tasks int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.assigned = tasks
}

func (n *Node) setPlan(p assign.Plan) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.plan = p
}

// alive are the instance ids of the group's members, as of the last plan.
func (n *Node) alive() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var ids []string
	for _, m := range n.plan.Members {
		ids = append(ids, m.ID)
	}
	return ids
}

func (n *Node) setState(s string) {
	n.mu.Lock()
	changed := n.state != s
	n.state = s
	n.mu.Unlock()
	if changed {
		n.emit(Event{Kind: StateChanged, State: s})
		n.log.Info("state", "state", s)
	}
}

// State is one of the constants.
func (n *Node) State() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.state
}

func (n *Node) stopping() bool { s := n.State(); return s == Stopping || s == Stopped }

// Pause has no task step or punctuate until Resume. What has been done is committed, tasks stay where they are and are restored, and
// input is fetched until its queues are full.
func (n *Node) Pause() {
	if !n.paused.Swap(true) {
		n.log.Info("paused")
	}
}

// Resume ends a Pause.
func (n *Node) Resume() {
	if !n.paused.Swap(false) {
		return
	}
	n.log.Info("resumed")
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, w := range n.running {
		w.box.put(func() {}) // it may be asleep
	}
}

// Paused says whether tasks are held.
func (n *Node) Paused() bool { return n.paused.Load() }

// joined: the group has told us what we have. It may be nothing.
func (n *Node) joined() {
	if n.State() == Joining {
		n.setState(Running)
		close(n.ready)
	}
}

// Settled says whether every task that the group has given to this process is being run.
func (n *Node) Settled() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.running) >= n.assigned
}

// Ready is closed once the group has been joined.
func (n *Node) Ready() <-chan struct{} { return n.ready }

func (n *Node) nowRunning(s *slot, w *worker) {
	n.mu.Lock()
	n.running[s.name] = w
	n.mu.Unlock()
	w.report()
	n.emit(Event{Kind: TaskRunning, Task: s.name, Worker: w.index})
}

func (n *Node) notRunning(s *slot) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.running, s.name)
	delete(n.status, s.name)
}

// NotHere says where a task is.
type NotHere struct {
	Task  string
	Owner string // the address that the owner advertises; "" if it is not known
}

func (e *NotHere) Error() string {
	if e.Owner == "" {
		return fmt.Sprintf("task %s is not in this process just now, and it is not known where it is: tasks are changing hands, or the cluster cannot be reached; ask again", e.Task)
	}
	return fmt.Sprintf("task %s is at %s", e.Task, e.Owner)
}

func (e *NotHere) Unwrap() error { return ErrNotHere }

// Partitions is the number of tasks that share a store; 0: the store is a global table's.
func (n *Node) Partitions(store string) (int32, error) {
	if _, sub := n.topology().Store(store); sub != nil {
		return n.width(sub), nil
	}
	if s, _ := n.topology().Store(store); s != nil {
		return 0, nil
	}
	return 0, fmt.Errorf("%w: %q", ErrNoStore, store)
}

// Here says whether this process runs the task of a store's partition; if not, the error is a *NotHere.
func (n *Node) Here(store string, partition int32) error {
	_, sub := n.topology().Store(store)
	if sub == nil {
		_, err := n.Partitions(store)
		return err
	}
	_, err := n.where(task.ID{Sub: sub.ID, Partition: partition})
	return err
}

func (n *Node) where(id task.ID) (*worker, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if w := n.running[id.String()]; w != nil {
		return w, nil
	}
	e := &NotHere{Task: id.String()}
	at := assign.Task{Sub: int32(id.Sub), Partition: id.Partition}
	for _, m := range n.plan.Members {
		if m.ID != n.cfg.Identity.Instance && slices.Contains(m.Active, at) {
			e.Owner = m.Endpoint
		}
	}
	return nil, e
}

// Query calls f with a store between two steps of its task, so that nothing else happens to it meanwhile. f must be short.
// A global table's partition is not looked at.
func (n *Node) Query(ctx context.Context, store string, partition int32, f func(flow.Store)) error {
	_, sub := n.topology().Store(store)
	if sub == nil {
		if _, err := n.Partitions(store); err != nil {
			return err
		}
		if st := n.State(); st == Created || st == Starting {
			return fmt.Errorf("global table %q is still being read: %w", store, ErrNotHere)
		}
		n.globalLock.RLock()
		defer n.globalLock.RUnlock()
		s := n.globalByName[store]
		if s == nil {
			return fmt.Errorf("global table %q is closed: %w", store, ErrNotHere)
		}
		f(s)
		return nil
	}
	w, err := n.where(task.ID{Sub: sub.ID, Partition: partition})
	if err != nil {
		return err
	}
	name := task.ID{Sub: sub.ID, Partition: partition}.String()
	done := make(chan error, 1)
	var taken atomic.Bool // by the worker, or by a caller that has given up: f runs while its caller waits, or never
	w.box.put(func() {
		if !taken.CompareAndSwap(false, true) {
			return
		}
		err := errGoexit // if a serde that f calls does not come back
		defer func() { done <- err }()
		h := w.byName[name]
		if h == nil {
			err = &NotHere{Task: name}
			return
		}
		for _, s := range h.stores {
			if s.name == store {
				f(s.store)
			}
		}
		err = nil
	})
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		err = ctx.Err()
	case <-n.work.Done():
		err = &NotHere{Task: name}
	}
	if taken.CompareAndSwap(false, true) {
		return err
	}
	return <-done
}
