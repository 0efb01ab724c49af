package flow

import "math"

// Topic is a topic that a task writes to. One value per process and topic; Partitions is fixed while the task lives.
type Topic struct {
	Name       string
	Partitions int32
	MaxRecord  int // the largest record that can be written: bytes of key, value and headers; 0: not known
}

// Out is one record to be produced. Key and Value lie in immutable memory (an Effects slab or a store's sealed bytes) that
// stays valid until the epoch has ended; nil is Kafka's null.
type Out struct {
	Topic     *Topic
	Partition int32 // -1: any, the producer chooses (only for a null key)
	// Where it comes from, for the case that the broker refuses it; small, since there is one for every record.
	Sink    int16 // the ID of the sink, counted from 1; 0: it is no sink's
	Input   int16 // see Ctx.Input
	InHand  int64 // see Ctx.InHand
	Time    int64 // ms
	Key     []byte
	Value   []byte
	Headers []Header
}

// Refusal is a record that the broker does not take, with whatever it is sent. Sink, Input and InHand are those of its Out.
type Refusal struct {
	Topic     string
	Partition int32
	Sink      int16
	Input     int16
	InHand    int64
	Time      int64 // ms
	Err       error
}

// Small is a number that counts from 1 in 16 bits; 0: it is too large for that.
func Small(index int) int16 {
	if index >= math.MaxInt16 {
		return 0
	}
	return int16(index + 1)
}

// Effects collects what steps want done, in order. The edge takes Records away and produces them; the slab is recycled
// once they have been acknowledged.
type Effects struct {
	Records []Out
	slab    []byte
}

// slabSize is the size of one chunk of encoded output: large enough to amortise allocation, small enough that a chunk
// half used is no loss.
const slabSize = 64 << 10

// Slab returns memory to append an encoding to: empty, with room behind it, so that an encoding that outgrows the room
// moves alone. What is appended counts only once Emit has taken it; bytes already taken never move or change.
func (e *Effects) Slab() []byte {
	if cap(e.slab)-len(e.slab) < 512 {
		e.slab = make([]byte, 0, slabSize)
	}
	return e.slab[len(e.slab):]
}

// Keep takes back the slab after an append, and with it everything appended.
func (e *Effects) Keep(slab []byte) { e.slab = slab }

// Emit adds a record whose key is slab[from:mid] and whose value is slab[mid:]; keyNull and null make them Kafka's null.
func (e *Effects) Emit(slab []byte, from, mid int, keyNull, null bool, o Out) {
	e.slab = slab
	if !keyNull {
		o.Key = slab[from:mid:mid]
	}
	if !null {
		o.Value = slab[mid:len(slab):len(slab)]
	}
	e.Records = append(e.Records, o)
}

// Mark and Undo bracket one record, so that a record that is skipped leaves nothing behind.
func (e *Effects) Mark() int     { return len(e.Records) }
func (e *Effects) Undo(mark int) { clear(e.Records[mark:]); e.Records = e.Records[:mark] }
func (e *Effects) Len() int      { return len(e.Records) }
func (e *Effects) Reset()        { clear(e.Records); e.Records = e.Records[:0]; e.slab = e.slab[:0:0] }
