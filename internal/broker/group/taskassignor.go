package group

import (
	"cmp"
	"math"
	"slices"
)

// Task names a task of a topology: a partition of what a subtopology reads.
type Task struct {
	Subtopology string
	Partition   int32
}

// Compare orders by subtopology, then partition.
func (a Task) Compare(b Task) int {
	return cmp.Or(cmp.Compare(a.Subtopology, b.Subtopology), cmp.Compare(a.Partition, b.Partition))
}

// byPartition orders by partition first: neighbours in it are the tasks that belong together if partitions were dealt alike.
func byPartition(a, b Task) int {
	return cmp.Or(cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Subtopology, b.Subtopology))
}

// Held is how a member has a task.
type Held struct {
	Standby bool
	Since   int32 // the member's epoch in which it got it
}

// Tasks are tasks of a member.
type Tasks map[Task]Held

// has says whether a task is among them in the same role.
func (t Tasks) has(task Task, standby bool) bool {
	h, ok := t[task]
	return ok && h.Standby == standby
}

// worker is a member to the assignor: a thread of a process.
type worker struct {
	member, process string
	had             Tasks // its last target
	tasks           Tasks // what it gets
	home            *processLoad
}

// processLoad is what the workers of a process have together. One process never has a task twice.
type processLoad struct {
	workers int
	tasks   map[Task]struct{}
}

func (p *processLoad) has(t Task) bool { _, ok := p.tasks[t]; return ok }

// less compares the load per worker.
func (p *processLoad) less(o *processLoad) bool {
	return len(p.tasks)*o.workers < len(o.tasks)*p.workers
}

// quota is how many tasks a worker may keep of those it had: an equal share of what workers below their share have left.
type quota struct{ tasks, workers int }

func (q quota) share() int {
	if q.workers == 0 {
		return 0
	}
	return (q.tasks + q.workers - 1) / q.workers
}

// fill takes a worker out that has its share.
func (q *quota) fill(load int) {
	if load == q.share() {
		q.workers--
		q.tasks -= load
	}
}

// dealer deals tasks out.
type dealer struct {
	workers     []*worker
	active, all quota
}

// dealTasks gives each active task to one member, and standbys of the stateful ones to members of other processes, as many
// as there are processes for. It is Kafka's StickyTaskAssignor: members keep what they had up to an equal share, then those get
// tasks that have kept them in standby, then whoever has least. Members are in a fixed order.
func dealTasks(members []*worker, active, stateful []Task, standbys int) {
	d := &dealer{workers: members, active: quota{len(active), len(members)}, all: quota{len(active) + standbys*len(stateful), len(members)}}
	processes := map[string]*processLoad{}
	for _, w := range members {
		if processes[w.process] == nil {
			processes[w.process] = &processLoad{tasks: map[Task]struct{}{}}
		}
		w.home, w.tasks = processes[w.process], Tasks{}
		w.home.workers++
	}
	if len(members) == 0 {
		return
	}
	d.dealActive(slices.SortedFunc(slices.Values(active), byPartition))
	if standbys > 0 {
		d.dealStandbys(slices.SortedFunc(slices.Values(stateful), func(a, b Task) int { return byPartition(b, a) }), standbys)
	}
}

func (d *dealer) give(w *worker, t Task, standby bool) {
	w.tasks[t] = Held{Standby: standby}
	w.home.tasks[t] = struct{}{}
	if !standby {
		d.active.fill(len(w.tasks))
	}
	d.all.fill(len(w.tasks))
}

// before returns the workers that had a task in a role.
func (d *dealer) before(t Task, standby bool) []*worker {
	var had []*worker
	for _, w := range d.workers {
		if w.had.has(t, standby) {
			had = append(had, w)
		}
	}
	return had
}

// idlest returns the worker with least to do in the process with least to do, of some that are not full and whose process
// does not have the task yet; nil for none.
func idlest(workers []*worker, t Task, full int) *worker {
	var best *worker
	for _, w := range workers {
		switch {
		case len(w.tasks) >= full || w.home.has(t):
		case best == nil, w.home.less(best.home), w.home == best.home && len(w.tasks) < len(best.tasks):
			best = w
		}
	}
	return best
}

func (d *dealer) dealActive(tasks []Task) {
	for _, standby := range []bool{false, true} {
		tasks = slices.DeleteFunc(tasks, func(t Task) bool {
			w := idlest(d.before(t, standby), t, d.active.share())
			if w != nil {
				d.give(w, t, false)
			}
			return w != nil
		})
	}
	slices.SortFunc(tasks, Task.Compare)
	for _, t := range tasks {
		d.give(idlest(d.workers, t, math.MaxInt), t, false)
	}
}

func (d *dealer) dealStandbys(tasks []Task, standbys int) {
	var open []Task // a task for each standby that is to be dealt still
	for _, t := range tasks {
		left := standbys
		for ; left > 0; left-- {
			w := idlest(d.before(t, false), t, d.all.share())
			if w == nil {
				w = idlest(d.before(t, true), t, d.all.share())
			}
			if w == nil {
				break
			}
			d.give(w, t, true)
		}
		open = append(open, slices.Repeat([]Task{t}, left)...)
	}
	slices.SortFunc(open, func(a, b Task) int { return b.Compare(a) })
	for _, t := range open {
		if w := idlest(d.workers, t, math.MaxInt); w != nil {
			d.give(w, t, true)
		}
	}
}
