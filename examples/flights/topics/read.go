package topics

import (
	"context"
	"fmt"
	"maps"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Read calls f with each committed record of a topic that is there when Read begins, each partition in order. The records
// are f's only during the call.
func Read(ctx context.Context, kafka []kgo.Opt, topic string, f func(*kgo.Record)) error {
	left, err := ends(ctx, kafka, topic)
	if err != nil {
		return fmt.Errorf("reading topic %s: %w", topic, err)
	}
	from := map[int32]kgo.Offset{}
	for p := range left {
		from[p] = kgo.NewOffset().AtStart()
	}
	// Control records are kept because the last offset may be a transaction marker: without them the end would never
	// be seen.
	cl, err := kgo.NewClient(append(kafka[:len(kafka):len(kafka)],
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords())...)
	if err != nil {
		return fmt.Errorf("reading topic %s: %w", topic, err)
	}
	defer cl.Close()
	for len(left) > 0 {
		fetched := cl.PollFetches(ctx)
		if err := fetched.Err(); err != nil {
			return fmt.Errorf("reading topic %s: %w", topic, err)
		}
		fetched.EachRecord(func(r *kgo.Record) {
			end, reading := left[r.Partition]
			if reading && r.Offset < end && !r.Attrs.IsControl() {
				f(r)
			}
			if r.Offset >= end-1 {
				delete(left, r.Partition)
			}
		})
	}
	return nil
}

// ends returns the offset after the last committed record of each partition that has any.
func ends(ctx context.Context, kafka []kgo.Opt, topic string) (map[int32]int64, error) {
	cl, err := kgo.NewClient(kafka...)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	first, err := Offsets(adm.ListStartOffsets(ctx, topic))
	if err != nil {
		return nil, err
	}
	end, err := Offsets(adm.ListCommittedOffsets(ctx, topic))
	if err != nil {
		return nil, err
	}
	maps.DeleteFunc(end[topic], func(p int32, at int64) bool { return at <= first[topic][p] })
	return end[topic], nil
}

// Offsets unpacks a listing of kadm: topic and partition to offset.
func Offsets(listed kadm.ListedOffsets, err error) (map[string]map[int32]int64, error) {
	if err == nil {
		err = listed.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("listing offsets: %w", err)
	}
	out := map[string]map[int32]int64{}
	listed.Each(func(o kadm.ListedOffset) {
		if out[o.Topic] == nil {
			out[o.Topic] = map[int32]int64{}
		}
		out[o.Topic][o.Partition] = o.Offset
	})
	return out, nil
}
