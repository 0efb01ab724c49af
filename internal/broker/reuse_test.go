package broker

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// The memory of large requests is used again while consumers read what it held: every record must be what was produced.
func TestMemoryIsUsedAgain(t *testing.T) {
	const records, size = 1200, 20_000
	b := start(t, partitions(2), func(c *Config) { c.CacheBytes = 512 << 10 })
	ctx := testContext(t)
	fill := func(buf []byte, n uint64) {
		for i := 0; i+8 <= len(buf); i += 8 {
			binary.LittleEndian.PutUint64(buf[i:], n*2654435761+uint64(i))
		}
	}
	var consumers sync.WaitGroup
	consume := func(i int) error {
		cl := client(t, b, kgo.ConsumeTopics("t"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxBytes(int32(100_000*(i+1))))
		want := make([]byte, size)
		for got := 0; got < records; {
			f := cl.PollFetches(ctx)
			if err := f.Err(); err != nil {
				return err
			}
			for r := range f.RecordsAll() {
				n := binary.BigEndian.Uint64(r.Key)
				if fill(want, n); string(r.Value) != string(want) {
					return fmt.Errorf("consumer %d: record %d is not what was produced", i, n)
				}
				got++
			}
		}
		return nil
	}
	p := client(t, b, kgo.DefaultProduceTopic("t"), kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.ProducerBatchMaxBytes(400_000), kgo.MaxBufferedRecords(100))
	if err := p.ProduceSync(ctx, &kgo.Record{Key: make([]byte, 8), Value: func() []byte { v := make([]byte, size); fill(v, 0); return v }()}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		consumers.Go(func() {
			if err := consume(i); err != nil {
				t.Error(err)
			}
		})
	}
	for n := uint64(1); n < records; n++ {
		v := make([]byte, size)
		fill(v, n)
		p.Produce(context.Background(), &kgo.Record{Key: binary.BigEndian.AppendUint64(nil, n), Value: v}, func(_ *kgo.Record, err error) {
			if err != nil {
				t.Error(err)
			}
		})
	}
	if err := p.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	consumers.Wait()
}
