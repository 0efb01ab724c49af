package streamtest

import "github.com/moldau/moldau/internal/flow"

// javaQueue is the unread part of a topic.
type javaQueue struct {
	topic string
	run   *running
	next  int64
	log   *[]flow.In
	in    bool // the heap
}

func (q *javaQueue) time() int64 { return (*q.log)[q.next].Time }

// javaHeap orders queues as java.util.PriorityQueue does, which is not stable: ties go as they fall.
type javaHeap []*javaQueue

func (h *javaHeap) add(q *javaQueue) {
	*h = append(*h, q)
	s := *h
	at := len(s) - 1
	for at > 0 {
		parent := (at - 1) / 2
		if q.time() >= s[parent].time() {
			break
		}
		s[at] = s[parent]
		at = parent
	}
	s[at] = q
}

func (h *javaHeap) poll() *javaQueue {
	s := *h
	first, last := s[0], s[len(s)-1]
	s = s[:len(s)-1]
	*h = s
	if len(s) == 0 {
		return first
	}
	at := 0
	for 2*at+1 < len(s) {
		child := 2*at + 1
		if child+1 < len(s) && s[child].time() > s[child+1].time() {
			child++
		}
		if last.time() <= s[child].time() {
			break
		}
		s[at] = s[child]
		at = child
	}
	s[at] = last
	return first
}

// runJava works until there is nothing left to do, one record and one commit at a time. Stream time is that of all tasks.
func (d *Driver) runJava() {
	d.tb.Helper()
	for d.err == nil {
		d.refill()
		if len(d.java.waiting) == 0 {
			return
		}
		q := d.java.waiting.poll()
		rec := (*q.log)[q.next]
		q.next++
		if q.in = q.next < int64(len(*q.log)); q.in {
			d.java.waiting.add(q)
		}
		q.run.task.Add(q.topic, []flow.In{rec}, q.next, nil)
		for _, other := range q.run.sources {
			q.run.task.Caught(other, q.run.task.Position(other))
		}
		if _, err := q.run.task.Step(d.now, 1); !d.check(q.run, err) {
			d.tb.Fatal("an epoch cannot be run again in JavaOrder")
		}
		d.commit(q.run)
		for _, other := range d.tasks {
			if at := q.run.task.StreamTime(); d.err == nil && other.task.StreamTime() < at {
				if d.check(other, other.task.Reach(d.now, at)); d.err == nil {
					d.commit(other)
				}
			}
		}
	}
}

// refill queues topics that have got records, in the order in which these appeared.
func (d *Driver) refill() {
	for _, name := range d.java.arrived {
		for _, r := range d.tasks {
			for _, source := range r.sources {
				if source != name {
					continue
				}
				if q := d.queue(r, name); !q.in && q.next < int64(len(*q.log)) {
					q.in = true
					d.java.waiting.add(q)
				}
			}
		}
	}
	d.java.arrived = d.java.arrived[:0]
}

func (d *Driver) queue(r *running, topic string) *javaQueue {
	for _, q := range d.java.queues {
		if q.topic == topic {
			return q
		}
	}
	q := &javaQueue{topic: topic, run: r, next: r.task.Position(topic), log: &d.topics[topic].logs[0]}
	d.java.queues = append(d.java.queues, q)
	return q
}

// refuseIdle: TopologyTestDriver has no time that goes on by itself, so there is no order of it to follow.
func (d *Driver) refuseIdle() {
	d.tb.Helper()
	for _, sub := range d.declared.Subs {
		for _, source := range sub.Sources {
			if source.IdleAfter > 0 {
				d.tb.Fatalf("topic %q (%s) has IdleAfter, which Kafka Streams does not have: JavaOrder moves stream time with records only; leave out one of the two", source.Name, source.At)
			}
		}
	}
}
