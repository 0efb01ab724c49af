package broker

import (
	"container/heap"
	"context"
	"sync"
	"time"
)

// alarm calls fire when its time has come. Setting it again moves it.
type alarm struct {
	fire  func(now time.Time)
	at    time.Time
	index int // in the heap; -1: not set
}

func newAlarm(fire func(now time.Time)) *alarm { return &alarm{fire: fire, index: -1} }

// alarms runs the alarms of a broker: one goroutine for all of them.
type alarms struct {
	now     func() time.Time
	mu      sync.Mutex
	queue   alarmQueue
	changed chan struct{}
}

func newAlarms(now func() time.Time) *alarms {
	return &alarms{now: now, changed: make(chan struct{}, 1)}
}

// set sets an alarm; the zero time takes it back.
func (as *alarms) set(a *alarm, at time.Time) {
	as.mu.Lock()
	defer as.mu.Unlock()
	first := len(as.queue) > 0 && as.queue[0] == a
	switch {
	case at.IsZero():
		if a.index >= 0 {
			heap.Remove(&as.queue, a.index)
		}
		return
	case a.index >= 0:
		if a.at.Equal(at) {
			return
		}
		a.at = at
		heap.Fix(&as.queue, a.index)
	default:
		a.at = at
		heap.Push(&as.queue, a)
	}
	if first || as.queue[0] == a {
		select {
		case as.changed <- struct{}{}:
		default:
		}
	}
}

// run fires alarms until ctx ends.
func (as *alarms) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		now := as.now()
		a, wait := as.next(now)
		if a != nil {
			a.fire(now)
			continue
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-as.changed:
		case <-ctx.Done():
			return
		}
	}
}

// next takes out the alarm that is due, or returns how long there is nothing to do.
func (as *alarms) next(now time.Time) (*alarm, time.Duration) {
	as.mu.Lock()
	defer as.mu.Unlock()
	if len(as.queue) == 0 {
		return nil, time.Hour
	}
	a := as.queue[0]
	if wait := a.at.Sub(now); wait > 0 {
		return nil, wait
	}
	heap.Pop(&as.queue)
	return a, 0
}

// alarmQueue is a heap by time.
type alarmQueue []*alarm

func (q alarmQueue) Len() int           { return len(q) }
func (q alarmQueue) Less(i, j int) bool { return q[i].at.Before(q[j].at) }
func (q alarmQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}
func (q *alarmQueue) Push(x any) {
	a := x.(*alarm)
	a.index = len(*q)
	*q = append(*q, a)
}
func (q *alarmQueue) Pop() any {
	a := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	a.index = -1
	return a
}
