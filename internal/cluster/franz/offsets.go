package franz

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/moldau/moldau/internal/cluster"
)

func (a admin) Ends(ctx context.Context, committed bool, tps ...cluster.TP) (map[cluster.TP]int64, error) {
	isolation := int8(0)
	if committed {
		isolation = 1
	}
	return listOffsets(ctx, a.Cluster, isolation, -1, tps)
}

func (a admin) Starts(ctx context.Context, tps ...cluster.TP) (map[cluster.TP]int64, error) {
	return listOffsets(ctx, a.Cluster, 0, -2, tps)
}

func listOffsets(ctx context.Context, c *Cluster, isolation int8, timestamp int64, tps []cluster.TP) (map[cluster.TP]int64, error) {
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID, req.IsolationLevel, req.TimeoutMillis = -1, isolation, brokerTimeout
	for topic, partitions := range byTopic(tps) {
		t := kmsg.NewListOffsetsRequestTopic()
		t.Topic = topic
		for _, n := range partitions {
			p := kmsg.NewListOffsetsRequestTopicPartition()
			p.Partition, p.Timestamp, p.CurrentLeaderEpoch = n, timestamp, -1
			t.Partitions = append(t.Partitions, p)
		}
		req.Topics = append(req.Topics, t)
	}
	out := make(map[cluster.TP]int64, len(tps))
	if len(tps) == 0 {
		return out, nil
	}
	resp, err := req.RequestWith(ctx, c.cl)
	if err != nil {
		return nil, wrap(err, "listing offsets")
	}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if p.ErrorCode != 0 {
				return nil, code(p.ErrorCode, "listing the offsets of %s-%d", t.Topic, p.Partition)
			}
			out[cluster.TP{Topic: t.Topic, Partition: p.Partition}] = p.Offset
		}
	}
	return out, nil
}

func (a admin) DeleteRecords(ctx context.Context, below map[cluster.TP]int64) error {
	if len(below) == 0 {
		return nil
	}
	req := kmsg.NewPtrDeleteRecordsRequest()
	req.TimeoutMillis = brokerTimeout
	for topic, partitions := range byTopic(slices.Collect(maps.Keys(below))) {
		t := kmsg.NewDeleteRecordsRequestTopic()
		t.Topic = topic
		for _, n := range partitions {
			p := kmsg.NewDeleteRecordsRequestTopicPartition()
			p.Partition, p.Offset = n, below[cluster.TP{Topic: topic, Partition: n}]
			t.Partitions = append(t.Partitions, p)
		}
		req.Topics = append(req.Topics, t)
	}
	resp, err := req.RequestWith(ctx, a.cl)
	if err != nil {
		return wrap(err, "deleting records")
	}
	var errs []error
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			errs = append(errs, code(p.ErrorCode, "deleting the records of %s-%d", t.Topic, p.Partition))
		}
	}
	return errors.Join(errs...)
}

func (a admin) Committed(ctx context.Context, group string, tps ...cluster.TP) (map[cluster.TP]cluster.Offset, error) {
	out := make(map[cluster.TP]cluster.Offset, len(tps))
	if len(tps) == 0 {
		return out, nil
	}
	req := kmsg.NewPtrOffsetFetchRequest()
	req.RequireStable, req.Group = true, group
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group = group
	for topic, partitions := range byTopic(tps) {
		t := kmsg.NewOffsetFetchRequestTopic()
		t.Topic, t.Partitions = topic, partitions
		req.Topics = append(req.Topics, t)
		gt := kmsg.NewOffsetFetchRequestGroupTopic()
		gt.Topic, gt.Partitions = topic, partitions
		g.Topics = append(g.Topics, gt)
	}
	req.Groups = []kmsg.OffsetFetchRequestGroup{g}

	// From version 10 on topics go by id.
	answer, err := coordinate(ctx, a.cl, groupCoordinator, group, req, 9, func(r kmsg.Response) (codes []int16) {
		eachCommitted(r.(*kmsg.OffsetFetchResponse), func(_ cluster.TP, _ cluster.Offset, code int16) { codes = append(codes, code) })
		return codes
	})
	if err != nil {
		return nil, wrap(err, "fetching the committed offsets of group %q", group)
	}
	eachCommitted(answer.(*kmsg.OffsetFetchResponse), func(tp cluster.TP, at cluster.Offset, c int16) {
		switch {
		case c == kerr.UnknownTopicOrPartition.Code: // nothing was ever committed there
		case c != 0:
			err = code(c, "fetching the committed offset of %s-%d for group %q", tp.Topic, tp.Partition, group)
		case at.At >= 0:
			out[tp] = at
		}
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// eachCommitted goes through an answer of either shape: one group with topics (below version 8) or a list of groups.
func eachCommitted(r *kmsg.OffsetFetchResponse, f func(cluster.TP, cluster.Offset, int16)) {
	text := func(s *string) string {
		if s == nil {
			return ""
		}
		return *s
	}
	if r.ErrorCode != 0 {
		f(cluster.TP{}, cluster.Offset{}, r.ErrorCode)
	}
	if len(r.Groups) > 0 {
		for _, g := range r.Groups {
			if g.ErrorCode != 0 {
				f(cluster.TP{}, cluster.Offset{}, g.ErrorCode)
			}
			for _, t := range g.Topics {
				for _, p := range t.Partitions {
					f(cluster.TP{Topic: t.Topic, Partition: p.Partition}, cluster.Offset{At: p.Offset, Metadata: text(p.Metadata)}, p.ErrorCode)
				}
			}
		}
		return
	}
	for _, t := range r.Topics {
		for _, p := range t.Partitions {
			f(cluster.TP{Topic: t.Topic, Partition: p.Partition}, cluster.Offset{At: p.Offset, Metadata: text(p.Metadata)}, p.ErrorCode)
		}
	}
}
