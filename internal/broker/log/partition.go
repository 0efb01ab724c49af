package log

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kerr"
)

// Partition is one partition of a topic. Its methods may be called from any goroutine.
type Partition struct {
	log  *Log
	id   PartitionID
	name atomic.Pointer[string] // of the topic, for messages
	cfg  atomic.Pointer[Config]

	// What the next append is checked against: ordered, perhaps not yet durable. Guarded by log.mu.
	attached   bool
	dropped    bool
	end        int64 // offset of the next record
	producers  map[int64]*producer
	beginnings map[int64]*beginning // by producer
	epochs     []epochStart

	// What readers see. Guarded by mu.
	mu        sync.Mutex
	gone      bool // deleted
	hw        int64
	logStart  int64
	txns      txns
	tail      tail
	pos       int64      // bytes ever appended
	segs      []*segment // by base offset; the last one grows
	flushed   int64      // offsets below are in segments
	flushPos  int64      // pos at flushed
	dirty     bool       // in the flusher's list
	newFiles  bool       // the directory must be synced
	watches   []watch
	cleaned   int64 // compaction has seen every offset below
	compacted int64 // when it last ran, wall clock in ms

	// What is written to the last segment behind what counts, and where it ends. Guarded by log.growing.
	ahead, aheadNext int64
}

// epochStart says that batches from offset start on carry epoch, up to the next entry.
type epochStart struct {
	epoch int32
	start int64
}

type watch struct {
	w         *Waiter
	committed bool
}

// String names the partition as Kafka's tools do.
func (p *Partition) String() string { return fmt.Sprintf("%s-%d", *p.name.Load(), p.id.Partition) }

// ID returns the name the partition keeps for ever.
func (p *Partition) ID() PartitionID { return p.id }

func (p *Partition) dir() string {
	return p.log.fs.PathJoin(p.log.o.Dir, "partitions", p.id.dirName())
}

func (id PartitionID) dirName() string {
	return fmt.Sprintf("%s-%d", hex.EncodeToString(id.Topic[:]), id.Partition)
}

// CreatePartition returns the partition named id, with what the directory holds of it; new ones are empty and cost no
// file. After a start the owner of the topics creates those it knows from its Records again. name is the topic's, for
// messages.
func (l *Log) CreatePartition(id PartitionID, name string, c Config) (*Partition, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closing {
		return nil, ErrClosed
	}
	p := l.partition(id)
	p.name.Store(&name)
	p.attached = true
	if len(p.epochs) == 0 {
		p.beginEpoch(l.epoch, 0)
	}
	p.cfg.Store(c.withDefaults(&l.o))
	return p, nil
}

// ForgetPartition takes back the creation of a partition to which nothing was written.
func (l *Log) ForgetPartition(id PartitionID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p := l.parts[id]; p != nil && p.end == 0 {
		delete(l.parts, id)
	}
}

// Partitions lists what the directory holds and what was created since, in order of their ids. Those nobody creates
// after a start are remains of topics whose deletion was cut short.
func (l *Log) Partitions() []PartitionID {
	l.mu.Lock()
	defer l.mu.Unlock()
	ids := make([]PartitionID, 0, len(l.parts))
	for id := range l.parts {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, compareIDs)
	return ids
}

func compareIDs(a, b PartitionID) int {
	return cmp.Or(slices.Compare(a.Topic[:], b.Topic[:]), cmp.Compare(a.Partition, b.Partition))
}

// partition returns the partition named id, made if there is none. With log.mu held.
func (l *Log) partition(id PartitionID) *Partition {
	p := l.parts[id]
	if p == nil {
		p = &Partition{log: l, id: id}
		name := hex.EncodeToString(id.Topic[:])
		p.name.Store(&name)
		p.cfg.Store(Config{}.withDefaults(&l.o))
		l.parts[id] = p
	}
	return p
}

// SetConfig changes the configuration for what is written from now on.
func (p *Partition) SetConfig(c Config) {
	p.cfg.Store(c.withDefaults(&p.log.o))
	p.mu.Lock()
	p.wake(true)
	p.mu.Unlock()
}

// Config returns the configuration in use, defaults filled in.
func (p *Partition) Config() Config { return *p.cfg.Load() }

// DeletePartition forgets a partition and its data once that is durable. Readers get UNKNOWN_TOPIC_OR_PARTITION.
func (l *Log) DeletePartition(id PartitionID) error {
	l.mu.Lock()
	p := l.parts[id]
	if p == nil {
		l.mu.Unlock()
		return nil
	}
	if err := l.writable(); err != nil {
		l.mu.Unlock()
		return err
	}
	p.dropped = true
	done := make(chan error, 1)
	l.enqueue(&entry{drop: p, sync: true, done: func(err error) { done <- err }})
	l.mu.Unlock()
	return <-done
}

// Offsets returns the first offset, the high watermark (the offset of the next record readers will see) and the last
// stable offset.
func (p *Partition) Offsets() (logStart, highWatermark, lastStable int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.logStart, p.hw, p.stable()
}

// stable is the last stable offset. With p.mu held.
func (p *Partition) stable() int64 { return max(p.txns.stable(p.hw), p.logStart) }

// limit is the end of what a reader may see. With p.mu held.
func (p *Partition) limit(committed bool) int64 {
	if committed {
		return p.stable()
	}
	return p.hw
}

// Size is the bytes of the partition's batches.
func (p *Partition) Size() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.size()
}

func (p *Partition) size() int64 {
	n := p.pos - p.flushPos
	for _, s := range p.segs {
		n += s.size
	}
	return n
}

// Available is about how many bytes a reader at offset from could get; exact near the end, where long polls wait.
func (p *Partition) Available(from int64, committed bool) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	limit := p.limit(committed)
	if from >= limit {
		return 0
	}
	live := p.tail.live()
	start := p.flushPos // bytes before what memory holds
	end := p.pos
	if len(live) > 0 {
		start = live[0].pos
		if i := p.tail.from(limit); i < len(live) {
			end = live[i].pos
		}
		if from >= live[0].base {
			return end - live[p.tail.from(from)].pos
		}
	}
	n := end - start - (p.flushPos - start)
	for _, s := range p.segs {
		if s.next > from {
			n += s.size
		}
	}
	return max(n, 1)
}

// Watch wakes w when more can be read (committed: when the last stable offset moves), when the first offset or the
// configuration changes and when the partition is deleted; until Unwatch.
func (p *Partition) Watch(committed bool, w *Waiter) {
	p.mu.Lock()
	p.watches = append(p.watches, watch{w, committed})
	p.mu.Unlock()
}

// Unwatch ends every Watch of w on the partition.
func (p *Partition) Unwatch(w *Waiter) {
	p.mu.Lock()
	p.watches = slices.DeleteFunc(p.watches, func(x watch) bool { return x.w == w })
	p.mu.Unlock()
}

// wake wakes those who wait for data, and if stable also those who wait for committed data. With p.mu held.
func (p *Partition) wake(stable bool) {
	for _, x := range p.watches {
		if stable || !x.committed {
			x.w.Wake()
		}
	}
}

// LeaderEpoch is the epoch batches are stamped with. It rises when a power loss may have taken back what readers saw.
func (p *Partition) LeaderEpoch() int32 { return p.log.epoch }

// EndOffsetForEpoch returns the largest epoch not above the one asked for and where it ends, -1 and -1 if the epoch is
// above the current one (OffsetForLeaderEpoch).
func (p *Partition) EndOffsetForEpoch(epoch int32) (int32, int64) {
	_, hw, _ := p.Offsets()
	p.log.mu.Lock()
	defer p.log.mu.Unlock()
	last := p.epochs[len(p.epochs)-1]
	switch {
	case epoch == last.epoch:
		return epoch, hw
	case epoch > last.epoch || epoch < 0:
		return -1, -1
	}
	i, _ := slices.BinarySearchFunc(p.epochs, epoch+1, func(e epochStart, epoch int32) int { return cmp.Compare(e.epoch, epoch) })
	if i == 0 {
		return epoch, p.epochs[0].start
	}
	return p.epochs[i-1].epoch, p.epochs[i].start
}

// beginEpoch makes epoch the one of batches from the end on; entries without batches give way. With log.mu held.
func (p *Partition) beginEpoch(epoch int32, start int64) {
	if n := len(p.epochs); n > 0 && p.epochs[n-1].epoch >= epoch {
		return
	}
	for n := len(p.epochs); n > 0 && p.epochs[n-1].start >= start; n = len(p.epochs) {
		p.epochs = p.epochs[:n-1]
	}
	p.epochs = append(p.epochs, epochStart{epoch, start})
}

// epochAt is the epoch batches at offset carry. With log.mu held.
func (p *Partition) epochAt(offset int64) int32 {
	for i := len(p.epochs) - 1; i > 0; i-- {
		if p.epochs[i].start <= offset {
			return p.epochs[i].epoch
		}
	}
	return p.epochs[0].epoch
}

// Producers lists the producers the partition remembers, by id.
func (p *Partition) Producers() []ProducerState {
	p.log.mu.Lock()
	defer p.log.mu.Unlock()
	list := make([]ProducerState, 0, len(p.producers))
	for pid, s := range p.producers {
		list = append(list, ProducerState{
			ProducerID: pid, Epoch: s.epoch, LastSequence: s.lastSeq(), LastTimestamp: s.lastTS,
			CoordinatorEpoch: s.coordinatorEpoch, TxnFirstOffset: s.txnFirst,
		})
	}
	slices.SortFunc(list, func(a, b ProducerState) int { return cmp.Compare(a.ProducerID, b.ProducerID) })
	return list
}

// OpenTxn returns where the open transaction of a producer starts on the partition, batches not yet durable included.
func (p *Partition) OpenTxn(pid int64) (first int64, ok bool) {
	p.log.mu.Lock()
	defer p.log.mu.Unlock()
	if s := p.producers[pid]; s != nil && s.txnFirst >= 0 {
		return s.txnFirst, true
	}
	return -1, false
}

// DeleteRecords makes offset to the first one and returns it once that is durable; -1 is the high watermark. What lies
// below an earlier call stays deleted.
func (p *Partition) DeleteRecords(to int64) (logStart int64, err error) {
	p.mu.Lock()
	if to == -1 {
		to = p.hw
	}
	hw, logStart, gone := p.hw, p.logStart, p.gone
	p.mu.Unlock()
	switch {
	case gone:
		return -1, kerr.UnknownTopicOrPartition
	case to < 0 || to > hw:
		return logStart, fmt.Errorf("%s: delete records below %d, the high watermark is %d: %w", p, to, hw, kerr.OffsetOutOfRange)
	case to <= logStart:
		return logStart, nil
	}
	if err := p.advance(to); err != nil {
		return logStart, err
	}
	return to, nil
}

// advance raises the first offset and returns once that is durable. Segments below it go with the next checkpoint.
func (p *Partition) advance(to int64) error {
	l := p.log
	l.mu.Lock()
	if err := l.writable(); err != nil {
		l.mu.Unlock()
		return err
	}
	done := make(chan error, 1)
	l.enqueue(&entry{start: p, offset: to, sync: true, done: func(err error) { done <- err }})
	l.mu.Unlock()
	return <-done
}
