package log

import (
	"bytes"
	"encoding/binary"
	"errors"
	"runtime"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// FuzzWAL opens a log whose write-ahead log holds anything: it opens or says that it is corrupt, and once open it
// works and opens again.
func FuzzWAL(f *testing.F) {
	header := func(g *gather) { g.buf = appendHeaderItem(g.buf, walHeader{bootID: "boot"}) }
	batch := spec{records: []rec{kv("k", "v")}}.build(f)
	data := func(g *gather) { g.batchItem(id(1, 0), batch) }
	puts := func(g *gather) {
		g.buf = appendPutItem(appendPutItem(g.buf, &Put{Kind: 1, Key: "k", Value: []byte("v")}), &Put{Kind: 1, Key: "x"})
	}
	good := frames(header, data, puts)
	f.Add(good, false)
	f.Add(good[:len(good)-9], false)
	f.Add(good, true)
	f.Add([]byte{}, false)
	f.Fuzz(func(t *testing.T, b []byte, truncate bool) {
		fs := vfs.NewMem()
		if err := fs.MkdirAll("broker/wal", 0o755); err != nil {
			t.Fatal(err)
		}
		overwrite(t, fs, "broker/wal/"+walName(1), b)
		openAndUse(t, fs, truncate)
	})
}

// frames builds the first file of a write-ahead log.
func frames(fills ...func(*gather)) []byte {
	g := gather{min: largeSize}
	for _, fill := range fills {
		m := g.beginFrame()
		fill(&g)
		g.endFrame(m, makeLSN(1, m.size()), 0, 1)
	}
	return g.buf
}

// FuzzFrame is FuzzWAL with frames whose checksums are right, whatever is in them.
func FuzzFrame(f *testing.F) {
	batch := spec{pid: 1, txn: true, records: []rec{kv("k", "v")}}.build(f)
	m := marker(&Marker{ProducerID: 1, Commit: true}, 1)
	setBase(m, 1, 0)
	var two, one gather
	two.min, one.min = largeSize, largeSize
	one.batchItem(id(1, 0), batch)
	two.batchItem(id(1, 0), batch)
	two.batchItem(id(1, 0), m)
	f.Add(two.buf)
	f.Add(appendLogStartItem(slices.Clone(one.buf), id(1, 0), 1))
	f.Add(appendDropItem(slices.Clone(one.buf), id(1, 0)))
	f.Add(appendPutItem(appendPutItem(nil, &Put{Kind: 1, Key: "k", Value: []byte("v")}), &Put{Kind: 1, Key: "k"}))
	in := spec{records: []rec{kv("k", "v")}}.build(f)
	p := &Partition{id: id(2, 0)}
	f.Add(appendReferenceItem(nil, &ordered{p: p, data: in, at: placed{o: &openSegment{s: &segment{p: p}}}}))
	f.Fuzz(func(t *testing.T, body []byte) {
		b := frames(func(g *gather) { g.buf = appendHeaderItem(g.buf, walHeader{}) }, func(g *gather) { g.buf = append(g.buf, body...) })
		fs := vfs.NewMem()
		if err := fs.MkdirAll("broker/wal", 0o755); err != nil {
			t.Fatal(err)
		}
		overwrite(t, fs, "broker/wal/"+walName(1), b)
		dir := "broker/partitions/" + p.id.dirName()
		if err := fs.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		overwrite(t, fs, dir+"/"+(&segment{p: p}).name()+".log", in)
		openAndUse(t, fs, false)
	})
}

func openAndUse(t *testing.T, fs vfs.FS, truncate bool) {
	t.Helper()
	set := func(o *Options) { o.AllowTruncate = truncate }
	l, err := Open(options(fs, set))
	if err != nil {
		if !errors.Is(err, ErrCorrupt) {
			t.Fatal(err)
		}
		return
	}
	for _, id := range l.Partitions() {
		p, err := l.CreatePartition(id, "t", Config{})
		if err != nil {
			t.Fatal(err)
		}
		put(t, l, p, spec{records: []rec{kv("k", "v")}})
	}
	closeLog(t, l)
	closeLog(t, open(t, fs))
}

// FuzzValidate gives the checks of a batch anything, its checksum made right if seal says so. What is accepted must be
// readable by the rest of the package, and little memory may be taken for it.
func FuzzValidate(f *testing.F) {
	for codec := range 5 {
		f.Add(spec{codec: codec, records: []rec{kv("k", "v"), {}}}.build(f), true, true)
		f.Add(spec{pid: 7, txn: true, codec: codec, records: []rec{kv("k", "v")}}.build(f), false, true)
	}
	f.Fuzz(func(t *testing.T, b []byte, compact, seal bool) {
		if seal && len(b) >= batchHeader {
			sealBatch(b)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		c := Config{Compact: compact}
		h, r := testCodecs.validate(&Append{Batch: b}, c.withDefaults(&Options{}), 0)
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 16<<20+1100*uint64(len(b)) {
			t.Fatalf("%d bytes took %d bytes of memory", len(b), n)
		}
		if r != nil {
			return
		}
		if h.size != len(b) || h.next() <= h.base || !crcMatches(b) {
			t.Fatalf("accepted %+v", h)
		}
		if !compact {
			return
		}
		body, err := testCodecs.inflate(h.codec(), b[batchHeader:])
		if err != nil {
			t.Fatal(err)
		}
		n := int32(0)
		if err := eachRecord(body, h.count, func(r *record) bool {
			if r.offsetDelta != int64(n) || r.key == nil {
				t.Fatalf("record %d: %+v", n, r)
			}
			n++
			return true
		}); err != nil || n != h.count {
			t.Fatal(n, err)
		}
	})
}

// FuzzCheckpoint decodes anything whose checksum is right, and encodes it again.
func FuzzCheckpoint(f *testing.F) {
	s := state{from: makeLSN(3, 4), clean: true, epoch: 5, bootID: "boot", table: map[byte]map[string][]byte{1: {"k": []byte("v")}}}
	s.parts = []partState{{
		id: id(1, 2), logStart: 3, end: 9, flushed: 9, epochs: []epochStart{{0, 0}}, aborted: []aborted{{1, 2, 3, 4}},
		producers: map[int64]producer{7: {epoch: 1, n: 1, batches: [kept]seqBatch{{1, 2, 3, 4}}, txnFirst: -1}},
		segs:      []segState{{base: 3, size: 100, next: 9, gen: 2, sealed: true}},
	}}
	good := s.encode()
	f.Add(good[:len(good)-4])
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := decodeState(binary.LittleEndian.AppendUint32(b, checksum(b)))
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrFormat) {
				t.Fatal(err)
			}
			return
		}
		once := s.encode()
		again, err := decodeState(once)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again.encode(), once) {
			t.Fatal("encoding it again gives something else")
		}
	})
}

// FuzzIndex reads anything as an index file: what it takes must lie within the segment, in order.
func FuzzIndex(f *testing.F) {
	var b []byte
	b = appendIndexEntry(b, &block{base: 5, pos: 0, len: 100, maxTS: 3, sum: 1})
	b = appendIndexEntry(b, &block{base: 9, pos: 100, len: 50, maxTS: 3, sum: 1})
	f.Add(b, int64(150))
	f.Fuzz(func(t *testing.T, b []byte, size int64) {
		x := parseIndex(b, 5, size)
		pos, base := int64(0), int64(4)
		for _, e := range x.blocks {
			if e.pos != pos || e.base <= base || e.end() > size || e.len <= 0 {
				t.Fatalf("%+v behind position %d, offset %d", e, pos, base)
			}
			pos, base = e.end(), e.base
		}
		if x.open.pos != pos {
			t.Fatal(x.open.pos, pos)
		}
	})
}
