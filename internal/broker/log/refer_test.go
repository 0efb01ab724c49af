package log

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A large batch is written once under OS, and survives what OS promises it survives.
func TestReferences(t *testing.T) {
	boot := "one"
	set := func(o *Options) { o.Durability, o.LargeBatch, o.BootID = OS, 500, boot }
	fs := vfs.NewCrashableMem()
	l := open(t, fs, set)
	p := create(t, l, 0, Config{})
	var want []string
	add := func(n int) {
		v := fmt.Sprint(len(want), strings.Repeat("x", n))
		put(t, l, p, spec{records: []rec{kv("k", v)}})
		want = append(want, v)
	}
	for range 10 {
		add(1000)
		add(10)
	}
	add(1000)
	if at := lsn(l.published.Load()); at.file() != 1 || at.off() > 6000 {
		t.Fatalf("the log is at %s", at)
	}
	if got := values(t, p, false); !slices.Equal(got, want) {
		t.Fatal(got)
	}
	path := p.segs[0].path()
	everything := func() *vfs.MemFS {
		return fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
	}
	killed, damaged, off := everything(), everything(), fs.CrashClone(vfs.CrashCloneCfg{})
	closeLog(t, l)

	l = open(t, killed, set)
	p = create(t, l, 0, Config{})
	if got := values(t, p, false); !slices.Equal(got, want) || l.Recovery().MayHaveLost {
		t.Fatal("after a kill", got, l.Recovery())
	}
	// What the log referred to is in a checkpoint now: it may be acknowledged under Sync from here on.
	after := killed.CrashClone(vfs.CrashCloneCfg{})
	closeLog(t, l)
	boot = "two"
	l = open(t, after, func(o *Options) { o.BootID = boot })
	p = create(t, l, 0, Config{})
	if got := values(t, p, false); !slices.Equal(got, want) {
		t.Fatal("after a kill and a power loss", got)
	}
	closeLog(t, l)

	// Nothing was synced but the first write.
	l = open(t, off, set)
	p = create(t, l, 0, Config{})
	if got := values(t, p, false); len(got) > 0 || !l.Recovery().MayHaveLost {
		t.Fatal("after a power loss", got, l.Recovery())
	}
	closeLog(t, l)

	// Without a power loss nothing may be missing.
	boot = "one"
	b := contents(t, damaged, path)
	b[len(b)-20] ^= 1
	overwrite(t, damaged, path, b)
	if _, err := Open(options(damaged, set)); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), path) {
		t.Fatal(err)
	}
	l = open(t, damaged, func(o *Options) { set(o); o.AllowTruncate = true })
	p = create(t, l, 0, Config{})
	if got := values(t, p, false); !slices.Equal(got, want[:len(want)-1]) {
		t.Fatal("truncated", got)
	}
	closeLog(t, l)
}

// A reference that could not be acknowledged, since the write of the log failed behind it, does not stop the next start: its
// place in the segment is used again only once the log says that it does not count.
func TestReferenceOfAFailedWrite(t *testing.T) {
	fs := vfs.NewCrashableMem()
	disk := &failingDisk{FS: fs}
	set := func(o *Options) { o.Durability, o.LargeBatch, o.BootID = OS, 500, "one" }
	l := open(t, disk, set)
	p := create(t, l, 0, Config{})
	large := func(x string) spec { return spec{records: []rec{kv("k", strings.Repeat(x, 1000))}} }
	put(t, l, p, large("a"))
	disk.mu.Lock()
	disk.fail = true
	disk.mu.Unlock()
	if _, err := submit(l, Write{Appends: []Append{{Partition: p, Batch: large("b").build(t)}}}); err == nil {
		t.Fatal("a failed write is acknowledged")
	}
	put(t, l, p, large("c"))
	closeLog(t, l)
	if len(disk.images) == 0 {
		t.Fatal("nothing was written after the failure")
	}
	for i, image := range disk.images {
		l, err := Open(options(image, set))
		if err != nil {
			t.Fatalf("after write %d: %v", i, err)
		}
		got := values(t, create(t, l, 0, Config{}), false)
		if len(got) == 0 || len(got) > 2 || got[0][0] != 'a' {
			t.Errorf("after write %d: %d records", i, len(got))
		}
		closeLog(t, l)
	}
}

// A partition that began after a checkpoint did is compacted before the checkpoint ends. It is not in the checkpoint: what the log
// refers to must outlast it.
func TestReferenceToCompacted(t *testing.T) {
	fs := vfs.NewCrashableMem()
	disk := &slowDisk{FS: fs, reached: make(chan struct{}), goOn: make(chan struct{})}
	set := func(o *Options) { referring(o, 120) }
	l := open(t, disk, set)
	first := create(t, l, 0, Config{})
	for range 2 { // the first write is synced
		put(t, l, first, spec{records: []rec{kv("k", "v")}})
	}
	disk.slow.Store(true)
	checkpointed := make(chan error, 1)
	go func() { checkpointed <- l.Checkpoint() }()
	<-disk.reached
	p := create(t, l, 1, Config{Compact: true, SegmentBytes: 600})
	for i := range 10 {
		put(t, l, p, spec{records: []rec{kv("k", fmt.Sprint(i, strings.Repeat("x", 200)))}})
	}
	referred := p.segs[0].path()
	if err := p.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	put(t, l, first, spec{records: []rec{kv("k", strings.Repeat("x", 200))}})
	close(disk.goOn)
	if err := <-checkpointed; err != nil {
		t.Fatal(err)
	}
	// Nor may a power loss take it, as it would take segments that are said to hold what comes later.
	lost, err := Open(options(fs.CrashClone(vfs.CrashCloneCfg{}), func(o *Options) { set(o); o.BootID = "another" }))
	if err != nil {
		t.Fatal("after a power loss: ", err)
	}
	closeLog(t, lost)
	if there, err := exists(fs, referred); err != nil || !there {
		t.Errorf("%s is gone, the log is replayed from before it was written: %v", referred, err)
	}
	if err := l.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	if there, err := exists(fs, referred); err != nil || there {
		t.Errorf("%s is there still: %v", referred, err)
	}
	closeLog(t, l)
}

// slowDisk takes its time with one sync of the write-ahead log.
type slowDisk struct {
	vfs.FS
	slow          atomic.Bool
	reached, goOn chan struct{}
}

func (d *slowDisk) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	f, err := d.FS.OpenReadWrite(name, c, o...)
	if strings.Contains(name, "/wal/") {
		return slowFile{f, d}, err
	}
	return f, err
}

type slowFile struct {
	vfs.File
	d *slowDisk
}

func (f slowFile) SyncData() error {
	if f.d.slow.CompareAndSwap(true, false) {
		close(f.d.reached)
		<-f.d.goOn
	}
	return f.File.SyncData()
}

// failingDisk writes to the log once and says that it has not; from then on it keeps what a kill would leave before each write.
type failingDisk struct {
	vfs.FS
	mu           sync.Mutex
	fail, failed bool
	images       []*vfs.MemFS
}

func (d *failingDisk) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	f, err := d.FS.OpenReadWrite(name, c, o...)
	return failingFile{f, d, strings.Contains(name, "/wal/")}, err
}

type failingFile struct {
	vfs.File
	d   *failingDisk
	wal bool
}

func (f failingFile) WriteAt(b []byte, off int64) (int, error) {
	d := f.d
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.failed {
		d.images = append(d.images, d.FS.(*vfs.MemFS).CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))}))
	}
	n, err := f.File.WriteAt(b, off)
	if d.fail && f.wal {
		d.fail, d.failed = false, true
		return n, errors.New("input/output error")
	}
	return n, err
}
