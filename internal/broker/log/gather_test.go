package log

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestGather writes frames of batches small and large, and compares with what one copy of everything would have been.
func TestGather(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for range 200 {
		g := gather{min: 1 + rng.IntN(2000)}
		whole := gather{min: 1 << 30}
		for range rng.IntN(5) {
			m, n := g.beginFrame(), whole.beginFrame()
			var drop *place
			for range rng.IntN(5) {
				if drop == nil && rng.IntN(5) == 0 {
					at := g.mark()
					drop = &at
				}
				b := spec{records: []rec{kv("k", string(bytes.Repeat([]byte("v"), rng.IntN(4000))))}}.build(t)
				setBase(b, rng.Int64(), 3)
				g.batchItem(id(1, 0), b)
				if drop == nil {
					whole.batchItem(id(1, 0), b)
				}
			}
			if drop != nil {
				g.cut(*drop)
			}
			at := makeLSN(1, m.size())
			g.endFrame(m, at, 7, 1)
			whole.endFrame(n, at, 7, 1)
		}
		fs := vfs.NewMem()
		f, err := fs.OpenReadWrite("f", vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		size := g.size()
		if err := g.write(f, 0, new(int64), 1<<20); err != nil {
			t.Fatal(err)
		}
		got, err := readFile(fs, "f")
		if err != nil || !bytes.Equal(got, whole.buf) || int64(len(got)) != size {
			t.Fatalf("%d bytes, want %d, %v", len(got), len(whole.buf), err)
		}
		if g.size() != 0 {
			t.Fatal("something is left")
		}
	}
}

func TestJoinChecksums(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for range 1000 {
		b := make([]byte, rng.IntN(1+rng.IntN(1<<16)))
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		at := rng.IntN(len(b) + 1)
		if got, want := joinChecksums(checksum(b[:at]), checksum(b[at:]), len(b)-at), checksum(b); got != want {
			t.Fatalf("%d and %d bytes: %x, want %x", at, len(b)-at, got, want)
		}
	}
}
