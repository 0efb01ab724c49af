package stream

import (
	"encoding/binary"
	"errors"

	"github.com/moldau/moldau/serde"
)

// changeSerde writes updates of a table into a repartition topic as Kafka Streams does: the old or the new value and a byte
// 0 or 1, or the length of the new value (a zigzag varint), new, old and a byte 2.
type changeSerde[V any] struct{ of serde.Serde[V] }

var errChange = errors.New("not an update of a table, as a repartition topic of KTable.GroupBy holds them")

// Format says that it is changes, and of what.
func (s changeSerde[V]) Format() string { return "changes of " + serde.Format(s.of) }

func (s changeSerde[V]) Encode(dst []byte, ch change[V]) ([]byte, error) {
	var err error
	switch {
	case ch.Live && ch.WasLive:
		var size [1 + binary.MaxVarintLen32]byte
		var value [256]byte
		b, err := s.of.Encode(value[:0], ch.New)
		if err != nil {
			return dst, err
		}
		dst = append(dst, binary.AppendVarint(size[:0], int64(len(b)))...)
		dst = append(dst, b...)
		if dst, err = s.of.Encode(dst, ch.Old); err != nil {
			return dst, err
		}
		return append(dst, 2), nil
	case ch.Live:
		if dst, err = s.of.Encode(dst, ch.New); err != nil {
			return dst, err
		}
		return append(dst, 1), nil
	default:
		if dst, err = s.of.Encode(dst, ch.Old); err != nil {
			return dst, err
		}
		return append(dst, 0), nil
	}
}

func (s changeSerde[V]) Decode(b []byte) (ch change[V], err error) {
	if len(b) == 0 {
		return ch, errChange
	}
	flag, b := b[len(b)-1], b[:len(b)-1]
	if flag >= 3 && flag <= 5 { // with a byte that says whether the update is the latest of a versioned table
		if len(b) == 0 {
			return ch, errChange
		}
		flag, b = flag-3, b[:len(b)-1]
	}
	old, latest := b, b
	switch flag {
	case 0:
		ch.WasLive = true
	case 1:
		ch.Live = true
	case 2:
		n, size := binary.Varint(b)
		if size <= 0 || n < 0 || int64(len(b)-size) < n {
			return ch, errChange
		}
		ch.WasLive, ch.Live = true, true
		latest, old = b[size:size+int(n)], b[size+int(n):]
	default:
		return ch, errChange
	}
	if ch.Live {
		if ch.New, err = s.of.Decode(latest); err != nil {
			return ch, err
		}
	}
	if ch.WasLive {
		ch.Old, err = s.of.Decode(old)
	}
	return ch, err
}
