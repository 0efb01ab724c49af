package log

import (
	"encoding/binary"
	"fmt"
)

// lsn is a place in the write-ahead log: the number of a file in the upper half, the offset in it in the lower. Numbers
// rise for ever, so an lsn is never used again and bytes left in a recycled file are told from new ones.
type lsn uint64

func makeLSN(file uint32, off int64) lsn { return lsn(file)<<32 | lsn(uint32(off)) }
func (l lsn) file() uint32               { return uint32(l >> 32) }
func (l lsn) off() int64                 { return int64(uint32(l)) }
func (l lsn) String() string             { return fmt.Sprintf("%s at %d", walName(l.file()), l.off()) }

// A frame is [checksum of the rest u32][length of the body u32][its own lsn u64][lsn below which everything was synced
// when it was written u64][wall clock in ms i64][body], zero-padded to a multiple of 8. The body is a sequence of
// items. One frame is one Write: the checksum makes it all or nothing.
const frameHeader = 32

type item byte

const (
	itemHeader    item = 1 + iota // first frame of a file: [end of the file before u64][leader epoch u32][boot id, u32 length]
	itemBatch                     // [topic 16][partition u32][length u32][batch]
	itemPut                       // [kind u8][key, u32 length][value, u32 length]
	itemDelete                    // [kind u8][key, u32 length]
	itemLogStart                  // [topic 16][partition u32][offset u64]
	itemDrop                      // [topic 16][partition u32]
	itemReference                 // a batch that lies in a segment; precedes all other items of its frame
)

// frame is a decoded frame; body aliases what it was read from.
type frame struct {
	synced lsn
	now    int64
	body   []byte
	size   int64 // with header and padding
}

// parseFrame decodes the frame at the start of b if it was written for at.
func parseFrame(b []byte, at lsn) (frame, bool) {
	if len(b) < frameHeader || binary.LittleEndian.Uint64(b[8:]) != uint64(at) {
		return frame{}, false
	}
	n := int64(binary.LittleEndian.Uint32(b[4:]))
	if n > int64(len(b)-frameHeader) || checksum(b[4:frameHeader+n]) != binary.LittleEndian.Uint32(b) {
		return frame{}, false
	}
	return frame{
		synced: lsn(binary.LittleEndian.Uint64(b[16:])),
		now:    int64(binary.LittleEndian.Uint64(b[24:])),
		body:   b[frameHeader : frameHeader+n],
		size:   (frameHeader + n + 7) &^ 7,
	}, true
}

func appendID(b []byte, id PartitionID) []byte {
	b = append(b, id.Topic[:]...)
	return binary.LittleEndian.AppendUint32(b, uint32(id.Partition))
}

func appendBytes[T string | []byte](b []byte, v T) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(v)))
	return append(b, v...)
}

// batchItem adds a batch.
func (g *gather) batchItem(id PartitionID, batch []byte) {
	g.buf = appendID(append(g.buf, byte(itemBatch)), id)
	g.buf = binary.LittleEndian.AppendUint32(g.buf, uint32(len(batch)))
	g.batch(batch)
}

func appendPutItem(b []byte, p *Put) []byte {
	if p.Value == nil {
		return appendBytes(append(b, byte(itemDelete), p.Kind), p.Key)
	}
	return appendBytes(appendBytes(append(b, byte(itemPut), p.Kind), p.Key), p.Value)
}

func appendLogStartItem(b []byte, id PartitionID, offset int64) []byte {
	b = appendID(append(b, byte(itemLogStart)), id)
	return binary.LittleEndian.AppendUint64(b, uint64(offset))
}

func appendDropItem(b []byte, id PartitionID) []byte {
	return appendID(append(b, byte(itemDrop)), id)
}

func appendHeaderItem(b []byte, h walHeader) []byte {
	b = binary.LittleEndian.AppendUint64(append(b, byte(itemHeader)), uint64(h.prevEnd))
	b = binary.LittleEndian.AppendUint32(b, uint32(h.epoch))
	return appendBytes(b, h.bootID)
}

// walHeader is the first frame of a file.
type walHeader struct {
	prevEnd lsn   // where the file before ends
	epoch   int32 // leader epoch
	bootID  string
}

// decoder reads what the append functions wrote; bad is set, and zero values returned, once bytes are missing.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) take(n int) []byte {
	if d.bad || n < 0 || n > len(d.b) {
		d.bad = true
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) u8() byte {
	if v := d.take(1); v != nil {
		return v[0]
	}
	return 0
}

func (d *decoder) u32() uint32 {
	if v := d.take(4); v != nil {
		return binary.LittleEndian.Uint32(v)
	}
	return 0
}

func (d *decoder) u64() uint64 {
	if v := d.take(8); v != nil {
		return binary.LittleEndian.Uint64(v)
	}
	return 0
}

func (d *decoder) i64() int64    { return int64(d.u64()) }
func (d *decoder) bytes() []byte { return d.take(int(d.u32())) }

func (d *decoder) id() (id PartitionID) {
	copy(id.Topic[:], d.take(16))
	id.Partition = int32(d.u32())
	return id
}

func (d *decoder) header() (h walHeader) {
	h.prevEnd = lsn(d.u64())
	h.epoch = int32(d.u32())
	h.bootID = string(d.bytes())
	return h
}
