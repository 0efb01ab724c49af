package broker

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"github.com/moldau/moldau/internal/broker/log"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		serveChild(dir)
	}
	goleak.VerifyTestMain(m)
}

// quiet takes the broker's log; the test sees warnings.
func quiet(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelError}))
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(string(bytes.TrimSpace(p)))
	return len(p), nil
}

// start starts a broker on a file system in memory, unless the test says otherwise.
func start(t testing.TB, edit ...func(*Config)) *Broker {
	t.Helper()
	c := Config{Dir: "data", FS: vfs.NewMem(), Logger: quiet(t), walBytes: 1 << 20}
	for _, e := range edit {
		e(&c)
	}
	b, err := Start(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return b
}

func onFS(fs vfs.FS) func(*Config)       { return func(c *Config) { c.FS = fs } }
func listening(c *Config)                { c.Listeners = []Listener{{Address: "127.0.0.1:0"}} }
func partitions(n int32) func(c *Config) { return func(c *Config) { c.DefaultPartitions = n } }

// clock is a wall clock that a test moves.
type clock struct{ offset atomic.Int64 }

func (c *clock) now() time.Time          { return time.Now().Add(time.Duration(c.offset.Load())) }
func (c *clock) advance(d time.Duration) { c.offset.Add(int64(d)) }
func (c *clock) use(cfg *Config)         { cfg.Now = c.now }

// tick makes the alarms look at the clock.
func (b *Broker) tick() {
	select {
	case b.alarms.changed <- struct{}{}:
	default:
	}
}

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// client returns a client within the process.
func client(t testing.TB, b *Broker, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers("moldau.invalid:9092"), kgo.Dialer(b.Dial), kgo.AllowAutoTopicCreation(),
		kgo.MetadataMinAge(10 * time.Millisecond), kgo.RetryBackoffFn(func(int) time.Duration { return 5 * time.Millisecond }),
	}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// raw speaks the protocol request by request.
type raw struct {
	t      testing.TB
	nc     net.Conn
	format *kmsg.RequestFormatter
	id     int32
}

func dialRaw(t testing.TB, b *Broker) *raw {
	t.Helper()
	nc, err := b.Dial(context.Background(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(30 * time.Second))
	return &raw{t: t, nc: nc, format: kmsg.NewRequestFormatter(kmsg.FormatterClientID("test"))}
}

func (r *raw) send(q kmsg.Request) {
	r.t.Helper()
	r.id++
	if _, err := r.nc.Write(r.format.AppendRequest(nil, q, r.id)); err != nil {
		r.t.Fatalf("%T: %v", q, err)
	}
}

func (r *raw) receive(q kmsg.Request) (kmsg.Response, error) {
	var size [4]byte
	if _, err := io.ReadFull(r.nc, size[:]); err != nil {
		return nil, err
	}
	frame := make([]byte, binary.BigEndian.Uint32(size[:]))
	if _, err := io.ReadFull(r.nc, frame); err != nil {
		return nil, err
	}
	body := frame[4:]
	if q.IsFlexible() && q.Key() != keyApiVersions {
		if body[0] != 0 {
			return nil, fmt.Errorf("tags in the response header")
		}
		body = body[1:]
	}
	resp := q.ResponseKind()
	return resp, resp.ReadFrom(body)
}

// ask sends a request in a version and returns the response.
func ask[P kmsg.Response](r *raw, version int16, q kmsg.Request) P {
	r.t.Helper()
	q.SetVersion(version)
	r.send(q)
	resp, err := r.receive(q)
	if err != nil {
		r.t.Fatalf("%T version %d: %v", q, version, err)
	}
	return resp.(P)
}

// batch is a record batch with values and no keys.
type batch struct {
	pid      int64
	epoch    int16
	sequence int32
	txn      bool
	values   []string
}

func (b batch) encode() []byte {
	rb := kmsg.NewRecordBatch()
	rb.Magic = 2
	rb.PartitionLeaderEpoch = -1
	rb.ProducerID, rb.ProducerEpoch, rb.FirstSequence = b.pid, b.epoch, b.sequence
	if b.txn {
		rb.Attributes |= 1 << 4
	}
	now := time.Now().UnixMilli()
	rb.FirstTimestamp, rb.MaxTimestamp = now, now
	rb.NumRecords, rb.LastOffsetDelta = int32(len(b.values)), int32(len(b.values)-1)
	for i, v := range b.values {
		r := kmsg.NewRecord()
		r.OffsetDelta, r.Value = int32(i), []byte(v)
		body := r.AppendTo(nil)
		r.Length = int32(len(body) - 1) // the length itself is one byte while zero
		rb.Records = r.AppendTo(rb.Records)
	}
	out := rb.AppendTo(nil)
	binary.BigEndian.PutUint32(out[8:], uint32(len(out)-12))
	binary.BigEndian.PutUint32(out[17:], crc32.Checksum(out[21:], crc32.MakeTable(crc32.Castagnoli)))
	return out
}

func (r *raw) createTopic(name string, n int32, configs ...string) [16]byte {
	r.t.Helper()
	q := kmsg.NewPtrCreateTopicsRequest()
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = name, n, 3
	for i := 0; i < len(configs); i += 2 {
		t.Configs = append(t.Configs, kmsg.CreateTopicsRequestTopicConfig{Name: configs[i], Value: &configs[i+1]})
	}
	q.Topics = append(q.Topics, t)
	resp := ask[*kmsg.CreateTopicsResponse](r, 7, q)
	if err := kerr.ErrorForCode(resp.Topics[0].ErrorCode); err != nil {
		r.t.Fatalf("create topic %s: %v: %s", name, err, deref(resp.Topics[0].ErrorMessage))
	}
	return resp.Topics[0].TopicID
}

// produce sends one batch and returns the partition's answer.
func (r *raw) produce(version int16, txnID, topic string, p int32, b batch) kmsg.ProduceResponseTopicPartition {
	r.t.Helper()
	q := kmsg.NewPtrProduceRequest()
	q.Acks = -1
	q.TransactionID = nullable(txnID)
	q.Topics = []kmsg.ProduceRequestTopic{{Topic: topic, Partitions: []kmsg.ProduceRequestTopicPartition{{Partition: p, Records: b.encode()}}}}
	return ask[*kmsg.ProduceResponse](r, version, q).Topics[0].Partitions[0]
}

func (r *raw) initProducer(txnID string, timeout time.Duration) (int64, int16) {
	r.t.Helper()
	q := kmsg.NewPtrInitProducerIDRequest()
	q.TransactionalID, q.TransactionTimeoutMillis = nullable(txnID), int32(timeout.Milliseconds())
	q.ProducerID, q.ProducerEpoch = -1, -1
	resp := ask[*kmsg.InitProducerIDResponse](r, 4, q)
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		r.t.Fatalf("init producer id %q: %v", txnID, err)
	}
	return resp.ProducerID, resp.ProducerEpoch
}

func (r *raw) endTxn(version int16, id string, pid int64, epoch int16, commit bool) *kmsg.EndTxnResponse {
	r.t.Helper()
	q := kmsg.NewPtrEndTxnRequest()
	q.TransactionalID, q.ProducerID, q.ProducerEpoch, q.Commit = id, pid, epoch, commit
	return ask[*kmsg.EndTxnResponse](r, version, q)
}

// read returns the values of a partition as a consumer sees them: read committed, control records and aborted
// transactions left out.
func read(t testing.TB, b *Broker, topic string, p int32) []string {
	t.Helper()
	return readAs(t, b, topic, p, kgo.ReadCommitted())
}

func readAs(t testing.TB, b *Broker, topic string, p int32, isolation kgo.IsolationLevel) []string {
	t.Helper()
	end := endOffset(t, b, topic, p, isolation == kgo.ReadCommitted())
	cl := client(t, b, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {p: kgo.NewOffset().AtStart()}}),
		kgo.FetchIsolationLevel(isolation), kgo.KeepControlRecords(), kgo.FetchMaxWait(50*time.Millisecond))
	defer cl.Close()
	var values []string
	ctx := testContext(t)
	for next := startOffset(t, b, topic, p); next < end; {
		fs := cl.PollFetches(ctx)
		if err := fs.Err0(); err != nil {
			t.Fatalf("read %s-%d: %v", topic, p, err)
		}
		fs.EachRecord(func(r *kgo.Record) {
			next = r.Offset + 1
			if !r.Attrs.IsControl() && r.Offset < end {
				values = append(values, string(r.Value))
			}
		})
	}
	return values
}

func startOffset(t testing.TB, b *Broker, topic string, p int32) int64 {
	t.Helper()
	start, _, _ := b.catalog.topic(topic).partition(p).Offsets()
	return start
}

func endOffset(t testing.TB, b *Broker, topic string, p int32, committed bool) int64 {
	t.Helper()
	part := b.catalog.topic(topic).partition(p)
	if part == nil {
		t.Fatalf("no partition %s-%d", topic, p)
	}
	_, hw, stable := part.Offsets()
	if committed {
		return stable
	}
	return hw
}

func wantCode(t testing.TB, what string, got int16, want *kerr.Error) {
	t.Helper()
	if want == nil && got == 0 || want != nil && got == want.Code {
		return
	}
	t.Errorf("%s: %v, want %v", what, kerr.ErrorForCode(got), want)
}

func TestConfigNamesEveryMistake(t *testing.T) {
	err := Config{Listeners: []Listener{{Address: "0.0.0.0:9092", Advertise: "nowhere"}}, Durability: 9, DefaultPartitions: -1, OffsetsRetention: -1}.Validate()
	if err == nil {
		t.Fatal("no error")
	}
	for _, word := range []string{"Dir", "durability 9", "DefaultPartitions", "Advertise", "OffsetsRetention"} {
		if !bytes.Contains([]byte(err.Error()), []byte(word)) {
			t.Errorf("%q is not named in:\n%v", word, err)
		}
	}
	if err := (Config{Dir: "x", Listeners: []Listener{{Address: "0.0.0.0:9092"}}}).Validate(); err == nil {
		t.Error("a wildcard address needs an advertised one")
	}
	if err := (Config{Dir: "x"}).Validate(); err != nil {
		t.Error(err)
	}
}

func TestStartRefuses(t *testing.T) {
	fs := vfs.NewMem()
	b := start(t, onFS(fs), listening)
	if _, err := Start(context.Background(), Config{Dir: "data", FS: fs}); err == nil {
		t.Error("two brokers on one directory")
	} else if !bytes.Contains([]byte(err.Error()), []byte(log.ErrLocked.Error())) {
		t.Error(err)
	}
	_, err := Start(context.Background(), Config{Dir: "other", FS: vfs.NewMem(), Listeners: []Listener{{Address: b.Addr()}}})
	if err == nil || !bytes.Contains([]byte(err.Error()), []byte("choose another address")) {
		t.Errorf("a busy port: %v", err)
	}
}

// netDialer dials TCP where the tests' default is the process.
type netDialer struct{ net.Dialer }

func (d *netDialer) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	return d.DialContext(ctx, network, addr)
}

// sameBoot makes a start on a crash image one after kill -9, with what was written but not synced still there.
func sameBoot(c *Config) { c.BootID = "test" }

// crash returns what a crash leaves that keeps so many percent, at random, of what was not synced.
func crash(fs *vfs.MemFS, percent int, seed uint64) vfs.FS {
	return fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(seed, seed))})
}

// watched returns a logger and a count of what it is told of bugs.
func watched(t testing.TB) (*slog.Logger, *atomic.Int64) {
	h := &bugWatch{Handler: quiet(t).Handler(), t: t}
	return slog.New(h), &h.bugs
}

type bugWatch struct {
	slog.Handler
	t    testing.TB
	bugs atomic.Int64
}

func (h *bugWatch) Handle(ctx context.Context, r slog.Record) error {
	if strings.Contains(r.Message, "bug") {
		h.bugs.Add(1)
	}
	return h.Handler.Handle(ctx, r)
}

// discard takes the log of a test that breaks things on purpose.
func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }
