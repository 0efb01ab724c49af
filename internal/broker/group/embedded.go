package group

import (
	"encoding/binary"
	"errors"
)

// consumerType is the protocol type of consumers: only theirs is read, all others are bytes for the members alone.
const consumerType = "consumer"

var errEmbedded = errors.New("malformed bytes of the embedded consumer protocol")

// embeddedSubscription is what a consumer of the classic protocol tells its leader, as far as a coordinator wants it.
type embeddedSubscription struct {
	version int16
	topics  []string
	owned   []TopicPartition // nothing before version 1
	rack    string           // "" before version 3
}

// embedded reads big-endian values; after the first one that is cut short all are zero, and bad is set.
type embedded struct {
	b   []byte
	bad bool
}

func (e *embedded) take(n int) []byte {
	if n < 0 || n > len(e.b) {
		e.b, e.bad = nil, true
		return nil
	}
	v := e.b[:n]
	e.b = e.b[n:]
	return v
}

func (e *embedded) int16() int16 {
	if b := e.take(2); b != nil {
		return int16(binary.BigEndian.Uint16(b))
	}
	return 0
}

func (e *embedded) int32() int32 {
	if b := e.take(4); b != nil {
		return int32(binary.BigEndian.Uint32(b))
	}
	return 0
}

func (e *embedded) string() string { return string(e.take(int(e.int16()))) }

// nullableString returns "" for null.
func (e *embedded) nullableString() string {
	if n := e.int16(); n != -1 {
		return string(e.take(int(n)))
	}
	return ""
}

// nullableBytes returns nil for null.
func (e *embedded) nullableBytes() []byte {
	if n := e.int32(); n != -1 {
		return e.take(int(n))
	}
	return nil
}

// each calls f for the elements of an array, as many as there are bytes for.
func (e *embedded) each(f func()) {
	n := e.int32()
	if n < 0 {
		e.take(-1)
	}
	for ; n > 0 && !e.bad; n-- {
		f()
	}
}

func (e *embedded) partitions() (tps []TopicPartition) {
	e.each(func() {
		topic := e.string()
		e.each(func() {
			if p := e.int32(); !e.bad {
				tps = append(tps, TopicPartition{topic, p})
			}
		})
	})
	return tps
}

// readSubscription decodes ConsumerProtocolSubscription. Versions to come add fields behind those that are known.
func readSubscription(b []byte) (embeddedSubscription, error) {
	e := embedded{b: b}
	s := embeddedSubscription{version: e.int16(), topics: []string{}}
	e.each(func() {
		if t := e.string(); !e.bad {
			s.topics = append(s.topics, t)
		}
	})
	e.nullableBytes() // the assignor's own
	if s.version >= 1 {
		s.owned = e.partitions()
	}
	if s.version >= 2 {
		e.int32() // the generation the owned partitions are of
	}
	if s.version >= 3 {
		s.rack = e.nullableString()
	}
	if e.bad || s.version < 0 {
		return embeddedSubscription{}, errEmbedded
	}
	return s, nil
}

// readAssignment decodes ConsumerProtocolAssignment. userData is what an assignor of the member's own adds to it.
func readAssignment(b []byte) (tps []TopicPartition, userData []byte, err error) {
	if len(b) == 0 {
		return nil, nil, nil // a member that has never had one
	}
	e := embedded{b: b}
	version := e.int16()
	tps, userData = e.partitions(), e.nullableBytes()
	if e.bad || version < 0 {
		return nil, nil, errEmbedded
	}
	return tps, userData, nil
}

// appendAssignment encodes ConsumerProtocolAssignment; partitions of a topic follow each other.
func appendAssignment(b []byte, version int16, tps []TopicPartition) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(version))
	count := len(b)
	b = append(b, 0, 0, 0, 0)
	topics := 0
	for i := 0; i < len(tps); topics++ {
		n := i
		for n < len(tps) && tps[n].Topic == tps[i].Topic {
			n++
		}
		b = binary.BigEndian.AppendUint16(b, uint16(len(tps[i].Topic)))
		b = append(b, tps[i].Topic...)
		b = binary.BigEndian.AppendUint32(b, uint32(n-i))
		for ; i < n; i++ {
			b = binary.BigEndian.AppendUint32(b, uint32(tps[i].Partition))
		}
	}
	binary.BigEndian.PutUint32(b[count:], uint32(topics))
	return append(b, 0xff, 0xff, 0xff, 0xff) // no user data
}
