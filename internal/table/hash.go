package table

import (
	"encoding/binary"
	"hash/maphash"
	"math/bits"
)

// keyed is an encoded key as the table looks for it: its bytes, its hash, and as much of it as an entry holds itself.
type keyed struct {
	bytes  []byte
	k0, k1 uint64 // the first 16 bytes, zero behind the end
	hash   uint32
}

// seeds makes hashes unguessable, so that nobody can send keys that all collide. Nothing that can be observed
// depends on them: not order, not eviction, not bytes.
type seeds struct{ a, b uint64 }

func newSeeds() seeds {
	s := maphash.MakeSeed() //lint:rand nothing that can be observed depends on it
	return seeds{maphash.String(s, "a"), maphash.String(s, "b") | 1}
}

const (
	mix0 = 0xa0761d6478bd642f
	mix1 = 0xe7037ed1a0b428db
)

func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}

// look prepares b for a search. b must have room for 16 bytes.
func (s seeds) look(b []byte) keyed {
	n := len(b)
	k := keyed{bytes: b}
	if n >= 16 {
		k.k0, k.k1 = binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
	} else {
		w := b[:16]
		k.k0, k.k1 = binary.LittleEndian.Uint64(w), binary.LittleEndian.Uint64(w[8:])
		if n >= 8 {
			k.k1 &= 1<<(8*uint(n-8)) - 1
		} else {
			k.k0 &= 1<<(8*uint(n)) - 1
			k.k1 = 0
		}
	}
	h := mix(k.k0^s.a, k.k1^s.b)
	for i := 16; i < n; i += 16 { // overlapping at the end: the length is hashed as well
		j := min(i, n-16)
		h = mix(h^binary.LittleEndian.Uint64(b[j:]), binary.LittleEndian.Uint64(b[j+8:])^s.b)
	}
	h = mix(h^mix0, uint64(n)^mix1)
	k.hash = uint32(h ^ h>>32)
	return k
}
