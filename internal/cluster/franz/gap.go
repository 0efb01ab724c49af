package franz

import (
	"context"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/moldau/moldau/internal/cluster"
)

// kgo tells positions by the records it brings. Where the last offsets of a partition hold none (compaction took them),
// it knows better than it says, and a reader that waits for the end would wait for ever. So a partition that has gone
// silent is asked once for its end, and if that lies ahead, one raw fetch says how far the nothing reaches.

// silent returns the partitions that have brought nothing for a while and are not known to be at their end; more says
// that others will be due.
func (f *fetcher) silent(now time.Time) (due []cluster.TP, more bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for tp, p := range f.at {
		switch {
		case p.settled || p.paused:
		case now.Sub(p.heard) >= p.quiet:
			due = append(due, tp)
		default:
			more = true
		}
	}
	return due, more
}

// skip asks silent partitions for their ends and moves positions past offsets that hold nothing. What it cannot find out
// now, a later poll asks again.
func (f *fetcher) skip(ctx context.Context, tps []cluster.TP) []cluster.Batch {
	ends, err := listOffsets(ctx, f.c, 1, -1, tps)
	var starts map[cluster.TP]int64
	if err == nil {
		starts, err = f.unknownStarts(ctx, tps)
	}
	var batches []cluster.Batch
	for _, tp := range tps {
		at, ok := f.position(tp)
		if !ok {
			continue
		}
		next := at
		if err == nil {
			if at < 0 {
				next = starts[tp]
			}
			if next < ends[tp] {
				next = f.nothingUpTo(ctx, tp, next)
			}
		}
		f.mu.Lock()
		if p := f.at[tp]; p != nil && p.next == at {
			p.next, p.heard = next, time.Now()
			p.settled, p.quiet = err == nil && next >= ends[tp], min(2*p.quiet, time.Second)
			if next > at {
				batches = append(batches, cluster.Batch{TP: tp, Next: next, Release: func() {}})
			}
		}
		f.mu.Unlock()
	}
	return batches
}

// unknownStarts looks up where the log begins for partitions that are read from there and have brought nothing.
func (f *fetcher) unknownStarts(ctx context.Context, tps []cluster.TP) (map[cluster.TP]int64, error) {
	var unknown []cluster.TP
	for _, tp := range tps {
		if at, ok := f.position(tp); ok && at < 0 {
			unknown = append(unknown, tp)
		}
	}
	return listOffsets(ctx, f.c, 0, -2, unknown)
}

// nothingUpTo fetches once from at and returns the offset of the first thing there is, at itself if unknown.
func (f *fetcher) nothingUpTo(ctx context.Context, tp cluster.TP, at int64) int64 {
	leader, epoch, err := f.cl.PartitionLeader(tp.Topic, tp.Partition)
	if err != nil || leader < 0 {
		return at
	}
	id, err := f.c.topicID(ctx, tp.Topic)
	if err != nil {
		return at
	}
	p := kmsg.NewFetchRequestTopicPartition()
	p.Partition, p.FetchOffset, p.CurrentLeaderEpoch, p.PartitionMaxBytes = tp.Partition, at, epoch, 64<<10
	t := kmsg.NewFetchRequestTopic()
	t.Topic, t.TopicID, t.Partitions = tp.Topic, id, []kmsg.FetchRequestTopicPartition{p}
	req := kmsg.NewPtrFetchRequest()
	req.ReplicaID, req.MaxBytes, req.IsolationLevel, req.Topics = -1, 64<<10, 1, []kmsg.FetchRequestTopic{t}
	resp, err := f.cl.Broker(int(leader)).RetriableRequest(ctx, req)
	if err != nil {
		return at
	}
	topics := resp.(*kmsg.FetchResponse).Topics
	if len(topics) != 1 || len(topics[0].Partitions) != 1 {
		return at
	}
	got, next := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{
		KeepControlRecords: true, Offset: at, IsolationLevel: kgo.ReadCommitted(), Topic: tp.Topic, Partition: tp.Partition,
	}, &topics[0].Partitions[0], kgo.DefaultDecompressor(), nil)
	if got.Err != nil {
		return at
	}
	if data := slices.IndexFunc(got.Records, func(r *kgo.Record) bool { return !r.Attrs.IsControl() }); data >= 0 {
		return got.Records[data].Offset
	}
	return next
}

func (c *Cluster) topicID(ctx context.Context, topic string) (id [16]byte, err error) {
	req := kmsg.NewPtrMetadataRequest()
	t := kmsg.NewMetadataRequestTopic()
	t.Topic = kmsg.StringPtr(topic)
	req.Topics = append(req.Topics, t)
	resp, err := req.RequestWith(ctx, c.cl)
	if err != nil || len(resp.Topics) == 0 {
		return id, wrap(err, "describing topic %q", topic)
	}
	return resp.Topics[0].TopicID, code(resp.Topics[0].ErrorCode, "describing topic %q", topic)
}
