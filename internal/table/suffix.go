package table

import (
	"cmp"
	"encoding/binary"
)

// suffix is what follows the record key in a store's key, on the changelog and in the tier. Entries of one record key
// form a chain, greatest suffix first.
type suffix[S any] interface {
	comparable
	compare(S) int
	// lead is the number that orders entries in an ordered index before their keys do; none: the key's own bytes do.
	lead() (uint64, bool)
	// append writes it as Kafka Streams does.
	append(dst []byte) []byte
	// split reads what append wrote off the end of b; ok is false if b is too short.
	split(b []byte) (key []byte, s S, ok bool)
}

// none is the suffix of key-value stores.
type none struct{}

func (none) compare(none) int                    { return 0 }
func (none) lead() (uint64, bool)                { return 0, false }
func (none) append(dst []byte) []byte            { return dst }
func (none) split(b []byte) ([]byte, none, bool) { return b, none{}, true }

// start is that of a window: 8 bytes, then a sequence number of 4, which is 0 where there are no duplicates.
type start int64

func (s start) compare(o start) int  { return cmp.Compare(s, o) }
func (s start) lead() (uint64, bool) { return uint64(s) ^ 1<<63, true }

func (s start) append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(s))
	return append(dst, 0, 0, 0, 0)
}

func (start) split(b []byte) ([]byte, start, bool) {
	n := len(b) - 12
	if n < 0 {
		return nil, 0, false
	}
	return b[:n], start(binary.BigEndian.Uint64(b[n:])), true
}
