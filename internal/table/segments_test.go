package table

import (
	"testing"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/internal/tier"
	"github.com/moldau/moldau/serde"
)

// Where expiry is by segment, what has expired is not seen, begins from nothing when it is written again, and is refused once
// its segment has gone.
func TestExpiryBySegment(t *testing.T) {
	spec := &flow.StoreSpec{Name: "w", Retention: 100_000, BySegment: true} // segments of 60 s
	s, err := NewWindows(flow.StoreEnv{Spec: spec, Changelog: benchTopic, Tier: memTier(t, tier.NewMem())}, serde.String, serde.Int64)
	if err != nil {
		t.Fatal(err)
	}
	put := func(start, v int64) (was, kept bool) {
		t.Helper()
		ref, gone, err := s.Touch("k", start)
		if err != nil {
			t.Fatal(err)
		}
		if gone {
			return false, false
		}
		_, _, was = s.At(ref)
		s.Set(ref, v, start, nil)
		return was, true
	}
	seen := func(start int64) bool {
		t.Helper()
		_, _, ok, err := s.Get("k", start)
		if err != nil {
			t.Fatal(err)
		}
		return ok
	}
	put(10_000, 1)
	put(20_001, 1)
	if put(120_000, 1); seen(10_000) || !seen(20_001) {
		t.Error("20,000 and before have expired, 20,001 has not")
	}
	if was, kept := put(10_000, 2); was || !kept {
		t.Errorf("an expired window in a live segment: was there %v, written %v; want false, true", was, kept)
	}
	if was, _ := put(20_001, 2); !was {
		t.Error("a live window begins from nothing")
	}
	put(160_000, 1)
	if _, kept := put(59_999, 1); kept {
		t.Error("a window of a segment that has gone was written")
	}
	if _, kept := put(60_000, 1); !kept {
		t.Error("a window of the first live segment was refused")
	}
	if seen(60_000) {
		t.Error("it has expired nevertheless")
	}
}

// What has expired is no old value of an update; what expires only afterwards, until the change is asked for, is.
func TestOldValuesThatExpire(t *testing.T) {
	spec := &flow.StoreSpec{Name: "w", Retention: 100_000, BySegment: true}
	s, err := NewWindows(flow.StoreEnv{Spec: spec, Changelog: benchTopic, Tier: memTier(t, tier.NewMem())}, serde.String, serde.Int64)
	if err != nil {
		t.Fatal(err)
	}
	put := func(start, v int64) {
		t.Helper()
		ref, gone, err := s.Touch("k", start)
		if err != nil || gone {
			t.Fatal(gone, err)
		}
		s.Set(ref, v, start, nil)
	}
	olds := func() map[int64]bool {
		t.Helper()
		olds := map[int64]bool{}
		err := s.Changes(func(_ string, start int64, ch Change[int64]) error {
			if olds[start] = ch.WasLive; ch.WasLive && ch.Old != 1 {
				t.Errorf("%d was %d", start, ch.Old)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return olds
	}
	for _, start := range []int64{10_000, 15_000, 20_000} {
		put(start, 1)
	}
	if got := olds(); got[10_000] || got[15_000] || got[20_000] {
		t.Errorf("new windows were there: %v", got)
	}
	put(10_000, 2)
	put(115_000, 1) // 15,000 expires
	put(15_000, 2)
	put(130_000, 1) // 20,000 as well
	put(15_000, 3)
	if got := olds(); !got[10_000] || got[15_000] || got[115_000] {
		t.Errorf("got %v; only 10,000 was there when it was updated", got)
	}
}

// Where expiry is by segment, a null record moves no stream time: neither when it comes nor when it is restored.
func TestSkippedRecordsWhenRestored(t *testing.T) {
	for _, bySegment := range []bool{false, true} {
		open := func() *Records[string, string] {
			spec := &flow.StoreSpec{Name: "r", Retention: 20, BySegment: bySegment}
			s, err := NewRecords(flow.StoreEnv{Spec: spec, Changelog: benchTopic, Tier: memTier(t, tier.NewMem())}, serde.String, serde.String)
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		found := func(s *Records[string, string]) (n int) {
			if err := s.Fetch("k", 0, 100, func(int64, string) bool { n++; return true }); err != nil {
				t.Fatal(err)
			}
			return n
		}
		s := open()
		if _, err := s.Put("k", 5, "v"); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Skip("k", 25); err != nil {
			t.Fatal(err)
		}
		var log []flow.In
		for _, o := range commit(t, s, 1, 2) {
			log = append(log, flow.In{Offset: int64(len(log)), Time: o.Time, Key: o.Key, Value: o.Value})
		}
		restored := open()
		if err := restored.Restore(log, int64(len(log))); err != nil {
			t.Fatal(err)
		}
		want := map[bool]int{false: 0, true: 1}[bySegment]
		if a, b := found(s), found(restored); a != want || b != want {
			t.Errorf("by segment %v: %d found, restored %d, want %d", bySegment, a, b, want)
		}
	}
}
