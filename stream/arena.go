package stream

import "github.com/moldau/moldau/serde"

// arena copies bytes into chunks: one allocation serves many records. A copy keeps its whole chunk alive, so chunks are
// small, and the stores keep no bytes of it beyond an epoch.
type arena struct{ chunk []byte }

const arenaChunk = 16 << 10

func (a *arena) copy(b []byte) []byte {
	if cap(a.chunk)-len(a.chunk) < len(b) || a.chunk == nil {
		if len(b) > arenaChunk/8 {
			return append(make([]byte, 0, len(b)), b...)
		}
		a.chunk = make([]byte, 0, arenaChunk)
	}
	n := len(a.chunk)
	a.chunk = append(a.chunk, b...)
	return a.chunk[n:len(a.chunk):len(a.chunk)]
}

// decoder is a serde's Decode for one task. For serde.Bytes, whose work is the allocation, it is the same with an arena.
func decoder[T any](s serde.Serde[T]) func([]byte) (T, error) {
	if any(s) != any(serde.Bytes) {
		return s.Decode
	}
	a := &arena{}
	return any(func(b []byte) ([]byte, error) { return a.copy(b), nil }).(func([]byte) (T, error))
}
