package table

import (
	"bytes"
	"encoding/binary"
	"reflect"
	"testing"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/internal/tier"
	"github.com/moldau/moldau/serde"
)

// FuzzWaiter: what a buffer of Kafka Streams may hold is read as it was written, and anything else is refused.
func FuzzWaiter(f *testing.F) {
	s := waiterSerde[[]byte]{serde.Bytes}
	for _, r := range []Waiter[[]byte]{{Value: []byte("v")},
		{Time: 1, Offset: 2, Topic: "t", Partition: 3, Headers: []flow.Header{{Key: "h", Value: []byte("1")}, {Key: "n"}}, Value: []byte{}}} {
		b, err := s.Encode(nil, r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(b[:len(b)-1])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := s.Decode(b)
		if err != nil {
			return
		}
		again, err := s.Encode(nil, r)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := s.Decode(again); err != nil || !reflect.DeepEqual(back, r) {
			t.Fatalf("%+v became %+v, %v", r, back, err)
		}
	})
}

// FuzzHeld: the same of what a suppression holds.
func FuzzHeld(f *testing.F) {
	for _, h := range []Held{{New: []byte("v")}, {Time: 1, Offset: 2, Topic: "t", Partition: 3, Headers: []flow.Header{{Key: "h", Value: []byte("1")}, {Key: "n"}},
		Prior: []byte("o"), Old: []byte("o"), New: []byte{}, Order: 4}, {Prior: []byte{}, Old: []byte("p")}} {
		b := h.Append(nil)
		f.Add(b)
		f.Add(b[:len(b)-1])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if HeldSize([]byte("key"), b) < 3 {
			t.Fatalf("the size of %x", b)
		}
		h, err := ParseHeld(b)
		if err != nil {
			return
		}
		if back, err := ParseHeld(h.Append(nil)); err != nil || !reflect.DeepEqual(back, h) {
			t.Fatalf("%+v became %+v, %v", h, back, err)
		}
	})
}

// FuzzJoinKeys: the same of the keys of what waits for a join with a table, and for one with a stream.
func FuzzJoinKeys(f *testing.F) {
	for _, b := range [][]byte{append(make([]byte, 9), "key\x00\x00\x00\x01"...), append(make([]byte, 8), "\x01key"...), make([]byte, 12), make([]byte, 8)} {
		f.Add(b)
	}
	table, joined := waitKeySerde[[]byte]{serde.Bytes}, waitingSerde[[]byte]{serde.Bytes}
	f.Fuzz(func(t *testing.T, b []byte) {
		if k, err := table.Decode(b); err == nil {
			if again, err := table.Encode(nil, k); err != nil || !bytes.Equal(again, b) {
				t.Fatalf("%x became %x, %v", b, again, err)
			}
		}
		if w, err := joined.Decode(b); err == nil {
			again, err := joined.Encode(nil, w)
			if back, err2 := joined.Decode(again); err != nil || err2 != nil || !reflect.DeepEqual(back, w) {
				t.Fatalf("%+v became %+v, %v, %v", w, back, err, err2)
			}
		}
	})
}

// FuzzRestoreVersions: whatever stands on a changelog is restored or refused, and what was restored is found.
func FuzzRestoreVersions(f *testing.F) {
	f.Add([]byte("k"), []byte("v"), int64(1000), []byte("k"), []byte{}, int64(2000))
	f.Add([]byte{}, []byte("v"), int64(0), []byte{0, 0, 0}, []byte("v"), int64(-1))
	f.Fuzz(func(t *testing.T, k1, v1 []byte, at1 int64, k2, v2 []byte, at2 int64) {
		s, err := NewVersions(flow.StoreEnv{Spec: &flow.StoreSpec{Name: "v", Retention: 1000}, Changelog: benchTopic, Tier: memTier(t, tier.NewMem())}, serde.Bytes, serde.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		seen := int64(-1)
		for i, r := range []flow.In{{Key: k1, Value: v1, Time: at1}, {Key: k2, Value: v2, Time: at2}} {
			err := s.Restore([]flow.In{r}, int64(i+1))
			if bad := r.Time < 0 && (r.Time >= seen-1000); (err != nil) != bad {
				t.Fatalf("restoring %q at %d: %v", r.Key, r.Time, err)
			} else if err != nil {
				return
			}
			kept := r.Time >= seen-1000
			seen = max(seen, r.Time)
			v, from, ok, err := s.AsOf(r.Key, r.Time)
			if err != nil || kept && (!ok || from != r.Time || string(v) != string(r.Value)) {
				t.Fatalf("%q at %d (stream time %d): %q@%d %v %v, want %q", r.Key, r.Time, seen, v, from, ok, err, r.Value)
			}
		}
	})
}

// FuzzRestoreWindows: whatever stands on a changelog is restored or refused, and what was restored is found.
func FuzzRestoreWindows(f *testing.F) {
	key := func(k string, at int64) []byte { return start(at).append([]byte(k)) }
	f.Add(key("k", 1000), []byte("value"), key("k", 2000), []byte{})
	f.Add(key("", 0), []byte{}, []byte("short"), []byte("v"))
	f.Add(key("k", -1), []byte("before the epoch"), key("k", 1<<62), []byte("v"))
	f.Fuzz(func(t *testing.T, k1, v1, k2, v2 []byte) {
		s, err := NewWindows(flow.StoreEnv{Spec: &flow.StoreSpec{Name: "w", Retention: 1000}, Changelog: benchTopic, Tier: memTier(t, tier.NewMem())}, serde.Bytes, serde.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		seen := int64(-1)
		for i, r := range []flow.In{{Key: k1, Value: v1}, {Key: k2, Value: v2}} {
			err := s.Restore([]flow.In{r}, int64(i+1))
			if n := len(r.Key) - 12; (err != nil) != (n < 0) {
				t.Fatalf("restoring %q: %v", r.Key, err)
			} else if err != nil {
				return
			} else {
				at := int64(binary.BigEndian.Uint64(r.Key[n:]))
				seen = max(seen, at)
				v, _, ok, err := s.Get(r.Key[:n], at)
				if err != nil || ok != (seen < 0 || at > seen-1000) || ok && string(v) != string(r.Value) {
					t.Fatalf("%q at %d (stream time %d): %q %v %v, want %q", r.Key[:n], at, seen, v, ok, err, r.Value)
				}
			}
		}
	})
}

// FuzzTier: a tier that holds something else than this store would have written is refused or read, never followed into a
// panic.
func FuzzTier(f *testing.F) {
	f.Add([]byte(metaKey), []byte{1, 0, 0, 0, 0, 0, 0, 0, 60, 0, 0, 0, 0, 0, 0, 3, 232}, append(appendSegment(nil, 16), start(1000).append([]byte("k"))...), []byte("\x00\x00\x00\x00\x00\x00\x00\x07value"))
	f.Add([]byte(metaKey), []byte{1, 0, 0, 0, 0, 0, 0, 0, 60, 0, 0, 0, 0, 0, 0, 3, 232}, []byte("\x80 and nothing that a segment would hold"), []byte{1})
	f.Fuzz(func(t *testing.T, k1, v1, k2, v2 []byte) {
		below := memTier(t, tier.NewMem())
		if err := below.Apply([]flow.TierChange{{Key: k1, Value: v1}, {Key: k2, Value: v2}}, 1); err != nil {
			t.Fatal(err)
		}
		env := flow.StoreEnv{Spec: &flow.StoreSpec{Name: "w", Retention: 1 << 40}, Changelog: benchTopic, Tier: below}
		if w, err := NewWindows(env, serde.String, serde.Int64); err == nil {
			_, _, _, _ = w.Get("k", 1000)
			_ = w.FetchAll(0, 2000, func(string, int64, int64, int64) bool { return true })
			_ = w.Done(0, -1)
		}
		if s, err := NewKV(env, serde.String, serde.Int64); err == nil {
			_, _, _, _ = s.Get("k")
			_ = s.Range(nil, nil, func(string, int64, int64) bool { return true })
			_ = s.Done(0, -1)
		}
	})
}
