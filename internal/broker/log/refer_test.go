package log

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A large batch is written once under OS, and survives what OS promises it survives.
func TestReferences(t *testing.T) {
	boot := "one"
	set := func(o *Options) { o.Durability, o.largeBatch, o.BootID = OS, 500, boot }
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
