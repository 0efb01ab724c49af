package log

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
)

// entry is a Write that was ordered, or one of the log's own changes. It becomes one frame.
type entry struct {
	now     int64 // wall clock, ms
	batches []ordered
	puts    []Put
	start   *Partition // its first offset becomes offset
	offset  int64
	drop    *Partition // is deleted
	sync    bool       // wants a sync under Durability Sync
	done    func(error)
}

// ordered is a batch with its offset.
type ordered struct {
	p    *Partition
	data []byte
	mem  Memory // of data
	h    header
	end  markerOf
	at   placed

	// What to put back if the frame cannot be written.
	known  bool // the partition knew the producer
	before producer
}

// markerOf is what a control batch says; zero for data.
type markerOf struct {
	is               bool
	commit           bool
	coordinatorEpoch int32
}

// Submit checks and orders w and queues it. What is refused is said in the results, one for each append, then one for
// each marker, and is not written; the rest is written as one unit. Batches that repeat earlier ones are not written
// either, but count as accepted.
//
// done is called exactly once, perhaps before Submit returns and from another goroutine: after what was accepted, and
// whatever the duplicates repeat, is as durable as the options promise and visible to readers; at once if nothing was.
// It must not block, every other writer waits for it. An error wraps KAFKA_STORAGE_ERROR and means that nothing of w
// was written.
func (l *Log) Submit(w Write, d Wait, done func(error)) []Result {
	now := l.o.Now().UnixMilli()
	results := make([]Result, len(w.Appends)+len(w.Markers))
	var one [1]header
	heads := one[:]
	if len(w.Appends) > 1 {
		heads = make([]header, len(w.Appends))
	}
	for i := range w.Appends {
		a := &w.Appends[i]
		results[i] = Result{BaseOffset: -1, LogAppendTime: -1}
		h, r := l.codecs.validate(a, a.Partition.cfg.Load(), now)
		if r != nil {
			results[i].refuse(r)
		}
		heads[i] = h
	}
	e := &entry{now: now, puts: w.Puts, sync: d == WaitSync, done: done}
	if n := len(results); n > 0 {
		e.batches = make([]ordered, 0, n)
	}
	accepted := len(w.Puts) > 0

	l.mu.Lock()
	if err := l.writable(); err != nil {
		l.mu.Unlock()
		for i := range results {
			results[i] = Result{Err: kerr.KafkaStorageError, ErrMessage: err.Error(), BaseOffset: -1, LogAppendTime: -1}
		}
		done(err)
		return results
	}
	for i := range w.Appends {
		if h := &heads[i]; h.txn() && h.pid >= 0 {
			w.Appends[i].Partition.begins(h, w.Appends[i].TV2, now)
		}
		if results[i].Err == nil {
			l.order(e, &w.Appends[i], heads[i], &results[i])
			accepted = accepted || results[i].Err == nil
		}
	}
	for i := range w.Markers {
		r := &results[len(w.Appends)+i]
		l.orderMarker(e, &w.Markers[i], r)
		accepted = accepted || r.Err == nil
	}
	if !accepted {
		l.mu.Unlock()
		done(nil)
		return results
	}
	l.enqueue(e)
	l.mu.Unlock()
	return results
}

func (r *Result) refuse(x *refusal) {
	*r = Result{Err: x.err, ErrMessage: x.message, RecordErrors: x.records, BaseOffset: -1, LogAppendTime: -1}
}

// order gives a valid batch its offset, or finds why not. With l.mu held.
func (l *Log) order(e *entry, a *Append, h header, r *Result) {
	p := a.Partition
	if p.dropped {
		r.refuse(refuse(kerr.UnknownTopicOrPartition, "%s was deleted", p))
		return
	}
	r.LogStart = p.firstOffset()
	o := ordered{p: p, data: a.Batch, mem: a.Memory}
	if h.pid >= 0 {
		s := p.producers[h.pid]
		if s != nil {
			if dup := s.duplicate(&h); dup != nil {
				r.Duplicate, r.BaseOffset = true, dup.baseOffset()
				if h.attrs&attrLogAppendTime != 0 {
					r.LogAppendTime = dup.maxTS
				}
				e.sync = e.sync || !h.txn()
				return
			}
			o.known, o.before = true, *s
		} else {
			fresh := newProducer()
			s = &fresh
		}
		if x := s.check(&h, p.beginnings[h.pid]); x != nil {
			x.message = fmt.Sprintf("%s: %s", p, x.message)
			r.refuse(x)
			return
		}
		if h.txn() {
			delete(p.beginnings, h.pid)
		}
		h.base = p.end
		s.append(&h, e.now)
		p.setProducer(h.pid, s)
	}
	h.base, h.epoch = p.end, l.epoch
	setBase(a.Batch, h.base, h.epoch)
	p.end = h.next()
	o.h = h
	e.batches = append(e.batches, o)
	// Unsynced data outside a transaction would let the last stable offset pass what is durable.
	e.sync = e.sync || !h.txn()
	r.BaseOffset = h.base
	if h.attrs&attrLogAppendTime != 0 {
		r.LogAppendTime = h.maxTS
	}
}

// orderMarker writes the end of a transaction, or finds why not. With l.mu held.
func (l *Log) orderMarker(e *entry, m *Marker, r *Result) {
	p := m.Partition
	*r = Result{BaseOffset: -1, LogAppendTime: -1, LogStart: p.firstOffset()}
	if p.dropped {
		r.refuse(refuse(kerr.UnknownTopicOrPartition, "%s was deleted", p))
		return
	}
	o := ordered{p: p, end: markerOf{is: true, commit: m.Commit, coordinatorEpoch: m.CoordinatorEpoch}}
	s := p.producers[m.ProducerID]
	if s != nil {
		o.known, o.before = true, *s
	} else {
		fresh := newProducer()
		s = &fresh
	}
	if x := s.checkMarker(m); x != nil {
		x.message = fmt.Sprintf("%s: %s", p, x.message)
		r.refuse(x)
		return
	}
	if v := p.beginnings[m.ProducerID]; v != nil && !(v.tv2 && v.epoch == m.Epoch) { // else it is the next transaction's
		delete(p.beginnings, m.ProducerID)
	}
	s.end(m.Epoch, m.CoordinatorEpoch, e.now, e.now)
	p.setProducer(m.ProducerID, s)
	o.data = marker(m, e.now)
	setBase(o.data, p.end, l.epoch)
	h, ok := parseHeader(o.data)
	if !ok {
		panic("broker log: a marker of our own is malformed")
	}
	o.h = h
	p.end++
	e.batches = append(e.batches, o)
	e.sync = true
	r.BaseOffset = h.base
}

func (p *Partition) setProducer(pid int64, s *producer) {
	if p.producers == nil {
		p.producers = map[int64]*producer{}
	}
	p.producers[pid] = s
}

func (p *Partition) firstOffset() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.logStart
}

// undo takes back what ordering e changed. Entries are undone last first. With l.mu held.
func (e *entry) undo() {
	for i := len(e.batches) - 1; i >= 0; i-- {
		o := &e.batches[i]
		o.p.end = o.h.base
		if o.h.pid < 0 {
			continue
		}
		if o.known {
			o.p.setProducer(o.h.pid, &o.before)
		} else {
			delete(o.p.producers, o.h.pid)
		}
	}
	if e.drop != nil {
		e.drop.dropped = false
	}
}

// writable says why nothing can be written. With l.mu held.
func (l *Log) writable() error {
	if l.failed != nil {
		return storageError(l.failed)
	}
	if l.closing {
		return storageError(ErrClosed)
	}
	return nil
}

// enqueue hands e to the committer. With l.mu held.
func (l *Log) enqueue(e *entry) {
	if e.now == 0 {
		e.now = l.o.Now().UnixMilli()
	}
	l.queue = append(l.queue, e)
	if len(l.queue) == 1 {
		kick(l.queued)
	}
}

func kick(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
