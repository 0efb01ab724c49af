package broker

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/moldau/moldau/internal/broker/log"
)

func onDisk(b *testing.B, d log.Durability) func(*Config) {
	return func(c *Config) { c.FS, c.Dir, c.Durability, c.walBytes = vfs.Default, b.TempDir(), d, 0 }
}

// BenchmarkProduce is a kgo producer within the process, acks=all, idempotent, six partitions.
func BenchmarkProduce(b *testing.B) {
	for _, size := range []int{100, 1000} {
		for _, d := range []log.Durability{log.OS, log.Sync} {
			b.Run(fmt.Sprintf("%dB/%v", size, d), func(b *testing.B) {
				br := start(b, onDisk(b, d), partitions(6))
				cl := client(b, br, kgo.DefaultProduceTopic("t"), kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.MaxBufferedRecords(100_000))
				ctx := context.Background()
				value := make([]byte, size)
				b.SetBytes(int64(size))
				var wg sync.WaitGroup
				for b.Loop() {
					wg.Add(1)
					cl.Produce(ctx, &kgo.Record{Value: value}, func(_ *kgo.Record, err error) {
						if err != nil {
							b.Error(err)
						}
						wg.Done()
					})
				}
				wg.Wait()
			})
		}
	}
}

// BenchmarkProduceSync is one record at a time: the round trip and the sync.
func BenchmarkProduceSync(b *testing.B) {
	for _, d := range []log.Durability{log.OS, log.Sync} {
		b.Run(d.String(), func(b *testing.B) {
			br := start(b, onDisk(b, d))
			r := dialRaw(b, br)
			r.createTopic("t", 1)
			for b.Loop() {
				if p := r.produce(9, "", "t", 0, plain); p.ErrorCode != 0 {
					b.Fatal(p.ErrorCode)
				}
			}
		})
	}
}

// BenchmarkConsume reads a topic of 1 KB records from its start.
func BenchmarkConsume(b *testing.B) {
	br := start(b, onDisk(b, log.OS))
	ctx := context.Background()
	p := client(b, br, kgo.DefaultProduceTopic("t"), kgo.ProducerBatchCompression(kgo.NoCompression()))
	const n = 100_000
	for range n {
		p.Produce(ctx, &kgo.Record{Value: make([]byte, 1000)}, nil)
	}
	if err := p.Flush(ctx); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(1000)
	b.ResetTimer()
	for done := 0; done < b.N; {
		c := client(b, br, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{"t": {0: kgo.NewOffset().AtStart()}}))
		for got := 0; got < n && done < b.N; {
			k := c.PollFetches(ctx).NumRecords()
			got += k
			done += k
		}
		c.Close()
	}
}

// BenchmarkTransaction is a transaction of one record and one offset, synced.
func BenchmarkTransaction(b *testing.B) {
	for _, d := range []log.Durability{log.OS, log.Sync} {
		b.Run(d.String(), func(b *testing.B) {
			br := start(b, onDisk(b, d))
			r := dialRaw(b, br)
			r.createTopic("t", 1)
			pid, epoch := r.initProducer("id", 60e9)
			for b.Loop() {
				r.produce(12, "id", "t", 0, batch{pid, epoch, 0, true, []string{"v"}})
				commitTxnOffset(r, "id", "g", "t", pid, epoch, 1)
				end := r.endTxn(5, "id", pid, epoch, true)
				if end.ErrorCode != 0 {
					b.Fatal(end.ErrorCode)
				}
				pid, epoch = end.ProducerID, end.ProducerEpoch
			}
		})
	}
}

func BenchmarkRoundTrip(b *testing.B) {
	br := start(b)
	r := dialRaw(b, br)
	for b.Loop() {
		ask[*kmsg.HeartbeatResponse](r, 4, &kmsg.HeartbeatRequest{Group: "g"})
	}
}
