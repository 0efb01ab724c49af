package broker

import (
	"context"
	"encoding/binary"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/moldau/moldau/internal/broker/auth"
	"github.com/moldau/moldau/internal/broker/log"
	"github.com/moldau/moldau/internal/broker/txn"
)

// What of a batch's header the broker reads itself; the rest is the log's.
const (
	batchHeaderSize   = 61
	attributesAt      = 21
	producerIDAt      = 43
	producerEpochAt   = 51
	attrTransactional = 1 << 4
)

// transactional returns the producer of a batch that is part of a transaction.
func transactional(batch []byte) (txn.Producer, bool) {
	if len(batch) < batchHeaderSize || binary.BigEndian.Uint16(batch[attributesAt:])&attrTransactional == 0 {
		return txn.Producer{}, false
	}
	return txn.Producer{
		ID:    int64(binary.BigEndian.Uint64(batch[producerIDAt:])),
		Epoch: int16(binary.BigEndian.Uint16(batch[producerEpochAt:])),
	}, true
}

// producing is a Produce request on its way to the log.
type producing struct {
	resp    *kmsg.ProduceResponse
	appends []log.Append
	// targets are the answers of appends, owners the ids of their partitions.
	targets []*kmsg.ProduceResponseTopicPartition
	owners  []txn.Partition
}

func (b *Broker) produce(r *request, q *kmsg.ProduceRequest) reply {
	p := b.producing(r, q)
	r.throttle(p.resp, auth.ProducerByteRate, float64(r.size))
	var f *future
	switch {
	case q.Acks < -1 || q.Acks > 1:
		p.refuse(kerr.InvalidRequiredAcks, "")
	case len(p.appends) > 0 && q.TransactionID != nil && !r.mayTransact(kmsg.ACLOperationWrite, *q.TransactionID):
		p.refuse(kerr.TransactionalIDAuthorizationFailed, "")
	case len(p.appends) > 0 && q.TransactionID != nil:
		f = b.txns.produce(*q.TransactionID, q.Version, p)
	case len(p.appends) > 0:
		if p.transactional() {
			p.refuse(kerr.TransactionalIDAuthorizationFailed, "a transactional batch in a request without transactional id")
			break
		}
		f = newFuture()
		p.finish(b.log.Submit(log.Write{Appends: p.appends}, log.WaitSync, f.set))
	}
	silent := q.Acks == 0
	if silent && p.failed() {
		// There is no response to put an error in; closing the connection makes the client look for one.
		return reply{}
	}
	if f == nil {
		return reply{resp: p.resp, none: silent}
	}
	return reply{none: silent, wait: func(ctx context.Context) kmsg.Response {
		if f.wait(ctx) {
			r.frame.Release() // what the log keeps of it, it holds
			return p.resp
		}
		if ctx.Err() != nil || silent {
			return nil
		}
		p.refuse(kerr.KafkaStorageError, f.err.Error())
		return p.resp
	}}
}

// producing finds the partitions of a request and prepares its answer.
func (b *Broker) producing(r *request, q *kmsg.ProduceRequest) *producing {
	p := &producing{resp: response[*kmsg.ProduceResponse](q)}
	p.resp.Topics = make([]kmsg.ProduceResponseTopic, len(q.Topics))
	var memory log.Memory
	if r.frame.Kept() {
		memory = r.frame
	}
	for i := range q.Topics {
		qt, rt := &q.Topics[i], &p.resp.Topics[i]
		rt.Topic, rt.TopicID = qt.Topic, qt.TopicID
		rt.Partitions = make([]kmsg.ProduceResponseTopicPartition, len(qt.Partitions))
		t, unknown := b.catalog.asked(q.Version >= 13, qt.Topic, qt.TopicID)
		may := t != nil && r.mayTopic(kmsg.ACLOperationWrite, t.name)
		for j := range qt.Partitions {
			qp, rp := &qt.Partitions[j], &rt.Partitions[j]
			rp.Default()
			rp.Partition, rp.BaseOffset, rp.LogStartOffset = qp.Partition, -1, -1
			part := t.partition(qp.Partition)
			if t != nil && !may || t == nil && q.Version < 13 && !r.mayTopic(kmsg.ACLOperationWrite, qt.Topic) {
				rp.ErrorCode = kerr.TopicAuthorizationFailed.Code
				continue
			}
			if part == nil {
				rp.ErrorCode = unknown.Code
				continue
			}
			if t.internal() {
				rp.ErrorCode = kerr.InvalidTopicException.Code
				continue
			}
			p.appends = append(p.appends, log.Append{Partition: part, Batch: qp.Records, Memory: memory, Version: q.Version, TV2: q.Version >= 12})
			p.targets = append(p.targets, rp)
			p.owners = append(p.owners, txn.Partition{Topic: t.id, Partition: qp.Partition})
		}
	}
	return p
}

// refuse refuses everything that was not refused before.
func (p *producing) refuse(err *kerr.Error, msg string) {
	for _, rp := range p.targets {
		if rp.ErrorCode == 0 {
			refusePartition(rp, err, msg)
		}
	}
}

func refusePartition(rp *kmsg.ProduceResponseTopicPartition, err error, msg string) {
	rp.ErrorCode, rp.BaseOffset, rp.LogAppendTime = code(err), -1, -1
	if msg != "" {
		rp.ErrorMessage = &msg
	}
}

func (p *producing) transactional() bool {
	for _, a := range p.appends {
		if _, ok := transactional(a.Batch); ok {
			return true
		}
	}
	return false
}

// keep drops the appends that keep says no to, with their targets.
func (p *producing) keep(keep func(i int) bool) {
	n := 0
	for i := range p.appends {
		if keep(i) {
			p.appends[n], p.targets[n], p.owners[n] = p.appends[i], p.targets[i], p.owners[i]
			n++
		}
	}
	p.appends, p.targets, p.owners = p.appends[:n], p.targets[:n], p.owners[:n]
}

// finish puts the log's results into the answer.
func (p *producing) finish(results []log.Result) {
	for i, rp := range p.targets {
		r := &results[i]
		rp.BaseOffset, rp.LogAppendTime, rp.LogStartOffset = r.BaseOffset, r.LogAppendTime, r.LogStart
		if r.Err == nil {
			continue
		}
		refusePartition(rp, r.Err, r.ErrMessage)
		for _, index := range r.RecordErrors {
			re := kmsg.NewProduceResponseTopicPartitionErrorRecord()
			re.RelativeOffset = index
			if r.ErrMessage != "" {
				re.ErrorMessage = &r.ErrMessage
			}
			rp.ErrorRecords = append(rp.ErrorRecords, re)
		}
	}
}

func (p *producing) failed() bool {
	for i := range p.resp.Topics {
		for j := range p.resp.Topics[i].Partitions {
			if p.resp.Topics[i].Partitions[j].ErrorCode != 0 {
				return true
			}
		}
	}
	return false
}
