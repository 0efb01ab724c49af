package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/moldau/moldau/internal/assign"
	"github.com/moldau/moldau/internal/cluster"
	"github.com/moldau/moldau/internal/task"
	"github.com/moldau/moldau/topology"
)

// slot is a task that the group has given to this process, from Assigned until nothing of it is open any more.
type slot struct {
	id     task.ID
	name   string
	sub    *topology.Sub // with the topics that there were
	tps    []cluster.TP
	worker *worker // nil while the keeper has it
	going  bool    // revoked or lost: the group, or our own rejoin, waits for it
	// changing: it is being closed, and opened again with other inputs.
	changing bool
}

// source says where batches of a partition go. seeks counts how often it has been sought, so that a worker can tell what
// was fetched before it asked to go back.
type source struct {
	slot  *slot
	seeks int
}

// poller is the goroutine that polls the group member. All its fields belong to it.
type poller struct {
	n        *Node
	member   cluster.Member
	box      *mailbox[func()]
	slots    map[string]*slot
	sources  map[cluster.TP]*source
	owned    map[cluster.TP]bool
	releases int  // slots that are waited for before
	asked    bool // a Revoke or Lost is answered
	stopping bool
	room     chan struct{}    // there is room again
	patience <-chan time.Time // since there was too much input; nil: there is not, or full
	full     bool             // there is too much input, and there has been for long
	failures int
}

func newPoller(n *Node, member cluster.Member) *poller {
	return &poller{n: n, member: member, box: newMailbox[func()](), slots: map[string]*slot{},
		sources: map[cluster.TP]*source{}, owned: map[cluster.TP]bool{}, room: make(chan struct{}, 1)}
}

func (p *poller) run(ctx context.Context) {
	for ctx.Err() == nil {
		for _, f := range p.box.take() {
			f()
		}
		if !p.mayPoll(ctx) {
			continue
		}
		wait, cancel := p.box.waiting(ctx)
		f, err := p.member.Poll(wait)
		cancel()
		for _, e := range f.Events {
			p.event(e)
		}
		p.dispatch(f.Batches)
		if err != nil && ctx.Err() == nil && wait.Err() == nil {
			p.failed(ctx, err)
		} else if err == nil {
			p.failures = 0
		}
	}
	p.rest()
}

// rest does what was asked of the poller at last, and once more what others asked for after its end.
func (p *poller) rest() {
	for _, f := range p.box.take() {
		f()
	}
}

// failed: polling does not work. Not every cause passes.
func (p *poller) failed(ctx context.Context, err error) {
	if !p.n.passes(err) {
		if errors.Is(err, cluster.ErrOutOfRange) {
			err = fmt.Errorf("%w: %w", ErrOffsets, err)
		}
		if errors.Is(err, cluster.ErrFenced) {
			err = fmt.Errorf("%w: another process joined the group with the same instance id; is a copy of the state directory in use?", err)
		}
		err = fmt.Errorf("polling: %w", err)
		p.n.failAs(err, p.n.respond(err))
		sleep(ctx, 50*time.Millisecond)
		return
	}
	p.failures++
	if p.failures == 1 || p.failures%100 == 0 {
		p.n.log.Warn("polling fails", "error", err, "times", p.failures)
	}
	sleep(ctx, min(time.Duration(p.failures)*10*time.Millisecond, time.Second))
}

// roomWait is how long a full process does without polling. It is far below what a group tolerates.
const roomWait = 100 * time.Millisecond

// mayPoll holds back while workers have plenty to do: what is not polled the client does not fetch. If they stand still for longer, a
// partition may bring one batch more; then it is paused until that has been taken up. Those that bring nothing are not: a worker may
// wait for them. No means that something else may have to be done, and to ask again.
func (p *poller) mayPoll(ctx context.Context) bool {
	limit := p.n.backlogLimit()
	if p.full || p.patience != nil {
		limit /= 2
	}
	switch {
	case p.n.backlog.Load() <= limit:
		p.full, p.patience = false, nil
		return true
	case p.full:
		return true
	case p.patience == nil:
		p.patience = time.After(roomWait)
	}
	select {
	case <-p.room:
	case <-p.box.signal:
	case <-p.patience:
		p.full, p.patience = true, nil
	case <-ctx.Done():
	}
	return false
}

func (p *poller) dispatch(batches []cluster.Batch) {
	for _, b := range batches {
		src := p.sources[b.TP]
		if src == nil || src.slot.worker == nil || src.slot.going || p.stopping {
			if b.Release != nil {
				b.Release()
			}
			continue
		}
		if p.full { // before it can have been taken up
			p.member.Pause(b.TP)
		}
		src.slot.worker.deliver(src.slot, b, src.seeks, p.full)
	}
}

func (p *poller) event(e cluster.Event) {
	if e.UserData != nil {
		plan, err := assign.DecodePlan(e.UserData)
		if err != nil {
			p.n.fail(fmt.Errorf("reading the group's assignment: %w", err))
			return
		}
		p.n.setPlan(plan)
	}
	switch e.Kind {
	case cluster.Assigned:
		for _, tp := range e.Partitions {
			p.owned[tp] = true
		}
		p.open(p.complete(e.Partitions))
		p.n.joined()
	case cluster.Revoke, cluster.Lost:
		for _, tp := range e.Partitions {
			delete(p.owned, tp)
		}
		p.asked = true
		if e.Kind == cluster.Lost && len(e.Partitions) > 0 {
			p.n.log.Warn("the group does not hear of this process, or has given it up: its tasks are closed until it has joined again", "tasks", len(p.slots))
		}
		p.giveUp(e.Partitions, e.Kind == cluster.Lost)
		p.answer()
	}
}

// answer lets the member go on once nothing of what it gave up is open any more.
func (p *poller) answer() {
	if p.asked && p.releases == 0 {
		p.asked = false
		p.member.Released()
	}
}

// complete lists the tasks of partitions, all of whose partitions are owned.
func (p *poller) complete(tps []cluster.TP) []*slot {
	var slots []*slot
	seen := map[task.ID]bool{}
	for _, tp := range tps {
		id, ok := p.n.taskOf(tp)
		if !ok {
			p.n.log.Warn("the group assigned a partition that is no source of the application", "topic", tp.Topic, "partition", tp.Partition)
			continue
		}
		if seen[id] {
			continue
		}
		seen[id] = true
		s := &slot{id: id, name: id.String(), sub: p.n.sub(id)}
		var whole bool
		if s.tps, whole = p.inputs(s); whole {
			slots = append(slots, s)
		}
	}
	slices.SortFunc(slots, func(a, b *slot) int { return compareIDs(a.id, b.id) })
	return slots
}

// open has the keeper open tasks.
func (p *poller) open(slots []*slot) {
	var fresh []*slot
	for _, s := range slots {
		if have := p.slots[s.name]; have != nil {
			if !slices.Equal(have.tps, s.tps) {
				p.reopen(have, false)
			}
			continue
		}
		p.slots[s.name] = s
		for _, tp := range s.tps {
			p.sources[tp] = &source{slot: s}
		}
		fresh = append(fresh, s)
		p.n.emit(Event{Kind: TaskAssigned, Task: s.name})
	}
	p.n.setAssigned(len(p.slots))
	if len(fresh) > 0 && !p.stopping {
		p.n.keeper.open(fresh)
	}
}

func (p *poller) giveUp(tps []cluster.TP, lost bool) {
	affected := map[*slot]bool{}
	byWorker := map[*worker][]*slot{}
	var kept []*slot
	for _, tp := range tps {
		src := p.sources[tp]
		if src == nil || affected[src.slot] {
			continue
		}
		s := src.slot
		affected[s] = true
		if !s.going {
			s.going = true
			p.releases++
		}
		if s.worker != nil {
			byWorker[s.worker] = append(byWorker[s.worker], s)
		} else {
			kept = append(kept, s)
		}
	}
	for w, slots := range byWorker {
		w.giveUp(slots, lost)
	}
	if len(kept) > 0 {
		p.n.keeper.drop(kept)
	}
}

// ready takes over a task that the keeper has restored: a worker gets it, and reading begins.
func (p *poller) ready(s *slot, h *hosted) {
	if s.going || s.changing || p.stopping {
		p.n.closeTask(h, false)
		p.closed(s)
		return
	}
	s.worker = p.n.leastBusy()
	s.worker.adopt(h)
	for _, tp := range s.tps {
		p.sources[tp].seeks = 0
	}
	p.member.Resume(s.tps...)
	p.member.Seek(h.start)
}

// seek has partitions read from other offsets; seeks are the numbers by which the worker tells what comes afterwards.
func (p *poller) seek(s *slot, offsets map[cluster.TP]int64, seeks map[cluster.TP]int) {
	if s.going {
		return
	}
	for tp, n := range seeks {
		if src := p.sources[tp]; src != nil && src.slot == s {
			src.seeks = n
		}
	}
	p.member.Seek(offsets)
}

// closed: nothing of the task is open any more. If it has not been given up it is opened anew.
func (p *poller) closed(s *slot) {
	if p.slots[s.name] != s {
		return
	}
	delete(p.slots, s.name)
	for _, tp := range s.tps {
		delete(p.sources, tp)
	}
	p.n.setAssigned(len(p.slots))
	p.n.emit(Event{Kind: TaskReleased, Task: s.name})
	if s.going {
		p.releases--
		p.answer()
	}
	// Of a task that was taken away there may be inputs left: a topic is gone that one of its patterns had matched.
	if left := slices.DeleteFunc(slices.Clone(s.tps), func(tp cluster.TP) bool { return !p.owned[tp] }); !p.stopping && p.n.failure() == nil {
		p.open(p.complete(left))
	}
}

// backlogLimit is the part of the memory budget that input may take, flyingLimit that of output of one worker: more would
// only be longer on its way.
func (n *Node) backlogLimit() int64 { return min(n.cfg.Memory/8, 16<<20) }
func (n *Node) flyingLimit() int64  { return min(n.cfg.Memory/8, 32<<20) }
