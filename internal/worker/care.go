package worker

import (
	"slices"

	"github.com/moldau/moldau/internal/cluster"
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

// keepQueues pauses partitions whose queue is long and resumes them once it is short. What was fetched of a paused
// partition is fetched again later, so the two marks lie far apart.
func (w *worker) keepQueues() {
	high := max(w.n.backlogLimit()/2, 64<<10)
	var pause, resume []cluster.TP
	for _, h := range w.hosted {
		for _, tp := range h.slot.tps {
			_, bytes := h.task.Buffered(tp.Topic)
			switch {
			case bytes > high && !h.paused[tp]:
				h.paused[tp] = true
				pause = append(pause, tp)
			case h.paused[tp] && bytes < high/8:
				h.paused[tp] = false
				resume = append(resume, tp)
			}
		}
	}
	if len(pause) > 0 {
		w.n.poller.member.Pause(pause...)
	}
	if len(resume) > 0 {
		w.n.poller.member.Resume(resume...)
	}
}

// keepBudget compares what all workers hold with the budget. Over it, this one gives up its part: first what is clean
// and lies on disk as well, then it commits, so that more becomes clean, and stops stepping until that is done.
func (w *worker) keepBudget(now int64) {
	own := w.flying + w.queued
	for _, h := range w.hosted {
		own += h.memory()
	}
	total := w.n.memory.Add(own - w.memory)
	w.memory = own
	excess := total - w.n.cfg.Memory
	if excess <= 0 || own <= 0 {
		w.choked = false
		return
	}
	want := int64(float64(excess) * float64(own) / float64(total))
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
	slices.SortFunc(stores, func(a, b *opened) int { return int(max(min(b.store.Memory()-a.store.Memory(), 1), -1)) })
	for _, s := range stores {
		if freed >= want {
			break
		}
		freed += s.store.Shrink(want - freed)
	}
	return freed
}
