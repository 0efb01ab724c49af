package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"reflect"
	"runtime"
	"sort"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

func keys() []int16 {
	var ks []int16
	for k := range apis() {
		ks = append(ks, k)
	}
	sort.Slice(ks, func(i, j int) bool { return ks[i] < ks[j] })
	return ks
}

// fill sets every field of a request to something random, depth bounded.
func fill(r *rand.Rand, v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if r.IntN(3) == 0 {
			v.SetZero()
			return
		}
		v.Set(reflect.New(v.Type().Elem()))
		fill(r, v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			if name := v.Type().Field(i).Name; name == "UnknownTags" {
				if r.IntN(8) == 0 {
					v.Field(i).Addr().Interface().(*kmsg.Tags).Set(uint32(100+r.IntN(20)), make([]byte, r.IntN(5)))
				}
			} else if name != "Version" {
				fill(r, v.Field(i))
			}
		}
	case reflect.Slice:
		if r.IntN(6) == 0 {
			v.SetZero()
			return
		}
		n := r.IntN(4)
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			fill(r, v.Index(i))
		}
	case reflect.Array:
		for i := range v.Len() {
			fill(r, v.Index(i))
		}
	case reflect.String:
		v.SetString(string(make([]byte, r.IntN(140))))
	case reflect.Bool:
		v.SetBool(r.IntN(2) == 0)
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64, reflect.Int:
		v.SetInt(int64(r.Uint64()))
	case reflect.Uint8, reflect.Uint16, reflect.Uint32:
		v.SetUint(r.Uint64())
	case reflect.Float64:
		v.SetFloat(r.Float64())
	default:
		panic("fill: " + v.Kind().String())
	}
}

// Everything kmsg encodes passes the guard, in every version, and the guard ends where the body ends: the layouts are
// kmsg's.
func TestCheckAgreesWithKmsg(t *testing.T) {
	for _, key := range keys() {
		a := apis()[key]
		req := kmsg.RequestForKey(key)
		if req == nil {
			t.Fatalf("key %d is not known to kmsg", key)
		}
		if req.MaxVersion() != a.max {
			t.Errorf("%s: versions up to %d, kmsg %d", a.name, a.max, req.MaxVersion())
		}
		r := rand.New(rand.NewPCG(1, uint64(key)))
		for v := a.min; v <= a.max; v++ {
			req.SetVersion(v)
			if req.IsFlexible() != a.isFlexible(v) {
				t.Errorf("%s version %d: flexible %v", a.name, v, !req.IsFlexible())
			}
			for range 60 {
				fill(r, reflect.ValueOf(req).Elem())
				body := req.AppendTo(nil)
				if err := Check(key, v, body); err != nil {
					t.Fatalf("%s version %d: %v\n%x", a.name, v, err, body)
				}
				if len(body) > 0 && Check(key, v, body[:len(body)-1]) == nil {
					t.Fatalf("%s version %d: a cut body passes: the layout is too short\n%x", a.name, v, body)
				}
			}
		}
	}
}

// What Check passes, kmsg decodes without a cost out of proportion.
func checkThenDecode(t *testing.T, key, version int16, body []byte) {
	if Check(key, version, body) != nil {
		return
	}
	req := kmsg.RequestForKey(key)
	req.SetVersion(version)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	_ = req.ReadFrom(body)
	took := time.Since(start)
	runtime.ReadMemStats(&after)
	if limit := uint64(64<<10 + 400*len(body)); after.TotalAlloc-before.TotalAlloc > limit {
		t.Fatalf("%s version %d: %d bytes allocated for %d\n%x", Name(key), version, after.TotalAlloc-before.TotalAlloc, len(body), body)
	}
	if took > 2*time.Second {
		t.Fatalf("%s version %d: %v\n%x", Name(key), version, took, body)
	}
}

func TestBombs(t *testing.T) {
	huge := binary.AppendUvarint(nil, 1<<32-1)
	bombs := []struct {
		name    string
		key     int16
		version int16
		body    []byte
	}{
		{"tag count", 18, 3, append([]byte{1, 1}, huge...)},
		{"tag count without bytes", 3, 12, append([]byte{0, 0, 0}, huge...)},
		{"array count", 3, 1, []byte{0x7f, 0xff, 0xff, 0xff}},
		{"compact array count", 3, 9, huge},
		{"nested array count", 0, 3, []byte{255, 255, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 'a', 0x7f, 0xff, 0xff, 0xff}},
		{"negative array", 3, 1, []byte{0x80, 0, 0, 0}},
		{"negative string", 10, 0, []byte{0x80, 0}},
		{"tags inside a known tag", 1, 12, append(append([]byte{255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
			0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 17}, make([]byte, 12)...), huge...)},
		{"endless varint", 18, 3, bytes.Repeat([]byte{0xff}, 64)},
	}
	for _, b := range bombs {
		if err := Check(b.key, b.version, b.body); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", b.name, err)
		}
	}
}

func unlimited(int) error { return nil }

func TestReadFrame(t *testing.T) {
	frame := func(size uint32, rest ...byte) []byte {
		return append(binary.BigEndian.AppendUint32(nil, size), rest...)
	}
	for _, c := range []struct {
		name string
		in   []byte
		want error
	}{
		{"end between frames", nil, io.EOF},
		{"end in the length", []byte{0, 0}, io.ErrUnexpectedEOF},
		{"negative", frame(1 << 31), ErrMalformed},
		{"shorter than a header", frame(4, 0, 18, 0, 0), ErrMalformed},
		{"too large", frame(MaxProduceFrame+1, 0, 0), ErrMalformed},
		{"too large for its key", frame(MaxFrame+1, 0, 3), ErrMalformed},
		{"unknown key", frame(8, 0x7f, 0, 0, 0, 0, 0, 0, 0), ErrMalformed},
		{"end in the body", frame(20, 0, 18, 0, 0), io.ErrUnexpectedEOF},
		{"a length alone", frame(MaxProduceFrame, 0, 0), io.ErrUnexpectedEOF},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := ReadFrame(bytes.NewReader(c.in), MaxProduceFrame, new(Buffers), unlimited)
		runtime.ReadMemStats(&after)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 2<<20 {
			t.Errorf("%s: %d bytes allocated", c.name, n)
		}
	}
	body := make([]byte, 5<<20)
	for i := range body {
		body[i] = byte(i * 7)
	}
	body[0], body[1] = 0, 0
	var buffers Buffers
	for range 3 {
		got, err := ReadFrame(bytes.NewReader(append(frame(uint32(len(body))), body...)), MaxProduceFrame, &buffers, unlimited)
		if err != nil || !bytes.Equal(got.B, body) {
			t.Fatalf("a frame of 5 MiB: %v", err)
		}
		got.Release()
	}
}

func FuzzCheck(f *testing.F) {
	r := rand.New(rand.NewPCG(7, 7))
	for _, key := range keys() {
		req := kmsg.RequestForKey(key)
		for v := apis()[key].min; v <= apis()[key].max; v++ {
			req.SetVersion(v)
			fill(r, reflect.ValueOf(req).Elem())
			f.Add(key, v, req.AppendTo(nil))
		}
	}
	f.Fuzz(func(t *testing.T, key, version int16, body []byte) { checkThenDecode(t, key, version, body) })
}

func FuzzFrame(f *testing.F) {
	f.Add([]byte{0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 255, 255})
	f.Add([]byte{0, 0, 0, 13, 0, 18, 0, 3, 0, 0, 0, 1, 0, 1, 'a', 1, 1, 1, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		frame, err := ReadFrame(bytes.NewReader(in), MaxProduceFrame, new(Buffers), unlimited)
		if err != nil {
			return
		}
		h, body, err := ParseHeader(frame.B)
		if err != nil || body == nil {
			return
		}
		checkThenDecode(t, h.Key, h.Version, body)
	})
}

func BenchmarkCheckFetch(b *testing.B) {
	req := kmsg.NewPtrFetchRequest()
	req.Version = 13
	t := kmsg.NewFetchRequestTopic()
	for range 100 {
		t.Partitions = append(t.Partitions, kmsg.NewFetchRequestTopicPartition())
	}
	req.Topics = append(req.Topics, t)
	body := req.AppendTo(nil)
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		if err := Check(1, 13, body); err != nil {
			b.Fatal(err)
		}
	}
}
