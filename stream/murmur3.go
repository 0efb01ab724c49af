package stream

import (
	"encoding/binary"
	"math/bits"
)

// digest is a hash of 128 bits, as two numbers in network byte order.
type digest [16]byte

// digestSeed is the seed that Kafka Streams hashes the rows of foreign-key joins with.
const digestSeed = 104729

// murmur3 is the 128-bit hash for 64-bit machines of Austin Appleby's MurmurHash3.
func murmur3(b []byte, seed uint64) (d digest) {
	const c1, c2 = 0x87c37b91114253d5, 0x4cf5ad432745937f
	h1, h2, size := seed, seed, uint64(len(b))
	for ; len(b) >= 16; b = b[16:] {
		h1 ^= bits.RotateLeft64(binary.LittleEndian.Uint64(b)*c1, 31) * c2
		h1 = (bits.RotateLeft64(h1, 27)+h2)*5 + 0x52dce729
		h2 ^= bits.RotateLeft64(binary.LittleEndian.Uint64(b[8:])*c2, 33) * c1
		h2 = (bits.RotateLeft64(h2, 31)+h1)*5 + 0x38495ab5
	}
	var tail [16]byte
	copy(tail[:], b)
	h1 ^= bits.RotateLeft64(binary.LittleEndian.Uint64(tail[:])*c1, 31) * c2
	h2 ^= bits.RotateLeft64(binary.LittleEndian.Uint64(tail[8:])*c2, 33) * c1
	h1, h2 = h1^size, h2^size
	h1 += h2
	h2 += h1
	h1, h2 = spread(h1), spread(h2)
	h1 += h2
	h2 += h1
	binary.BigEndian.PutUint64(d[:8], h1)
	binary.BigEndian.PutUint64(d[8:], h2)
	return d
}

// spread has every bit of h change about half of the result's.
func spread(h uint64) uint64 {
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}
