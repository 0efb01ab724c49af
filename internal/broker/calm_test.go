package broker

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/moldau/moldau/internal/broker/histories"
)

// calm ends a history: it ends the transactions that are open, has the group copy the rest, and reads everything. That it
// gets there is the promise that nothing hangs.
func (w *workload) calm(cl *kgo.Client, within time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	for _, id := range transactionalIDs {
		if err := w.settle(ctx, id); err != nil {
			return err
		}
	}
	in, err := w.everything(ctx, cl, kgo.ReadCommitted(), "in")
	if err != nil {
		return err
	}
	end := map[histories.TP]int64{}
	for _, r := range in {
		end[r.At] = r.Offset + 1
	}
	rest, done := context.WithCancel(ctx)
	p := &person{name: "copy-0", live: w.copying("copy-0"), rng: rand.New(rand.NewPCG(1, 1)), life: 1 << 20}
	var copying sync.WaitGroup
	copying.Go(func() { p.run(rest) })
	err = w.copied(ctx, cl, end)
	done()
	copying.Wait()
	if err != nil {
		return fmt.Errorf("the group has not copied everything within %v: %w", within, err)
	}
	if err := w.settle(ctx, "copy-0"); err != nil {
		return err
	}
	if w.h.Closing, err = w.ends(ctx, cl); err != nil {
		return err
	}
	if w.h.Final, err = w.everything(ctx, cl, kgo.ReadCommitted(), workTopics...); err != nil {
		return err
	}
	w.h.FinalAll, err = w.everything(ctx, cl, kgo.ReadUncommitted(), workTopics...)
	return err
}

// settle ends the open transaction of an id by taking its producer's place.
func (w *workload) settle(ctx context.Context, id string) error {
	p := w.client(kgo.TransactionalID(id))
	defer p.Close()
	if _, _, err := p.ProducerID(ctx); err != nil {
		return fmt.Errorf("ending the transaction of %s: %w", id, err)
	}
	return nil
}

// copied returns once the group is at the end of "in".
func (w *workload) copied(ctx context.Context, cl *kgo.Client, end map[histories.TP]int64) error {
	for {
		at, err := w.positions(ctx, cl)
		left := 0
		for _, p := range at {
			if max(p.Offset, 0) < end[p.At] { // it has none before it has committed one
				left++
			}
		}
		if err == nil && left == 0 {
			w.h.Positions = append(w.h.Positions, at...)
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("it is at %v of %v", at, end), err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// everything reads topics from their start to their end.
func (w *workload) everything(ctx context.Context, cl *kgo.Client, level kgo.IsolationLevel, topics ...string) (out []histories.Read, err error) {
	for _, topic := range topics {
		for n := range int32(workPartitions) {
			for next, end := int64(0), int64(1); next < end; {
				p := kmsg.NewFetchRequestTopicPartition()
				p.Partition, p.FetchOffset, p.PartitionMaxBytes = n, next, 1<<20
				t := kmsg.NewFetchRequestTopic()
				t.Topic, t.TopicID, t.Partitions = topic, w.ids[topic], []kmsg.FetchRequestTopicPartition{p}
				q := kmsg.NewPtrFetchRequest()
				q.ReplicaID, q.MaxBytes, q.MinBytes, q.Topics = -1, 1<<20, 0, []kmsg.FetchRequestTopic{t}
				if level == kgo.ReadCommitted() {
					q.IsolationLevel = 1
				}
				resp, err := cl.Broker(nodeID).RetriableRequest(ctx, q)
				if err != nil {
					return nil, err
				}
				rp := &resp.(*kmsg.FetchResponse).Topics[0].Partitions[0]
				if err := kerr.ErrorForCode(rp.ErrorCode); err != nil {
					return nil, fmt.Errorf("reading %s-%d from %d: %w", topic, n, next, err)
				}
				end = rp.HighWatermark
				if q.IsolationLevel == 1 {
					end = rp.LastStableOffset
				}
				got, after := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{Offset: next, IsolationLevel: level, Topic: topic, Partition: n}, rp, kgo.DefaultDecompressor(), nil)
				if got.Err != nil {
					return nil, got.Err
				}
				for _, r := range got.Records {
					v := histories.Value(binary.BigEndian.Uint64(r.Value))
					out = append(out, histories.Read{Value: v, At: histories.TP{Topic: topic, Partition: n}, Offset: r.Offset})
				}
				if after == next && next < end {
					return nil, fmt.Errorf("%s-%d ends at %d and there is nothing from %d on", topic, n, end, next)
				}
				next = after
			}
		}
	}
	return out, nil
}
