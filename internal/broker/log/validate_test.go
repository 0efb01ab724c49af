package log

import (
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kerr"
)

func TestValidate(t *testing.T) {
	now := newClock().ms.Load()
	plain := spec{records: []rec{kv("a", "1"), kv("b", "2")}}
	at := func(ts int64) spec { return spec{records: []rec{{key: []byte("k"), ts: ts}}} }
	for name, x := range map[string]struct {
		spec    spec
		change  func(b []byte) []byte // before the checksum is set
		damage  func(b []byte) []byte // behind it
		config  Config
		version int16
		want    *kerr.Error
		records []int32
	}{
		"good":              {spec: plain},
		"good, gzip":        {spec: spec{codec: codecGzip, records: plain.records}},
		"good, idempotent":  {spec: spec{pid: 7, records: plain.records}},
		"empty":             {spec: plain, damage: func(b []byte) []byte { return nil }, want: kerr.InvalidRecord},
		"short":             {spec: plain, damage: func(b []byte) []byte { return b[:60] }, want: kerr.InvalidRecord},
		"cut":               {spec: plain, damage: func(b []byte) []byte { return b[:len(b)-1] }, want: kerr.CorruptMessage},
		"old magic":         {spec: plain, damage: func(b []byte) []byte { b[posMagic] = 1; return b }, want: kerr.InvalidRecord},
		"two batches":       {spec: plain, damage: func(b []byte) []byte { return append(b, b...) }, want: kerr.InvalidRecord},
		"negative length":   {spec: plain, damage: func(b []byte) []byte { b[posLength] = 0xff; return b }, want: kerr.CorruptMessage},
		"base offset":       {spec: plain, damage: func(b []byte) []byte { b[posBase+7] = 1; return b }, want: kerr.InvalidRecord},
		"bit flip":          {spec: plain, damage: func(b []byte) []byte { b[len(b)-1] ^= 4; return b }, want: kerr.CorruptMessage},
		"too large":         {spec: plain, config: Config{MaxMessageBytes: 70}, want: kerr.MessageTooLarge},
		"unknown codec":     {spec: plain, change: func(b []byte) []byte { b[posAttrs+1] |= 5; return b }, want: kerr.UnsupportedCompressionType},
		"zstd too early":    {spec: spec{codec: codecZstd, records: plain.records}, version: 6, want: kerr.UnsupportedCompressionType},
		"zstd":              {spec: spec{codec: codecZstd, records: plain.records}, version: 7},
		"no records":        {spec: plain, change: func(b []byte) []byte { binary.BigEndian.PutUint32(b[posCount:], 0); return b }, want: kerr.InvalidRecord},
		"wrong count":       {spec: plain, change: func(b []byte) []byte { binary.BigEndian.PutUint32(b[posCount:], 3); return b }, want: kerr.InvalidRecord},
		"control":           {spec: plain, change: func(b []byte) []byte { b[posAttrs+1] |= attrControl; return b }, want: kerr.InvalidRecord},
		"delete horizon":    {spec: plain, change: func(b []byte) []byte { b[posAttrs+1] |= attrDeleteHorizon; return b }, want: kerr.InvalidRecord},
		"no sequence":       {spec: spec{pid: 7, seq: -1, records: plain.records}, want: kerr.InvalidRecord},
		"no epoch":          {spec: spec{pid: 7, epoch: -1, records: plain.records}, want: kerr.InvalidRecord},
		"txn, no producer":  {spec: spec{txn: true, records: plain.records}, want: kerr.InvalidRecord},
		"append time":       {spec: plain, change: func(b []byte) []byte { b[posAttrs+1] |= attrLogAppendTime; return b }, want: kerr.InvalidTimestamp},
		"late":              {spec: at(now - 2000), config: Config{TimestampBeforeMaxMS: 1000}, want: kerr.InvalidTimestamp},
		"not late":          {spec: at(now - 1000), config: Config{TimestampBeforeMaxMS: 1000}},
		"early":             {spec: at(now + 2000), config: Config{TimestampAfterMaxMS: 1000}, want: kerr.InvalidTimestamp},
		"not at all late":   {spec: at(now - 1), config: Config{TimestampBeforeMaxMS: -1}, want: kerr.InvalidTimestamp},
		"not at all early":  {spec: at(now + 1), config: Config{TimestampAfterMaxMS: -1}, want: kerr.InvalidTimestamp},
		"just now":          {spec: at(now), config: Config{TimestampBeforeMaxMS: -1, TimestampAfterMaxMS: -1}},
		"no timestamp":      {spec: at(-1), config: Config{TimestampBeforeMaxMS: 1000, TimestampAfterMaxMS: 1000}},
		"null key":          {spec: spec{records: []rec{kv("a", ""), {value: []byte("x")}, kv("b", ""), {}}}, config: Config{Compact: true}, want: kerr.InvalidRecord, records: []int32{1, 3}},
		"null key, zstd":    {spec: spec{codec: codecZstd, records: []rec{{}}}, config: Config{Compact: true}, want: kerr.InvalidRecord, records: []int32{0}},
		"empty key":         {spec: spec{records: []rec{kv("", "x")}}, config: Config{Compact: true}},
		"poison, compacted": {spec: spec{codec: codecGzip, records: plain.records}, change: func(b []byte) []byte { b[batchHeader] = 0; return b }, config: Config{Compact: true}, want: kerr.InvalidRecord},
		"records cut":       {spec: plain, change: func(b []byte) []byte { b[batchHeader]++; return b }, config: Config{Compact: true}, want: kerr.InvalidRecord},
	} {
		t.Run(name, func(t *testing.T) {
			b := x.spec.build(t)
			if x.change != nil {
				b = x.change(b)
				sealBatch(b)
			}
			if x.damage != nil {
				b = x.damage(b)
			}
			_, r := testCodecs.validate(&Append{Batch: b, Version: x.version}, x.config.withDefaults(&Options{}), now)
			switch {
			case x.want == nil && r != nil:
				t.Fatalf("refused: %v: %s", r.err, r.message)
			case x.want != nil && r == nil:
				t.Fatal("accepted")
			case x.want != nil && (r.err != x.want || r.message == "" || !slices.Equal(r.records, x.records)):
				t.Fatalf("%v %q %v, want %v %v", r.err, r.message, r.records, x.want, x.records)
			}
		})
	}
}

func TestLogAppendTime(t *testing.T) {
	clock := newClock()
	l := open(t, vfs.NewMem(), func(o *Options) { o.Now = clock.now })
	defer closeLog(t, l)
	p := create(t, l, 0, Config{LogAppendTime: true})
	s := spec{pid: 5, records: []rec{{key: []byte("k"), ts: 17}}}
	first := put(t, l, p, s)
	if first.LogAppendTime != clock.ms.Load() {
		t.Fatalf("%+v", first)
	}
	clock.add(time.Hour)
	again := put(t, l, p, s)
	if !again.Duplicate || again.BaseOffset != first.BaseOffset || again.LogAppendTime != first.LogAppendTime {
		t.Fatalf("%+v, want what %+v says", again, first)
	}
	f, err := p.Read(0, 1000, false, true)
	if err != nil {
		t.Fatal(err)
	}
	h, ok := parseHeader(f.Batches[0])
	if !ok || !crcMatches(f.Batches[0]) || h.attrs&attrLogAppendTime == 0 || h.maxTS != first.LogAppendTime {
		t.Fatalf("%+v", h)
	}
	offset, ts, _, found, err := p.OffsetForTime(first.LogAppendTime, false)
	if err != nil || !found || offset != 0 || ts != first.LogAppendTime {
		t.Fatal(offset, ts, found, err)
	}
}

// TestRefused says that a refused append leaves the rest of its write alone, and changes nothing.
func TestRefused(t *testing.T) {
	l := open(t, vfs.NewMem())
	defer closeLog(t, l)
	p, q := create(t, l, 0, Config{}), create(t, l, 1, Config{})
	bad := spec{pid: 1, records: []rec{kv("a", "bad")}}.build(t)
	bad[len(bad)-1]++
	good := spec{pid: 1, records: []rec{kv("a", "good")}}.build(t)
	r, err := submit(l, Write{Appends: []Append{{Partition: p, Batch: bad}, {Partition: q, Batch: good}}, Puts: []Put{{Kind: 1, Key: "k", Value: []byte("v")}}})
	if err != nil || !errors.Is(r[0].Err, kerr.CorruptMessage) || r[0].BaseOffset != -1 || r[1].Err != nil {
		t.Fatal(r, err)
	}
	if got := values(t, q, false); !slices.Equal(got, []string{"good"}) {
		t.Fatal(got)
	}
	if _, hw, _ := p.Offsets(); hw != 0 || len(p.Producers()) != 0 {
		t.Fatal(hw, p.Producers())
	}
	r, err = submit(l, Write{Appends: []Append{{Partition: p, Batch: bad}}})
	if err != nil || r[0].Err == nil {
		t.Fatal(r, err)
	}
}

func TestBombs(t *testing.T) {
	cs := codecs{max: 3 << 20}
	defer cs.close()
	zeros := make([]byte, cs.max+1)
	for _, codec := range []int{codecGzip, codecSnappy, codecLZ4, codecZstd} {
		for n, want := range map[int]error{cs.max + 1: errTooLarge, cs.max: nil, 100: nil, 0: nil} {
			b, err := cs.deflate(codec, zeros[:n])
			if err != nil {
				t.Fatal(err)
			}
			if out, err := cs.inflate(codec, b); !errors.Is(err, want) || want == nil && len(out) != n {
				t.Errorf("codec %d: %d bytes in %d: %d bytes, %v", codec, n, len(b), len(out), err)
			}
		}
	}
}

// TestXerial decompresses what Java's client calls snappy.
func TestXerial(t *testing.T) {
	want := strings.Repeat("some text ", 5000)
	framed := append([]byte(nil), xerial...)
	framed = append(framed, 0, 0, 0, 1, 0, 0, 0, 1)
	for rest := want; rest != ""; {
		n := min(len(rest), 32<<10)
		block, err := testCodecs.deflate(codecSnappy, []byte(rest[:n]))
		if err != nil {
			t.Fatal(err)
		}
		framed = binary.BigEndian.AppendUint32(framed, uint32(len(block)))
		framed = append(framed, block...)
		rest = rest[n:]
	}
	got, err := testCodecs.inflate(codecSnappy, framed)
	if err != nil || string(got) != want {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	for n := range len(framed) {
		if got, err := testCodecs.inflate(codecSnappy, framed[:n]); err == nil && string(got) == want {
			t.Fatalf("%d of %d bytes are enough", n, len(framed))
		}
	}
}
