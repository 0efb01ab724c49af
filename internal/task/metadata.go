package task

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// Metadata is what is committed along with an offset, in Kafka Streams' format, version 2: base64 of a byte 2, the partition
// time, and named numbers. Java keeps the last emit time of window stores there; names with an '@', which no store
// can have, are ours.
type Metadata struct {
	PartitionTime int64 // the greatest record time that was taken up, ms; -1 unknown
	Numbers       map[string]int64
}

// sequenceName is the number of the epoch, counted over the life of the state: it tells whether a commit took place
// that moved no offset.
const sequenceName = "@sequence"

// offsetName, followed by the topic, is the offset that the metadata were committed with. Kafka Streams commits names that it does not
// know as it has found them: at another offset the numbers are those of before it took over.
const offsetName = "@offset:"

// Sequence is the number of the epoch in offset metadata; -1: not written by us.
func (m Metadata) Sequence() int64 {
	if v, ok := m.Numbers[sequenceName]; ok {
		return v
	}
	return -1
}

var errMetadata = errors.New("not the offset metadata of Kafka Streams (version 1 or 2) or ours")

// ReadMetadata decodes; "" is no metadata at all.
func ReadMetadata(s string) (Metadata, error) {
	m := Metadata{PartitionTime: -1}
	if s == "" {
		return m, nil
	}
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil || len(b) < 9 || b[0] != 1 && b[0] != 2 {
		return m, fmt.Errorf("%w: %q", errMetadata, s)
	}
	m.PartitionTime = int64(binary.BigEndian.Uint64(b[1:]))
	if b = b[9:]; len(b) == 0 {
		return m, nil
	}
	if len(b) < 4 {
		return m, fmt.Errorf("%w: %q", errMetadata, s)
	}
	n := int(int32(binary.BigEndian.Uint32(b)))
	m.Numbers = map[string]int64{}
	for b = b[4:]; n > 0; n-- {
		if len(b) < 4 {
			return m, fmt.Errorf("%w: %q", errMetadata, s)
		}
		size := int64(binary.BigEndian.Uint32(b))
		if b = b[4:]; int64(len(b)) < size+8 {
			return m, fmt.Errorf("%w: %q", errMetadata, s)
		}
		m.Numbers[string(b[:size])] = int64(binary.BigEndian.Uint64(b[size:]))
		b = b[size+8:]
	}
	return m, nil
}

// String encodes.
func (m Metadata) String() string {
	b := binary.BigEndian.AppendUint64([]byte{2}, uint64(m.PartitionTime))
	if len(m.Numbers) > 0 {
		b = binary.BigEndian.AppendUint32(b, uint32(len(m.Numbers)))
		for _, name := range slices.Sorted(maps.Keys(m.Numbers)) {
			b = binary.BigEndian.AppendUint32(b, uint32(len(name)))
			b = append(b, name...)
			b = binary.BigEndian.AppendUint64(b, uint64(m.Numbers[name]))
		}
	}
	return base64.StdEncoding.EncodeToString(b)
}
