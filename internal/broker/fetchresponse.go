package broker

import (
	"encoding/binary"
	"net"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/moldau/moldau/internal/broker/wire"
)

// inlineBatch is the size up to which a batch is copied into the response instead of being sent from where it is: below
// it a copy is cheaper than one more part of a write.
const inlineBatch = 4 << 10

// fetchResponse encodes itself, so that batches go from the log to the connection without a copy in between.
type fetchResponse struct {
	*kmsg.FetchResponse
	results []fetchResult
	size    int      // bytes of records
	from    *answers // where they count; nil: there are none
}

// vectored is a response that is sent in parts.
type vectored interface {
	kmsg.Response
	// buffers returns the whole frame in order. buf is memory to use for what has to be put together.
	buffers(h wire.Header, buf *[]byte) net.Buffers
	// release gives back what the parts refer to.
	release()
}

func (r *fetchResponse) release() {
	for i := range r.results {
		r.results[i].Release()
	}
	if r.from != nil {
		r.from.held.Add(-int64(r.size))
	}
}

// fetchEncoder puts a fetch response together: bytes of its own and batches by turns.
type fetchEncoder struct {
	b        []byte
	parts    net.Buffers
	cuts     []int // where in b parts go
	flexible bool
}

func (e *fetchEncoder) int16(v int16) { e.b = binary.BigEndian.AppendUint16(e.b, uint16(v)) }
func (e *fetchEncoder) int32(v int32) { e.b = binary.BigEndian.AppendUint32(e.b, uint32(v)) }
func (e *fetchEncoder) int64(v int64) { e.b = binary.BigEndian.AppendUint64(e.b, uint64(v)) }

func (e *fetchEncoder) arrayLen(n int) {
	if e.flexible {
		e.b = binary.AppendUvarint(e.b, uint64(n+1))
	} else {
		e.int32(int32(n))
	}
}

func (e *fetchEncoder) nullArray() {
	if e.flexible {
		e.b = append(e.b, 0)
	} else {
		e.int32(-1)
	}
}

func (e *fetchEncoder) tags() {
	if e.flexible {
		e.b = append(e.b, 0)
	}
}

func (e *fetchEncoder) batches(batches [][]byte, size int) {
	e.arrayLen(size) // bytes have the length of an array
	for _, b := range batches {
		if len(b) <= inlineBatch {
			e.b = append(e.b, b...)
			continue
		}
		e.cuts = append(e.cuts, len(e.b))
		e.parts = append(e.parts, b)
	}
}

func (r *fetchResponse) buffers(h wire.Header, buf *[]byte) net.Buffers {
	_, flexible := wire.Known(h.Key, h.Version)
	e := fetchEncoder{b: wire.AppendResponseHeader((*buf)[:0], h), flexible: flexible}
	v := h.Version
	e.int32(0) // throttle time
	if v >= 7 {
		e.int16(r.ErrorCode)
		e.int32(r.SessionID)
	}
	e.arrayLen(r.topics(func(int, int) {}))
	r.topics(func(from, to int) {
		if v >= 13 {
			e.b = append(e.b, r.results[from].part.id[:]...)
		} else {
			name := r.results[from].part.name
			if flexible {
				e.arrayLen(len(name))
			} else {
				e.int16(int16(len(name)))
			}
			e.b = append(e.b, name...)
		}
		e.arrayLen(to - from)
		for i := from; i < to; i++ {
			e.partition(&r.results[i], v)
		}
		e.tags()
	})
	e.tags()
	*buf = e.b

	total := len(e.b)
	out := make(net.Buffers, 0, 2*len(e.parts)+1)
	start := 0
	for i, cut := range e.cuts {
		if cut > start {
			out = append(out, e.b[start:cut])
		}
		out = append(out, e.parts[i])
		total += len(e.parts[i])
		start = cut
	}
	if start < len(e.b) {
		out = append(out, e.b[start:])
	}
	binary.BigEndian.PutUint32(e.b, uint32(total-4))
	return out
}

// topics calls each with the range of results of each topic, in order, and returns how many there are.
func (r *fetchResponse) topics(each func(from, to int)) int {
	n := 0
	for from := 0; from < len(r.results); n++ {
		to := from + 1
		for to < len(r.results) && r.results[to].part.id == r.results[from].part.id && r.results[to].part.name == r.results[from].part.name {
			to++
		}
		each(from, to)
		from = to
	}
	return n
}

func (e *fetchEncoder) partition(r *fetchResult, v int16) {
	e.int32(r.part.partition)
	if r.err != nil {
		e.int16(r.err.Code)
	} else {
		e.int16(0)
	}
	e.int64(r.HighWatermark)
	e.int64(r.LastStable)
	if v >= 5 {
		e.int64(r.LogStart)
	}
	if r.Aborted == nil {
		e.nullArray()
	} else {
		e.arrayLen(len(r.Aborted))
		for _, a := range r.Aborted {
			e.int64(a.ProducerID)
			e.int64(a.FirstOffset)
			e.tags()
		}
	}
	if v >= 11 {
		e.int32(-1) // preferred read replica
	}
	e.batches(r.Batches, r.Bytes)
	if !e.flexible {
		return
	}
	if !r.diverged {
		e.b = append(e.b, 0)
		return
	}
	// One tagged field: number 0, 13 bytes, an epoch, an offset and no tags of its own.
	e.b = append(e.b, 1, 0, 13)
	e.int32(r.divergeEpoch)
	e.int64(r.divergeEnd)
	e.b = append(e.b, 0)
}
