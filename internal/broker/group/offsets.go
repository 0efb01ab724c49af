package group

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// TopicPartition names a partition of a topic by the topic's name, as committed offsets do.
type TopicPartition struct {
	Topic     string
	Partition int32
}

// Compare orders by topic, then partition.
func (a TopicPartition) Compare(b TopicPartition) int {
	return cmp.Or(strings.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
}

// Offset is a committed offset.
type Offset struct {
	Offset      int64
	LeaderEpoch int32 // -1: not given
	Metadata    string
	CommitTime  int64 // ms since 1970
	ExpireTime  int64 // ms since 1970, from clients that set a retention; -1: the broker's retention
}

const offsetVersion = 1

// Marshal returns the offset's record.
func (o Offset) Marshal() []byte {
	b := make([]byte, 0, 29+len(o.Metadata))
	b = append(b, offsetVersion)
	b = binary.BigEndian.AppendUint64(b, uint64(o.Offset))
	b = binary.BigEndian.AppendUint32(b, uint32(o.LeaderEpoch))
	b = binary.BigEndian.AppendUint64(b, uint64(o.CommitTime))
	b = binary.BigEndian.AppendUint64(b, uint64(o.ExpireTime))
	return append(b, o.Metadata...)
}

// UnmarshalOffset reads a record back.
func UnmarshalOffset(b []byte) (Offset, error) {
	if len(b) == 0 {
		return Offset{}, errors.New("an empty offset record")
	}
	if b[0] != offsetVersion {
		return Offset{}, fmt.Errorf("an offset record of format %d, this version of Moldau reads format %d", b[0], offsetVersion)
	}
	if len(b) < 29 {
		return Offset{}, fmt.Errorf("an offset record of %d bytes", len(b))
	}
	return Offset{
		Offset:      int64(binary.BigEndian.Uint64(b[1:])),
		LeaderEpoch: int32(binary.BigEndian.Uint32(b[9:])),
		CommitTime:  int64(binary.BigEndian.Uint64(b[13:])),
		ExpireTime:  int64(binary.BigEndian.Uint64(b[21:])),
		Metadata:    string(b[29:]),
	}, nil
}

// Offsets are the offsets of one group: those committed, and those that wait for the end of a producer's transaction.
type Offsets struct {
	committed map[TopicPartition]stamped
	pending   map[int64]map[TopicPartition]stamped
	writes    int64 // counts commits, to order them
}

// stamped is an offset and when, in the order of commits, it was written.
type stamped struct {
	Offset
	at int64
}

// NewOffsets returns no offsets.
func NewOffsets() *Offsets {
	return &Offsets{committed: map[TopicPartition]stamped{}, pending: map[int64]map[TopicPartition]stamped{}}
}

// Commit stores an offset.
func (o *Offsets) Commit(tp TopicPartition, off Offset) {
	o.writes++
	o.committed[tp] = stamped{off, o.writes}
}

// CommitPending stores an offset that counts once the producer's transaction commits.
func (o *Offsets) CommitPending(producerID int64, tp TopicPartition, off Offset) {
	o.writes++
	m := o.pending[producerID]
	if m == nil {
		m = map[TopicPartition]stamped{}
		o.pending[producerID] = m
	}
	m[tp] = stamped{off, o.writes}
}

// Entry is an offset with its partition.
type Entry struct {
	TopicPartition
	Offset
}

// Pending returns what waits for the end of a producer's transaction, in order of partitions.
func (o *Offsets) Pending(producerID int64) []Entry {
	var es []Entry
	for tp, s := range o.pending[producerID] { //lint:ordered sorted below
		es = append(es, Entry{tp, s.Offset})
	}
	slices.SortFunc(es, func(a, b Entry) int { return a.Compare(b.TopicPartition) })
	return es
}

// End ends a producer's transaction and returns the offsets that it changed. A commit outside the transaction that came
// after the one in it wins, as it would in the order of Kafka's offsets topic.
func (o *Offsets) End(producerID int64, commit bool) []Entry {
	es := o.Pending(producerID)
	pending := o.pending[producerID]
	delete(o.pending, producerID)
	if !commit {
		return nil
	}
	return slices.DeleteFunc(es, func(e Entry) bool {
		p := pending[e.TopicPartition]
		if c, ok := o.committed[e.TopicPartition]; ok && c.at > p.at {
			return true
		}
		o.committed[e.TopicPartition] = p
		return false
	})
}

// Get returns the committed offset of a partition.
func (o *Offsets) Get(tp TopicPartition) (Offset, bool) {
	s, ok := o.committed[tp]
	return s.Offset, ok
}

// PendingFor returns the producers whose transactions have not ended and commit an offset of the partition, in order.
func (o *Offsets) PendingFor(tp TopicPartition) (producers []int64) {
	for id, m := range o.pending { //lint:ordered sorted below
		if _, ok := m[tp]; ok {
			producers = append(producers, id)
		}
	}
	slices.Sort(producers)
	return producers
}

// Unstable says whether a transaction that has not ended commits an offset of the partition.
func (o *Offsets) Unstable(tp TopicPartition) bool { return len(o.PendingFor(tp)) > 0 }

// All returns the committed offsets, in order of partitions.
func (o *Offsets) All() []Entry {
	es := make([]Entry, 0, len(o.committed))
	for tp, s := range o.committed { //lint:ordered sorted below
		es = append(es, Entry{tp, s.Offset})
	}
	slices.SortFunc(es, func(a, b Entry) int { return a.Compare(b.TopicPartition) })
	return es
}

// PendingProducers returns the producers whose transactions commit offsets here, in order.
func (o *Offsets) PendingProducers() []int64 {
	var ids []int64
	for id := range o.pending { //lint:ordered sorted below
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// Delete forgets the committed and the pending offsets of a partition.
func (o *Offsets) Delete(tp TopicPartition) {
	delete(o.committed, tp)
	for id, m := range o.pending { //lint:ordered it only deletes
		delete(m, tp)
		if len(m) == 0 {
			delete(o.pending, id)
		}
	}
}

// Len returns the number of committed offsets.
func (o *Offsets) Len() int { return len(o.committed) }
