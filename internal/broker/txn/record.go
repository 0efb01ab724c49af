package txn

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

const recordVersion = 1

// Marshal returns the record the state is stored as.
func (t *Transaction) Marshal() []byte {
	b := make([]byte, 0, 64+20*len(t.partitions))
	b = append(b, recordVersion, byte(t.state))
	b = binary.BigEndian.AppendUint64(b, uint64(t.producer.ID))
	b = binary.BigEndian.AppendUint16(b, uint16(t.producer.Epoch))
	b = binary.BigEndian.AppendUint64(b, uint64(t.previousID))
	b = binary.BigEndian.AppendUint16(b, uint16(t.lastEpoch))
	b = binary.BigEndian.AppendUint64(b, uint64(t.timeout.Milliseconds()))
	b = binary.BigEndian.AppendUint64(b, uint64(t.start.UnixMilli()))
	b = binary.BigEndian.AppendUint64(b, uint64(t.updated.UnixMilli()))
	b = binary.AppendUvarint(b, uint64(len(t.partitions)))
	for _, p := range t.Partitions() {
		b = append(b, p.Topic[:]...)
		b = binary.BigEndian.AppendUint32(b, uint32(p.Partition))
	}
	b = binary.AppendUvarint(b, uint64(len(t.groups)))
	for _, g := range t.Groups() {
		b = binary.AppendUvarint(b, uint64(len(g)))
		b = append(b, g...)
	}
	return b
}

// Unmarshal reads a record back.
func Unmarshal(id string, b []byte) (*Transaction, error) {
	if len(b) > 0 && b[0] != recordVersion {
		return nil, fmt.Errorf("transactional id %q: its record has format %d, this version of Moldau reads format %d", id, b[0], recordVersion)
	}
	r := reader{b: b}
	r.take(1)
	t := New(id, 0, time.Time{})
	t.state = State(r.take(1)[0])
	t.producer.ID = int64(r.uint64())
	t.producer.Epoch = int16(r.uint16())
	t.previousID = int64(r.uint64())
	t.lastEpoch = int16(r.uint16())
	t.timeout = time.Duration(r.uint64()) * time.Millisecond
	t.start = time.UnixMilli(int64(r.uint64()))
	t.updated = time.UnixMilli(int64(r.uint64()))
	for n := r.uvarint(); n > 0 && r.err == nil; n-- {
		var p Partition
		copy(p.Topic[:], r.take(16))
		p.Partition = int32(binary.BigEndian.Uint32(r.take(4)))
		t.partitions[p] = struct{}{}
	}
	for n := r.uvarint(); n > 0 && r.err == nil; n-- {
		t.groups[string(r.take(int(min(r.uvarint(), 1<<20))))] = struct{}{}
	}
	if r.err == nil && t.state > Dead {
		r.err = fmt.Errorf("unknown state %d", t.state)
	}
	if r.err != nil {
		return nil, fmt.Errorf("transactional id %q: %w", id, r.err)
	}
	return t, nil
}

// reader reads a record; after the first error it returns zeros.
type reader struct {
	b   []byte
	err error
}

var errShort = errors.New("its record is cut short")

func (r *reader) take(n int) []byte {
	if n > len(r.b) {
		r.err, r.b = errShort, nil
		return make([]byte, n)
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) uint16() uint16 { return binary.BigEndian.Uint16(r.take(2)) }
func (r *reader) uint64() uint64 { return binary.BigEndian.Uint64(r.take(8)) }

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.err, r.b = errShort, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}
