package wire

import "testing"

func TestBuffers(t *testing.T) {
	var p Buffers
	last := -1 << 30
	for n := 1; n < 20<<20; n += 1 + n/100 {
		i, size := class(n)
		if size < n || n > 100 && size > n+n/4 || i < last || i > last+1 && n > 100 {
			t.Fatalf("%d bytes: class %d behind %d, %d bytes", n, i, last, size)
		}
		last = i
		b := p.get(n)
		if len(b.B) != n || (b.home != nil) != (size > 1<<minPooled-1 && size < 1<<maxPooled) {
			t.Fatalf("%d bytes: %d, kept %v", n, len(b.B), b.home != nil)
		}
	}
	b := p.get(100 << 10)
	b.Hold()
	b.Release()
	if b.refs.Load() != 1 {
		t.Fatal("somebody holds it")
	}
	b.Release()
	defer func() {
		if recover() == nil {
			t.Fatal("released too often")
		}
	}()
	b.Release()
}
