package log

import (
	"errors"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Both copies damaged are refused; one of them is not missed.
func TestCheckpointBitFlips(t *testing.T) {
	fs := vfs.NewCrashableMem()
	l := open(t, fs)
	p := create(t, l, 0, Config{})
	put(t, l, p, spec{pid: 1, txn: true, records: []rec{kv("k", "v")}})
	if _, err := submit(l, Write{Puts: []Put{{Kind: 1, Key: "k", Value: []byte("v")}}}); err != nil {
		t.Fatal(err)
	}
	closeLog(t, l)
	good := contents(t, fs, "broker/checkpoint")
	if !slices.Equal(good, contents(t, fs, "broker/checkpoint.copy")) {
		t.Fatal("the copy is another")
	}
	for at := range good {
		c := fs.CrashClone(vfs.CrashCloneCfg{})
		bad := slices.Clone(good)
		bad[at] ^= 1 << (at % 8)
		overwrite(t, c, checkpointPath(0), bad)
		if at%16 == 0 {
			l, err := Open(options(c))
			if err != nil {
				t.Fatalf("byte %d of one copy: %v", at, err)
			}
			if got := l.table.kinds[1]["k"]; string(got) != "v" {
				t.Fatalf("byte %d of one copy: the table has %q", at, got)
			}
			closeLog(t, l)
			if !slices.Equal(contents(t, c, "broker/checkpoint"), contents(t, c, "broker/checkpoint.copy")) {
				t.Fatalf("byte %d of one copy: it is not mended", at)
			}
		}
		overwrite(t, c, checkpointPath(0), bad)
		overwrite(t, c, checkpointPath(1), bad)
		if _, err := Open(options(c)); !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "broker/checkpoint") {
			t.Fatalf("byte %d: %v", at, err)
		}
	}
}

func checkpointPath(copy int) string { return "broker/" + checkpointNames[copy] }

// A checkpoint that is missing costs nothing while there is another, and is not taken for a new log if there is none.
func TestCheckpointMissing(t *testing.T) {
	for copies := range 3 {
		fs := vfs.NewCrashableMem()
		l := open(t, fs)
		p := create(t, l, 0, Config{})
		put(t, l, p, spec{records: []rec{kv("k", "v")}})
		closeLog(t, l)
		for i := range copies {
			if err := fs.Remove(checkpointPath(i)); err != nil {
				t.Fatal(err)
			}
		}
		l, err := Open(options(fs))
		if copies == 2 {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("no copy is left: %v", err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, hw, _ := create(t, l, 0, Config{}).Offsets(); hw != 1 {
			t.Errorf("%d copies missing: the partition ends at %d", copies, hw)
		}
		closeLog(t, l)
	}
}

// TestWaitNone shows what WaitNone means: data outside a transaction is durable nonetheless.
func TestWaitNone(t *testing.T) {
	fs := vfs.NewCrashableMem()
	l := open(t, fs)
	p := create(t, l, 0, Config{})
	put(t, l, p, spec{records: []rec{kv("k", "first")}})
	write := func(s spec) {
		t.Helper()
		done := make(chan error, 1)
		l.Submit(Write{Appends: []Append{{Partition: p, Batch: s.build(t)}}}, WaitNone, func(err error) { done <- err })
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	write(spec{pid: 1, txn: true, records: []rec{kv("k", "open")}})
	if c := fs.CrashClone(vfs.CrashCloneCfg{}); true {
		l := open(t, c)
		p := create(t, l, 0, Config{})
		if got := values(t, p, false); !slices.Equal(got, []string{"first"}) || !l.Recovery().MayHaveLost || p.LeaderEpoch() != 1 {
			t.Fatal(got, l.Recovery(), p.LeaderEpoch())
		}
		if epoch, end := p.EndOffsetForEpoch(0); epoch != 0 || end != 1 {
			t.Fatal(epoch, end)
		}
		put(t, l, p, spec{records: []rec{kv("k", "second")}})
		if epoch, end := p.EndOffsetForEpoch(1); epoch != 1 || end != 2 {
			t.Fatal(epoch, end)
		}
		if epoch, end := p.EndOffsetForEpoch(2); epoch != -1 || end != -1 {
			t.Fatal(epoch, end)
		}
		closeLog(t, l)
	}
	write(spec{records: []rec{kv("k", "outside")}})
	l2 := open(t, fs.CrashClone(vfs.CrashCloneCfg{}))
	if got := values(t, create(t, l2, 0, Config{}), false); !slices.Equal(got, []string{"first", "open", "outside"}) {
		t.Fatal(got)
	}
	closeLog(t, l2)
	closeLog(t, l)
}

// TestBootID says that a kill loses nothing that was written, and a log that knows it keeps its epoch.
func TestBootID(t *testing.T) {
	fs := vfs.NewCrashableMem()
	boot := func(id string) func(*Options) { return func(o *Options) { o.BootID = id } }
	l := open(t, fs, boot("one"))
	p := create(t, l, 0, Config{})
	put(t, l, p, spec{records: []rec{kv("k", "v")}})
	fs = crash(t, l, fs)
	l = open(t, fs, boot("one"))
	if r := l.Recovery(); r.Clean || r.MayHaveLost || l.epoch != 0 {
		t.Fatal(r, l.epoch)
	}
	put(t, l, create(t, l, 0, Config{}), spec{records: []rec{kv("k", "v")}})
	fs = crash(t, l, fs)
	l = open(t, fs, boot("two"))
	if r := l.Recovery(); r.Clean || !r.MayHaveLost || l.epoch != 1 {
		t.Fatal(r, l.epoch)
	}
	closeLog(t, l)
	l = open(t, fs, boot("three"))
	if r := l.Recovery(); !r.Clean || r.MayHaveLost || l.epoch != 1 {
		t.Fatal(r, l.epoch)
	}
	closeLog(t, l)
}

// A write that was ordered when a checkpoint began, and then failed, must not be part of it: what is written at its offsets later
// would be passed over by the next start.
func TestCheckpointOfAFailedWrite(t *testing.T) {
	fs := vfs.NewCrashableMem()
	disk := &stuckDisk{FS: fs, reached: make(chan struct{}), goOn: make(chan struct{})}
	set := func(o *Options) { o.BootID = "one" }
	l := open(t, disk, set)
	p := create(t, l, 0, Config{})
	put(t, l, p, spec{records: []rec{kv("k", "a")}})
	disk.stuck.Store(true)
	failed := make(chan error, 1)
	go func() {
		_, err := submit(l, Write{Appends: []Append{{Partition: p, Batch: spec{records: []rec{kv("k", "x"), kv("k", "y"), kv("k", "z")}}.build(t)}}})
		failed <- err
	}()
	<-disk.reached
	l.table.mu.Lock() // holds the checkpoint where it has seen what is ordered
	checkpointed := make(chan error, 1)
	go func() { checkpointed <- l.Checkpoint() }()
	for stack := make([]byte, 1<<20); !strings.Contains(string(stack[:runtime.Stack(stack, true)]), "(*table).clone"); {
		runtime.Gosched()
	}
	close(disk.goOn)
	if err := <-failed; err == nil {
		t.Fatal("a failed write is acknowledged")
	}
	put(t, l, p, spec{records: []rec{kv("k", "b")}})
	l.table.mu.Unlock()
	if err := <-checkpointed; err == nil {
		t.Error("the checkpoint shows a write that was taken back")
	}
	killed := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
	if err := l.Checkpoint(); err != nil {
		t.Error("again:", err)
	}
	closeLog(t, l)
	for what, fs := range map[string]*vfs.MemFS{"killed": killed, "stopped": fs} {
		l := open(t, fs, set)
		if got := values(t, create(t, l, 0, Config{}), false); !slices.Equal(got, []string{"a", "b"}) {
			t.Errorf("%s: read %q", what, got)
		}
		closeLog(t, l)
	}
}

// stuckDisk takes its time with one write of the write-ahead log, and then refuses it.
type stuckDisk struct {
	vfs.FS
	stuck         atomic.Bool
	reached, goOn chan struct{}
}

func (d *stuckDisk) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	f, err := d.FS.OpenReadWrite(name, c, o...)
	if strings.Contains(name, "/wal/") {
		return stuckFile{f, d}, err
	}
	return f, err
}

type stuckFile struct {
	vfs.File
	d *stuckDisk
}

func (f stuckFile) WriteAt(b []byte, off int64) (int, error) {
	if f.d.stuck.CompareAndSwap(true, false) {
		close(f.d.reached)
		<-f.d.goOn
		return 0, syscall.ENOSPC
	}
	return f.File.WriteAt(b, off)
}
