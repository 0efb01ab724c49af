package stream

import (
	"bytes"
	"testing"

	"github.com/moldau/moldau/serde"
)

func TestArenaCopies(t *testing.T) {
	a := &arena{}
	var in, out [][]byte
	for i := range 3000 {
		b := bytes.Repeat([]byte{byte(i)}, i*7%(arenaChunk/4)) // none, small ones, and some that get memory of their own
		in, out = append(in, b), append(out, a.copy(b))
	}
	for i := range out {
		if out[i] == nil || !bytes.Equal(in[i], out[i]) {
			t.Fatalf("copy %d differs", i)
		}
		if cap(out[i]) != len(out[i]) {
			t.Fatalf("copy %d has room behind it: an append would write into the next", i)
		}
		clear(in[i])
	}
	for i := range out {
		if len(out[i]) > 0 && byte(i) != 0 && out[i][0] != byte(i) {
			t.Fatalf("copy %d shares memory with what it was made of", i)
		}
	}
}

func TestBytesAreDecodedIntoAnArena(t *testing.T) {
	b := []byte("river")
	decode := decoder(serde.Bytes)
	if n := testing.AllocsPerRun(1000, func() { _, _ = decode(b) }); n >= 1 {
		t.Errorf("%v allocations a record", n)
	}
	if s, err := decoder(serde.String)(b); s != "river" || err != nil {
		t.Errorf("a string: %q, %v", s, err)
	}
}
