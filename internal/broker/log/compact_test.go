package log

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// held is a record of a compacted partition.
type held struct {
	offset    int64
	key       string
	value     string
	null      bool
	timestamp int64
	fate      string // commit, abort, open; "" outside a transaction
}

// everything reads all records of a partition, those of aborted transactions too, and checks that readers come from
// every offset to the end.
func everything(t *testing.T, p *Partition) []held {
	t.Helper()
	var list []held
	start, hw, _ := p.Offsets()
	for from := start; from < hw; {
		f, err := p.Read(from, 8<<10, false, true)
		if err != nil {
			t.Fatal(err)
		}
		if len(f.Batches) == 0 {
			t.Fatalf("nothing from %d on, the high watermark is %d", from, hw)
		}
		for _, b := range f.Batches {
			h, _ := parseHeader(b)
			if h.last() < from {
				t.Fatalf("batch %d to %d behind %d", h.base, h.last(), from)
			}
			from = h.next()
			if h.control() {
				continue
			}
			body, err := testCodecs.inflate(h.codec(), b[batchHeader:])
			if err != nil {
				t.Fatal(err)
			}
			if err := eachRecord(body, h.count, func(r *record) bool {
				list = append(list, held{offset: h.base + r.offsetDelta, key: string(r.key), value: string(r.value), null: r.value == nil, timestamp: h.baseTS + r.tsDelta})
				return true
			}); err != nil {
				t.Fatal(err)
			}
		}
		f.Release()
	}
	return list
}

// compactionModel knows every record ever written and what compaction must leave of them.
type compactionModel struct {
	records []held
	horizon map[int64]int64 // of deletions compaction has seen, by offset
	bound   int64           // what lies below was compacted
}

// compact drops what one pass over the offsets below bound must drop.
func (m *compactionModel) compact(bound, now, retention int64) {
	last := map[string]int64{}
	for _, r := range m.records {
		if r.offset < bound && r.fate != "abort" {
			last[r.key] = r.offset
		}
	}
	m.records = slices.DeleteFunc(m.records, func(r held) bool {
		if r.offset >= bound {
			return false
		}
		if r.fate == "abort" || last[r.key] != r.offset {
			return true
		}
		if r.null {
			h, seen := m.horizon[r.offset]
			if seen && h <= now {
				return true
			}
			if !seen {
				m.horizon[r.offset] = now + retention
			}
		}
		return false
	})
	m.bound = bound
}

func TestCompaction(t *testing.T) {
	for seed := range uint64(15) {
		compactionRun(t, seed)
	}
}

func compactionRun(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 3))
	const retention = 60_000
	clock := newClock()
	fs := vfs.NewMem()
	opts := func(o *Options) { o.Now = clock.now; o.CacheBytes = 1 << 10 }
	cfg := Config{Compact: true, SegmentBytes: int64(500 + rng.IntN(3000)), DeleteRetentionMS: retention}
	l := open(t, fs, opts)
	p := create(t, l, 0, cfg)
	m := &compactionModel{horizon: map[int64]int64{}}
	seq := map[int64]int32{}
	inTxn := map[int64]bool{}
	for round := range 12 {
		for range 30 {
			pid := int64(rng.IntN(4))
			if pid > 1 && inTxn[pid] && rng.IntN(4) == 0 {
				commit := rng.IntN(2) == 0
				r, err := submit(l, Write{Markers: []Marker{{Partition: p, ProducerID: pid, Commit: commit}}})
				if err != nil || r[0].Err != nil {
					t.Fatal(err, r)
				}
				inTxn[pid] = false
				for i := range m.records {
					if x := &m.records[i]; x.fate == fmt.Sprint("open", pid) {
						x.fate = "abort"
						if commit {
							x.fate = "commit"
						}
					}
				}
				continue
			}
			s := spec{pid: pid, seq: seq[pid], txn: pid > 1, codec: rng.IntN(5)}
			fate := ""
			if s.txn {
				inTxn[pid], fate = true, fmt.Sprint("open", pid)
			}
			for range 1 + rng.IntN(6) {
				r := kv(fmt.Sprint("key", rng.IntN(30)), fmt.Sprint(rng.Int64()))
				r.ts = int64(rng.IntN(1000))
				if rng.IntN(5) == 0 {
					r.value = nil
				}
				s.records = append(s.records, r)
			}
			seq[pid] += int32(len(s.records))
			base := put(t, l, p, s).BaseOffset
			for i, r := range s.records {
				m.records = append(m.records, held{offset: base + int64(i), key: string(r.key), value: string(r.value), null: r.value == nil, timestamp: r.ts, fate: fate})
			}
		}
		if err := l.Checkpoint(); err != nil {
			t.Fatal(err)
		}
		p.mu.Lock()
		bound := int64(0)
		if segs := p.compactable(p.cfg.Load(), clock.ms.Load()); len(segs) > 0 {
			bound = segs[len(segs)-1].next
		}
		p.mu.Unlock()
		if err := p.Compact(context.Background()); err != nil {
			t.Fatal(err)
		}
		m.compact(bound, clock.ms.Load(), retention)
		compareHeld(t, fmt.Sprintf("seed %d, round %d", seed, round), everything(t, p), m.records)
		readAnywhere(t, p, rng)
		clock.add(time.Duration(rng.IntN(retention)) * time.Millisecond)
		if rng.IntN(3) == 0 {
			closeLog(t, l)
			l = open(t, fs, opts)
			p = create(t, l, 0, cfg)
			compareHeld(t, fmt.Sprintf("seed %d, round %d, reopened", seed, round), everything(t, p), m.records)
		}
	}
	// Once every deletion and every marker has had its time, there is nothing to do.
	for range 5 {
		clock.add(2 * retention * time.Millisecond)
		if err := p.Compact(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	if p.dueForCompaction(clock.ms.Load()) {
		t.Errorf("seed %d: due again with nothing to do", seed)
	}
	closeLog(t, l)
}

func compareHeld(t *testing.T, when string, got, want []held) {
	t.Helper()
	for i := range max(len(got), len(want)) {
		var g, w held
		if i < len(got) {
			g = got[i]
		}
		if i < len(want) {
			w = want[i]
		}
		w.fate = ""
		if g != w {
			t.Fatalf("%s: record %d is %+v, want %+v", when, i, g, w)
		}
	}
}

// readAnywhere reads from any offset with any limit: the first batch must be the one that holds the offset or follows
// it, and be left out only if it does not fit.
func readAnywhere(t *testing.T, p *Partition, rng *rand.Rand) {
	t.Helper()
	start, hw, _ := p.Offsets()
	var all []header
	for from := start; from < hw; {
		f, err := p.Read(from, 0, false, true)
		if err != nil || len(f.Batches) != 1 {
			t.Fatal(f, err)
		}
		h, _ := parseHeader(f.Batches[0])
		all = append(all, h)
		from = h.next()
		f.Release()
	}
	for range 50 {
		from := start + rng.Int64N(hw-start)
		limit, minOne := rng.IntN(3000), rng.IntN(2) == 0
		f, err := p.Read(from, limit, false, minOne)
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(all, func(h header) bool { return h.last() >= from })
		if len(f.Batches) == 0 && (minOne || all[i].size <= limit) {
			t.Fatalf("nothing from %d on with %d bytes, the batch at %d has %d", from, limit, all[i].base, all[i].size)
		}
		bytes := 0
		for j, b := range f.Batches {
			h, _ := parseHeader(b)
			bytes += len(b)
			if h != all[i+j] || bytes > limit && (j > 0 || !minOne) {
				t.Fatalf("from %d on with %d bytes: batch %d is at %d, want %d", from, limit, j, h.base, all[i+j].base)
			}
		}
		f.Release()
	}
}
