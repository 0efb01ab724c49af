package broker

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Every codec goes through unchanged, within the process and over TCP.
func TestProduceConsume(t *testing.T) {
	codecs := map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}
	b := start(t, listening, partitions(3))
	for name, codec := range codecs {
		for _, over := range []string{"memory", "tcp"} {
			t.Run(name+"/"+over, func(t *testing.T) {
				var opts []kgo.Opt
				if over == "tcp" {
					opts = []kgo.Opt{kgo.SeedBrokers(b.Addr()), kgo.Dialer((&netDialer{}).dial)}
				}
				topic := name + "-" + over
				ctx := testContext(t)
				p := client(t, b, append(opts, kgo.ProducerBatchCompression(codec), kgo.DefaultProduceTopic(topic))...)
				want := map[string]bool{}
				var rs []*kgo.Record
				for i := range 500 {
					v := fmt.Sprintf("%d %s", i, strings.Repeat("x", i))
					want[v] = true
					rs = append(rs, &kgo.Record{Key: fmt.Append(nil, i), Value: []byte(v)})
				}
				if err := p.ProduceSync(ctx, rs...).FirstErr(); err != nil {
					t.Fatal(err)
				}
				c := client(t, b, append(opts, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))...)
				for len(want) > 0 {
					fs := c.PollFetches(ctx)
					if err := fs.Err0(); err != nil {
						t.Fatal(err)
					}
					fs.EachRecord(func(r *kgo.Record) {
						if !want[string(r.Value)] {
							t.Errorf("unexpected or doubled %.20q", r.Value)
						}
						delete(want, string(r.Value))
					})
				}
			})
		}
	}
}

func TestProduceRefusals(t *testing.T) {
	b := start(t)
	r := dialRaw(t, b)
	r.createTopic("t", 1)
	id := r.createTopic("compacted", 1, "cleanup.policy", "compact")
	_ = id

	wantCode(t, "unknown topic", r.produce(9, "", "nope", 0, batch{pid: -1, epoch: -1, sequence: -1, values: []string{"a"}}).ErrorCode, kerr.UnknownTopicOrPartition)
	wantCode(t, "unknown partition", r.produce(9, "", "t", 7, batch{pid: -1, epoch: -1, sequence: -1, values: []string{"a"}}).ErrorCode, kerr.UnknownTopicOrPartition)
	wantCode(t, "transactional batch without id", r.produce(9, "", "t", 0, batch{pid: 1, txn: true, values: []string{"a"}}).ErrorCode, kerr.TransactionalIDAuthorizationFailed)
	p := r.produce(9, "", "compacted", 0, batch{pid: -1, epoch: -1, sequence: -1, values: []string{"a"}})
	wantCode(t, "no key in a compacted topic", p.ErrorCode, kerr.InvalidRecord)
	if len(p.ErrorRecords) != 1 || p.ErrorRecords[0].RelativeOffset != 0 {
		t.Errorf("record errors %v", p.ErrorRecords)
	}
	q := kmsg.NewPtrProduceRequest()
	q.Acks = 2
	q.Topics = []kmsg.ProduceRequestTopic{{Topic: "t", Partitions: []kmsg.ProduceRequestTopicPartition{{Records: batch{pid: -1, values: []string{"a"}}.encode()}}}}
	wantCode(t, "acks 2", ask[*kmsg.ProduceResponse](r, 9, q).Topics[0].Partitions[0].ErrorCode, kerr.InvalidRequiredAcks)

	q.Acks = 1
	q.Topics = []kmsg.ProduceRequestTopic{{TopicID: [16]byte{9}, Partitions: []kmsg.ProduceRequestTopicPartition{{Records: batch{pid: -1, values: []string{"a"}}.encode()}}}}
	wantCode(t, "unknown topic id", ask[*kmsg.ProduceResponse](r, 13, q).Topics[0].Partitions[0].ErrorCode, kerr.UnknownTopicID)

	// Without acks there is no answer, and the end of the connection where there would be an error.
	q.Acks = 0
	q.Topics = []kmsg.ProduceRequestTopic{{Topic: "t", Partitions: []kmsg.ProduceRequestTopicPartition{{Records: batch{pid: -1, epoch: -1, sequence: -1, values: []string{"a"}}.encode()}}}}
	q.Version = 9
	r.send(q)
	resp := ask[*kmsg.ApiVersionsResponse](r, 0, kmsg.NewPtrApiVersionsRequest())
	if len(resp.ApiKeys) == 0 {
		t.Error("no answer after a request without acks")
	}
	q.Topics[0].Topic = "nope"
	q.Version = 9
	r.send(q)
	if _, err := r.receive(q); err == nil {
		t.Error("the connection lives on after a refused request without acks")
	}
}

// A producer's sequences are known after a crash: what it sends again is not written again.
func TestIdempotenceAcrossCrash(t *testing.T) {
	fs := vfs.NewCrashableMem()
	b := start(t, onFS(fs))
	r := dialRaw(t, b)
	r.createTopic("t", 1)
	pid, epoch := r.initProducer("", time.Minute)
	for i := range int32(3) {
		wantCode(t, "produce", r.produce(9, "", "t", 0, batch{pid, epoch, i, false, []string{fmt.Sprint(i)}}).ErrorCode, nil)
	}
	b = start(t, onFS(crash(fs, 0, 1)))
	r = dialRaw(t, b)
	p := r.produce(9, "", "t", 0, batch{pid, epoch, 2, false, []string{"2"}})
	wantCode(t, "repeated", p.ErrorCode, nil)
	if p.BaseOffset != 2 {
		t.Errorf("a repeated batch is at %d, was written at 2", p.BaseOffset)
	}
	wantCode(t, "gap", r.produce(9, "", "t", 0, batch{pid, epoch, 4, false, []string{"4"}}).ErrorCode, kerr.OutOfOrderSequenceNumber)
	wantCode(t, "next", r.produce(9, "", "t", 0, batch{pid, epoch, 3, false, []string{"3"}}).ErrorCode, nil)
	if got := read(t, b, "t", 0); !slices.Equal(got, []string{"0", "1", "2", "3"}) {
		t.Errorf("records %q", got)
	}
	if again, _ := r.initProducer("", time.Minute); again == pid {
		t.Errorf("producer id %d is given out twice", pid)
	}
}

// Requests sent one after the other without waiting are answered in order, also where an early one waits.
func TestPipelinedInOrder(t *testing.T) {
	b := start(t)
	r := dialRaw(t, b)
	r.createTopic("t", 1)
	f := kmsg.NewPtrFetchRequest()
	f.Version, f.MinBytes, f.MaxWaitMillis = 4, 1, 50
	f.Topics = []kmsg.FetchRequestTopic{{Topic: "t", Partitions: []kmsg.FetchRequestTopicPartition{{PartitionMaxBytes: 100}}}}
	r.send(f)
	p := kmsg.NewPtrProduceRequest()
	p.Version, p.Acks = 9, -1
	p.Topics = []kmsg.ProduceRequestTopic{{Topic: "t", Partitions: []kmsg.ProduceRequestTopicPartition{{Records: batch{pid: -1, epoch: -1, sequence: -1, values: []string{"a"}}.encode()}}}}
	r.send(p)
	r.send(p)
	for _, q := range []kmsg.Request{f, p, p} {
		if _, err := r.receive(q); err != nil {
			t.Fatal(err)
		}
	}
	if end := endOffset(t, b, "t", 0, false); end != 2 {
		t.Errorf("end offset %d", end)
	}
}

// A topic's own compression replaces the producer's, and what was in the batch stays.
func TestCompressionType(t *testing.T) {
	b := start(t)
	codecs := map[string]int{"uncompressed": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
	for want, codec := range codecs {
		ask[*kmsg.CreateTopicsResponse](dialRaw(t, b), 7, &kmsg.CreateTopicsRequest{Topics: []kmsg.CreateTopicsRequestTopic{{Topic: want, NumPartitions: 1, ReplicationFactor: 1,
			Configs: []kmsg.CreateTopicsRequestTopicConfig{{Name: "compression.type", Value: &want}}}}})
		n := 0
		for _, sent := range []kgo.CompressionCodec{kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression()} {
			cl := client(t, b, kgo.ProducerBatchCompression(sent))
			if err := cl.ProduceSync(testContext(t), &kgo.Record{Topic: want, Key: []byte("k"), Value: bytes.Repeat([]byte("value "), 200)}).FirstErr(); err != nil {
				t.Fatalf("%s: %v", want, err)
			}
			n++
		}
		cl := client(t, b, kgo.ConsumeTopics(want), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
		for n > 0 {
			fs := cl.PollFetches(testContext(t))
			if err := fs.Err(); err != nil {
				t.Fatalf("%s: %v", want, err)
			}
			fs.EachRecord(func(r *kgo.Record) {
				n--
				if int(r.Attrs.CompressionType()) != codec || len(r.Value) != 1200 {
					t.Errorf("%s: a record of %d bytes in codec %d", want, len(r.Value), r.Attrs.CompressionType())
				}
			})
		}
	}
}

// Who asks for no answer is held back by the disk like everybody: else what it sends would pile up in memory.
func TestProduceWithoutAnswersIsHeldBack(t *testing.T) {
	disk := &slowDisk{goOn: make(chan struct{})}
	b := start(t, onFS(errorfs.Wrap(vfs.NewMem(), disk)))
	r := dialRaw(t, b)
	r.createTopic("t", 1)
	const n = 300
	value := strings.Repeat("x", 100<<10)
	disk.slow.Store(true)
	q := kmsg.NewPtrProduceRequest()
	q.Topics = []kmsg.ProduceRequestTopic{{Topic: "t", Partitions: []kmsg.ProduceRequestTopicPartition{{Records: batch{-1, -1, -1, false, []string{value}}.encode()}}}}
	q.Version = 9
	frame := r.format.AppendRequest(nil, q, 1)
	sent, left := 0, []byte(nil)
	for r.nc.SetWriteDeadline(time.Now().Add(time.Second)); sent < n && left == nil; sent++ {
		if k, err := r.nc.Write(frame); err != nil {
			left = frame[k:]
		}
	}
	if left == nil {
		t.Errorf("the broker has taken %d requests that it cannot write", n)
	}
	close(disk.goOn)
	r.nc.SetWriteDeadline(time.Now().Add(20 * time.Second))
	for r.nc.Write(left); sent < n; sent++ {
		r.nc.Write(frame)
	}
	if end := endOffsetAfter(r, "t"); end != n {
		t.Errorf("%d of %d records are there", end, n)
	}
}

// endOffsetAfter asks for the end of a partition on the connection that was written to, behind that.
func endOffsetAfter(r *raw, topic string) int64 {
	r.t.Helper()
	r.produce(9, "", topic, 0, plain)
	q := kmsg.NewPtrListOffsetsRequest()
	q.Topics = []kmsg.ListOffsetsRequestTopic{{Topic: topic, Partitions: []kmsg.ListOffsetsRequestTopicPartition{{CurrentLeaderEpoch: -1, Timestamp: latestOffset}}}}
	return ask[*kmsg.ListOffsetsResponse](r, 7, q).Topics[0].Partitions[0].Offset - 1
}

// slowDisk stands still while it is slow.
type slowDisk struct {
	slow atomic.Bool
	goOn chan struct{}
}

func (d *slowDisk) String() string { return "slow disk" }

func (d *slowDisk) MaybeError(op errorfs.Op) error {
	if d.slow.Load() && (op.Kind == errorfs.OpFileWrite || op.Kind == errorfs.OpFileWriteAt) {
		<-d.goOn
	}
	return nil
}
