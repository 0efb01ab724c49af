package table

import (
	"bytes"
	"encoding/binary"

	"github.com/moldau/moldau/internal/flow"
)

// Held is an update of a table that a Holding holds, as Kafka Streams' format 3 writes it: the context of the last record of the
// key, the value before the first of them, the old and the new value of the last one, and the time of the first one, by which the
// buffer is ordered. A nil value is null.
type Held struct {
	Time            int64 // of the record, ms
	Offset          int64
	Topic           string
	Partition       int32
	Headers         []flow.Header
	Prior, Old, New []byte
	Order           int64 // ms
}

const (
	null  = -1
	prior = -2 // the old value is the one before
)

// Append writes it.
func (h *Held) Append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(h.Time))
	b = binary.BigEndian.AppendUint64(b, uint64(h.Offset))
	b = appendBytes(b, []byte(h.Topic))
	b = appendInt(b, int(h.Partition))
	b = appendInt(b, len(h.Headers))
	for _, one := range h.Headers {
		b = appendBytes(b, []byte(one.Key))
		b = appendNullable(b, one.Value)
	}
	b = appendNullable(b, h.Prior)
	if h.Old != nil && h.Prior != nil && bytes.Equal(h.Old, h.Prior) {
		b = appendInt(b, prior)
	} else {
		b = appendNullable(b, h.Old)
	}
	b = appendNullable(b, h.New)
	return binary.BigEndian.AppendUint64(b, uint64(h.Order))
}

func appendInt(b []byte, n int) []byte { return binary.BigEndian.AppendUint32(b, uint32(int32(n))) }

func appendBytes(b, v []byte) []byte { return append(appendInt(b, len(v)), v...) }

func appendNullable(b, v []byte) []byte {
	if v == nil {
		return appendInt(b, null)
	}
	return appendBytes(b, v)
}

// ParseHeld reads what Append wrote; values and headers are parts of b.
func ParseHeld(b []byte) (h Held, err error) {
	r := heldReader{b: b}
	r.context(&h)
	h.Prior = r.nullable(nil)
	h.Old = r.nullable(h.Prior)
	h.New = r.nullable(nil)
	h.Order = r.long()
	if r.short || len(r.b) > 0 {
		return Held{}, ErrDamaged
	}
	return h, nil
}

type heldReader struct {
	b     []byte
	short bool
}

func (r *heldReader) take(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.short, r.b = true, nil
		return make([]byte, 8)[:min(max(n, 0), 8)]
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

// context reads where a record came from.
func (r *heldReader) context(h *Held) {
	h.Time, h.Offset = r.long(), r.long()
	h.Topic, h.Partition = string(r.bytes()), int32(r.int())
	n := r.int()
	if n > len(r.b)/8 { // each takes as much at least
		r.short = true
		return
	}
	for range n {
		h.Headers = append(h.Headers, flow.Header{Key: string(r.bytes()), Value: r.nullable(nil)})
	}
}

func (r *heldReader) int() int      { return int(int32(binary.BigEndian.Uint32(r.take(4)))) }
func (r *heldReader) long() int64   { return int64(binary.BigEndian.Uint64(r.take(8))) }
func (r *heldReader) bytes() []byte { return r.take(r.int()) }

// nullable reads a value; same is what stands for -2.
func (r *heldReader) nullable(same []byte) []byte {
	switch n := r.int(); {
	case n == null:
		return nil
	case n == prior && same != nil:
		return same
	default:
		return r.take(n)
	}
}

// HeldSize is what an entry counts for, as in Kafka Streams: the lengths of key, values and headers, and what is fixed.
func HeldSize(key, value []byte) int64 {
	h, err := ParseHeld(value)
	if err != nil {
		return int64(len(key) + len(value))
	}
	n := 8 + len(key) + len(h.Prior) + len(h.New) + 8 + 8 + len(h.Topic) + 4
	if !bytes.Equal(h.Prior, h.Old) {
		n += len(h.Old)
	}
	for _, one := range h.Headers {
		n += len(one.Key) + len(one.Value)
	}
	return int64(n)
}
