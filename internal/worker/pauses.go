package worker

import (
	"sync"

	"github.com/moldau/moldau/internal/cluster"
)

// pauses are the partitions that are not fetched just now. Workers pause those whose own queues are long; the poller those that bring
// more while there is too much of everything.
type pauses struct {
	member cluster.Member
	mu     sync.Mutex
	why    map[cluster.TP]reason
	full   int // partitions that wait for room
}

// reason is a set of reasons not to fetch a partition.
type reason uint8

const (
	longQueue reason = 1 << iota
	noRoom
)

func (p *pauses) pause(why reason, tps ...cluster.TP) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var fresh []cluster.TP
	for _, tp := range tps {
		was := p.why[tp]
		if was == 0 {
			fresh = append(fresh, tp)
		}
		p.set(tp, was|why)
	}
	if len(fresh) > 0 {
		p.member.Pause(fresh...)
	}
}

func (p *pauses) resume(why reason, tps ...cluster.TP) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.without(why, tps)
}

// room has all partitions fetched again that wait for room.
func (p *pauses) room() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.full == 0 {
		return
	}
	var tps []cluster.TP
	for tp, why := range p.why {
		if why&noRoom != 0 {
			tps = append(tps, tp)
		}
	}
	p.without(noRoom, tps)
}

func (p *pauses) without(why reason, tps []cluster.TP) {
	var free []cluster.TP
	for _, tp := range tps {
		was := p.why[tp]
		if was != 0 && was&^why == 0 {
			free = append(free, tp)
		}
		p.set(tp, was&^why)
	}
	if len(free) > 0 {
		p.member.Resume(free...)
	}
}

func (p *pauses) set(tp cluster.TP, why reason) {
	p.full += int(why&noRoom/noRoom) - int(p.why[tp]&noRoom/noRoom)
	if why == 0 {
		delete(p.why, tp)
		return
	}
	p.why[tp] = why
}
