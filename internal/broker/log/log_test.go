package log

import (
	"encoding/binary"
	"io"
	"log/slog"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if err := testCodecs.zstd(); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

// testCodecs is shared, zstd is slow to start.
var testCodecs codecs

// rec is a record for build; a nil key or value is null.
type rec struct {
	key, value []byte
	ts         int64
}

func kv(key, value string) rec { return rec{key: []byte(key), value: []byte(value), ts: 1000} }

// spec describes a batch.
type spec struct {
	pid     int64 // 0: none
	epoch   int16
	seq     int32
	txn     bool
	codec   int
	records []rec
}

// build makes a batch as a client would send it.
func (s spec) build(t testing.TB) []byte {
	t.Helper()
	var body []byte
	baseTS, maxTS := int64(0), int64(-1)
	for i, r := range s.records {
		if i == 0 {
			baseTS = r.ts
		}
		maxTS = max(maxTS, r.ts)
		body = appendRecord(body, r.ts-baseTS, int64(i), r.key, r.value)
	}
	body, err := testCodecs.deflate(s.codec, body)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, batchHeader, batchHeader+len(body))
	b[posMagic] = 2
	attrs := uint16(s.codec)
	if s.txn {
		attrs |= attrTxn
	}
	pid, epoch, seq := s.pid, s.epoch, s.seq
	if pid == 0 {
		pid, epoch, seq = -1, -1, -1
	}
	binary.BigEndian.PutUint32(b[posEpoch:], 0xffffffff)
	binary.BigEndian.PutUint16(b[posAttrs:], attrs)
	binary.BigEndian.PutUint32(b[posLastDelta:], uint32(len(s.records)-1))
	binary.BigEndian.PutUint64(b[posBaseTS:], uint64(baseTS))
	binary.BigEndian.PutUint64(b[posMaxTS:], uint64(maxTS))
	binary.BigEndian.PutUint64(b[posPID:], uint64(pid))
	binary.BigEndian.PutUint16(b[posPEpoch:], uint16(epoch))
	binary.BigEndian.PutUint32(b[posSeq:], uint32(seq))
	binary.BigEndian.PutUint32(b[posCount:], uint32(len(s.records)))
	b = append(b, body...)
	binary.BigEndian.PutUint32(b[posLength:], uint32(len(b)-lengthSize))
	sealBatch(b)
	return b
}

func appendRecord(dst []byte, tsDelta, offsetDelta int64, key, value []byte) []byte {
	r := []byte{0}
	r = binary.AppendVarint(r, tsDelta)
	r = binary.AppendVarint(r, offsetDelta)
	for _, v := range [][]byte{key, value} {
		if v == nil {
			r = binary.AppendVarint(r, -1)
			continue
		}
		r = binary.AppendVarint(r, int64(len(v)))
		r = append(r, v...)
	}
	r = binary.AppendVarint(r, 0)
	return append(binary.AppendVarint(dst, int64(len(r))), r...)
}

// clock is a wall clock that stands still until moved.
type clock struct{ ms atomic.Int64 }

func newClock() *clock {
	c := new(clock)
	c.ms.Store(1_700_000_000_000)
	return c
}

func (c *clock) now() time.Time      { return time.UnixMilli(c.ms.Load()) }
func (c *clock) add(d time.Duration) { c.ms.Add(d.Milliseconds()) }

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func open(t testing.TB, fs vfs.FS, change ...func(*Options)) *Log {
	t.Helper()
	l, err := Open(options(fs, change...))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func options(fs vfs.FS, change ...func(*Options)) Options {
	o := Options{FS: fs, Dir: "broker", WALBytes: 16 << 10, CacheBytes: 64 << 10, Now: newClock().now, Logger: quiet()}
	for _, f := range change {
		f(&o)
	}
	return o
}

func closeLog(t testing.TB, l *Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func id(topic byte, partition int32) PartitionID {
	return PartitionID{Topic: [16]byte{topic}, Partition: partition}
}

func create(t testing.TB, l *Log, n int32, c Config) *Partition {
	t.Helper()
	p, err := l.CreatePartition(id(1, n), "t", c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// submit waits for done.
func submit(l *Log, w Write) ([]Result, error) {
	done := make(chan error, 1)
	r := l.Submit(w, WaitSync, func(err error) { done <- err })
	return r, <-done
}

// put appends one batch and wants it accepted.
func put(t testing.TB, l *Log, p *Partition, s spec) Result {
	t.Helper()
	r, err := submit(l, Write{Appends: []Append{{Partition: p, Batch: s.build(t)}}})
	if err != nil || r[0].Err != nil {
		t.Fatalf("append: %v, %v", err, r[0])
	}
	return r[0]
}

// values reads the values of all records a reader sees, control batches and, if committed, aborted data skipped.
func values(t testing.TB, p *Partition, committed bool) []string {
	t.Helper()
	var list []string
	start, hw, lso := p.Offsets()
	limit := hw
	if committed {
		limit = lso
	}
	for from := start; from < limit; {
		f, err := p.Read(from, 4<<10, committed, true)
		if err != nil {
			t.Fatal(err)
		}
		if len(f.Batches) == 0 {
			t.Fatalf("nothing to read at %d below %d", from, limit)
		}
		for _, b := range f.Batches {
			h, ok := parseHeader(b)
			if !ok {
				t.Fatal("no batch")
			}
			from = h.next()
			if h.control() {
				continue
			}
			if committed && skipped(&h, f.Aborted, p, f.LastStable) {
				continue
			}
			list = append(list, recordValues(t, b, start)...)
		}
		f.Release()
	}
	return list
}

// skipped says whether a read_committed client drops the batch: it belongs to a transaction of the list that has not
// ended before it.
func skipped(h *header, list []AbortedTxn, p *Partition, _ int64) bool {
	if !h.txn() {
		return false
	}
	for _, a := range list {
		if a.ProducerID != h.pid || a.FirstOffset > h.base {
			continue
		}
		p.mu.Lock()
		for _, x := range p.txns.aborted {
			if x.pid == h.pid && x.first == a.FirstOffset && h.base < x.marker {
				p.mu.Unlock()
				return true
			}
		}
		p.mu.Unlock()
	}
	return false
}

func recordValues(t testing.TB, b []byte, start int64) []string {
	t.Helper()
	h, _ := parseHeader(b)
	body, err := testCodecs.inflate(h.codec(), b[batchHeader:])
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	err = eachRecord(body, h.count, func(r *record) bool {
		if h.base+r.offsetDelta >= start {
			list = append(list, string(r.value))
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestAppendReadReopen(t *testing.T) {
	fs := vfs.NewMem()
	l := open(t, fs)
	p := create(t, l, 0, Config{SegmentBytes: 2000})
	var want []string
	for i := range 500 {
		v := strconv.Itoa(i)
		if r := put(t, l, p, spec{records: []rec{kv("k", v)}}); r.BaseOffset != int64(i) {
			t.Fatalf("offset %d, want %d", r.BaseOffset, i)
		}
		want = append(want, v)
	}
	check := func(when string) {
		t.Helper()
		got := values(t, p, false)
		if len(got) != len(want) {
			t.Fatalf("%s: %d records, want %d", when, len(got), len(want))
		}
		for i := range want {
			if got[i] != want[i] {
				t.Fatalf("%s: record %d is %q, want %q", when, i, got[i], want[i])
			}
		}
	}
	check("from memory and segments")
	if _, err := submit(l, Write{Puts: []Put{{Kind: 1, Key: "a", Value: []byte("x")}, {Kind: 1, Key: "b", Value: []byte("y")}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := submit(l, Write{Puts: []Put{{Kind: 1, Key: "a"}}}); err != nil {
		t.Fatal(err)
	}
	closeLog(t, l)
	for range 2 {
		l = open(t, fs)
		if r := l.Recovery(); !r.Clean || r.MayHaveLost {
			t.Fatalf("recovery %+v", r)
		}
		p = create(t, l, 0, Config{SegmentBytes: 2000})
		check("reopened")
		for k, v := range l.Records(1) {
			if k != "b" || string(v) != "y" {
				t.Fatalf("record %s=%s", k, v)
			}
		}
		closeLog(t, l)
	}
}
