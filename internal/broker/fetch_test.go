package broker

import (
	"encoding/binary"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func fetchRequest(id [16]byte, offset int64) *kmsg.FetchRequest {
	q := kmsg.NewPtrFetchRequest()
	q.MaxBytes, q.MinBytes = 1<<20, 1
	t := kmsg.NewFetchRequestTopic()
	t.TopicID = id
	p := kmsg.NewFetchRequestTopicPartition()
	p.CurrentLeaderEpoch, p.FetchOffset, p.PartitionMaxBytes, p.LastFetchedEpoch = -1, offset, 1<<20, -1
	t.Partitions = append(t.Partitions, p)
	q.Topics = append(q.Topics, t)
	return q
}

var plain = batch{pid: -1, epoch: -1, sequence: -1, values: []string{"a"}}

func TestFetchWaitsForRecords(t *testing.T) {
	b := start(t)
	r, w := dialRaw(t, b), dialRaw(t, b)
	id := r.createTopic("t", 1)
	q := fetchRequest(id, 0)
	q.Version, q.MaxWaitMillis = 18, 20_000
	began := time.Now()
	r.send(q)
	time.Sleep(10 * time.Millisecond) // let it wait; the test holds without too
	w.produce(9, "", "t", 0, plain)
	resp, err := r.receive(q)
	if err != nil {
		t.Fatal(err)
	}
	if p := resp.(*kmsg.FetchResponse).Topics[0].Partitions[0]; len(p.RecordBatches) == 0 || p.HighWatermark != 1 {
		t.Errorf("fetched %d bytes, high watermark %d", len(p.RecordBatches), p.HighWatermark)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("a record took %v to wake the reader", took)
	}

	// A waiting reader is told that its topic was deleted.
	q = fetchRequest(id, 1)
	q.Version, q.MaxWaitMillis = 18, 20_000
	r.send(q)
	d := kmsg.NewPtrDeleteTopicsRequest()
	d.Topics = []kmsg.DeleteTopicsRequestTopic{{TopicID: id}}
	wantCode(t, "delete", ask[*kmsg.DeleteTopicsResponse](w, 6, d).Topics[0].ErrorCode, nil)
	if resp, err = r.receive(q); err != nil {
		t.Fatal(err)
	}
	wantCode(t, "fetch of a deleted topic", resp.(*kmsg.FetchResponse).Topics[0].Partitions[0].ErrorCode, kerr.UnknownTopicID)
}

func TestFetchLimits(t *testing.T) {
	b := start(t)
	r := dialRaw(t, b)
	id := r.createTopic("t", 2)
	for p := range int32(2) {
		for range 3 {
			r.produce(9, "", "t", p, plain)
		}
	}
	size := len(plain.encode())
	q := fetchRequest(id, 0)
	second := q.Topics[0].Partitions[0]
	second.Partition = 1
	q.Topics[0].Partitions = append(q.Topics[0].Partitions, second)

	for _, c := range []struct {
		name                   string
		maxBytes, partMaxBytes int32
		want                   [2]int
	}{
		{"everything", 1 << 20, 1 << 20, [2]int{3, 3}},
		{"one at least", 1, 1, [2]int{1, 0}},
		{"partition limit", 1 << 20, int32(2 * size), [2]int{2, 2}},
		{"request limit", int32(4 * size), 1 << 20, [2]int{3, 1}},
	} {
		q.MaxBytes = c.maxBytes
		for i := range q.Topics[0].Partitions {
			q.Topics[0].Partitions[i].PartitionMaxBytes = c.partMaxBytes
		}
		resp := ask[*kmsg.FetchResponse](r, 13, q)
		for i, p := range resp.Topics[0].Partitions {
			if p.RecordBatches == nil {
				t.Errorf("%s: null records, clients of librdkafka reject them", c.name)
			}
			if n := len(p.RecordBatches) / size; n != c.want[i] {
				t.Errorf("%s: partition %d has %d batches, want %d", c.name, i, n, c.want[i])
			}
		}
	}
	q.Topics[0].Partitions[0].FetchOffset = 4
	p := ask[*kmsg.FetchResponse](r, 13, q).Topics[0].Partitions[0]
	wantCode(t, "behind the end", p.ErrorCode, kerr.OffsetOutOfRange)
	if p.HighWatermark != -1 || p.LogStartOffset != -1 {
		t.Errorf("offsets with an error: %d to %d, Apache Kafka says nothing", p.LogStartOffset, p.HighWatermark)
	}
	q.Topics[0].Partitions[0].FetchOffset = 0
	q.Topics[0].Partitions[0].CurrentLeaderEpoch = 99
	wantCode(t, "leader epoch", ask[*kmsg.FetchResponse](r, 13, q).Topics[0].Partitions[0].ErrorCode, kerr.UnknownLeaderEpoch)
}

func TestFetchSession(t *testing.T) {
	b := start(t)
	r := dialRaw(t, b)
	id := r.createTopic("t", 2)
	r.produce(9, "", "t", 0, plain)
	q := fetchRequest(id, 0)
	second := q.Topics[0].Partitions[0]
	second.Partition = 1
	q.Topics[0].Partitions = append(q.Topics[0].Partitions, second)

	q.SessionEpoch = 0
	full := ask[*kmsg.FetchResponse](r, 13, q)
	if full.SessionID == 0 || len(full.Topics) != 1 || len(full.Topics[0].Partitions) != 2 {
		t.Fatalf("a full fetch: %+v", full)
	}
	next := func(epoch int32, edit func(*kmsg.FetchRequest)) *kmsg.FetchResponse {
		t.Helper()
		q := kmsg.NewPtrFetchRequest()
		q.MaxBytes, q.SessionID, q.SessionEpoch = 1<<20, full.SessionID, epoch
		if edit != nil {
			edit(q)
		}
		return ask[*kmsg.FetchResponse](r, 13, q)
	}
	// The reader has read partition 0 up to 1.
	if resp := next(1, func(q *kmsg.FetchRequest) { q.Topics = fetchRequest(id, 1).Topics }); resp.ErrorCode != 0 || len(resp.Topics) != 0 {
		t.Errorf("nothing new: %+v", resp)
	}
	r.produce(9, "", "t", 1, plain)
	if resp := next(2, nil); len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 || resp.Topics[0].Partitions[0].Partition != 1 {
		t.Errorf("news of partition 1: %+v", resp)
	}
	wantCode(t, "an epoch again", next(2, nil).ErrorCode, kerr.InvalidFetchSessionEpoch)
	forget := func(q *kmsg.FetchRequest) {
		q.ForgottenTopics = []kmsg.FetchRequestForgottenTopic{{TopicID: id, Partitions: []int32{1}}}
	}
	if resp := next(3, forget); resp.ErrorCode != 0 || len(resp.Topics) != 0 {
		t.Errorf("a forgotten partition is fetched: %+v", resp)
	}
	byName := kmsg.NewPtrFetchRequest()
	byName.SessionID, byName.SessionEpoch = full.SessionID, 4
	wantCode(t, "by name in a session by id", ask[*kmsg.FetchResponse](r, 12, byName).ErrorCode, kerr.FetchSessionTopicIDError)
	if resp := next(-1, nil); resp.SessionID != 0 {
		t.Errorf("a closed session answers with its id")
	}
	wantCode(t, "closed session", next(4, nil).ErrorCode, kerr.FetchSessionIDNotFound)
}

// Retention goes by the time of records, not by when they came: a topic of records without a time, that is of 1970, is
// deleted within a minute of being on disk, and readers in the midst of it are out of range. A restart changes nothing
// about it, and loses nothing of a topic of today.
func TestRetentionGoesByTheTimeOfRecords(t *testing.T) {
	fs := vfs.NewMem()
	b := start(t, onFS(fs))
	dialRaw(t, b).createTopic("old", 1)
	dialRaw(t, b).createTopic("new", 1)
	cl := client(t, b)
	for topic, at := range map[string]time.Time{"old": time.UnixMilli(0), "new": time.Now()} {
		var recs []*kgo.Record
		for range 100 {
			recs = append(recs, &kgo.Record{Topic: topic, Timestamp: at, Value: []byte("x")})
		}
		if err := cl.ProduceSync(testContext(t), recs...).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	cl.Close()
	retained := func(b *Broker) {
		t.Helper()
		if err := errors.Join(b.log.Checkpoint(), b.log.Retain()); err != nil {
			t.Fatal(err)
		}
	}
	first := func(b *Broker, topic string, from int64) int16 {
		q := kmsg.NewPtrFetchRequest()
		q.MaxBytes = 1 << 20
		q.Topics = []kmsg.FetchRequestTopic{{Topic: topic, Partitions: []kmsg.FetchRequestTopicPartition{{FetchOffset: from, CurrentLeaderEpoch: -1, LastFetchedEpoch: -1, PartitionMaxBytes: 1 << 20}}}}
		return ask[*kmsg.FetchResponse](dialRaw(t, b), 12, q).Topics[0].Partitions[0].ErrorCode
	}
	wantCode(t, "old, before", first(b, "old", 72), nil)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b = start(t, onFS(fs))
	wantCode(t, "old, after a restart", first(b, "old", 72), nil)
	retained(b)
	wantCode(t, "old, after retention", first(b, "old", 72), kerr.OffsetOutOfRange)
	wantCode(t, "new, after retention", first(b, "new", 72), nil)
	if at := startOffset(t, b, "old", 0); at != 100 {
		t.Errorf("the old topic begins at %d", at)
	}
}

// What does not exist does not keep a fetch of what does from waiting: a client that goes on asking for a topic that was deleted
// would ask without a pause. Alone it is told at once, and so is that there is nothing to wait for.
func TestFetchOfUnknownTopics(t *testing.T) {
	b := start(t)
	r, w := dialRaw(t, b), dialRaw(t, b)
	id := r.createTopic("t", 1)
	unknown := fetchRequest([16]byte{1}, 0)
	unknown.Version, unknown.MaxWaitMillis = 18, 20_000
	both := fetchRequest(id, 0)
	both.Version, both.MaxWaitMillis = 18, 20_000
	both.Topics = append(both.Topics, unknown.Topics...)
	r.send(both)
	time.Sleep(10 * time.Millisecond) // let it wait; the test holds without too
	w.produce(9, "", "t", 0, plain)
	resp, err := r.receive(both)
	if err != nil {
		t.Fatal(err)
	}
	topics := resp.(*kmsg.FetchResponse).Topics
	if len(topics) != 2 || len(topics[0].Partitions[0].RecordBatches) == 0 {
		t.Fatalf("fetched %+v", topics)
	}
	wantCode(t, "the unknown topic", topics[1].Partitions[0].ErrorCode, kerr.UnknownTopicID)

	none := kmsg.NewPtrFetchRequest()
	none.Version, none.MaxWaitMillis, none.MinBytes = 18, 20_000, 1
	for what, q := range map[string]*kmsg.FetchRequest{"an unknown topic": unknown, "nothing": none} {
		began := time.Now()
		ask[*kmsg.FetchResponse](r, 18, q)
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("a fetch of %s took %v", what, took)
		}
	}
}

// What is fetched for clients that do not take it is bounded: who comes then gets less, and never nothing.
func TestFetchedIsBounded(t *testing.T) {
	const n, size = 10, 900_000
	b := start(t)
	b.answers.most = 3 * n * size / 2
	w := dialRaw(t, b)
	id := w.createTopic("t", 1)
	for range n {
		w.produce(9, "", "t", 0, batch{-1, -1, -1, false, []string{strings.Repeat("x", size)}})
	}
	q := fetchRequest(id, 0)
	q.Version, q.MaxBytes, q.Topics[0].Partitions[0].PartitionMaxBytes = 18, 2*n*size, 2*n*size
	answers := map[*raw]int64{}
	for i, want := range []int64{n, 4, 1, 1} {
		r := dialRaw(t, b)
		r.send(q)
		var length [4]byte
		if _, err := io.ReadFull(r.nc, length[:]); err != nil {
			t.Fatal(err)
		}
		answers[r] = int64(binary.BigEndian.Uint32(length[:]))
		if got := answers[r] / size; got != want {
			t.Errorf("client %d gets %d records, want %d", i, got, want)
		}
	}
	for r, rest := range answers {
		if _, err := io.CopyN(io.Discard, r.nc, rest); err != nil {
			t.Fatal(err)
		}
		ask[*kmsg.ApiVersionsResponse](r, 0, &kmsg.ApiVersionsRequest{}) // behind it
	}
	if left := b.answers.held.Load(); left != 0 {
		t.Errorf("%d bytes are held when all is sent", left)
	}
}

// Many that fetch at the same time do not leave each other less for what none of them may get: each partition has its limit.
func TestFetchesReserveWhatTheyMayGet(t *testing.T) {
	for _, c := range []struct {
		most int
		max  []int32
		want int
	}{
		{50 << 20, []int32{1 << 20}, 1 << 20},
		{50 << 20, []int32{1 << 20, 2 << 20, -1}, 3 << 20},
		{2 << 20, []int32{1 << 20, math.MaxInt32, math.MaxInt32}, 2 << 20},
		{0, []int32{1 << 20}, 0},
		{50 << 20, nil, 0},
	} {
		parts := make([]fetchPart, len(c.max))
		for i, n := range c.max {
			parts[i].maxBytes = n
		}
		if got := wanted(parts, c.most); got != c.want {
			t.Errorf("%d of partitions with %d: %d, want %d", c.most, c.max, got, c.want)
		}
	}
}
