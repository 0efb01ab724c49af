package broker

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/moldau/moldau/internal/broker/log"
)

// Timestamps that ask for a place instead of a time.
const (
	latestOffset        = -1
	earliestOffset      = -2
	maxTimestampOffset  = -3
	earliestLocalOffset = -4
	latestTieredOffset  = -5
	earliestPending     = -6
)

func (b *Broker) listOffsets(r *request, q *kmsg.ListOffsetsRequest) reply {
	resp := response[*kmsg.ListOffsetsResponse](q)
	for _, qt := range q.Topics {
		rt := kmsg.NewListOffsetsResponseTopic()
		rt.Topic = qt.Topic
		t := b.catalog.topic(qt.Topic)
		for _, qp := range qt.Partitions {
			rp := kmsg.NewListOffsetsResponseTopicPartition()
			rp.Partition, rp.Timestamp, rp.Offset, rp.LeaderEpoch = qp.Partition, -1, -1, -1
			p := t.partition(qp.Partition)
			if !r.mayTopic(kmsg.ACLOperationDescribe, qt.Topic) {
				rp.ErrorCode = kerr.TopicAuthorizationFailed.Code
			} else if p == nil {
				rp.ErrorCode = kerr.UnknownTopicOrPartition.Code
			} else if err := checkLeaderEpoch(p, qp.CurrentLeaderEpoch); err != nil {
				rp.ErrorCode = code(err)
			} else {
				b.listOffset(p, qp.Timestamp, q.IsolationLevel == 1, &rp)
			}
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return answer(resp)
}

func (b *Broker) listOffset(p *log.Partition, ts int64, committed bool, rp *kmsg.ListOffsetsResponseTopicPartition) {
	start, hw, stable := p.Offsets()
	var found bool
	var err error
	switch ts {
	case latestOffset:
		rp.Offset, rp.LeaderEpoch = hw, p.LeaderEpoch()
		if committed {
			rp.Offset = stable
		}
		return
	case earliestOffset, earliestLocalOffset:
		rp.Offset, rp.LeaderEpoch = start, p.LeaderEpoch()
		return
	case latestTieredOffset, earliestPending:
		return // nothing is ever moved to another tier
	case maxTimestampOffset:
		rp.Offset, rp.Timestamp, rp.LeaderEpoch, found, err = p.MaxTimestamp()
	default:
		rp.Offset, rp.Timestamp, rp.LeaderEpoch, found, err = p.OffsetForTime(ts, committed)
	}
	if err != nil {
		b.slog.Error("a partition cannot be searched", "partition", p.String(), "timestamp", ts, "err", err)
		rp.ErrorCode = code(err)
	}
	if err != nil || !found {
		rp.Offset, rp.Timestamp, rp.LeaderEpoch = -1, -1, -1
	}
}
