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

// check decides whether h may follow. known says that the partition has state for this producer.
func (p *producer) check(h *header, known, tv2 bool) *refusal {
	if !known {
		if tv2 && h.txn() && h.seq != 0 {
			return refuse(kerr.OutOfOrderSequenceNumber, "producer %d starts with sequence %d, not 0", h.pid, h.seq)
		}
		return nil
	}
	if h.pepoch < p.epoch {
		return refuse(kerr.InvalidProducerEpoch, "producer %d has epoch %d here, the batch epoch %d", h.pid, p.epoch, h.pepoch)
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

// checkMarker decides whether m may end the transaction.
func (p *producer) checkMarker(m *Marker) *refusal {
	if m.Epoch < p.epoch || m.TV2 && m.Epoch == p.epoch {
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

// ProducerState is what DescribeProducers tells of one producer on a partition.
type ProducerState struct {
	ProducerID       int64
	Epoch            int16
	LastSequence     int32 // -1: none in this epoch
	LastTimestamp    int64 // milliseconds, of the last batch or marker
	CoordinatorEpoch int32 // -1: none yet
	TxnFirstOffset   int64 // -1: no open transaction
}
