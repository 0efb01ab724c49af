package log

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// walFile is a file of the write-ahead log that was begun.
type walFile struct {
	num    uint32
	header walHeader
}

// walChain finds the files that continue a checkpoint taken at from, oldest first. Each file's header says where the
// one before ends, so the newest file leads back to the checkpoint. Where it does not, because a power loss took a file
// in between or its header, the files behind the gap do not count, unless they say that the missing one was synced.
func (l *Log) walChain(nums []uint32, from lsn) ([]walFile, error) {
	var chain []walFile // newest first
	next := lsn(0)      // where the file looked for ends
	for i := len(nums) - 1; i >= 0 && nums[i] >= from.file(); i-- {
		num := nums[i]
		if len(chain) > 0 && num > next.file() {
			continue // a remainder of a loss that was accepted since
		}
		if len(chain) > 0 && num < next.file() {
			if err := l.acceptGap(from, next.file(), chain); err != nil {
				return nil, err
			}
			chain = nil
		}
		h, ok, err := l.readWALHeader(num)
		if err != nil {
			return nil, err
		}
		if !ok {
			if err := l.acceptGap(from, num, append([]walFile{{num: num}}, chain...)); err != nil {
				return nil, err
			}
			chain = nil
			continue
		}
		chain = append(chain, walFile{num, h})
		next = h.prevEnd
		if num == from.file() {
			next = from
			break
		}
		if next == from {
			break // the file the checkpoint was taken in may be gone
		}
	}
	if len(chain) > 0 && next != from {
		if err := l.acceptGap(from, next.file(), chain); err != nil {
			return nil, err
		}
		chain = nil
	}
	slices.Reverse(chain)
	return chain, nil
}

// acceptGap decides whether a file without header, or none at all, can be what a power loss left: frames in files must
// not say that it was synced, but for what the checkpoint taken at from shows.
func (l *Log) acceptGap(from lsn, num uint32, files []walFile) error {
	start := max(makeLSN(num, 0), from)
	synced, err := l.lastSynced(nil, start, files)
	if err != nil {
		return err
	}
	if synced > start && !l.o.AllowTruncate {
		return l.walCorrupt(start, fmt.Sprintf("the file has no header or is missing, but later frames say that everything below %s was synced", synced))
	}
	return nil
}

func (l *Log) readWALHeader(num uint32) (h walHeader, ok bool, err error) {
	f, err := l.fs.Open(l.wal.path(walName(num)))
	if err != nil {
		return h, false, err
	}
	defer f.Close()
	b := make([]byte, 512)
	n, err := f.ReadAt(b, 0)
	if err != nil && err != io.EOF {
		return h, false, err
	}
	fr, ok := parseFrame(b[:n], makeLSN(num, 0))
	if !ok || len(fr.body) == 0 || item(fr.body[0]) != itemHeader {
		return h, false, nil
	}
	d := decoder{b: fr.body[1:]}
	h = d.header()
	return h, !d.bad, nil
}

func (l *Log) walCorrupt(at lsn, what string) error {
	return fmt.Errorf("open the broker's log: %s: %w: %s; bytes that had been synced are not what was written. Restore the directory from a copy, or open it with AllowTruncate (moldau broker -allow-truncate) to lose everything written behind that place",
		l.wal.path(at.String()), ErrCorrupt, what)
}

// replay applies the frames from on, and returns where the log ends: at the first bad frame, if nothing behind it
// was synced. refers says whether it referred to batches in segments.
func (l *Log) replay(chain []walFile, from lsn) (end lsn, refers bool, err error) {
	r := replayer{l: l, missing: map[PartitionID]int64{}}
	end = from
	var buf []byte
	for i, c := range chain {
		if buf, err = l.readWAL(c.num, buf); err != nil {
			return 0, false, err
		}
		at := makeLSN(c.num, 0)
		if c.num == from.file() {
			at = from
		}
		stop := lsn(0)
		if i+1 < len(chain) {
			stop = chain[i+1].header.prevEnd
		}
		for at != stop {
			if at.off() > int64(len(buf)) {
				break
			}
			fr, ok := parseFrame(buf[at.off():], at)
			if !ok {
				break
			}
			err := r.frame(&fr, at)
			if errors.Is(err, errNotThere) {
				if !l.recovered.MayHaveLost && !l.o.AllowTruncate {
					return 0, false, l.walCorrupt(at, err.Error())
				}
				l.logger.Warn("broker log: the log ends before a batch that is lost", "frame", l.wal.path(at.String()), "error", err)
				break
			}
			if err != nil {
				return 0, false, err
			}
			at += lsn(fr.size)
		}
		end = at
		if at == stop {
			continue
		}
		synced, err := l.lastSynced(buf, at, chain[i:])
		if err != nil {
			return 0, false, err
		}
		if synced > at {
			if !l.o.AllowTruncate {
				return 0, false, l.walCorrupt(at, fmt.Sprintf("no frame, but later frames say that everything below %s was synced", synced))
			}
			l.logger.Error("broker log: everything behind a corrupt frame is given up, as AllowTruncate says", "file", l.wal.path(walName(at.file())), "offset", at.off())
		}
		break
	}
	return end, r.refers, r.finish()
}

func (l *Log) readWAL(num uint32, buf []byte) ([]byte, error) {
	f, err := l.fs.Open(l.wal.path(walName(num)))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if n := int(info.Size()); cap(buf) < n {
		buf = make([]byte, n)
	} else {
		buf = buf[:n]
	}
	n, err := f.ReadAt(buf, 0)
	if err == io.EOF {
		err = nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", l.wal.path(walName(num)), err)
	}
	return buf[:n], nil
}

// lastSynced looks in files for whole frames behind a bad one, and returns how far they say everything was synced. buf
// is the content of the bad frame's file, if that was read already.
func (l *Log) lastSynced(buf []byte, bad lsn, files []walFile) (lsn, error) {
	synced := lsn(0)
	for _, c := range files {
		off := int64(0)
		if c.num == bad.file() {
			off = bad.off() &^ 7
		}
		if c.num != bad.file() || buf == nil {
			var err error
			if buf, err = l.readWAL(c.num, buf); err != nil {
				return 0, err
			}
		}
		for ; off+frameHeader <= int64(len(buf)); off += 8 {
			at := makeLSN(c.num, off)
			if binary.LittleEndian.Uint64(buf[off+8:]) != uint64(at) {
				continue
			}
			if fr, ok := parseFrame(buf[off:], at); ok {
				synced = max(synced, fr.synced)
			}
		}
	}
	return synced, nil
}

// replayer applies frames to a log that nobody else uses yet.
type replayer struct {
	l *Log
	// missing are partitions that began in the middle: they were deleted, as a later frame must say.
	missing map[PartitionID]int64
	// refers says that there were references: what is replayed is in segments only, in part.
	refers bool
}

func (r *replayer) frame(fr *frame, at lsn) error {
	d := decoder{b: fr.body}
	if err := r.references(&d, fr.now); err != nil {
		return fmt.Errorf("%s: %w", r.l.wal.path(at.String()), err)
	}
	for len(d.b) > 0 && !d.bad {
		switch kind := item(d.u8()); kind {
		case itemHeader:
			d.header()
		case itemBatch:
			id := d.id()
			if b := d.bytes(); !d.bad {
				if err := r.batch(id, b, fr.now); err != nil {
					return fmt.Errorf("%s: %w", r.l.wal.path(at.String()), err)
				}
			}
		case itemPut, itemDelete:
			p := Put{Kind: d.u8(), Key: string(d.bytes())}
			if kind == itemPut {
				p.Value = append([]byte{}, d.bytes()...)
			}
			r.l.table.apply([]Put{p})
		case itemLogStart:
			id, offset := d.id(), d.i64()
			if p := r.l.parts[id]; p != nil {
				p.setLogStart(offset)
			}
		case itemDrop:
			id := d.id()
			delete(r.missing, id)
			if p := r.l.parts[id]; p != nil {
				r.l.remove(p)
			}
		default:
			d.bad = true
		}
	}
	if d.bad {
		return r.l.walCorrupt(at, "the frame's checksum matches but its content does not parse")
	}
	r.l.recovered.Frames++
	r.l.recovered.Bytes += fr.size
	return nil
}

// references applies the batches that a frame refers to: all or, if one is not there, none.
func (r *replayer) references(d *decoder, now int64) error {
	type found struct {
		id PartitionID
		h  header
		b  []byte
	}
	var all []found
	for len(d.b) > 0 && item(d.b[0]) == itemReference {
		d.u8()
		x := d.reference()
		if d.bad {
			return nil // who goes on says so
		}
		h, ok := parseHead(x.head)
		if !ok || h.base < 0 || h.lastDelta < 0 || h.control() {
			return fmt.Errorf("%w: a frame refers to no batch where it says so", ErrCorrupt)
		}
		r.refers = true
		f := found{id: x.id, h: h}
		p := r.l.parts[x.id]
		if p == nil && (h.base == 0 || slices.ContainsFunc(all, func(f found) bool { return f.id == x.id })) || p != nil && h.base >= max(p.end, p.flushed) {
			var err error
			if f.b, err = r.l.resolve(&x, &h); err != nil {
				return err
			}
		}
		all = append(all, f)
	}
	for i := range all {
		if err := r.apply(all[i].id, &all[i].h, all[i].b, now); err != nil {
			return err
		}
	}
	return nil
}

// batch applies one batch that the log holds.
func (r *replayer) batch(id PartitionID, b []byte, now int64) error {
	h, ok := parseHeader(b)
	if !ok || h.size != len(b) || h.base < 0 || h.lastDelta < 0 {
		return fmt.Errorf("%w: a frame holds no batch where it says so", ErrCorrupt)
	}
	return r.apply(id, &h, b, now)
}

// apply applies one batch, as far as the checkpoint does not already show it. It needs no bytes of what was in a segment by
// then.
func (r *replayer) apply(id PartitionID, h *header, b []byte, now int64) error {
	if r.l.parts[id] == nil && h.base > 0 {
		if _, ok := r.missing[id]; !ok {
			r.missing[id] = h.base
		}
		return nil
	}
	p := r.l.partition(id)
	if h.base < p.end {
		return nil
	}
	if h.base > p.end {
		return fmt.Errorf("%w: %s goes on at offset %d, expected was %d", ErrCorrupt, p, h.base, p.end)
	}
	o := ordered{p: p, h: *h}
	if h.control() {
		ok := false
		o.end.is = true
		if o.end.commit, o.end.coordinatorEpoch, ok = parseMarker(b); !ok {
			return fmt.Errorf("%w: %s has an unknown control batch at offset %d", ErrCorrupt, p, h.base)
		}
	}
	if h.pid >= 0 {
		s := p.producers[h.pid]
		if s == nil {
			fresh := newProducer()
			s = &fresh
			p.setProducer(h.pid, s)
		}
		if h.control() {
			s.end(h.pepoch, o.end.coordinatorEpoch, h.maxTS, now)
		} else {
			s.append(h, now)
		}
	}
	p.beginEpoch(h.epoch, h.base)
	p.end = h.next()
	if h.base < p.flushed {
		p.see(&o)
		return nil
	}
	o.data = bytes.Clone(b)
	p.publish(&o)
	r.l.budget.add([]cachedAt{{p, int64(len(b)) + overhead}})
	if r.l.budget.unflushed.Load() >= r.l.o.CacheBytes/2 {
		return r.l.flushDirty()
	}
	return nil
}

func (r *replayer) finish() error {
	for id, base := range r.missing {
		return fmt.Errorf("open the broker's log in %s: %w: partition %x-%d goes on at offset %d but what precedes it is gone", r.l.o.Dir, ErrCorrupt, id.Topic, id.Partition, base)
	}
	for _, p := range r.l.parts {
		if p.flushed > p.end {
			return fmt.Errorf("open the broker's log in %s: %w: %s has segments up to offset %d but the write-ahead log ends at %d", r.l.o.Dir, ErrCorrupt, p, p.flushed, p.end)
		}
	}
	return nil
}
