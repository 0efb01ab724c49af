package task

import (
	"math"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/topology"
)

// queue holds the input of one partition that has been fetched and not yet run.
type queue struct {
	topic   string
	source  *topology.Topic
	node    *topology.Node
	index   int
	input   int16 // the same, for records
	feed    flow.Source
	extract func(c *flow.Ctx, key, value []byte, last int64) (int64, error)
	stores  []flow.Prefetcher // in which keys of the topic are looked up

	batches []batch // the first is being run
	at      int     // in the first
	records int
	bytes   int64
	// Of the head, if there is one and ready is true: with an extractor it is decoded to be known.
	headTime int64
	headErr  error
	ready    bool

	next          int64              // the offset to commit: after the last record that was run, past markers; -1 unknown
	added         int64              // the offset expected next from Add; -1 unknown
	committed     int64              // next as of the last Seal
	partitionTime int64              // the greatest record time taken up
	end           int64              // end of the partition, as last heard; -1 never
	asked         bool               // its end is to be heard anew, see rest
	deadline      int64              // of waiting for an empty partition that is caught up; 0: not waiting
	troubles      map[int64]*trouble // records that failed, by offset
}

type batch struct {
	records []flow.In
	next    int64
	bytes   int64
	release func()
	kept    *kept // nil: no call reads it
}

// Add queues fetched records of a source topic's partition. next is the offset to go on from, past transaction markers and
// compacted records; release, which may be nil, is called once no byte of them is needed any more. Records that were
// added before are left out.
func (t *Task) Add(topic string, records []flow.In, next int64, release func()) {
	q := t.byName[topic]
	if q == nil {
		if release != nil {
			release()
		}
		return
	}
	for len(records) > 0 && records[0].Offset < q.added {
		records = records[1:]
	}
	if next < q.added {
		next = q.added
	}
	q.added = next
	t.rest.broken = true
	if len(records) == 0 {
		if release != nil {
			release()
		}
		if len(q.batches) > 0 {
			q.batches[len(q.batches)-1].next = next
		} else if q.next != next {
			q.next = next
		}
		return
	}
	if q.next < 0 {
		q.next = records[0].Offset
	}
	b := batch{records: records, next: next, bytes: Cost(records), release: release}
	q.records += len(records)
	q.bytes += b.bytes
	q.deadline = 0
	q.batches = append(q.batches, b)
}

// recordOverhead is what a queued record costs beside its key and value.
const recordOverhead = 88

// Cost is what records cost in memory while they wait, in bytes.
func Cost(records []flow.In) (bytes int64) {
	for i := range records {
		bytes += int64(len(records[i].Key)+len(records[i].Value)) + recordOverhead
	}
	return bytes
}

// Buffered is what is queued of a topic: records, and their Cost.
func (t *Task) Buffered(topic string) (records int, bytes int64) {
	if q := t.byName[topic]; q != nil {
		return q.records, q.bytes
	}
	return 0, 0
}

// Position is the next offset of a topic that Add expects; -1: unknown.
func (t *Task) Position(topic string) int64 {
	if q := t.byName[topic]; q != nil {
		return q.added
	}
	return -1
}

// Caught tells the task the end of a source's partition as the broker knows it. A source that is empty at its end does
// not hold up the others (longer than Config.MaxIdle); one that is not, does.
func (t *Task) Caught(topic string, end int64) {
	if q := t.byName[topic]; q != nil {
		q.end, q.asked = end, false
	}
}

func (q *queue) empty() bool    { return len(q.batches) == 0 }
func (q *queue) head() *flow.In { return &q.batches[0].records[q.at] }

// ahead is how many records stores are told of at once.
const ahead = 32

// prefetch tells stores of the records to come.
func (q *queue) prefetch() {
	if len(q.stores) == 0 || q.at%ahead != 0 {
		return
	}
	records := q.batches[0].records
	for _, s := range q.stores {
		s.Prefetch(records[q.at:min(q.at+ahead, len(records))])
	}
}

// pop moves past the head.
func (q *queue) pop() {
	b := &q.batches[0]
	q.next = b.records[q.at].Offset + 1
	q.at++
	q.records--
	q.ready = false
	if q.at < len(b.records) {
		return
	}
	q.next = b.next
	q.bytes -= b.bytes
	if b.release != nil {
		b.release()
	}
	n := copy(q.batches, q.batches[1:])
	q.batches[n] = batch{}
	q.batches, q.at = q.batches[:n], 0
}

// clear lets go of everything queued.
func (q *queue) clear() {
	for i := range q.batches {
		if r := q.batches[i].release; r != nil {
			r()
		}
		q.batches[i] = batch{}
	}
	q.batches, q.at, q.records, q.bytes, q.ready = q.batches[:0], 0, 0, 0, false
}

// choose finds the queue whose head is earliest, the first added among equals, and how far it may run: as long as its
// head is below limit. nil: there is nothing to run now, or an empty source must be waited for.
func (t *Task) choose(now int64) (best *queue, limit int64) {
	if len(t.queues) == 1 {
		q := t.queues[0]
		if q.empty() || !t.time(q) {
			return nil, 0
		}
		return q, math.MaxInt64
	}
	waiting := false
	limit = math.MaxInt64
	for _, q := range t.queues {
		if q.empty() || !t.time(q) {
			waiting = t.waits(q, now) || waiting
			continue
		}
		switch {
		case best == nil:
			best = q
		case q.headTime < best.headTime:
			// The old best was added earlier and goes first among equals: q may run while strictly below it.
			limit, best = best.headTime, q
		default:
			// q was added later: best may run up to and including its head.
			limit = min(limit, satAdd(q.headTime, 1))
		}
	}
	if waiting {
		return nil, 0
	}
	return best, limit
}

// waits says whether an empty source holds up the task.
func (t *Task) waits(q *queue, now int64) bool {
	switch idle := t.config.MaxIdle.Milliseconds(); {
	case t.config.MaxIdle < 0:
		return false
	case q.end < 0 || q.added < q.end:
		q.deadline = 0
		return true // the broker has more, or may have
	case idle == 0:
		return false
	case q.deadline == 0:
		q.deadline = now + idle
		return true
	default:
		return now < q.deadline
	}
}

// time makes sure that the head's time is known. Records with a negative time are dropped on the way; false: none is left.
func (t *Task) time(q *queue) bool {
	if q.ready {
		return true
	}
	for !q.empty() {
		rec := q.head()
		q.headTime, q.headErr = rec.Time, nil
		if q.extract != nil {
			t.begin(q, rec, rec.Time)
			q.headTime, q.headErr = t.extract(q, rec)
		}
		if q.headTime >= 0 || q.headErr != nil {
			q.ready = true
			return true
		}
		t.stats.Dropped[Drop{q.node.Label(), "negative-timestamp"}]++
		t.dirty = true
		t.passed++
		q.pop()
	}
	return false
}

// extract reads the head's time from the record itself. After an error it is the record's own time, and the error waits for
// the record's turn.
func (t *Task) extract(q *queue, rec *flow.In) (at int64, err error) {
	defer func() {
		if c := &t.ctx; c.Err != nil {
			at, err, c.Err = rec.Time, c.Err, nil
		}
	}()
	pass := t.ctx.Pass
	t.ctx.Pass = nil // it is asked when the record has its turn
	defer func() { t.ctx.Pass = pass }()
	defer t.ctx.Recover()
	if at, err = q.extract(&t.ctx, rec.Key, rec.Value, q.partitionTime); err != nil {
		at = rec.Time
	}
	return at, err
}

func satAdd(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}
