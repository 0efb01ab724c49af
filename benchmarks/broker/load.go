package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func client(addr string, opts ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(addr), kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.RecordPartitioner(kgo.RoundRobinPartitioner()),
		kgo.MaxBufferedRecords(100_000), kgo.ProducerLinger(0)}, opts...)...)
}

// create makes a topic of a new name and returns it. If flush it asks a broker that knows flush.messages to sync each write.
func create(ctx context.Context, cl *kgo.Client, partitions int, flush bool) (string, error) {
	topic := fmt.Sprintf("bench-%d", time.Now().UnixNano())
	q := kmsg.NewPtrCreateTopicsRequest()
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = topic, int32(partitions), 1
	if flush {
		c := kmsg.NewCreateTopicsRequestTopicConfig()
		c.Name, c.Value = "flush.messages", kmsg.StringPtr("1")
		t.Configs = append(t.Configs, c)
	}
	q.Topics = append(q.Topics, t)
	resp, err := q.RequestWith(ctx, cl)
	if err != nil {
		return "", err
	}
	for _, t := range resp.Topics {
		if t.ErrorCode != 0 {
			return "", fmt.Errorf("topic %s: error %d", t.Topic, t.ErrorCode)
		}
	}
	return topic, nil
}

// produce writes records and returns how long that took, without the client's start.
func produce(ctx context.Context, addr string, size, records, partitions int, flush bool) (time.Duration, error) {
	cl, err := client(addr)
	if err != nil {
		return 0, err
	}
	defer cl.Close()
	topic, err := create(ctx, cl, partitions, flush)
	if err != nil {
		return 0, err
	}
	value := make([]byte, size)
	rand.Read(value)
	// The first record brings connections and the producer's id.
	if err := cl.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: value}).FirstErr(); err != nil || records == 1 {
		return 0, err
	}
	var failed atomic.Pointer[error]
	began := time.Now()
	for range records {
		cl.Produce(ctx, &kgo.Record{Topic: topic, Value: value}, func(_ *kgo.Record, err error) {
			if err != nil {
				failed.CompareAndSwap(nil, &err)
			}
		})
	}
	if err := cl.Flush(ctx); err != nil {
		return 0, err
	}
	took := time.Since(began)
	if err := failed.Load(); err != nil {
		return 0, *err
	}
	return took, nil
}

// latency returns the median time of a record that is produced alone.
func latency(ctx context.Context, addr string, n int, flush bool) (time.Duration, error) {
	cl, err := client(addr)
	if err != nil {
		return 0, err
	}
	defer cl.Close()
	topic, err := create(ctx, cl, 1, flush)
	if err != nil {
		return 0, err
	}
	value := make([]byte, 1000)
	var took []time.Duration
	for i := range n + 50 {
		began := time.Now()
		if err := cl.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: value}).FirstErr(); err != nil {
			return 0, err
		}
		if i >= 50 {
			took = append(took, time.Since(began))
		}
	}
	slices.Sort(took)
	return took[len(took)/2], nil
}

// fdatasync returns the median time of one after an append, on a file as the broker's log is: written in full before.
func fdatasync(n int) (time.Duration, error) {
	f, err := fullFile(n)
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	var took []time.Duration
	for i := range n {
		began := time.Now()
		if err := syncPage(f, i); err != nil {
			return 0, err
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return took[len(took)/2], nil
}

const page = 4096

// fullFile makes a file of n pages that was written and synced.
func fullFile(n int) (*os.File, error) {
	f, err := os.CreateTemp("", "benchmark-broker")
	if err != nil {
		return nil, err
	}
	_, err = f.Write(make([]byte, page*n))
	if err = errors.Join(err, f.Sync()); err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	return f, nil
}

// syncPage writes the i-th page and syncs it.
func syncPage(f *os.File, i int) error {
	block := make([]byte, page)
	rand.Read(block)
	if _, err := f.WriteAt(block, int64(page*i)); err != nil {
		return err
	}
	return syscall.Fdatasync(int(f.Fd()))
}

// createTopics makes many topics, a hundred a request.
func createTopics(ctx context.Context, addr string, topics, partitions int) error {
	cl, err := client(addr)
	if err != nil {
		return err
	}
	defer cl.Close()
	for i := 0; i < topics; i += 100 {
		q := kmsg.NewPtrCreateTopicsRequest()
		for j := i; j < min(i+100, topics); j++ {
			t := kmsg.NewCreateTopicsRequestTopic()
			t.Topic, t.NumPartitions, t.ReplicationFactor = fmt.Sprintf("many-%d", j), int32(partitions), 1
			q.Topics = append(q.Topics, t)
		}
		resp, err := q.RequestWith(ctx, cl)
		if err != nil {
			return err
		}
		for _, t := range resp.Topics {
			if t.ErrorCode != 0 {
				return fmt.Errorf("topic %s: error %d", t.Topic, t.ErrorCode)
			}
		}
	}
	return nil
}
