package commit

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
)

// Metadata travel with a committed offset. The form is Kafka Streams' version 2, so that a Java application reads what
// we commit and we what it did: base64 of the byte 2, the partition time, and a list of (name, int64). Java keeps a
// store's last emission there; we add the commit sequence and its writer under names that no store can have.
type Metadata struct {
	Time     int64 // partition time, ms; -1: none yet
	Marks    []Mark
	Sequence Sequence
}

// Mark is a named time that a task keeps with its offsets, as the last emission of a store that emits on close.
type Mark struct {
	Name string
	At   int64
}

// The names of our own entries. A slash is not allowed in the name of a store or topic.
const (
	sequenceName = "moldau/sequence"
	writerName   = "moldau/writer"
)

// errMetadata is the cause of every decoding error.
var errMetadata = errors.New("offset metadata is in no form that is known")

// Encode returns the string to commit.
func (m Metadata) Encode() string {
	marks := m.Marks[:len(m.Marks):len(m.Marks)]
	if m.Sequence.Number != 0 {
		marks = append(marks, Mark{sequenceName, m.Sequence.Number}, Mark{writerName, m.Sequence.Writer})
	}
	b := make([]byte, 0, 64)
	b = append(b, 2)
	b = binary.BigEndian.AppendUint64(b, uint64(m.Time))
	b = binary.BigEndian.AppendUint32(b, uint32(len(marks)))
	for _, k := range marks {
		b = binary.BigEndian.AppendUint32(b, uint32(len(k.Name)))
		b = append(b, k.Name...)
		b = binary.BigEndian.AppendUint64(b, uint64(k.At))
	}
	return base64.StdEncoding.EncodeToString(b)
}

// Decode reads the metadata of a committed offset: ours, Kafka Streams' versions 1 and 2, or none at all.
func Decode(s string) (Metadata, error) {
	m := Metadata{Time: -1}
	if s == "" {
		return m, nil
	}
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return m, fmt.Errorf("%w: %w", errMetadata, err)
	}
	if len(b) < 9 || b[0] != 1 && b[0] != 2 {
		return m, errMetadata
	}
	version := b[0]
	m.Time = int64(binary.BigEndian.Uint64(b[1:]))
	if b = b[9:]; version == 1 {
		return m, nil
	}
	if len(b) < 4 {
		return m, errMetadata
	}
	n := binary.BigEndian.Uint32(b)
	b = b[4:]
	for ; n > 0; n-- {
		if len(b) < 4 {
			return m, errMetadata
		}
		size := uint64(binary.BigEndian.Uint32(b))
		b = b[4:]
		if uint64(len(b)) < size+8 {
			return m, errMetadata
		}
		name, at := string(b[:size]), int64(binary.BigEndian.Uint64(b[size:]))
		b = b[size+8:]
		switch name {
		case sequenceName:
			m.Sequence.Number = at
		case writerName:
			m.Sequence.Writer = at
		default:
			m.Marks = append(m.Marks, Mark{name, at})
		}
	}
	return m, nil
}
