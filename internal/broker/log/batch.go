package log

import (
	"encoding/binary"
	"hash/crc32"
	"math"

	"github.com/twmb/franz-go/pkg/kerr"
)

// The layout of a record batch, format v2. Base offset, length, leader epoch and magic lie outside the checksum.
const (
	posBase      = 0
	posLength    = 8
	posEpoch     = 12
	posMagic     = 16
	posCRC       = 17
	posAttrs     = 21
	posLastDelta = 23
	posBaseTS    = 27
	posMaxTS     = 35
	posPID       = 43
	posPEpoch    = 51
	posSeq       = 53
	posCount     = 57
	batchHeader  = 61
	lengthSize   = 12 // what precedes the bytes that length counts
)

const (
	attrCodec         = 0x07
	attrLogAppendTime = 0x08
	attrTxn           = 0x10
	attrControl       = 0x20
	attrDeleteHorizon = 0x40
)

const (
	codecNone = iota
	codecGzip
	codecSnappy
	codecLZ4
	codecZstd
)

// crcTable is Castagnoli's polynomial, which both batches and the write-ahead log use.
var crcTable = crc32.MakeTable(crc32.Castagnoli)

func checksum(b []byte) uint32 { return crc32.Checksum(b, crcTable) }

// header is the decoded head of a batch.
type header struct {
	base      int64
	size      int // of the whole batch
	epoch     int32
	attrs     int16
	lastDelta int32
	baseTS    int64
	maxTS     int64
	pid       int64
	pepoch    int16
	seq       int32
	count     int32
}

func (h *header) last() int64   { return h.base + int64(h.lastDelta) }
func (h *header) next() int64   { return h.base + int64(h.lastDelta) + 1 }
func (h *header) txn() bool     { return h.attrs&attrTxn != 0 }
func (h *header) control() bool { return h.attrs&attrControl != 0 }
func (h *header) codec() int    { return int(h.attrs & attrCodec) }

// recordTS is the largest timestamp of a record; -1 if there is none but a marker.
func (h *header) recordTS() int64 {
	if h.control() || h.count == 0 {
		return -1
	}
	return h.maxTS
}

// lastSeq is the sequence of the last record; sequences wrap to 0 behind 2^31-1.
func (h *header) lastSeq() int32 { return addSeq(h.seq, h.lastDelta) }

func addSeq(seq, n int32) int32 {
	if seq > math.MaxInt32-n {
		return n - (math.MaxInt32 - seq) - 1
	}
	return seq + n
}

// parseHeader decodes the head of the batch at the start of b. ok is false if there is none of format v2, or if b is
// too short for its head or for the length it claims.
func parseHeader(b []byte) (h header, ok bool) {
	if len(b) < batchHeader {
		return h, false
	}
	h, ok = parseHead(b)
	return h, ok && h.size <= len(b)
}

// parseHead decodes the head alone, of which b has all.
func parseHead(b []byte) (h header, ok bool) {
	length := int32(binary.BigEndian.Uint32(b[posLength:]))
	if length < batchHeader-lengthSize || b[posMagic] != 2 {
		return h, false
	}
	return header{
		base:      int64(binary.BigEndian.Uint64(b[posBase:])),
		size:      int(length) + lengthSize,
		epoch:     int32(binary.BigEndian.Uint32(b[posEpoch:])),
		attrs:     int16(binary.BigEndian.Uint16(b[posAttrs:])),
		lastDelta: int32(binary.BigEndian.Uint32(b[posLastDelta:])),
		baseTS:    int64(binary.BigEndian.Uint64(b[posBaseTS:])),
		maxTS:     int64(binary.BigEndian.Uint64(b[posMaxTS:])),
		pid:       int64(binary.BigEndian.Uint64(b[posPID:])),
		pepoch:    int16(binary.BigEndian.Uint16(b[posPEpoch:])),
		seq:       int32(binary.BigEndian.Uint32(b[posSeq:])),
		count:     int32(binary.BigEndian.Uint32(b[posCount:])),
	}, true
}

func batchCRC(b []byte) uint32 { return binary.BigEndian.Uint32(b[posCRC:]) }
func sealBatch(b []byte)       { binary.BigEndian.PutUint32(b[posCRC:], checksum(b[posAttrs:])) }
func crcMatches(b []byte) bool { return batchCRC(b) == checksum(b[posAttrs:]) }

func setBase(b []byte, base int64, epoch int32) {
	binary.BigEndian.PutUint64(b[posBase:], uint64(base))
	binary.BigEndian.PutUint32(b[posEpoch:], uint32(epoch))
}

// validate checks a batch as a client sent it, in the order Apache Kafka does, and stamps it where the broker's clock
// rules. The records inside are looked at only where the topic is compacted, because a record without key would never
// leave it.
func (cs *codecs) validate(a *Append, c *Config, now int64) (h header, r *refusal) {
	b := a.Batch
	if len(b) < batchHeader || b[posMagic] != 2 {
		return h, refuse(kerr.InvalidRecord, "the batch is not of format v2")
	}
	h, ok := parseHeader(b)
	if !ok {
		return h, refuse(kerr.CorruptMessage, "the batch is shorter than its length says")
	}
	switch {
	case h.size != len(b):
		return h, refuse(kerr.InvalidRecord, "more than one batch for a partition in one request")
	case h.codec() == codecZstd && a.Version > 0 && a.Version < 7:
		return h, refuse(kerr.UnsupportedCompressionType, "zstd needs version 7 of Produce, this is version %d", a.Version)
	case h.base != 0:
		return h, refuse(kerr.InvalidRecord, "the base offset of a batch from a client is %d, not 0", h.base)
	case h.size > int(c.MaxMessageBytes):
		return h, refuse(kerr.MessageTooLarge, "the batch has %d bytes, the topic allows %d (max.message.bytes)", h.size, c.MaxMessageBytes)
	case !crcMatches(b):
		return h, refuse(kerr.CorruptMessage, "the batch does not match its checksum")
	case h.codec() > codecZstd:
		return h, refuse(kerr.UnsupportedCompressionType, "unknown codec %d", h.codec())
	case h.count <= 0 || h.lastDelta < 0 || int64(h.lastDelta)+1 != int64(h.count):
		return h, refuse(kerr.InvalidRecord, "the batch counts %d records but its last offset delta is %d", h.count, h.lastDelta)
	case h.control():
		return h, refuse(kerr.InvalidRecord, "clients do not write control batches")
	case h.attrs&attrDeleteHorizon != 0:
		return h, refuse(kerr.InvalidRecord, "clients do not set a delete horizon")
	case h.pid >= 0 && h.seq < 0:
		return h, refuse(kerr.InvalidRecord, "producer %d sends the base sequence %d", h.pid, h.seq)
	case h.pid >= 0 && h.pepoch < 0:
		return h, refuse(kerr.InvalidRecord, "producer %d sends the epoch %d", h.pid, h.pepoch)
	case h.txn() && h.pid < 0:
		return h, refuse(kerr.InvalidRecord, "a transactional batch without producer id")
	}
	if c.Compression != AsProduced && c.Compression.codec() != h.codec() {
		if r := cs.recompress(a, &h, c); r != nil {
			return h, r
		}
		b = a.Batch
	}
	if c.Compact {
		if r := cs.checkKeys(b, &h); r != nil {
			return h, r
		}
	}
	if c.LogAppendTime {
		h.attrs |= attrLogAppendTime
		h.maxTS = now
		binary.BigEndian.PutUint16(b[posAttrs:], uint16(h.attrs))
		binary.BigEndian.PutUint64(b[posMaxTS:], uint64(now))
		sealBatch(b)
		return h, nil
	}
	if h.attrs&attrLogAppendTime != 0 {
		return h, refuse(kerr.InvalidTimestamp, "the batch claims the broker's time, the topic uses the producer's")
	}
	if most := max(c.TimestampAfterMaxMS, 0); c.TimestampAfterMaxMS != 0 && h.maxTS > now && h.maxTS-now > most {
		return h, refuse(kerr.InvalidTimestamp, "timestamp %d is more than %d ms ahead of the broker (message.timestamp.after.max.ms)", h.maxTS, most)
	}
	// The smallest timestamp of a batch is known only by decoding it; that of the first record stands for it.
	if most := max(c.TimestampBeforeMaxMS, 0); c.TimestampBeforeMaxMS != 0 && most < now && h.baseTS >= 0 && h.baseTS < now-most {
		return h, refuse(kerr.InvalidTimestamp, "timestamp %d is more than %d ms behind the broker (message.timestamp.before.max.ms)", h.baseTS, most)
	}
	return h, nil
}

// recompress puts a batch into the topic's compression. The batch is a new one.
func (cs *codecs) recompress(a *Append, h *header, c *Config) *refusal {
	plain, err := cs.inflate(h.codec(), a.Batch[batchHeader:])
	if err != nil {
		return refuse(kerr.CorruptMessage, "the batch does not decompress: %v", err)
	}
	records, err := cs.deflate(c.Compression.codec(), plain)
	if err != nil {
		return refuse(kerr.CorruptMessage, "the batch cannot be compressed again: %v", err)
	}
	b := append(append(make([]byte, 0, batchHeader+len(records)), a.Batch[:batchHeader]...), records...)
	h.attrs = h.attrs&^attrCodec | int16(c.Compression.codec())
	if h.size = len(b); h.size > int(c.MaxMessageBytes) {
		return refuse(kerr.MessageTooLarge, "the batch has %d bytes in the topic's compression, the topic allows %d (max.message.bytes)", h.size, c.MaxMessageBytes)
	}
	binary.BigEndian.PutUint32(b[posLength:], uint32(len(b)-lengthSize))
	binary.BigEndian.PutUint16(b[posAttrs:], uint16(h.attrs))
	sealBatch(b)
	a.Batch, a.Memory = b, nil
	return nil
}

// marker builds the control batch that ends a transaction. Base offset and leader epoch are set when it is ordered.
func marker(m *Marker, now int64) []byte {
	const record = 1 + 1 + 1 + 1 + 1 + 4 + 1 + 6 + 1 // length, attributes, two deltas, key, value, no headers
	b := make([]byte, batchHeader+record)
	binary.BigEndian.PutUint32(b[posLength:], uint32(len(b)-lengthSize))
	b[posMagic] = 2
	binary.BigEndian.PutUint16(b[posAttrs:], attrTxn|attrControl)
	binary.BigEndian.PutUint64(b[posBaseTS:], uint64(now))
	binary.BigEndian.PutUint64(b[posMaxTS:], uint64(now))
	binary.BigEndian.PutUint64(b[posPID:], uint64(m.ProducerID))
	binary.BigEndian.PutUint16(b[posPEpoch:], uint16(m.Epoch))
	binary.BigEndian.PutUint32(b[posSeq:], math.MaxUint32)
	binary.BigEndian.PutUint32(b[posCount:], 1)
	r := b[batchHeader:]
	r[0] = (record - 1) << 1 // lengths and deltas are zigzag varints
	r[4] = 4 << 1
	if m.Commit {
		r[8] = 1 // key: version int16, then type int16, 0 abort and 1 commit
	}
	r[9] = 6 << 1
	binary.BigEndian.PutUint32(r[12:], uint32(m.CoordinatorEpoch)) // value: version int16, then coordinator epoch
	sealBatch(b)
	return b
}

// parseMarker reads what marker wrote, or compaction wrote again. ok is false for control batches of other kinds.
func parseMarker(b []byte) (commit bool, coordinatorEpoch int32, ok bool) {
	err := eachRecord(b[batchHeader:], 1, func(r *record) bool {
		if ok = len(r.key) >= 4 && len(r.value) >= 6; ok {
			kind := binary.BigEndian.Uint16(r.key[2:])
			commit, ok = kind == 1, kind <= 1
			coordinatorEpoch = int32(binary.BigEndian.Uint32(r.value[2:]))
		}
		return true
	})
	return commit, coordinatorEpoch, ok && err == nil
}
