package log

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

func mark(t *testing.T, l *Log, p *Partition, pid int64, commit bool) {
	t.Helper()
	r, err := submit(l, Write{Markers: []Marker{{Partition: p, ProducerID: pid, Commit: commit}}})
	if err != nil || r[0].Err != nil {
		t.Fatal(err, r)
	}
}

// TestStable follows the last stable offset and the aborted list through a scenario: each line is one batch of a
// producer (d), a commit (c) or an abort (a), then what must hold.
func TestStable(t *testing.T) {
	fs := vfs.NewMem()
	l := open(t, fs)
	p := create(t, l, 0, Config{SegmentBytes: 200})
	seq := map[int64]int32{}
	for i, x := range []struct {
		do     string
		pid    int64
		stable int64
		list   string // from 0 on
	}{
		{"d", 1, 0, "[]"},                          // 0
		{"d", 2, 0, "[]"},                          // 1
		{"n", 9, 0, "[]"},                          // 2, outside a transaction
		{"d", 1, 0, "[]"},                          // 3
		{"a", 2, 0, "[]"},                          // 4: 1 holds it back
		{"a", 1, 6, "[{1 0} {2 1}]"},               // 5
		{"d", 1, 6, "[{1 0} {2 1}]"},               // 6
		{"d", 2, 6, "[{1 0} {2 1}]"},               // 7
		{"c", 1, 7, "[{1 0} {2 1}]"},               // 8: up to 7
		{"n", 9, 7, "[{1 0} {2 1}]"},               // 9
		{"a", 2, 11, "[{1 0} {2 1} {2 7}]"},        // 10
		{"a", 2, 12, "[{1 0} {2 1} {2 7}]"},        // 11: nothing was open
		{"d", 3, 12, "[{1 0} {2 1} {2 7}]"},        // 12
		{"n", 9, 12, "[{1 0} {2 1} {2 7}]"},        // 13
		{"d", 4, 12, "[{1 0} {2 1} {2 7}]"},        // 14
		{"c", 3, 14, "[{1 0} {2 1} {2 7}]"},        // 15: 4 is open at 14
		{"a", 4, 17, "[{1 0} {2 1} {2 7} {4 14}]"}, // 16
	} {
		switch x.do {
		case "d", "n":
			s := spec{pid: x.pid, seq: seq[x.pid], txn: x.do == "d", records: []rec{kv("k", fmt.Sprint(i))}}
			seq[x.pid]++
			if r := put(t, l, p, s); r.BaseOffset != int64(i) {
				t.Fatal(r)
			}
		default:
			mark(t, l, p, x.pid, x.do == "c")
		}
		for range 2 {
			_, hw, stable := p.Offsets()
			if hw != int64(i+1) || stable != x.stable {
				t.Fatalf("line %d: high watermark %d, last stable offset %d, want %d", i, hw, stable, x.stable)
			}
			f, err := p.Read(0, 1<<20, true, true)
			if err != nil {
				t.Fatal(err)
			}
			// A read stays within one segment: gather the whole.
			list := f.Aborted
			for from := int64(0); len(f.Batches) > 0; {
				h, _ := parseHeader(f.Batches[len(f.Batches)-1])
				from = h.next()
				if f, err = p.Read(from, 1<<20, true, true); err != nil {
					t.Fatal(err)
				}
				for _, a := range f.Aborted {
					if !slices.Contains(list, a) {
						list = append(list, a)
					}
				}
				if from > x.stable {
					t.Fatalf("line %d: read up to %d", i, from)
				}
			}
			if got := fmt.Sprint(list); got != x.list {
				t.Fatalf("line %d: aborted %s, want %s", i, got, x.list)
			}
			if f, err = p.Read(0, 1<<20, false, true); err != nil || f.Aborted != nil {
				t.Fatalf("line %d: aborted %v for a reader of everything, %v", i, f.Aborted, err)
			}
			closeLog(t, l)
			l = open(t, fs)
			p = create(t, l, 0, Config{SegmentBytes: 200})
		}
	}
	closeLog(t, l)
}

// TestCommittedReaders runs transactions at random and compares what read_committed readers see, from any offset and
// with any size, with the fates of the records.
func TestCommittedReaders(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 5))
		fs := vfs.NewMem()
		opts := func(o *Options) { o.CacheBytes = 2 << 10 }
		cfg := Config{SegmentBytes: 700}
		l := open(t, fs, opts)
		p := create(t, l, 0, cfg)
		type fate struct {
			offset int64
			fate   string
		}
		var fates []fate
		seq := map[int64]int32{}
		inTxn := map[int64]bool{}
		for range 150 {
			pid := int64(1 + rng.IntN(5))
			if inTxn[pid] && rng.IntN(3) == 0 {
				commit := rng.IntN(2) == 0
				mark(t, l, p, pid, commit)
				inTxn[pid] = false
				for i := range fates {
					if fates[i].fate == fmt.Sprint("open", pid) {
						fates[i].fate = map[bool]string{true: "commit", false: "abort"}[commit]
					}
				}
				continue
			}
			inTxn[pid] = true
			s := spec{pid: pid, seq: seq[pid], txn: true, records: []rec{kv("k", strings.Repeat("x", rng.IntN(200))), kv("k", "")}}
			seq[pid] += 2
			base := put(t, l, p, s).BaseOffset
			for i := range s.records {
				fates = append(fates, fate{base + int64(i), fmt.Sprint("open", pid)})
			}
		}
		if rng.IntN(2) == 0 {
			closeLog(t, l)
			l = open(t, fs, opts)
			p = create(t, l, 0, cfg)
		}
		_, _, stable := p.Offsets()
		for range 30 {
			start := rng.Int64N(stable + 1)
			var got, want []int64
			for _, f := range fates {
				if f.fate == "commit" && f.offset >= start && f.offset < stable {
					want = append(want, f.offset)
				}
			}
			for from := start; from < stable; {
				f, err := p.Read(from, 50+rng.IntN(2000), true, true)
				if err != nil {
					t.Fatal(err)
				}
				var offsets []int64
				offsets, from = committed(&f, start)
				got = append(got, offsets...)
				f.Release()
			}
			if !slices.Equal(got, want) {
				t.Fatalf("seed %d: from %d on a committed reader sees %v, want %v", seed, start, got, want)
			}
		}
		closeLog(t, l)
	}
}

// committed is what a client makes of one answer: it drops the batches of the listed transactions up to their markers.
func committed(f *Fetched, start int64) (offsets []int64, next int64) {
	list := f.Aborted
	dropping := map[int64]bool{}
	for _, b := range f.Batches {
		h, _ := parseHeader(b)
		next = h.next()
		for len(list) > 0 && list[0].FirstOffset <= h.last() {
			dropping[list[0].ProducerID] = true
			list = list[1:]
		}
		if h.control() {
			if commit, _, _ := parseMarker(b); !commit {
				delete(dropping, h.pid)
			}
			continue
		}
		if h.txn() && dropping[h.pid] {
			continue
		}
		for o := max(h.base, start); o < next; o++ {
			offsets = append(offsets, o)
		}
	}
	return offsets, next
}

// TestDeletedIntoTxn deletes records up to the middle of an open transaction's batch: none of it may be seen.
func TestDeletedIntoTxn(t *testing.T) {
	l := open(t, vfs.NewMem())
	defer closeLog(t, l)
	p := create(t, l, 0, Config{})
	put(t, l, p, spec{pid: 1, txn: true, records: []rec{kv("k", "a"), kv("k", "b"), kv("k", "c")}})
	if _, err := p.DeleteRecords(1); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if start, hw, stable := p.Offsets(); start != 1 || hw != 3 || stable != 1 {
			t.Fatal(start, hw, stable)
		}
		if f, err := p.Read(1, 1000, true, true); err != nil || len(f.Batches) != 0 {
			t.Fatal(f, err)
		}
		if f, err := p.Read(1, 1000, false, true); err != nil || len(f.Batches) != 1 {
			t.Fatal(f, err)
		}
		if err := l.Checkpoint(); err != nil {
			t.Fatal(err)
		}
		l.budget.evict(0)
	}
	mark(t, l, p, 1, true)
	if got := values(t, p, true); !slices.Equal(got, []string{"b", "c"}) {
		t.Fatal(got)
	}
}

func TestWatch(t *testing.T) {
	l := open(t, vfs.NewMem())
	defer closeLog(t, l)
	p, q := create(t, l, 0, Config{}), create(t, l, 1, Config{})
	all, stable := NewWaiter(), NewWaiter()
	for _, x := range []*Partition{p, q} {
		x.Watch(false, all)
		x.Watch(true, stable)
	}
	woken := func(what string, wantAll, wantStable bool) {
		t.Helper()
		for _, x := range []struct {
			w    *Waiter
			want bool
		}{{all, wantAll}, {stable, wantStable}} {
			got := false
			select {
			case <-x.w.C:
				got = true
			default:
			}
			if got != x.want {
				t.Fatalf("%s: woken %v, want %v", what, got, x.want)
			}
		}
	}
	woken("nothing", false, false)
	put(t, l, p, spec{records: []rec{kv("k", "v")}})
	woken("a batch", true, true)
	put(t, l, q, spec{pid: 1, txn: true, records: []rec{kv("k", "v")}})
	woken("a batch of a transaction", true, false)
	put(t, l, q, spec{records: []rec{kv("k", "v")}})
	woken("a batch behind an open transaction", true, false)
	mark(t, l, q, 1, true)
	woken("its end", true, true)
	if _, err := p.DeleteRecords(1); err != nil {
		t.Fatal(err)
	}
	woken("deleted records", true, true)
	p.SetConfig(Config{})
	woken("configuration", true, true)
	q.Unwatch(all)
	q.Unwatch(stable)
	put(t, l, q, spec{records: []rec{kv("k", "v")}})
	woken("a batch nobody waits for", false, false)
	if err := l.DeletePartition(p.ID()); err != nil {
		t.Fatal(err)
	}
	woken("deletion", true, true)
}
