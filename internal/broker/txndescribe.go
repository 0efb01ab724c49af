package broker

import (
	"regexp"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/moldau/moldau/internal/broker/txn"
)

func (b *Broker) describeProducers(r *request, q *kmsg.DescribeProducersRequest) reply {
	resp := response[*kmsg.DescribeProducersResponse](q)
	for _, qt := range q.Topics {
		rt := kmsg.NewDescribeProducersResponseTopic()
		rt.Topic = qt.Topic
		t := b.catalog.topic(qt.Topic)
		for _, i := range qt.Partitions {
			rp := kmsg.NewDescribeProducersResponseTopicPartition()
			rp.Partition = i
			if p := t.partition(i); !r.mayTopic(kmsg.ACLOperationRead, qt.Topic) {
				rp.ErrorCode = kerr.TopicAuthorizationFailed.Code
			} else if p == nil {
				rp.ErrorCode = kerr.UnknownTopicOrPartition.Code
			} else {
				for _, s := range p.Producers() {
					rp.ActiveProducers = append(rp.ActiveProducers, kmsg.DescribeProducersResponseTopicPartitionActiveProducer{
						ProducerID: s.ProducerID, ProducerEpoch: int32(s.Epoch), LastSequence: s.LastSequence,
						LastTimestamp: s.LastTimestamp, CoordinatorEpoch: s.CoordinatorEpoch, CurrentTxnStartOffset: s.TxnFirstOffset,
					})
				}
			}
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return answer(resp)
}

func (b *Broker) describeTransactions(r *request, q *kmsg.DescribeTransactionsRequest) reply {
	resp := response[*kmsg.DescribeTransactionsResponse](q)
	var fs []*future
	for _, id := range q.TransactionalIDs {
		rs := kmsg.NewDescribeTransactionsResponseTransactionState()
		rs.TransactionalID = id
		if !r.mayTransact(kmsg.ACLOperationDescribe, id) {
			rs.ErrorCode = kerr.TransactionalIDAuthorizationFailed.Code
		} else if id == "" {
			rs.ErrorCode = kerr.InvalidRequest.Code
		} else if e := b.txns.lock(id); e == nil {
			rs.ErrorCode = kerr.TransactionalIDNotFound.Code
		} else {
			s := e.state
			rs.State, rs.TimeoutMillis = s.State().String(), int32(s.Timeout().Milliseconds())
			rs.ProducerID, rs.ProducerEpoch, rs.StartTimestamp = s.Producer().ID, s.Producer().Epoch, -1
			if start := s.Start(); !start.IsZero() {
				rs.StartTimestamp = start.UnixMilli()
			}
			for _, tp := range s.Partitions() {
				t := b.catalog.topicByID(tp.Topic)
				if t == nil || !r.mayTopic(kmsg.ACLOperationDescribe, t.name) {
					continue
				}
				if n := len(rs.Topics); n == 0 || rs.Topics[n-1].Topic != t.name {
					rt := kmsg.NewDescribeTransactionsResponseTransactionStateTopic()
					rt.Topic = t.name
					rs.Topics = append(rs.Topics, rt)
				}
				rt := &rs.Topics[len(rs.Topics)-1]
				rt.Partitions = append(rt.Partitions, tp.Partition)
			}
			fs = append(fs, e.last)
			e.mu.Unlock()
		}
		resp.TransactionStates = append(resp.TransactionStates, rs)
	}
	return both(resp, fs...)
}

func (b *Broker) listTransactions(r *request, q *kmsg.ListTransactionsRequest) reply {
	resp := response[*kmsg.ListTransactionsResponse](q)
	known := []string{"Empty", "Ongoing", "PrepareCommit", "PrepareAbort", "CompleteCommit", "CompleteAbort", "Dead", "PrepareEpochFence"}
	for _, f := range q.StateFilters {
		if !slices.Contains(known, f) {
			resp.UnknownStateFilters = append(resp.UnknownStateFilters, f)
		}
	}
	var pattern *regexp.Regexp
	if p := deref(q.TransactionalIDPattern); p != "" {
		var err error
		if pattern, err = regexp.Compile("^(?:" + p + ")$"); err != nil {
			resp.ErrorCode = kerr.InvalidRegularExpression.Code
			return answer(resp)
		}
	}
	now := b.cfg.Now()
	for _, e := range b.txns.all() {
		e.mu.Lock()
		s := e.state
		state, producer, start := s.State(), s.Producer(), s.Start()
		e.mu.Unlock()
		switch {
		case state == txn.Dead,
			!r.mayTransact(kmsg.ACLOperationDescribe, s.ID()),
			len(q.StateFilters) > 0 && !slices.Contains(q.StateFilters, state.String()),
			len(q.ProducerIDFilters) > 0 && !slices.Contains(q.ProducerIDFilters, producer.ID),
			pattern != nil && !pattern.MatchString(s.ID()),
			q.Version >= 1 && q.DurationFilterMillis >= 0 && (start.IsZero() || now.Sub(start) <= time.Duration(q.DurationFilterMillis)*time.Millisecond):
			continue
		}
		ts := kmsg.NewListTransactionsResponseTransactionState()
		ts.TransactionalID, ts.ProducerID, ts.TransactionState = s.ID(), producer.ID, state.String()
		resp.TransactionStates = append(resp.TransactionStates, ts)
	}
	return answer(resp)
}
