package log

// Write is one unit: after a crash all of it is there or none.
type Write struct {
	Appends []Append
	Markers []Marker
	Puts    []Put
}

// Append is one record batch for one partition.
type Append struct {
	Partition *Partition
	// Batch is one batch of format v2 as the client sent it. The log keeps it, patches base offset and leader epoch in
	// place, and never changes it after done was called.
	Batch []byte
	// Memory, if there is any, is what Batch lies in. The log holds it as long as it, or a reader, has use for Batch. The caller
	// must hold it until done was called.
	Memory Memory
	// Version is the version of the Produce request the batch came with; below 7 zstd is refused. 0 is the newest.
	Version int16
	// TV2 says that the producer uses transactions of version 2: where the partition knows no batch of it, the first one
	// of a transaction must have the sequence 0.
	TV2 bool
}

// Memory is used again once nobody holds it. Hold is called only while somebody else does.
type Memory interface {
	Hold()
	Release()
}

// Marker ends the transaction of a producer on one partition.
type Marker struct {
	Partition        *Partition
	ProducerID       int64
	Epoch            int16
	CoordinatorEpoch int32
	Commit           bool
	// TV2 demands an epoch above the partition's while a transaction is open there (transactions of version 2), otherwise
	// an equal one will do.
	TV2 bool
}

// Put sets a record of the keyed table; a nil Value deletes it.
type Put struct {
	Kind  byte
	Key   string
	Value []byte
}

// Wait says what a caller of Submit waits for.
type Wait int

const (
	// WaitSync calls done when the write is as durable as Options.Durability promises.
	WaitSync Wait = iota
	// WaitNone asks for no sync of its own. It is for batches of an open transaction: the sync of its end covers them,
	// and until then a power loss may take them back (the leader epoch then rises, Recovery says so). Batches outside
	// a transaction and markers are synced nonetheless, so that the last stable offset never lies beyond what is
	// durable.
	WaitNone
)

// Result is what became of an append or a marker.
type Result struct {
	// Err is a *kerr.Error; nil for what is written or a duplicate.
	Err error
	// ErrMessage says more than Err, for the client; may be empty.
	ErrMessage string
	// RecordErrors are the indexes in the batch of records that were refused.
	RecordErrors []int32
	// BaseOffset is where the batch starts; for a duplicate where it started when it was first written.
	BaseOffset int64
	// LogAppendTime is the broker's time in milliseconds where the topic uses it, else -1.
	LogAppendTime int64
	// LogStart is the first offset of the partition.
	LogStart int64
	// Duplicate says that the batch had been written before and was not written again.
	Duplicate bool
}
