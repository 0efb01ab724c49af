// Package mem is a cluster in memory for deterministic tests and simulation: topics, transactions, consumer groups, as
// Apache Kafka has them, without goroutines and without a clock.
//
// Nothing happens by itself. A call does what it does at once; what a real cluster does in its own time (time out a
// session or a transaction, acknowledge, write markers, compact) happens when the caller says so. Failures are put in
// through Faults.
//
// It is faithful where the runtime could be misled: markers take offsets, the answer to End may come before them, the last
// stable offset holds readers up, offsets in a transaction are pending, aborted records stay in the log unseen,
// compaction leaves gaps, a rebalance is cooperative and waits for Released. Bytes of a released batch are overwritten.
package mem

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/moldau/moldau/internal/cluster"
	"github.com/moldau/moldau/internal/flow"
)

// Log is the cluster itself. Processes connect to it.
type Log struct {
	// Faults are consulted at every step. Set them between calls.
	Faults Faults
	// MaxRecordBytes is the size of key and value above which a record is refused. 0: 1 MiB.
	MaxRecordBytes int
	// MaxBatchRecords is how many records a batch brings at most. 0: 500.
	MaxBatchRecords int

	mu          sync.Mutex
	topics      map[string]*topic
	groups      map[string]*group
	writers     map[string]*writer // by transactional id
	ids         int64              // topics, producers and members made so far
	holdAcks    bool
	acks        []func() // held back
	holdMarkers bool
	endings     []*txn // decided, markers held back
}

// New makes an empty cluster.
func New() *Log {
	return &Log{topics: map[string]*topic{}, groups: map[string]*group{}, writers: map[string]*writer{}}
}

// topic is one topic; its id changes when it is made again.
type topic struct {
	id         [16]byte
	config     map[string]string
	partitions []*partition
	next       int // where the next record without a partition goes
}

// partition is a log: entries in offset order, with gaps where compaction was.
type partition struct {
	entries []entry
	start   int64
	end     int64 // the high watermark
	open    map[*txn]int64
}

// entry is a record, or a marker if it has none.
type entry struct {
	offset int64
	txn    *txn // nil: outside any transaction
	marker bool
	record flow.In
}

// stable is the last stable offset.
func (p *partition) stable() int64 {
	at := p.end
	for _, first := range p.open {
		at = min(at, first)
	}
	return at
}

func (p *partition) append(t *txn, marker bool, r flow.In) int64 {
	r.Offset = p.end
	p.entries = append(p.entries, entry{offset: p.end, txn: t, marker: marker, record: r})
	if t != nil && !marker {
		if _, ok := p.open[t]; !ok {
			p.open[t] = p.end
		}
	}
	p.end++
	return r.Offset
}

func (l *Log) newID() int64 {
	l.ids++
	return l.ids
}

func (l *Log) partition(tp cluster.TP) (*partition, *topic, error) {
	t := l.topics[tp.Topic]
	if t == nil || int(tp.Partition) >= len(t.partitions) || tp.Partition < 0 {
		return nil, nil, fmt.Errorf("%s-%d: %w", tp.Topic, tp.Partition, cluster.ErrMissingTopic)
	}
	return t.partitions[tp.Partition], t, nil
}

// Connect opens the cluster for one process.
func (l *Log) Connect() *Conn { return &Conn{log: l} }

// Delete removes a topic and what is committed for it.
func (l *Log) Delete(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.topics, name)
	for _, g := range l.groups {
		maps.DeleteFunc(g.offsets, func(tp cluster.TP, _ cluster.Offset) bool { return tp.Topic == name })
	}
}

// AddPartitions makes a topic wider.
func (l *Log) AddPartitions(name string, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.topics[name]
	for range n {
		t.partitions = append(t.partitions, &partition{open: map[*txn]int64{}})
	}
	for _, id := range sortedKeys(l.groups) {
		l.rebalance(l.groups[id])
	}
}

// Compact removes from a partition what compaction may: below upTo (and the last stable offset) aborted records, markers
// and records that a later one of the same key replaces; with tombstones, nulls too. Offsets stay as they are.
func (l *Log) Compact(tp cluster.TP, upTo int64, tombstones bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	p, _, err := l.partition(tp)
	if err != nil {
		return err
	}
	limit := min(upTo, p.stable())
	last := map[string]int64{}
	for _, e := range p.entries {
		if e.offset < p.stable() && !e.marker && (e.txn == nil || e.txn.state == committed) {
			last[string(e.record.Key)] = e.offset
		}
	}
	p.entries = slices.DeleteFunc(p.entries, func(e entry) bool {
		switch {
		case e.offset >= limit:
			return false
		case e.marker, e.txn != nil && e.txn.state == aborted:
			return true
		case tombstones && e.record.Value == nil:
			return true
		}
		return last[string(e.record.Key)] != e.offset
	})
	return nil
}

// Conn is one process's view of the cluster; it implements cluster.Cluster.
type Conn struct {
	log     *Log
	members []*member
	dead    bool
}

var _ cluster.Cluster = (*Conn)(nil)

// Admin returns the administrative part of the connection.
func (c *Conn) Admin() cluster.Admin { return admin{c.log} }

// Close lets go of the connection.
func (c *Conn) Close() {}

// Kill ends the process: nobody leaves a group, nothing is ended. What it had open stays so until it times out
// (Log.Evict, Log.TimeOut) or a successor comes.
func (c *Conn) Kill() {
	c.log.mu.Lock()
	defer c.log.mu.Unlock()
	c.dead = true
	for _, m := range c.members {
		m.closed = true
	}
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

func compareTPs(a, b cluster.TP) int {
	return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
}

func sortedTPs[V any](m map[cluster.TP]V) []cluster.TP {
	return slices.SortedFunc(maps.Keys(m), compareTPs)
}

// maxRecord is the largest record that is taken, in bytes.
func (l *Log) maxRecord() int {
	if l.MaxRecordBytes > 0 {
		return l.MaxRecordBytes
	}
	return 1 << 20
}
