package flow

// Store is a task's store without its types. Epochs overlap by one: while epoch n is being committed, n+1 may be computed.
// One goroutine at a time uses a store.
type Store interface {
	// Seal ends the current epoch and appends its changes, each dirty key once, as changelog records to out. Those bytes are
	// immutable: they go to the changelog now and to the tier after the commit, so that what the next epoch does meanwhile
	// cannot leak into this one. A store without a changelog emits nothing.
	Seal(epoch uint32, out *Effects) error
	// Undo takes back every change of epoch and of later ones; the store is as it was when epoch began.
	Undo(epoch uint32) error
	// Done forgets what Undo of epoch would have needed and hands its sealed bytes down to the tier. next is the offset after
	// the store's last changelog record of that epoch, -1 if it wrote none.
	Done(epoch uint32, next int64) error
	// Restore applies committed changelog records in order; next is the offset to continue from afterwards.
	Restore(records []In, next int64) error
	// Position is the changelog offset from which Restore must continue; -1: from the start, with an empty store.
	Position() int64
	// Advance tells the store the stream time, so that expired entries may go.
	Advance(streamTime int64)
	// Memory is what the store holds in RAM, in bytes; Shrink lets go of clean entries until about want bytes are free
	// again and returns what it freed. Dirty entries stay.
	Memory() int64
	Shrink(want int64) int64
	Close() error
}

// Prefetcher is a store that is told of records some time before their keys are looked up, for a search that waits for memory
// costs more than the rest of an update. It has the processor load what it is going to need, and changes nothing.
type Prefetcher interface {
	// Prefetch is told records of a topic; that a key is not one of the store's does no harm.
	Prefetch(next []In)
}

// Replay turns a source topic's record into one of the changelog that a store would have. It appends to slab, and what it leaves in
// the record is good until the slab is used again; false: the store has nothing of it.
type Replay func(slab []byte, r *In) ([]byte, bool, error)

// StoreKind decides layout, changelog settings and which operators may use a store.
type StoreKind string

const (
	KeyValue  StoreKind = "key-value"
	Versioned StoreKind = "versioned"
	Window    StoreKind = "window"
	Session   StoreKind = "session"
	Join      StoreKind = "join-buffer"
	Unmatched StoreKind = "unmatched"
	Buffer    StoreKind = "buffer"
)

// StoreSpec is what the untyped half sees of a store handle. Root is its identity: settings return copies of a handle, and
// all copies have one root; two roots of one name are a name clash at Build.
type StoreSpec struct {
	Root        *StoreSpec
	Name        string
	Kind        StoreKind
	Retention   int64             // ms; windows, sessions, buffers: from the handle or, if greater, from the operator
	Grace       int64             // ms
	TTL         int64             // ms; 0: none
	Ordered     bool              // keep an ordered index in memory
	EveryUpdate bool              // forward every update instead of the last per key and commit
	ExpireFirst bool              // windows and sessions: a final result that has expired when its window closes is lost, as in Kafka Streams
	BySegment   bool              // windows and sessions: what has expired is not seen, but may be written until its segment goes, as in RocksDB stores
	SingleStore bool              // join buffers: a stream joined with itself keeps one store
	Unlogged    bool              // no changelog
	FromSource  bool              // a table's store: the topic that the table is made of is its changelog
	LogHeaders  []Header          // of every changelog record with a value
	Changelog   map[string]string // extra settings of the changelog topic
	At          string            // where the handle was made, file:line
	Key, Value  string            // how they are written, in the words of serde.Format
	Mistake     error             // what is wrong with the serdes; Build reports it

	// New builds the typed store of one task. Erased: the runtime never learns K and V.
	New func(StoreEnv) (Store, error)
}

// StoreEnv is what a task gives a store at birth.
type StoreEnv struct {
	Spec      *StoreSpec // as the topology settled it
	Changelog *Topic     // nil: none
	Partition int32
	Tier      Tier // what lies below; never nil
}

// Tier is what lies below a table: an ordered map from bytes to bytes that outlives the process, and the position in the
// changelog that it reflects. Writes gather in memory and become durable later, in order, position and data together;
// reads see them at once.
type Tier interface {
	// Get appends the value of key to dst.
	Get(dst, key []byte) (value []byte, ok bool, err error)
	// Scan calls f for every key in [from, to) in byte order, until f returns false; a nil bound is open. The slices
	// are valid during the call.
	Scan(from, to []byte, f func(key, value []byte) bool) error
	// Apply takes over the changes of one committed epoch; next is the changelog offset after them. Bytes in changes
	// are immutable and may be kept.
	Apply(changes []TierChange, next int64) error
	// DropRange removes every key in [from, to); for expired segments.
	DropRange(from, to []byte) error
	// Position is the changelog offset that what is in the tier, durable or gathered, reflects; -1: nothing.
	Position() int64
	// Count is an estimate of the number of keys; 0 means certainly empty.
	Count() int64
	// Memory is what the tier holds in RAM for this store, in bytes.
	Memory() int64
	// Flush makes everything applied so far durable.
	Flush() error
	Close() error
}

// TierChange is one key's new value; a nil Value deletes.
type TierChange struct{ Key, Value []byte }
