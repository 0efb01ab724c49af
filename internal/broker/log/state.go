package log

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
)

// checkpointMagic begins a checkpoint file; the digit is the version of its layout.
const checkpointMagic = "moldau broker log checkpoint 1\n"

// state is what a checkpoint holds: all that the write-ahead log below from has led to, and where the bytes are.
type state struct {
	from   lsn    // frames from here on are replayed
	clean  bool   // nothing was written behind from
	epoch  int32  // leader epoch
	bootID string // of the boot the log was written in
	table  map[byte]map[string][]byte
	parts  []partState
}

// partState is a partition in a checkpoint. What order decides (producers, epochs, end) and what lies in segments were
// recorded one after the other: flushed may be ahead of end.
type partState struct {
	id        PartitionID
	logStart  int64
	end       int64
	flushed   int64
	cleaned   int64
	compacted int64
	epochs    []epochStart
	producers map[int64]producer
	aborted   []aborted
	segs      []segState
}

type segState struct {
	base, size, next, maxTS, created, horizon int64
	gen, sum                                  uint32
	sealed                                    bool
}

func u64(b []byte, v int64) []byte { return binary.LittleEndian.AppendUint64(b, uint64(v)) }
func u32[T ~int32 | ~uint32 | ~int](b []byte, v T) []byte {
	return binary.LittleEndian.AppendUint32(b, uint32(v))
}

func flag(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

// encode writes the state, its checksum last.
func (s *state) encode() []byte {
	b := []byte(checkpointMagic)
	b = u64(b, int64(s.from))
	b = flag(b, s.clean)
	b = u32(b, s.epoch)
	b = appendBytes(b, s.bootID)
	b = u32(b, len(s.table))
	for _, kind := range slices.Sorted(maps.Keys(s.table)) {
		m := s.table[kind]
		b = append(b, kind)
		b = u32(b, len(m))
		for _, key := range slices.Sorted(maps.Keys(m)) {
			b = appendBytes(appendBytes(b, key), m[key])
		}
	}
	b = u32(b, len(s.parts))
	for i := range s.parts {
		b = s.parts[i].encode(b)
	}
	return binary.LittleEndian.AppendUint32(b, checksum(b))
}

func (p *partState) encode(b []byte) []byte {
	b = appendID(b, p.id)
	for _, v := range []int64{p.logStart, p.end, p.flushed, p.cleaned, p.compacted} {
		b = u64(b, v)
	}
	b = u32(b, len(p.epochs))
	for _, e := range p.epochs {
		b = u64(u32(b, e.epoch), e.start)
	}
	b = u32(b, len(p.producers))
	for _, pid := range slices.Sorted(maps.Keys(p.producers)) {
		s := p.producers[pid]
		b = u64(b, pid)
		b = u32(u32(u32(b, int32(s.epoch)), s.coordinatorEpoch), s.n)
		b = u64(u64(u64(b, s.txnFirst), s.lastTS), s.written)
		for _, q := range s.batches[:s.n] {
			b = u64(u64(u32(u32(b, q.first), q.last), q.lastOffset), q.maxTS)
		}
	}
	b = u32(b, len(p.aborted))
	for _, a := range p.aborted {
		b = u64(u64(u64(u64(b, a.pid), a.first), a.marker), a.stable)
	}
	b = u32(b, len(p.segs))
	for _, s := range p.segs {
		for _, v := range []int64{s.base, s.size, s.next, s.maxTS, s.created, s.horizon} {
			b = u64(b, v)
		}
		b = flag(u32(u32(b, s.gen), s.sum), s.sealed)
	}
	return b
}

// decodeState reads what encode wrote.
func decodeState(b []byte) (*state, error) {
	if len(b) < len(checkpointMagic)+4 || string(b[:len(checkpointMagic)]) != checkpointMagic {
		return nil, fmt.Errorf("%w: it does not begin with %q", ErrFormat, checkpointMagic)
	}
	body := b[:len(b)-4]
	if checksum(body) != binary.LittleEndian.Uint32(b[len(b)-4:]) {
		return nil, fmt.Errorf("%w: its checksum does not match", ErrCorrupt)
	}
	d := decoder{b: body[len(checkpointMagic):]}
	s := &state{from: lsn(d.u64()), clean: d.u8() != 0, epoch: int32(d.u32()), bootID: string(d.bytes())}
	s.table = map[byte]map[string][]byte{}
	for range d.count(5) {
		kind := d.u8()
		n := d.count(8)
		m := make(map[string][]byte, n)
		for range n {
			key := string(d.bytes())
			m[key] = bytes.Clone(d.bytes()) // or one value would keep the whole file in memory
		}
		s.table[kind] = m
	}
	n := d.count(80)
	s.parts = make([]partState, n)
	for i := range s.parts {
		s.parts[i].decode(&d)
	}
	if d.bad || len(d.b) > 0 {
		return nil, fmt.Errorf("%w: its checksum matches but its content does not parse", ErrCorrupt)
	}
	return s, nil
}

// count reads how many things of at least size bytes follow.
func (d *decoder) count(size int) int {
	n := int(d.u32())
	if n > len(d.b)/size {
		d.bad = true
		return 0
	}
	return n
}

func (p *partState) decode(d *decoder) {
	p.id = d.id()
	for _, v := range []*int64{&p.logStart, &p.end, &p.flushed, &p.cleaned, &p.compacted} {
		*v = d.i64()
	}
	p.epochs = make([]epochStart, d.count(12))
	for i := range p.epochs {
		p.epochs[i] = epochStart{int32(d.u32()), d.i64()}
	}
	if n := d.count(44); n > 0 {
		p.producers = make(map[int64]producer, n)
		for range n {
			pid := d.i64()
			s := producer{epoch: int16(d.u32()), coordinatorEpoch: int32(d.u32()), n: int32(d.u32())}
			s.txnFirst, s.lastTS, s.written = d.i64(), d.i64(), d.i64()
			if s.n < 0 || s.n > kept {
				d.bad = true
				return
			}
			for i := range s.n {
				s.batches[i] = seqBatch{int32(d.u32()), int32(d.u32()), d.i64(), d.i64()}
			}
			p.producers[pid] = s
		}
	}
	p.aborted = make([]aborted, d.count(32))
	for i := range p.aborted {
		p.aborted[i] = aborted{d.i64(), d.i64(), d.i64(), d.i64()}
	}
	p.segs = make([]segState, d.count(57))
	for i := range p.segs {
		s := &p.segs[i]
		for _, v := range []*int64{&s.base, &s.size, &s.next, &s.maxTS, &s.created, &s.horizon} {
			*v = d.i64()
		}
		s.gen, s.sum, s.sealed = d.u32(), d.u32(), d.u8() != 0
	}
}
