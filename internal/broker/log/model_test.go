package log

import (
	"fmt"
	"maps"
	"slices"
)

// model is what the writes so far must lead to, in the simplest terms.
type model struct {
	number int
	table  map[string]string
	parts  map[PartitionID]*modelPart
}

type modelPart struct {
	start     int64
	batches   []modelBatch
	producers map[int64]modelProducer
	aborted   []aborted // without stable
}

type modelBatch struct {
	base, last int64
	value      string // of its records; "" for a marker
	pid        int64
	txn        bool
	fate       string // commit, abort, open; "" outside a transaction
}

type modelProducer struct {
	epoch   int16
	lastSeq int32
	txn     int64
}

func newModel() *model {
	return &model{table: map[string]string{}, parts: map[PartitionID]*modelPart{}}
}

func (m *model) clone() *model {
	c := &model{number: m.number, table: maps.Clone(m.table), parts: map[PartitionID]*modelPart{}}
	for id, p := range m.parts {
		c.parts[id] = &modelPart{start: p.start, batches: slices.Clone(p.batches), producers: maps.Clone(p.producers), aborted: slices.Clone(p.aborted)}
	}
	return c
}

func (m *model) part(id PartitionID) *modelPart {
	p := m.parts[id]
	if p == nil {
		p = &modelPart{producers: map[int64]modelProducer{}}
		m.parts[id] = p
	}
	return p
}

func (p *modelPart) end() int64 {
	if len(p.batches) == 0 {
		return 0
	}
	return p.batches[len(p.batches)-1].last + 1
}

func (p *modelPart) stable() int64 {
	s := p.end()
	for _, q := range p.producers {
		if q.txn >= 0 {
			s = min(s, q.txn)
		}
	}
	return max(s, p.start)
}

func (p *modelPart) append(s spec, value string) {
	b := modelBatch{base: p.end(), value: value, pid: s.pid, txn: s.txn}
	b.last = b.base + int64(len(s.records)) - 1
	if s.pid != 0 {
		q, ok := p.producers[s.pid]
		if !ok {
			q.txn = -1
		}
		q.epoch, q.lastSeq = s.epoch, s.seq+int32(len(s.records))-1
		if s.txn {
			b.fate = "open"
			if q.txn < 0 {
				q.txn = b.base
			}
		}
		p.producers[s.pid] = q
	}
	p.batches = append(p.batches, b)
}

func (p *modelPart) mark(k *Marker) {
	q, ok := p.producers[k.ProducerID]
	if !ok {
		q = modelProducer{txn: -1, epoch: -1, lastSeq: -1}
	}
	at := p.end()
	for i := range p.batches {
		if b := &p.batches[i]; b.pid == k.ProducerID && b.fate == "open" {
			b.fate = "abort"
			if k.Commit {
				b.fate = "commit"
			}
		}
	}
	if q.txn >= 0 && !k.Commit {
		p.aborted = append(p.aborted, aborted{pid: k.ProducerID, first: q.txn, marker: at})
	}
	if k.Epoch != q.epoch {
		q.lastSeq = -1
	}
	q.epoch, q.txn = k.Epoch, -1
	p.producers[k.ProducerID] = q
	p.batches = append(p.batches, modelBatch{base: at, last: at, pid: k.ProducerID})
}

// compare says how p differs. Its first offset may be any from low on, and is taken over.
func (want *modelPart) compare(p *Partition, low int64) error {
	start, hw, lso := p.Offsets()
	if start < low {
		return fmt.Errorf("starts at %d, %d was acknowledged", start, low)
	}
	want.start = start
	if hw != want.end() || lso != want.stable() {
		return fmt.Errorf("high watermark %d and last stable offset %d, want %d and %d", hw, lso, want.end(), want.stable())
	}
	i, _ := slices.BinarySearchFunc(want.batches, start, func(b modelBatch, o int64) int { return int(b.last - o) })
	for from := start; from < hw; {
		f, err := p.Read(from, 1000, false, true)
		if err != nil {
			return err
		}
		if len(f.Batches) == 0 {
			return fmt.Errorf("nothing at %d below %d", from, hw)
		}
		for _, b := range f.Batches {
			h, _ := parseHeader(b)
			w := want.batches[i]
			i++
			if h.base != w.base || h.last() != w.last {
				return fmt.Errorf("batch %d to %d, want %d to %d", h.base, h.last(), w.base, w.last)
			}
			from = h.next()
			if h.control() {
				if w.value != "" {
					return fmt.Errorf("a marker at %d, want %s", h.base, w.value)
				}
				continue
			}
			body, err := testCodecs.inflate(h.codec(), b[batchHeader:])
			if err != nil {
				return err
			}
			if err := eachRecord(body, h.count, func(x *record) bool {
				if string(x.value) != w.value {
					err = fmt.Errorf("%.20q at %d, want %.20q", x.value, h.base, w.value)
				}
				return true
			}); err != nil {
				return err
			}
			if err != nil {
				return err
			}
		}
		f.Release()
	}
	got := map[int64]modelProducer{}
	for _, q := range p.Producers() {
		got[q.ProducerID] = modelProducer{q.Epoch, q.LastSequence, q.TxnFirstOffset}
	}
	if !maps.Equal(got, want.producers) {
		return fmt.Errorf("producers %v, want %v", got, want.producers)
	}
	return want.compareAborted(p, start, lso)
}

func (want *modelPart) compareAborted(p *Partition, start, lso int64) error {
	for from := start; from < lso; {
		f, err := p.Read(from, 1000, true, true)
		if err != nil {
			return err
		}
		h, _ := parseHeader(f.Batches[len(f.Batches)-1])
		next := h.next()
		if next > lso {
			return fmt.Errorf("a committed reader sees offset %d, the last stable offset is %d", next-1, lso)
		}
		list := []AbortedTxn{}
		for _, a := range want.aborted {
			if a.marker >= from && a.first < next {
				list = append(list, AbortedTxn{a.pid, a.first})
			}
		}
		slices.SortFunc(list, func(a, b AbortedTxn) int { return int(a.FirstOffset - b.FirstOffset) })
		if !slices.Equal(list, f.Aborted) {
			return fmt.Errorf("aborted between %d and %d: %v, want %v", from, next, f.Aborted, list)
		}
		f.Release()
		from = next
	}
	return nil
}
