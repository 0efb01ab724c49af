package table

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/internal/tier"
	"github.com/moldau/moldau/serde"
)

func newStore[K, V any](t *testing.T, spec flow.StoreSpec, k serde.Serde[K], v serde.Serde[V]) *KV[K, V] {
	t.Helper()
	spec.Name = "s"
	s, err := NewKV(flow.StoreEnv{Spec: &spec, Changelog: benchTopic, Tier: memTier(t, tier.NewMem())}, k, v)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func memTier(t testing.TB, db tier.DB) flow.Tier {
	t.Helper()
	st, err := db.Store("s", tier.Expect{})
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func put[K, V any](t *testing.T, s *KV[K, V], k K, v V, at int64, headers ...flow.Header) {
	t.Helper()
	r, err := s.Touch(k)
	if err != nil {
		t.Fatal(err)
	}
	s.Set(r, v, at, headers)
}

func commit(t *testing.T, s flow.Store, epoch uint32, next int64) []flow.Out {
	t.Helper()
	var out flow.Effects
	if err := s.Seal(epoch, &out); err != nil {
		t.Fatal(err)
	}
	if err := s.Done(epoch, next); err != nil {
		t.Fatal(err)
	}
	return out.Records
}

func TestHeadersOfTheLastUpdate(t *testing.T) {
	s := newStore(t, flow.StoreSpec{}, serde.String, serde.Int64)
	value := []byte("one")
	put(t, s, "a", 1, 0, flow.Header{Key: "h", Value: value}, flow.Header{Key: "null"})
	copy(value, "two") // the client uses its buffer again
	put(t, s, "b", 1, 0)
	put(t, s, "c", 1, 0, flow.Header{Key: "h", Value: []byte{}})
	put(t, s, "c", 2, 0, flow.Header{Key: "h", Value: []byte("last")})
	put(t, s, "d", 1, 0, flow.Header{Key: "h", Value: []byte("gone")})
	put(t, s, "d", 2, 0)
	put(t, s, "e", 2, 0, flow.Header{Key: "e", Value: []byte{}})
	for i := range 40_000 { // until the order is squeezed
		put(t, s, "b", int64(i), 0)
		put(t, s, "x", int64(i), 0, flow.Header{Key: "i", Value: fmt.Append(nil, i)})
	}
	var got []string
	err := s.Changes(func(k string, c Change[int64]) error {
		line := k
		for _, h := range c.Headers {
			line += fmt.Sprintf(" %s=%q,%v", h.Key, h.Value, h.Value == nil)
		}
		got = append(got, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{`a h="one",false null="",true`, `c h="last",false`, `d`, `e e="",false`, `b`, `x i="39999",false`}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Prefetch has no effect, whatever keys it is told.
func TestPrefetch(t *testing.T) {
	s := newStore(t, flow.StoreSpec{}, serde.Bytes, serde.Int64)
	w, err := NewWindows(flow.StoreEnv{Spec: &flow.StoreSpec{Name: "w", Retention: 1000}, Tier: nowhere{}}, serde.Bytes, serde.Int64)
	if err != nil {
		t.Fatal(err)
	}
	next := []flow.In{{}, {Key: []byte{}}}
	for i := range 200 {
		next = append(next, flow.In{Key: bytes.Repeat([]byte{byte(i)}, i)})
	}
	for range 2 { // without entries, and with some
		s.Prefetch(next)
		w.Prefetch(next)
		for i := range next {
			if _, _, ok, err := s.Get(next[i].Key); (i < 2 || i%2 == 0) && ok || err != nil {
				t.Error(i, ok, err)
			}
			if i > 2 && i%2 == 1 {
				put(t, s, next[i].Key, 1, 0)
				r, _, err := w.Touch(next[i].Key, 5)
				if err != nil {
					t.Fatal(err)
				}
				w.Set(r, 1, 5, nil)
			}
		}
	}
	if _, _, ok, err := w.Get(next[3].Key, 5); !ok || err != nil {
		t.Error(ok, err)
	}
}

func TestTTL(t *testing.T) {
	s := newStore(t, flow.StoreSpec{TTL: 100}, serde.String, serde.Int64)
	s.Advance(1000)
	put(t, s, "old", 1, 950)
	put(t, s, "new", 2, 1000)
	commit(t, s, 1, 2)
	s.Advance(1050)
	if _, _, ok, _ := s.Get("old"); ok {
		t.Error("a value older than its TTL was found")
	}
	if _, _, ok, _ := s.Committed("old"); ok {
		t.Error("a committed value older than its TTL was found")
	}
	if v, _, ok, _ := s.Get("new"); !ok || v != 2 {
		t.Error("a value was gone before its time")
	}
	var seen []string
	if err := s.Changes(func(k string, c Change[int64]) error {
		seen = append(seen, fmt.Sprint(k, " ", c.WasLive, c.Live))
		return nil
	}); err != nil || len(seen) > 0 {
		t.Errorf("that a value goes is told: %v %v", seen, err)
	}
	out := commit(t, s, 2, 3)
	if len(out) != 1 || string(out[0].Key) != "old" || out[0].Value != nil {
		t.Errorf("changelog: %+v", out)
	}
	s.Advance(1100)
	r, err := s.Touch("new")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, live := s.At(r); live {
		t.Error("an aggregate went on from a value older than its TTL")
	}
	if err := s.Changes(func(k string, _ Change[int64]) error { return errors.New(k) }); err != nil {
		t.Errorf("that %v was looked at is told", err)
	}
	put(t, s, "new", 3, 1100)
	if err := s.Changes(func(_ string, c Change[int64]) error {
		if c.WasLive || c.New != 3 {
			t.Errorf("an update of a value older than its TTL: %+v", c)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	if err := s.Undo(3); err != nil {
		t.Fatal(err)
	}
	s.Advance(1050)
	if v, _, ok, _ := s.Get("new"); !ok || v != 2 {
		t.Error("undo did not bring back what had been too old")
	}
}

func TestPrefix(t *testing.T) {
	for _, ordered := range []bool{false, true} {
		s := newStore(t, flow.StoreSpec{Ordered: ordered}, serde.Bytes, serde.Int64)
		for _, k := range []string{"", "a", "ab", "ab\xff", "ab\xff\xff", "ac", "\xff", "\xff\xff", "b"} {
			put(t, s, []byte(k), 1, 0)
		}
		for p, want := range map[string]int{"": 9, "a": 5, "ab": 3, "ab\xff": 2, "\xff": 2, "x": 0} {
			n := 0
			if err := s.Prefix([]byte(p), func(k []byte, _, _ int64) bool {
				if !strings.HasPrefix(string(k), p) {
					t.Errorf("prefix %q gives %q", p, k)
				}
				n++
				return true
			}); err != nil || n != want {
				t.Errorf("prefix %q: %d keys, want %d; %v", p, n, want, err)
			}
		}
	}
}

// TestRangeWhileChanging walks along an index and changes what it walks along.
func TestRangeWhileChanging(t *testing.T) {
	for _, ordered := range []bool{false, true} {
		s := newStore(t, flow.StoreSpec{Ordered: ordered}, serde.Int64, serde.Int64)
		for i := range int64(1000) {
			put(t, s, i, i, 0)
		}
		next := int64(0)
		err := s.Range(nil, nil, func(k, v, _ int64) bool {
			if k != next {
				t.Fatalf("ordered %v: key %d, want %d", ordered, k, next)
			}
			next++
			r, err := s.Touch(k)
			if err != nil {
				t.Fatal(err)
			}
			s.Unset(r, 0, nil)
			put(t, s, -k-1, v, 0) // sorts behind: the serialized bytes count
			return next < 1000
		})
		if err != nil {
			t.Fatal(err)
		}
		if n := len(commit(t, s, 1, 1)); n != 1000 {
			t.Errorf("ordered %v: %d changelog records, want 1000", ordered, n)
		}
	}
}

// TestSealedBytesDoNotChange: what is on its way to the changelog stays as it was, whatever the next epoch does.
func TestSealedBytesDoNotChange(t *testing.T) {
	s := newStore(t, flow.StoreSpec{}, serde.String, serde.JSON[map[string]int]())
	put(t, s, "k", map[string]int{"a": 1}, 5)
	var out flow.Effects
	if err := s.Seal(1, &out); err != nil {
		t.Fatal(err)
	}
	r, err := s.Touch("k")
	if err != nil {
		t.Fatal(err)
	}
	m, _, _ := s.At(r)
	m["a"] = 2 // in place, as most functions would
	s.Set(r, m, 6, nil)
	if err := s.Seal(2, &out); err != nil {
		t.Fatal(err)
	}
	if a, b := string(out.Records[0].Value), string(out.Records[1].Value); a != `{"a":1}` || b != `{"a":2}` {
		t.Errorf("sealed %s, then %s", a, b)
	}
	if err := s.Done(1, 1); err != nil {
		t.Fatal(err)
	}
	if err := s.Undo(2); err != nil {
		t.Fatal(err)
	}
	if m, at, _, _ := s.Get("k"); m["a"] != 1 || at != 5 {
		t.Errorf("after undo: %v at %d", m, at)
	}
}

// TestWrittenButNotSet: a function that changes its aggregate and then fails leaves nothing behind.
func TestWrittenButNotSet(t *testing.T) {
	s := newStore(t, flow.StoreSpec{}, serde.String, serde.JSON[map[string]int]())
	put(t, s, "k", map[string]int{"a": 1}, 5)
	commit(t, s, 1, 1)
	r, err := s.Touch("k")
	if err != nil {
		t.Fatal(err)
	}
	m, _, _ := s.At(r)
	m["a"] = 7
	if out := commit(t, s, 2, -1); len(out) != 0 {
		t.Errorf("changelog: %+v", out)
	}
	if m, _, _, _ := s.Get("k"); m["a"] != 1 {
		t.Errorf("left behind: %v", m)
	}
}

func TestErrorsSayWhere(t *testing.T) {
	s := newStore(t, flow.StoreSpec{}, serde.String, serde.JSON[func()]())
	put(t, s, "bad", func() {}, 0)
	if err := s.Seal(1, &flow.Effects{}); err == nil || !strings.Contains(err.Error(), `store "s", partition 0`) || !strings.Contains(err.Error(), `"bad"`) {
		t.Errorf("sealing: %v", err)
	}
	n := newStore(t, flow.StoreSpec{}, serde.String, serde.Int64)
	err := n.Restore([]flow.In{{Offset: 42, Key: []byte("k"), Value: []byte("short")}}, 43)
	if err == nil || !strings.Contains(err.Error(), "offset 42") {
		t.Errorf("restoring: %v", err)
	}
	w, err := NewWindows(flow.StoreEnv{Spec: &flow.StoreSpec{Name: "w", Retention: 10}, Changelog: benchTopic, Tier: memTier(t, tier.NewMem())}, serde.String, serde.Int64)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Restore([]flow.In{{Offset: 1, Key: []byte("too short")}}, 2); !errors.Is(err, ErrDamaged) {
		t.Errorf("restoring a window: %v", err)
	}
}

// TestGlobal: a store without a changelog of its own may be read by several tasks at a time.
func TestGlobal(t *testing.T) {
	for name, v := range map[string]serde.Serde[[]byte]{"shared": serde.Bytes} {
		t.Run(name, func(t *testing.T) {
			s, err := NewKV(flow.StoreEnv{Spec: &flow.StoreSpec{Name: "g"}, Tier: memTier(t, tier.NewMem())}, serde.Int64, v)
			if err != nil {
				t.Fatal(err)
			}
			var in []flow.In
			for i := range int64(2000) {
				k, _ := serde.Int64.Encode(nil, i)
				in = append(in, flow.In{Offset: i, Key: k, Value: fmt.Append(nil, i)})
			}
			if err := s.Restore(in, 2000); err != nil {
				t.Fatal(err)
			}
			s.Shrink(1 << 12)
			var wg sync.WaitGroup
			for range 4 {
				wg.Go(func() {
					for i := range int64(2000) {
						if v, _, ok, err := s.Get(i); !ok || err != nil || string(v) != fmt.Sprint(i) {
							t.Errorf("%d: %s %v %v", i, v, ok, err)
						}
					}
					n := 0
					err := s.Range(nil, nil, func(k int64, _ []byte, _ int64) bool {
						n++
						_, _, ok, err := s.Get(k)
						return ok && err == nil
					})
					if err != nil || n != 2000 {
						t.Errorf("%d keys, %v", n, err)
					}
				})
			}
			wg.Wait()
		})
	}
}

func TestShares(t *testing.T) {
	type plainStruct struct {
		A int
		B string
		C [3]time.Time
	}
	for _, c := range []struct {
		v    any
		want bool
	}{
		{1, false}, {"s", false}, {plainStruct{}, false}, {time.Time{}, false}, {[0]*int{}, false},
		{[]byte{}, true}, {map[string]int{}, true}, {&plainStruct{}, true}, {struct{ P *int }{}, true}, {[2][]int{}, true},
		{func() {}, true}, {struct{ A any }{}, true},
	} {
		if got := shares(reflect.TypeOf(c.v)); got != c.want {
			t.Errorf("%T: %v, want %v", c.v, got, c.want)
		}
	}
}

func TestSlab(t *testing.T) {
	last := 0
	for n := range 5000 {
		c, size := class(n)
		if size < n || c >= classes {
			t.Fatalf("class of %d: %d, %d bytes", n, c, size)
		}
		if c2, _ := class(n + 1); c2 < c || c2 > c+1 {
			t.Fatalf("class of %d is %d, of %d it is %d", n, c, n+1, c2)
		}
		last = c
	}
	_ = last
	var s slab
	places := map[int]uint64{}
	for _, n := range []int{0, 1, 7, 8, 100, 1000, 40_000, 1 << 20, 3 << 20, 5, 200_000} {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(n + i)
		}
		places[n] = s.put(b)
	}
	check := func() {
		for n, off := range places {
			for i, c := range s.get(off, n) {
				if c != byte(n+i) {
					t.Fatalf("byte %d of %d is wrong", i, n)
				}
			}
		}
	}
	check()
	for _, n := range []int{3 << 20, 1000} {
		s.release(places[n], n)
		delete(places, n)
	}
	s.put(make([]byte, 990)) // where the 1000 were
	check()
}

// TestLargerThanMemory: ten times as much state as fits, on disk, with a model beside it.
func TestLargerThanMemory(t *testing.T) {
	const keys, budget = 20_000, 300 << 10
	db, err := tier.Open(t.TempDir(), tier.Options{FlushBytes: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	st := memTier(t, db)
	s, err := NewKV(flow.StoreEnv{Spec: &flow.StoreSpec{Name: "s"}, Changelog: benchTopic, Tier: st}, serde.Int64, serde.String)
	if err != nil {
		t.Fatal(err)
	}
	value := func(k, round int64) string {
		return fmt.Sprintf("value %d of key %d, and some more of it, so that it takes up room", round, k)
	}
	epoch, peak := uint32(0), int64(0)
	for round := range int64(3) {
		for i := range int64(keys) {
			k := i * 7919 % keys
			r, err := s.Touch(k)
			if err != nil {
				t.Fatal(err)
			}
			if old, _, ok := s.At(r); ok != (round > 0) || ok && old != value(k, round-1) {
				t.Fatalf("round %d, key %d: %q %v", round, k, old, ok)
			}
			s.Set(r, value(k, round), round, nil)
			if i%500 == 499 {
				epoch++
				commit(t, s, epoch, int64(epoch))
				if err := db.MaybeFlush(int64(epoch)); err != nil {
					t.Fatal(err)
				}
				if m := s.Memory() - st.Memory(); m > budget {
					peak = max(peak, m)
					s.Shrink(m - budget/2)
				}
			}
		}
	}
	if peak > 3*budget/2 || peak == 0 {
		t.Errorf("the table took %d bytes of a budget of %d", peak, budget)
	}
	n := int64(0)
	if err := s.Range(nil, nil, func(k int64, v string, _ int64) bool {
		if k != n || v != value(k, 2) {
			t.Fatalf("key %d: %q", k, v)
		}
		n++
		return true
	}); err != nil || n != keys {
		t.Errorf("%d keys, %v", n, err)
	}
	if _, _, ok, err := s.Get(keys + 1); ok || err != nil {
		t.Errorf("a key that is nowhere: %v %v", ok, err)
	}
}
