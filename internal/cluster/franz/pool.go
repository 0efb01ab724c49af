package franz

import (
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/moldau/moldau/internal/flow"
)

// recordPool recycles the slices that kgo decodes fetches into.
type recordPool struct{ p sync.Pool }

func (p *recordPool) GetRecords(n int) []kgo.Record {
	if s, ok := p.p.Get().(*[]kgo.Record); ok && cap(*s) >= n {
		return (*s)[:0]
	}
	return make([]kgo.Record, 0, n)
}

func (p *recordPool) PutRecords(s []kgo.Record) { p.p.Put(&s) }

// batchPool recycles the slices that batches are made of.
type batchPool struct{ p sync.Pool }

// batch is the memory of one cluster.Batch. release is made once and reused with it.
type batch struct {
	records []flow.In
	out     atomic.Bool
	release func()
}

func (p *batchPool) get(n int) *batch {
	b, ok := p.p.Get().(*batch)
	if !ok {
		b = &batch{}
		b.release = func() {
			if !b.out.CompareAndSwap(true, false) {
				panic("franz: a batch was released twice")
			}
			clear(b.records)
			p.p.Put(b)
		}
	}
	b.out.Store(true)
	if cap(b.records) < n {
		b.records = make([]flow.In, 0, n)
	}
	b.records = b.records[:0]
	return b
}

// Headers of kgo and of flow have the same fields in the same order; these conversions fail to compile once they do not.
var (
	_ = flow.Header(kgo.RecordHeader{})
	_ = kgo.RecordHeader(flow.Header{})
)

// headersIn sees kgo's headers as flow's, without a copy.
func headersIn(h []kgo.RecordHeader) []flow.Header {
	if len(h) == 0 {
		return nil
	}
	return unsafe.Slice((*flow.Header)(unsafe.Pointer(unsafe.SliceData(h))), len(h))
}

// headersOut sees flow's headers as kgo's, without a copy.
func headersOut(h []flow.Header) []kgo.RecordHeader {
	if len(h) == 0 {
		return nil
	}
	return unsafe.Slice((*kgo.RecordHeader)(unsafe.Pointer(unsafe.SliceData(h))), len(h))
}
