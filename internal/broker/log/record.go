package log

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
)

var errRecord = errors.New("malformed record")

// record is one record of a batch; its slices alias the batch.
type record struct {
	raw         []byte // with its length
	key         []byte // nil: null
	value       []byte // nil: null
	tsDelta     int64
	offsetDelta int64
}

// eachRecord calls f for each of the count records in b until it returns false. Records must fill b, and their offset
// deltas must rise; they have gaps where a topic was compacted.
func eachRecord(b []byte, count int32, f func(r *record) bool) error {
	var r record
	last := int64(-1)
	for i := range count {
		n, used := binary.Varint(b)
		if used <= 0 || n < 0 || n > int64(len(b)-used) {
			return fmt.Errorf("%w %d: its length exceeds the batch", errRecord, i)
		}
		r.raw = b[:used+int(n)]
		b = b[used+int(n):]
		if !r.parse(r.raw[used:]) {
			return fmt.Errorf("%w %d", errRecord, i)
		}
		if r.offsetDelta <= last {
			return fmt.Errorf("%w %d: offset delta %d behind %d", errRecord, i, r.offsetDelta, last)
		}
		last = r.offsetDelta
		if !f(&r) {
			return nil
		}
	}
	if len(b) > 0 {
		return fmt.Errorf("%w: %d bytes behind the last one", errRecord, len(b))
	}
	return nil
}

func (r *record) parse(b []byte) bool {
	if len(b) == 0 {
		return false
	}
	b = b[1:] // attributes, unused
	var ok bool
	if r.tsDelta, b, ok = varint(b); !ok {
		return false
	}
	if r.offsetDelta, b, ok = varint(b); !ok {
		return false
	}
	if r.key, b, ok = varbytes(b); !ok {
		return false
	}
	if r.value, b, ok = varbytes(b); !ok {
		return false
	}
	headers, b, ok := varint(b)
	if !ok || headers < 0 || headers > int64(len(b)/2) {
		return false
	}
	for range headers {
		var name []byte
		if name, b, ok = varbytes(b); !ok || name == nil {
			return false
		}
		if _, b, ok = varbytes(b); !ok {
			return false
		}
	}
	return len(b) == 0
}

func varint(b []byte) (int64, []byte, bool) {
	v, n := binary.Varint(b)
	if n <= 0 {
		return 0, nil, false
	}
	return v, b[n:], true
}

// varbytes reads a length and as many bytes; -1 is null. Empty bytes are not nil.
func varbytes(b []byte) ([]byte, []byte, bool) {
	n, b, ok := varint(b)
	if !ok || n < -1 || n > int64(len(b)) {
		return nil, nil, false
	}
	if n < 0 {
		return nil, b, true
	}
	return b[:n:n], b[n:], true
}

// checkKeys refuses batches with records that a compacted topic cannot hold.
func (c *codecs) checkKeys(b []byte, h *header) *refusal {
	body, err := c.inflate(h.codec(), b[batchHeader:])
	if err != nil {
		return refuse(kerr.InvalidRecord, "the batch does not decompress: %v", err)
	}
	var null []int32
	var i, sequential int32
	err = eachRecord(body, h.count, func(r *record) bool {
		if r.key == nil {
			null = append(null, i)
		}
		if r.offsetDelta == int64(i) {
			sequential++
		}
		i++
		return true
	})
	switch {
	case err != nil:
		return refuse(kerr.InvalidRecord, "%v", err)
	case sequential != h.count:
		return refuse(kerr.InvalidRecord, "the offset deltas of the records are not sequential")
	case null != nil:
		r := refuse(kerr.InvalidRecord, "a compacted topic does not accept records without key")
		r.records = null
		return r
	}
	return nil
}
