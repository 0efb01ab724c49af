package log

import (
	"bytes"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// counted is memory that becomes useless at once when nobody holds it.
type counted struct {
	holders atomic.Int32
	b       []byte
}

func (c *counted) Hold() { c.holders.Add(1) }
func (c *counted) Release() {
	if c.holders.Add(-1) == 0 {
		clear(c.b)
	}
}

// Batches stay whole in memory that is used again, as long as the log or a reader needs them.
func TestMemory(t *testing.T) {
	l := open(t, vfs.NewMem(), func(o *Options) { o.CacheBytes, o.LargeBatch = 4<<10, 500 })
	defer closeLog(t, l)
	p := create(t, l, 0, Config{})
	add := func() (*counted, []byte) {
		batch := spec{records: []rec{kv("k", string(bytes.Repeat([]byte("v"), 900)))}}.build(t)
		mem := &counted{b: batch}
		mem.Hold()
		results, err := submit(l, Write{Appends: []Append{{Partition: p, Batch: batch, Memory: mem}}})
		if err != nil || results[0].Err != nil {
			t.Fatal(err, results[0].Err)
		}
		copied := bytes.Clone(batch)
		mem.Release()
		return mem, copied
	}
	evict := func() {
		if err := l.Checkpoint(); err != nil {
			t.Fatal(err)
		}
		l.budget.evict(0)
	}

	mem, want := add()
	if mem.holders.Load() != 1 || !bytes.Equal(mem.b, want) {
		t.Fatalf("%d holders while the log needs it", mem.holders.Load())
	}
	f, err := p.Read(0, 1<<20, false, true)
	if err != nil || len(f.Batches) != 1 {
		t.Fatal(len(f.Batches), err)
	}
	evict()
	if mem.holders.Load() != 1 || !bytes.Equal(f.Batches[0], want) {
		t.Fatalf("%d holders while a reader needs it", mem.holders.Load())
	}
	f.Release()
	f.Release()
	if mem.holders.Load() != 0 {
		t.Fatalf("%d holders, nobody needs it", mem.holders.Load())
	}
	f, err = p.Read(0, 1<<20, false, true)
	if err != nil || len(f.Batches) != 1 || !bytes.Equal(f.Batches[0], want) {
		t.Fatalf("from the segment: %d batches, %v", len(f.Batches), err)
	}
	f.Release()

	// A refused one is not held, nor is one that is not kept as it came.
	p.SetConfig(Config{Compression: Zstd})
	if mem, _ = add(); mem.holders.Load() != 0 {
		t.Fatalf("%d holders of what was compressed anew", mem.holders.Load())
	}
	p.SetConfig(Config{})
	for range 20 {
		add()
	}
	evict()
	if got := values(t, p, false); len(got) != 22 {
		t.Fatalf("%d records", len(got))
	}
}
