package worker

import (
	"fmt"
	"slices"

	"github.com/moldau/moldau/internal/restore"
)

// careInterval is the time between looks at memory, queues and figures, ms.
const careInterval = 50

// care is what a worker does now and then.
func (w *worker) care(now int64) {
	w.lastCare = now
	w.keepQueues()
	w.keepBudget(now)
	w.askEnds()
	w.report()
}

// keepQueues pauses partitions whose queue is long until it is short. What was fetched of a paused partition is fetched again
// later, so the two marks lie far apart.
func (w *worker) keepQueues() {
	high := max(w.n.backlogLimit()/2, 64<<10)
	for _, h := range w.hosted {
		w.measure(h)
		for _, tp := range h.slot.tps {
			if _, bytes := h.task.Buffered(tp.Topic); bytes > high && h.paused[tp] == 0 {
				h.paused[tp] = high / 8
				w.n.poller.member.Pause(tp)
			}
		}
	}
}

// keepBudget compares what all workers hold with the budget. Over it, this one gives up its part: first what is clean
// and lies on disk as well, then it commits, so that more becomes clean, and stops stepping until that is done.
func (w *worker) keepBudget(now int64) {
	own := w.flying + w.queued
	for _, h := range w.hosted {
		own += h.memory()
	}
	want := w.n.share(&w.memory, own)
	if want == 0 {
		w.choked = false
		return
	}
	freed := w.shrink(want)
	if freed >= want {
		return
	}
	for _, h := range w.hosted {
		if h.db == nil {
			continue
		}
		if err := h.db.Flush(now); err != nil {
			w.failed(permanent{err})
			return
		}
	}
	if w.shrink(want-freed) >= want-freed {
		return
	}
	w.choked = true
	w.m.Hurry()
	w.play()
}

// shrink takes want bytes from stores, the largest first.
func (w *worker) shrink(want int64) (freed int64) {
	var stores []*opened
	for _, h := range w.hosted {
		stores = append(stores, h.stores...)
	}
	return shrink(stores, want)
}

// share counts own bytes for one who held others before, and tells how much of it the budget wants back: what is too much
// is shared out by size.
func (n *Node) share(held *int64, own int64) (want int64) {
	total := n.memory.Add(own - *held)
	*held = own
	excess := total - n.cfg.Memory
	if excess <= 0 || own <= 0 {
		return 0
	}
	return int64(float64(excess) * float64(own) / float64(total))
}

func shrink(stores []*opened, want int64) (freed int64) {
	slices.SortFunc(stores, func(a, b *opened) int { return int(max(min(b.store.Memory()-a.store.Memory(), 1), -1)) })
	for _, s := range stores {
		if freed >= want {
			break
		}
		freed += s.store.Shrink(want - freed)
	}
	return freed
}

// weighing is how much is restored between two looks at the budget, bytes.
func (n *Node) weighing() int64 { return max(n.cfg.Memory/16, 64<<10) }

// keepBudget does for what is being restored what a worker does for its tasks. All of it is clean, so nothing waits.
func (k *keeper) keepBudget() error {
	if len(k.opening) == k.weighed && k.restored < k.n.weighing() {
		return nil
	}
	k.weighed, k.restored = len(k.opening), 0
	var own int64
	var stores []*opened
	for _, o := range k.opening {
		own += o.h.memory()
		stores = append(stores, o.h.stores...)
	}
	want := k.n.share(&k.memory, own)
	if want == 0 {
		return nil
	}
	freed := shrink(stores, want)
	if freed >= want {
		return nil
	}
	for _, o := range k.opening {
		if o.h.db == nil {
			continue
		}
		if err := o.h.db.Flush(k.n.millis()); err != nil {
			return permanent{fmt.Errorf("task %s: %w", o.h.name, err)}
		}
	}
	shrink(stores, want-freed)
	return nil
}

// keepGlobalBudget does it for global tables, after read more bytes were read into them.
func (n *Node) keepGlobalBudget(read int64) error {
	if n.globalRead += read; n.globalRead < n.weighing() {
		return nil
	}
	n.globalRead = 0
	n.globalLock.Lock()
	defer n.globalLock.Unlock()
	var own int64
	var stores []*opened
	for _, g := range n.globals {
		own += g.store.Memory() + g.db.Memory()
		stores = append(stores, &opened{name: g.name, store: g.store})
	}
	want := n.share(&n.globalMemory, own)
	if want == 0 {
		return nil
	}
	freed := shrink(stores, want)
	if freed >= want {
		return nil
	}
	for _, g := range n.globals {
		if err := g.db.Flush(n.millis()); err != nil {
			return permanent{fmt.Errorf("global table %q: %w", g.name, err)}
		}
	}
	shrink(stores, want-freed)
	return nil
}

// bytes is what a Poll has applied.
func bytes(done []restore.Progress) (n int64) {
	for _, p := range done {
		n += p.Bytes
	}
	return n
}
