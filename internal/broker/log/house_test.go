package log

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kerr"
)

// TestOffsetForTime compares lookups with a scan, in segments, in memory, across codecs and behind a restart.
func TestOffsetForTime(t *testing.T) {
	for seed := range uint64(10) {
		rng := rand.New(rand.NewPCG(seed, 7))
		fs := vfs.NewMem()
		opts := func(o *Options) { o.CacheBytes = 20 << 10 }
		cfg := Config{SegmentBytes: 40 << 10}
		l := open(t, fs, opts)
		p := create(t, l, 0, cfg)
		if _, _, _, found, err := p.OffsetForTime(0, false); found || err != nil {
			t.Fatal(found, err)
		}
		if _, _, _, found, err := p.MaxTimestamp(); found || err != nil {
			t.Fatal(found, err)
		}
		var all []held
		for i := range 200 {
			s := spec{codec: rng.IntN(5)}
			for range 1 + rng.IntN(5) {
				s.records = append(s.records, rec{key: []byte("k"), value: []byte(strings.Repeat("x", rng.IntN(500))), ts: int64(i*10 + rng.IntN(300))})
			}
			base := put(t, l, p, s).BaseOffset
			for j, r := range s.records {
				all = append(all, held{offset: base + int64(j), timestamp: r.ts})
			}
		}
		check := func() {
			t.Helper()
			start, _, _ := p.Offsets()
			best := held{timestamp: -1}
			for _, r := range all {
				if r.offset >= start && r.timestamp > best.timestamp {
					best = r
				}
			}
			if o, ts, _, found, err := p.MaxTimestamp(); err != nil || !found || o != best.offset || ts != best.timestamp {
				t.Fatalf("seed %d: largest timestamp %d at %d, want %+v (%v)", seed, ts, o, best, err)
			}
			for ts := int64(-1); ts < 2400; ts += 17 {
				i := slices.IndexFunc(all, func(r held) bool { return r.offset >= start && r.timestamp >= ts })
				o, got, epoch, found, err := p.OffsetForTime(ts, false)
				if err != nil || found != (i >= 0) || found && (o != all[i].offset || got != all[i].timestamp || epoch != 0) {
					t.Fatalf("seed %d: from %d on, timestamp %d: offset %d, timestamp %d, %v, %v; want %d", seed, start, ts, o, got, found, err, i)
				}
			}
		}
		check()
		if _, err := p.DeleteRecords(all[len(all)/2].offset); err != nil {
			t.Fatal(err)
		}
		check()
		closeLog(t, l)
		l = open(t, fs, opts)
		p = create(t, l, 0, cfg)
		check()
		put(t, l, p, spec{pid: 1, txn: true, records: []rec{{key: []byte("k"), ts: 5000}}})
		if _, _, _, found, err := p.OffsetForTime(4000, true); found || err != nil {
			t.Fatal("found what is not committed", err)
		}
		if o, _, _, found, err := p.OffsetForTime(4000, false); !found || err != nil || o != all[len(all)-1].offset+1 {
			t.Fatal(o, found, err)
		}
		closeLog(t, l)
	}
}

func TestRetention(t *testing.T) {
	clock := newClock()
	fs := vfs.NewMem()
	opts := func(o *Options) { o.Now = clock.now }
	l := open(t, fs, opts)
	defer func() { closeLog(t, l) }()
	bySize := create(t, l, 0, Config{Delete: true, RetentionMS: -1, RetentionBytes: 5000, SegmentBytes: 1000})
	byTime := create(t, l, 1, Config{Delete: true, RetentionMS: 60_000, RetentionBytes: -1, SegmentBytes: 1000})
	never := create(t, l, 2, Config{RetentionMS: 60_000, RetentionBytes: 5000, SegmentBytes: 1000})
	parts := []*Partition{bySize, byTime, never}
	retain := func() {
		t.Helper()
		for range 2 {
			if err := l.Checkpoint(); err != nil {
				t.Fatal(err)
			}
			if err := l.Retain(); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.Checkpoint(); err != nil {
			t.Fatal(err)
		}
	}
	for range 100 {
		for _, p := range parts {
			put(t, l, p, spec{records: []rec{{key: []byte("k"), value: make([]byte, 100), ts: clock.ms.Load()}}})
		}
		clock.add(time.Second)
	}
	retain()
	if n := bySize.Size(); n < 5000 || n > 6000 {
		t.Errorf("by size: %d bytes left", n)
	}
	start, hw, _ := byTime.Offsets()
	if start < 30 || start > 41 || hw != 100 {
		t.Errorf("by time: starts at %d of %d", start, hw)
	}
	if start, _, _ := never.Offsets(); start != 0 {
		t.Errorf("without delete: starts at %d", start)
	}
	if _, err := byTime.Read(start-1, 1000, false, true); !errors.Is(err, kerr.OffsetOutOfRange) {
		t.Error(err)
	}
	if f, err := byTime.Read(start, 1000, false, true); err != nil || len(f.Batches) == 0 {
		t.Error(f, err)
	}
	files := len(segmentFilesOf(t, fs))
	closeLog(t, l)
	l = open(t, fs, opts)
	for i, p := range parts {
		x := create(t, l, int32(i), p.Config())
		a, _, _ := p.Offsets()
		if b, hw, _ := x.Offsets(); a != b || hw != 100 {
			t.Errorf("reopened: starts at %d, was %d", b, a)
		}
		parts[i] = x
	}
	// Everything is too old, the last segment too; the offsets go on.
	clock.add(time.Hour)
	retain()
	if start, hw, _ := parts[1].Offsets(); start != 100 || hw != 100 {
		t.Errorf("by time: %d to %d left", start, hw)
	}
	if n := len(segmentFilesOf(t, fs)); n >= files {
		t.Errorf("%d files, before there were %d", n, files)
	}
	if r := put(t, l, parts[1], spec{records: []rec{kv("k", "v")}}); r.BaseOffset != 100 || r.LogStart != 100 {
		t.Errorf("%+v", r)
	}
}

func TestDeleteRecords(t *testing.T) {
	fs := vfs.NewMem()
	l := open(t, fs)
	p := create(t, l, 0, Config{SegmentBytes: 300})
	for i := range 20 {
		put(t, l, p, spec{records: []rec{kv("k", fmt.Sprint(i)), kv("k", "second")}})
	}
	for _, x := range []struct {
		to, want int64
		err      *kerr.Error
	}{{-2, 0, kerr.OffsetOutOfRange}, {41, 0, kerr.OffsetOutOfRange}, {7, 7, nil}, {3, 7, nil}, {7, 7, nil}} {
		got, err := p.DeleteRecords(x.to)
		if got != x.want || (err == nil) != (x.err == nil) || err != nil && !errors.Is(err, x.err) {
			t.Fatalf("delete records below %d: %d, %v", x.to, got, err)
		}
	}
	// 7 lies within a batch, which readers get whole.
	if f, err := p.Read(7, 1, false, true); err != nil || len(f.Batches) != 1 {
		t.Fatal(f, err)
	} else if h, _ := parseHeader(f.Batches[0]); h.base != 6 {
		t.Fatal(h)
	}
	if f, err := p.Read(6, 1, false, true); !errors.Is(err, kerr.OffsetOutOfRange) || f.LogStart != 7 || f.HighWatermark != 40 {
		t.Fatal(f, err)
	}
	size := p.Size()
	if got, err := p.DeleteRecords(-1); got != 40 || err != nil {
		t.Fatal(got, err)
	}
	closeLog(t, l)
	l = open(t, fs)
	defer closeLog(t, l)
	p = create(t, l, 0, Config{SegmentBytes: 300})
	if start, hw, _ := p.Offsets(); start != 40 || hw != 40 || p.Size() >= size {
		t.Fatal(start, hw, p.Size())
	}
	if n := len(segmentFilesOf(t, fs)); n > 2 {
		t.Fatalf("%d files are left of nothing", n)
	}
	if f, err := p.Read(40, 100, true, true); err != nil || len(f.Batches) > 0 {
		t.Fatal(f, err)
	}
	if r := put(t, l, p, spec{records: []rec{kv("k", "v")}}); r.BaseOffset != 40 {
		t.Fatal(r)
	}
}

func TestReadLimits(t *testing.T) {
	l := open(t, vfs.NewMem())
	defer closeLog(t, l)
	p := create(t, l, 0, Config{SegmentBytes: 420})
	size := 0
	for range 10 {
		s := spec{records: []rec{kv("k", "0123456789")}}
		size = len(s.build(t))
		put(t, l, p, s)
	}
	for _, cold := range []bool{false, true} {
		if cold {
			if err := l.Checkpoint(); err != nil {
				t.Fatal(err)
			}
			l.budget.evict(0)
		}
		for _, x := range []struct {
			from   int64
			max    int
			minOne bool
			want   int
		}{{0, 0, false, 0}, {0, 0, true, 1}, {0, size - 1, false, 0}, {0, size - 1, true, 1}, {0, size, false, 1}, {0, 3*size + 1, true, 3}, {5, size - 1, false, 0}, {9, 1 << 20, true, 1}, {10, 1 << 20, true, 0}} {
			f, err := p.Read(x.from, x.max, false, x.minOne)
			if err != nil || len(f.Batches) != x.want || f.Bytes != x.want*size {
				t.Fatalf("cold %v: from %d, %d bytes: %d batches, %d bytes, %v", cold, x.from, x.max, len(f.Batches), f.Bytes, err)
			}
			f.Release()
			f.Release()
		}
		if n := p.Available(4, false); n < int64(6*size) || !cold && n != int64(6*size) {
			t.Fatal(n, 6*size)
		}
		if n := p.Available(10, false); n != 0 {
			t.Fatal(n)
		}
		if _, err := p.Read(11, 1, false, true); !errors.Is(err, kerr.OffsetOutOfRange) {
			t.Fatal(err)
		}
	}
}

// TestOnlyAbortedLeft compacts away everything but the end: a reader must come to the high watermark nonetheless.
func TestOnlyAbortedLeft(t *testing.T) {
	clock := newClock()
	l := open(t, vfs.NewMem(), func(o *Options) { o.Now = clock.now })
	defer closeLog(t, l)
	p := create(t, l, 0, Config{Compact: true, SegmentMS: 1000, DeleteRetentionMS: 1000})
	put(t, l, p, spec{records: []rec{{key: []byte("a")}}})
	for i := range 3 {
		put(t, l, p, spec{pid: 1, seq: int32(i), txn: true, records: []rec{kv("b", "aborted")}})
		mark(t, l, p, 1, false)
	}
	for range 6 {
		clock.add(time.Minute)
		l.nudge()
		if err := l.Checkpoint(); err != nil {
			t.Fatal(err)
		}
		if err := p.Compact(context.Background()); err != nil {
			t.Fatal(err)
		}
		l.budget.evict(0)
	}
	if got := everything(t, p); len(got) != 0 {
		t.Fatal(got)
	}
	p.mu.Lock()
	left := len(p.txns.aborted)
	p.mu.Unlock()
	if left > 1 {
		t.Fatalf("%d aborted transactions are remembered, their markers are gone", left)
	}
	if p.dueForCompaction(clock.ms.Load()) {
		t.Fatal("due again with nothing to do")
	}
}

// TestManyPartitions opens 1,000 topics of 4 partitions, clean and after a kill, and looks at what they cost.
func TestManyPartitions(t *testing.T) {
	const topics, partitions = 1000, 4
	fs := vfs.NewMem()
	set := func(o *Options) { o.WALBytes, o.CacheBytes = 1<<20, 8<<20 }
	createAll := func(l *Log) (list []*Partition) {
		t.Helper()
		for i := range topics {
			for j := range int32(partitions) {
				p, err := l.CreatePartition(PartitionID{Topic: [16]byte{byte(i), byte(i >> 8)}, Partition: j}, fmt.Sprint("topic", i), Config{})
				if err != nil {
					t.Fatal(err)
				}
				list = append(list, p)
			}
		}
		return list
	}
	l := open(t, fs, set)
	for _, p := range createAll(l) {
		l.Submit(Write{Appends: []Append{{Partition: p, Batch: spec{pid: 1, records: []rec{kv("k", "v")}}.build(t)}}}, WaitSync, func(err error) {
			if err != nil {
				t.Error(err)
			}
		})
	}
	if err := <-l.barrier(); err != nil {
		t.Fatal(err)
	}
	closeLog(t, l)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	start := time.Now()
	l = open(t, fs, set)
	list := createAll(l)
	took := time.Since(start)
	runtime.GC()
	runtime.ReadMemStats(&after)
	t.Logf("opened %d partitions in %v, %d bytes of heap each", len(list), took, (after.HeapAlloc-before.HeapAlloc)/uint64(len(list)))
	if took > 3*time.Second {
		t.Errorf("opening took %v", took)
	}
	if _, hw, _ := list[4711%len(list)].Offsets(); hw != 1 {
		t.Error(hw)
	}
	closeLog(t, l)
}
