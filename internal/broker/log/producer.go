package log

import (
	"math"

	"github.com/twmb/franz-go/pkg/kerr"
)

// kept is how many batches of a producer are remembered, as many as an idempotent client has in flight.
const kept = 5

// seqBatch is one remembered batch of a producer.
type seqBatch struct {
	first, last int32 // sequences
	lastOffset  int64
	maxTS       int64
}

func (s *seqBatch) baseOffset() int64 {
	n := int64(s.last) - int64(s.first)
	if n < 0 { // the sequence wrapped inside the batch
		n += math.MaxInt32 + 1
	}
	return s.lastOffset - n
}

// producer is what a partition knows of one producer. A value: copying it is how it is undone.
type producer struct {
	epoch            int16
	coordinatorEpoch int32 // -1 before the first marker
	n                int32
	batches          [kept]seqBatch // the last n, oldest first
	txnFirst         int64          // first offset of the open transaction; -1: none
	lastTS           int64          // timestamp of the last batch or marker
	written          int64          // wall clock of the last write, for expiry
}

func newProducer() producer {
	return producer{epoch: -1, coordinatorEpoch: -1, txnFirst: -1, lastTS: -1}
}

// lastSeq is the last sequence of the current epoch; -1: nothing was written in it.
func (p *producer) lastSeq() int32 {
	if p.n == 0 {
		return -1
	}
	return p.batches[p.n-1].last
}

// duplicate finds the remembered batch that h repeats.
func (p *producer) duplicate(h *header) *seqBatch {
	if p.epoch != h.pepoch {
		return nil
	}
	last := h.lastSeq()
	for i := range p.n {
		if s := &p.batches[i]; s.first == h.seq && s.last == last {
			return s
		}
	}
	return nil
}

// check decides whether h may follow; v is nil where no transaction of the producer waits to begin.
func (p *producer) check(h *header, v *beginning) *refusal {
	if h.pepoch < p.epoch {
		return refuse(kerr.InvalidProducerEpoch, "producer %d has epoch %d here, the batch epoch %d", h.pid, p.epoch, h.pepoch)
	}
	if v != nil && v.tv2 && h.seq != 0 && p.n == 0 {
		return refuse(kerr.OutOfOrderSequenceNumber, "producer %d starts with sequence %d, not 0", h.pid, h.seq)
	}
	if v != nil && h.seq > v.lowest {
		return refuse(kerr.OutOfOrderSequenceNumber, "producer %d sends sequence %d, its transaction was to begin with %d", h.pid, h.seq, v.lowest)
	}
	if h.pepoch != p.epoch {
		if h.seq != 0 && p.epoch >= 0 {
			return refuse(kerr.OutOfOrderSequenceNumber, "producer %d starts epoch %d with sequence %d, not 0", h.pid, h.pepoch, h.seq)
		}
	} else if want := addSeq(p.lastSeq(), 1); h.seq != want {
		return refuse(kerr.OutOfOrderSequenceNumber, "producer %d sends sequence %d, expected is %d", h.pid, h.seq, want)
	}
	if p.txnFirst >= 0 && !h.txn() {
		return refuse(kerr.InvalidTxnState, "producer %d has an open transaction here, the batch is not part of it", h.pid)
	}
	return nil
}

// append records a batch that starts at h.base.
func (p *producer) append(h *header, now int64) {
	if h.pepoch != p.epoch {
		p.epoch, p.n = h.pepoch, 0
	}
	if p.n == kept {
		copy(p.batches[:], p.batches[1:])
		p.n--
	}
	p.batches[p.n] = seqBatch{first: h.seq, last: h.lastSeq(), lastOffset: h.last(), maxTS: h.maxTS}
	p.n++
	p.lastTS, p.written = h.maxTS, now
	if h.txn() && p.txnFirst < 0 {
		p.txnFirst = h.base
	}
}

// checkMarker decides whether m may end the transaction. With transactions of version 2 the epoch that a marker brings is
// above that of the data; an equal one repeats the marker that ended it.
func (p *producer) checkMarker(m *Marker) *refusal {
	if m.Epoch < p.epoch || m.TV2 && m.Epoch == p.epoch && p.txnFirst >= 0 {
		return refuse(kerr.InvalidProducerEpoch, "producer %d has epoch %d here, the marker epoch %d", m.ProducerID, p.epoch, m.Epoch)
	}
	if m.CoordinatorEpoch < p.coordinatorEpoch {
		return refuse(kerr.TransactionCoordinatorFenced, "the coordinator has epoch %d here, the marker epoch %d", p.coordinatorEpoch, m.CoordinatorEpoch)
	}
	return nil
}

// end records a marker.
func (p *producer) end(epoch int16, coordinatorEpoch int32, ts, now int64) {
	if epoch != p.epoch {
		p.epoch, p.n = epoch, 0
	}
	p.coordinatorEpoch = coordinatorEpoch
	p.txnFirst = -1
	p.lastTS, p.written = ts, now
}

// beginning is a transaction that is to begin on a partition: a batch of it was sent, none was written. Batches above the
// lowest of them wait until that one is sent again, or a client that has several on their way would lose their order when
// the first is refused. As Kafka it outlives the transaction, in memory, until one of the producer writes here or ends.
type beginning struct {
	lowest int32 // sequence
	epoch  int16
	tv2    bool  // the first of the batches was of transactions of version 2
	since  int64 // wall clock, for expiry
}

// begins notes that h wants to begin a transaction, if it does. With log.mu held.
func (p *Partition) begins(h *header, tv2 bool, now int64) {
	if s := p.producers[h.pid]; s != nil && (h.pepoch < s.epoch || h.pepoch == s.epoch && s.txnFirst >= 0) {
		return
	}
	v := p.beginnings[h.pid]
	switch {
	case v == nil:
		if p.beginnings == nil {
			p.beginnings = map[int64]*beginning{}
		}
		p.beginnings[h.pid] = &beginning{lowest: h.seq, epoch: h.pepoch, tv2: tv2, since: now}
	case h.pepoch > v.epoch:
		v.epoch, v.lowest = h.pepoch, h.seq
	case h.pepoch == v.epoch:
		v.lowest = min(v.lowest, h.seq)
	}
}

// Refused notes batches of transactions that the coordinator has refused: what their producers send next must not pass them.
func (l *Log) Refused(appends []Append) {
	now := l.o.Now().UnixMilli()
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range appends {
		if h, ok := parseHeader(appends[i].Batch); ok && h.txn() && h.pid >= 0 {
			appends[i].Partition.begins(&h, appends[i].TV2, now)
		}
	}
}

// ProducerState is what DescribeProducers tells of one producer on a partition.
type ProducerState struct {
	ProducerID       int64
	Epoch            int16
	LastSequence     int32 // -1: none in this epoch
	LastTimestamp    int64 // milliseconds, of the last batch or marker
	CoordinatorEpoch int32 // -1: none yet
	TxnFirstOffset   int64 // -1: no open transaction
}
