package table

import (
	"cmp"
	"encoding/binary"
	"math"
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

// timed is a suffix that begins with a time, by which entries are cut into panes and expire.
type timed[S any] interface {
	suffix[S]
	time() int64
	// least is the first suffix of a time.
	least(at int64) S
	// number tells entries of one key and time apart; 0 where there is only one.
	number() uint32
}

func leadOf(at int64) (uint64, bool) { return uint64(at) ^ 1<<63, true }

// start is that of a window: 8 bytes, then a sequence number of 4, which is 0 where there are no duplicates.
type start int64

func (s start) compare(o start) int  { return cmp.Compare(s, o) }
func (s start) lead() (uint64, bool) { return leadOf(int64(s)) }
func (s start) time() int64          { return int64(s) }
func (start) least(at int64) start   { return start(at) }
func (start) number() uint32         { return 0 }

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

// session is where one ends and starts, in this order, 8 bytes each.
type session struct{ end, start int64 }

func (s session) compare(o session) int {
	return cmp.Or(cmp.Compare(s.end, o.end), cmp.Compare(s.start, o.start))
}
func (s session) lead() (uint64, bool) { return leadOf(s.end) }
func (s session) time() int64          { return s.end }
func (session) least(at int64) session { return session{at, math.MinInt64} }
func (session) number() uint32         { return 0 }

func (s session) append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(s.end))
	return binary.BigEndian.AppendUint64(dst, uint64(s.start))
}

func (session) split(b []byte) ([]byte, session, bool) {
	n := len(b) - 16
	if n < 0 {
		return nil, session{}, false
	}
	return b[:n], session{int64(binary.BigEndian.Uint64(b[n:])), int64(binary.BigEndian.Uint64(b[n+8:]))}, true
}

// stamp is the time of a record and its number in the store: 8 and 4 bytes. It is a start whose sequence number is in use.
type stamp struct {
	at  int64
	seq uint32
}

func (s stamp) compare(o stamp) int {
	return cmp.Or(cmp.Compare(s.at, o.at), cmp.Compare(s.seq, o.seq))
}
func (s stamp) lead() (uint64, bool) { return leadOf(s.at) }
func (s stamp) time() int64          { return s.at }
func (stamp) least(at int64) stamp   { return stamp{at: at} }
func (s stamp) number() uint32       { return s.seq }

func (s stamp) append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(s.at))
	return binary.BigEndian.AppendUint32(dst, s.seq)
}

func (stamp) split(b []byte) ([]byte, stamp, bool) {
	n := len(b) - 12
	if n < 0 {
		return nil, stamp{}, false
	}
	return b[:n], stamp{int64(binary.BigEndian.Uint64(b[n:])), binary.BigEndian.Uint32(b[n+8:])}, true
}
