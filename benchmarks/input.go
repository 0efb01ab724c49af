package main

import (
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	partitions = 4
	valueSize  = 100
	// inputStart is the time of record 0; record time advances 1 ms every 10 records.
	inputStart = 1_700_000_000_000
)

// mix is the finalizer of splitmix64 (Steele, Lea, Flood 2014): record i of the input is a pure function of i.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

func keyIndex(i, keys int) int { return int(mix(uint64(i)) % uint64(keys)) }

// appendKey appends the 16-byte key of an index.
func appendKey(dst []byte, index int) []byte {
	digits := strconv.Itoa(index)
	dst = append(dst, 'k')
	for range 15 - len(digits) {
		dst = append(dst, '0')
	}
	return append(dst, digits...)
}

func appendValue(dst []byte, i int) []byte {
	for w := range (valueSize + 7) / 8 {
		dst = binary.LittleEndian.AppendUint64(dst, mix(uint64(i)<<8|uint64(w)))
	}
	return dst[:len(dst)-(valueSize+7)/8*8+valueSize]
}

func recordTime(i int) int64 { return inputStart + int64(i)/10 }

// runLoad makes the topics that are missing and writes the input.
func runLoad(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("load", flag.ContinueOnError)
	broker := fs.String("broker", "127.0.0.1:9092", "bootstrap address")
	topic := fs.String("in", "in", "topic to fill")
	n := fs.Int("records", 5_000_000, "records to write")
	keys := fs.Int("keys", 100_000, "distinct keys")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if err := createTopics(ctx, *broker, *topic); err != nil {
		return err
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(*broker), kgo.DefaultProduceTopic(*topic),
		kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)), kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.MaxBufferedRecords(50_000))
	if err != nil {
		return err
	}
	defer cl.Close()
	failed := make(chan error, 1)
	for i := range *n {
		r := &kgo.Record{Key: appendKey(nil, keyIndex(i, *keys)), Value: appendValue(make([]byte, 0, valueSize+8), i), Timestamp: time.UnixMilli(recordTime(i))}
		cl.Produce(ctx, r, func(_ *kgo.Record, err error) {
			if err != nil {
				select {
				case failed <- err:
				default:
				}
			}
		})
	}
	if err := cl.Flush(ctx); err != nil {
		return err
	}
	select {
	case err := <-failed:
		return fmt.Errorf("loading %s: %w", *topic, err)
	default:
		return nil
	}
}

func createTopics(ctx context.Context, broker string, topics ...string) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(broker))
	if err != nil {
		return err
	}
	defer cl.Close()
	forever := "-1"
	got, err := kadm.NewClient(cl).CreateTopics(ctx, partitions, 1, map[string]*string{"retention.ms": &forever}, topics...)
	if err != nil {
		return err
	}
	return got.Error()
}
