package log

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/twmb/franz-go/pkg/kerr"
)

func TestLocked(t *testing.T) {
	for name, fs := range map[string]vfs.FS{"memory": vfs.NewMem(), "disk": vfs.Default} {
		dir := "broker"
		if fs == vfs.Default {
			dir = t.TempDir()
		}
		set := func(o *Options) { o.Dir = dir }
		l := open(t, fs, set)
		if _, err := Open(options(fs, set)); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v", name, err)
		}
		closeLog(t, l)
		closeLog(t, open(t, fs, set))
	}
}

func TestUnknownFormat(t *testing.T) {
	fs := vfs.NewMem()
	closeLog(t, open(t, fs))
	overwrite(t, fs, "broker/format", []byte("moldau broker log 3\n"))
	if _, err := Open(options(fs)); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "broker/format") {
		t.Fatal(err)
	}
}

// A directory of the format before is taken as it is, and then it is one of this format, which versions before this one refuse,
// also after a power loss.
func TestFormatBefore(t *testing.T) {
	fs := vfs.NewCrashableMem()
	l := open(t, fs)
	p := create(t, l, 0, Config{})
	want := fill(t, l, p, 3)
	closeLog(t, l)
	overwrite(t, fs, "broker/format", []byte("moldau broker log 1\n"))
	l = open(t, fs)
	after := fs.CrashClone(vfs.CrashCloneCfg{})
	if got := values(t, create(t, l, 0, Config{}), false); !slices.Equal(got, want) {
		t.Errorf("read %q, want %q", got, want)
	}
	closeLog(t, l)
	if b, err := readFile(after, "broker/format"); err != nil || string(b) != "moldau broker log 2\n" {
		t.Errorf("the directory says %q (%v)", b, err)
	}
}

func TestBadOptions(t *testing.T) {
	_, err := Open(Options{Durability: 7, WALBytes: -1})
	if err == nil || !strings.Contains(err.Error(), "Dir") || !strings.Contains(err.Error(), "durability 7") || !strings.Contains(err.Error(), "WALBytes") {
		t.Fatal(err)
	}
}

// fill writes n records of some size, acknowledged one by one.
func fill(t *testing.T, l *Log, p *Partition, n int) (want []string) {
	t.Helper()
	for i := range n {
		v := fmt.Sprintf("%d %s", i, strings.Repeat("x", i*37%200))
		put(t, l, p, spec{records: []rec{kv("k", v)}})
		want = append(want, v)
	}
	return want
}

// crash leaves l as if the process had been killed, and returns the file system for the next one.
func crash(t *testing.T, l *Log, fs *vfs.MemFS) *vfs.MemFS {
	t.Helper()
	clone := fs.CrashClone(vfs.CrashCloneCfg{})
	closeLog(t, l)
	return clone
}

// TestWALBitFlips flips every byte of a write-ahead log, one at a time, and opens it: either nothing is missing, or the
// last writes are, which no later frame calls synced, or it is refused.
func TestWALBitFlips(t *testing.T) {
	fs := vfs.NewCrashableMem()
	l := open(t, fs)
	want := fill(t, l, create(t, l, 0, Config{}), 12)
	path := "broker/wal/" + walName(1)
	fs = crash(t, l, fs)
	good := contents(t, fs, path)
	end := len(bytes.TrimRight(good, "\x00"))
	last := 0 // where the last frame starts
	for at := 0; ; {
		fr, ok := parseFrame(good[at:], makeLSN(1, int64(at)))
		if !ok {
			break
		}
		last = at
		at += int(fr.size)
	}
	refused := 0
	for at := range end {
		bad := slices.Clone(good)
		bad[at] ^= 1 << (at % 8)
		c := fs.CrashClone(vfs.CrashCloneCfg{})
		overwrite(t, c, path, bad)
		l, err := Open(options(c))
		if err != nil {
			if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), walName(1)) || !strings.Contains(err.Error(), "AllowTruncate") {
				t.Fatalf("byte %d: %v", at, err)
			}
			refused++
			// The way out the error names.
			if l, err = Open(options(c, func(o *Options) { o.AllowTruncate = true })); err != nil {
				t.Fatalf("byte %d: %v", at, err)
			}
			got := values(t, create(t, l, 0, Config{}), false)
			if len(got) >= len(want) || !slices.Equal(got, want[:len(got)]) {
				t.Fatalf("byte %d: %d records, not the first of what was written", at, len(got))
			}
			closeLog(t, l)
			closeLog(t, open(t, c))
			continue
		}
		got := values(t, create(t, l, 0, Config{}), false)
		lost := len(want) - len(got)
		if !slices.Equal(got, want[:len(got)]) || lost > 1 || lost == 1 && at < last {
			t.Fatalf("byte %d of %d: %d of %d records, silently", at, end, len(got), len(want))
		}
		closeLog(t, l)
	}
	if refused == 0 {
		t.Fatal("never refused")
	}
	t.Logf("%d of %d flips refused", refused, end)
}

// TestTornTail cuts the write-ahead log at every byte, as a power loss in the middle of a write may, with zeros or
// remains of an earlier use behind.
func TestTornTail(t *testing.T) {
	fs := vfs.NewCrashableMem()
	l := open(t, fs)
	want := fill(t, l, create(t, l, 0, Config{}), 6)
	path := "broker/wal/" + walName(1)
	fs = crash(t, l, fs)
	good := contents(t, fs, path)
	for at := range len(bytes.TrimRight(good, "\x00")) + 16 {
		for _, junk := range []byte{0, 0xff} {
			c := fs.CrashClone(vfs.CrashCloneCfg{})
			overwrite(t, c, path, append(slices.Clone(good[:at]), bytes.Repeat([]byte{junk}, len(good)-at)...))
			l, err := Open(options(c))
			if err != nil {
				t.Fatalf("cut at %d: %v", at, err)
			}
			p := create(t, l, 0, Config{})
			got := values(t, p, false)
			if len(got) > len(want) || !slices.Equal(got, want[:len(got)]) {
				t.Fatalf("cut at %d: %q", at, got)
			}
			put(t, l, p, spec{records: []rec{kv("k", "more")}})
			c = crash(t, l, c)
			l = open(t, c)
			if again := values(t, create(t, l, 0, Config{}), false); !slices.Equal(again, append(got, "more")) {
				t.Fatalf("cut at %d: %q, then %q", at, got, again)
			}
			closeLog(t, l)
		}
	}
}

// TestSegmentBitFlips flips bits all over a segment and its index: readers get an error or what was written, never
// anything else, and writing goes on.
func TestSegmentBitFlips(t *testing.T) {
	for _, compacted := range []bool{false, true} {
		fs := vfs.NewCrashableMem()
		cfg := Config{SegmentBytes: 6 << 10, Compact: compacted}
		l := open(t, fs)
		p := create(t, l, 0, cfg)
		for i := range 80 {
			put(t, l, p, spec{records: []rec{kv(fmt.Sprint(i%40), strings.Repeat(fmt.Sprint(i), 30)), kv(fmt.Sprint("once", i), "")}})
		}
		if err := l.Checkpoint(); err != nil {
			t.Fatal(err)
		}
		if compacted {
			if err := p.Compact(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
		want := values(t, p, false)
		closeLog(t, l)
		detected, harmless := 0, 0
		rng := rand.New(rand.NewPCG(1, 1))
		for path := range segmentFilesOf(t, fs) {
			good := contents(t, fs, path)
			for range 150 {
				bad := slices.Clone(good)
				bad[rng.IntN(len(bad))] ^= 1 << rng.IntN(8)
				c := fs.CrashClone(vfs.CrashCloneCfg{})
				overwrite(t, c, path, bad)
				l := open(t, c)
				p := create(t, l, 0, cfg)
				got, err := readAll(p)
				switch {
				case errors.Is(err, kerr.CorruptMessage) && errors.Is(err, ErrCorrupt) && strings.Contains(err.Error(), "broker/partitions/"):
					detected++
				case err != nil:
					t.Fatalf("%s: %v", path, err)
				case !slices.Equal(got, want):
					t.Fatalf("%s: other records, silently: %d, want %d: %.300q %.300q", path, len(got), len(want), got, want)
				default:
					harmless++
				}
				put(t, l, p, spec{records: []rec{kv("new", "new")}})
				if err := l.Checkpoint(); err != nil {
					t.Fatal(err)
				}
				if f, err := p.Read(160, 1<<20, false, true); err != nil || len(f.Batches) == 0 {
					t.Fatalf("what is new cannot be read: %v", err)
				}
				closeLog(t, l)
			}
		}
		t.Logf("compacted %v: %d flips detected, %d in the index and healed", compacted, detected, harmless)
		if detected == 0 {
			t.Fatal("no flip was detected")
		}
	}
}

func readAll(p *Partition) (list []string, err error) {
	start, hw, _ := p.Offsets()
	for from := start; from < hw; {
		f, err := p.Read(from, 4<<10, false, true)
		if err != nil {
			return nil, err
		}
		for _, b := range f.Batches {
			h, _ := parseHeader(b)
			if h.next() <= from || h.epoch > p.LeaderEpoch() {
				return nil, fmt.Errorf("batch %d to %d of epoch %d where %d was read", h.base, h.last(), h.epoch, from)
			}
			from = h.next()
			if err := eachRecord(b[batchHeader:], h.count, func(r *record) bool {
				list = append(list, string(r.value))
				return true
			}); err != nil {
				return nil, err
			}
		}
		f.Release()
	}
	return list, nil
}

func segmentFilesOf(t *testing.T, fs vfs.FS) map[string]bool {
	t.Helper()
	list := map[string]bool{}
	dirs, err := fs.List("broker/partitions")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range dirs {
		files, err := fs.List("broker/partitions/" + d)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			list["broker/partitions/"+d+"/"+f] = true
		}
	}
	return list
}

// referring has batches from some size on written once, to their segments.
func referring(o *Options, size int) { o.Durability, o.LargeBatch, o.BootID = OS, size, "boot" }

// kill leaves what the operating system has of a process.
func kill(fs *vfs.MemFS) *vfs.MemFS {
	return fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
}

// TestDiskFull fills the disk now and then: writes fail, nothing else does, and nothing that was acknowledged is lost.
func TestDiskFull(t *testing.T) {
	for seed := range uint64(80) {
		refers := seed%2 == 1
		rng := rand.New(rand.NewPCG(seed, 9))
		var full atomic.Bool
		mem := vfs.NewCrashableMem()
		fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
			switch op.Kind {
			case errorfs.OpFileWrite, errorfs.OpFileWriteAt, errorfs.OpCreate, errorfs.OpMkdirAll:
				if full.Load() {
					return syscall.ENOSPC
				}
			}
			return nil
		}))
		set := func(o *Options) {
			if o.WALBytes, o.CacheBytes, o.SegmentBytes = 2<<10, 2<<10, 1<<10; refers {
				referring(o, 120)
			}
		}
		l := open(t, fs, set)
		p, q := create(t, l, 0, Config{}), create(t, l, 1, Config{})
		var want [2][]string
		var seq [2]int32

		healed := 0
		for i := range 120 {
			if rng.IntN(15) == 0 {
				full.Store(!full.Load())
				healed = i
			}
			v := fmt.Sprint(i, strings.Repeat("x", rng.IntN(100)))
			s := [2]spec{{pid: 1, seq: seq[0], records: []rec{kv("k", v)}}, {pid: 1, seq: seq[1], records: []rec{kv("k", v)}}}
			r, err := submit(l, Write{Appends: []Append{{Partition: p, Batch: s[0].build(t)}, {Partition: q, Batch: s[1].build(t)}}})
			if r[0].Err != nil || r[1].Err != nil {
				t.Fatalf("seed %d, write %d: %+v", seed, i, r)
			}
			switch {
			case err == nil:
				for k := range want {
					want[k] = append(want[k], v)
					seq[k]++
				}
			case errors.Is(err, kerr.KafkaStorageError) && errors.Is(err, syscall.ENOSPC) && (full.Load() || i-healed < 2):
				// The first write behind a full disk may hear of a flush that began before.

			default:
				t.Fatalf("seed %d, write %d: %v", seed, i, err)
			}
			for k, x := range []*Partition{p, q} {
				if got := values(t, x, false); !slices.Equal(got, want[k]) {
					t.Fatalf("seed %d, write %d: partition %d has %d records, want %d", seed, i, k, len(got), len(want[k]))
				}
			}
		}
		full.Store(false)
		switch {
		case rng.IntN(2) == 0:
			closeLog(t, l)
		case refers:
			clone := kill(mem)
			closeLog(t, l)
			mem = clone
		default:
			mem = crash(t, l, mem)
		}
		l = open(t, mem, set)
		for k := range want {
			x := create(t, l, int32(k), Config{})
			got := values(t, x, false)
			// A write that failed for lack of space may be found by a later start: it was whole, and nothing followed.
			if len(got) > len(want[k]) {
				got = got[:len(want[k])]
			}
			if !slices.Equal(got, want[k]) {
				t.Fatalf("seed %d: partition %d has %d records, want %d", seed, k, len(got), len(want[k]))
			}
		}
		closeLog(t, l)
	}
}

// TestFailedSync lets the n-th sync fail: nothing is acknowledged from then on, reads go on, and what was acknowledged
// is there when the log is opened again.
func TestFailedSync(t *testing.T) {
	for n := range 12 {
		var syncs atomic.Int64
		mem := vfs.NewCrashableMem()
		fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind == errorfs.OpFileSyncData && strings.Contains(op.Path, ".wal") && syncs.Add(1) == int64(n)+3 {
				return syscall.EIO
			}
			return nil
		}))
		l := open(t, fs)
		p := create(t, l, 0, Config{})
		var want []string
		var err error
		for i := 0; err == nil && i < 100; i++ {
			v := fmt.Sprint(i)
			if _, err = submit(l, Write{Appends: []Append{{Partition: p, Batch: spec{records: []rec{kv("k", v)}}.build(t)}}}); err == nil {
				want = append(want, v)
			}
		}
		if !errors.Is(err, kerr.KafkaStorageError) || !errors.Is(err, syscall.EIO) {
			t.Fatalf("sync %d: %v behind %d writes", n, err, len(want))
		}
		r, err := submit(l, Write{Appends: []Append{{Partition: p, Batch: spec{records: []rec{kv("k", "late")}}.build(t)}}})
		if !errors.Is(err, kerr.KafkaStorageError) || !errors.Is(r[0].Err, kerr.KafkaStorageError) {
			t.Fatalf("a write behind a failed sync: %v, %v", r, err)
		}
		if _, err := p.DeleteRecords(1); n > 0 && !errors.Is(err, kerr.KafkaStorageError) {
			t.Fatalf("deleted records behind a failed sync: %v", err)
		}
		if got := values(t, p, false); !slices.Equal(got, want) {
			t.Fatalf("sync %d: %q, want %q", n, got, want)
		}
		_ = l.Close()
		l = open(t, mem.CrashClone(vfs.CrashCloneCfg{}))
		got := values(t, create(t, l, 0, Config{}), false)
		if len(got) < len(want) || !slices.Equal(got[:len(want)], want) {
			t.Fatalf("sync %d: %q, want %q", n, got, want)
		}
		closeLog(t, l)
	}
}

// TestEveryError lets each operation on the file system fail once, in turn: what is acknowledged must be there.
func TestEveryError(t *testing.T) {
	t.Run("sync", func(t *testing.T) { everyError(t, false) })
	t.Run("os", func(t *testing.T) { everyError(t, true) })
}

func everyError(t *testing.T, refers bool) {
	kinds := map[errorfs.OpKind]int{}
	for n := int64(0); ; n++ {
		var ops atomic.Int64
		mem := vfs.NewCrashableMem()
		fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if ops.Add(1)-1 == n {
				kinds[op.Kind]++
				return syscall.EIO
			}
			return nil
		}))
		set := func(o *Options) {
			if o.WALBytes, o.CacheBytes, o.SegmentBytes = 1<<10, 1<<10, 512; refers {
				referring(o, 100)
			}
		}
		var want []string
		l, err := Open(options(fs, set))
		if err == nil {
			p := create(t, l, 0, Config{})
			for i := range 30 {
				v := fmt.Sprint(i)
				if refers {
					v += strings.Repeat("x", i%3*30)
				}
				if _, err := submit(l, Write{Appends: []Append{{Partition: p, Batch: spec{records: []rec{kv("k", v)}}.build(t)}}}); err == nil {
					want = append(want, v)
				}
			}
			if !refers || n%2 == 0 {
				_ = l.Checkpoint()
			}
			killed := kill(mem)
			if _ = l.Close(); refers {
				mem = killed
			}
		}
		if !refers {
			mem = mem.CrashClone(vfs.CrashCloneCfg{})
		}
		l = open(t, mem, set)
		got := values(t, create(t, l, 0, Config{}), false)
		closeLog(t, l)
		left := want
		for _, v := range got {
			if len(left) > 0 && left[0] == v {
				left = left[1:]
			}
		}
		if len(left) > 0 {
			t.Fatalf("operation %d: %q, want %q", n, got, want)
		}
		if ops.Load() <= n {
			t.Logf("%d operations: %v", n, kinds)
			return
		}
	}
}

func contents(t *testing.T, fs vfs.FS, path string) []byte {
	t.Helper()
	b, err := readFile(fs, path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func overwrite(t *testing.T, fs vfs.FS, path string, b []byte) {
	t.Helper()
	if err := writeFile(fs, path, b); err != nil {
		t.Fatal(err)
	}
	if err := syncDir(fs, fs.PathDir(path)); err != nil {
		t.Fatal(err)
	}
}
