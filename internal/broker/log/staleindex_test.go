package log

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A power loss leaves an index that knows batches which were lost. Others take their place while the log is recovered, enough
// to begin another segment, and a second power loss takes back what was saved of those.
func TestStaleIndex(t *testing.T) {
	set := func(o *Options) { o.CacheBytes, o.SegmentBytes = 1<<10, 1500 }
	fs := vfs.NewCrashableMem()
	l := open(t, fs, set)
	p := create(t, l, 0, Config{})
	add := func(i int) {
		put(t, l, p, spec{records: []rec{kv("k", fmt.Sprint(i)+strings.Repeat("x", 200))}})
	}
	add(0)
	if err := l.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	for i := range 12 {
		add(i + 1)
	}
	path := p.segs[0].indexPath()
	after := fs.CrashClone(vfs.CrashCloneCfg{})
	closeLog(t, l)

	stale := appendIndexEntry(nil, &block{len: 777, maxTS: 1000, sum: 1})
	if err := errors.Join(writeFile(after, path, stale), syncDir(after, after.PathDir(path))); err != nil {
		t.Fatal(err)
	}
	l = open(t, after, set)
	create(t, l, 0, Config{})
	if err := l.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	last := after.CrashClone(vfs.CrashCloneCfg{})
	closeLog(t, l)

	l = open(t, last, set)
	defer closeLog(t, l)
	p = create(t, l, 0, Config{})
	if len(p.segs) < 2 {
		t.Fatal("one segment only, this shows nothing")
	}
	if got := values(t, p, false); len(got) != 13 {
		t.Fatalf("%d records", len(got))
	}
}
