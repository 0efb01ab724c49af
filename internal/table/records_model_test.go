package table

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/internal/tier"
	"github.com/moldau/moldau/serde"
)

type oneRecord struct {
	k  string
	at int64
	v  string
}

// recordModel has all records that were ever kept, as they came.
type recordModel struct {
	all  []oneRecord
	seen int64
}

func (m recordModel) clone() recordModel { return recordModel{slices.Clone(m.all), m.seen} }

func (m recordModel) where(retention int64, f func(oneRecord) bool) (lines []string) {
	var found []oneRecord
	for _, r := range m.all {
		if f(r) && r.at > m.seen-retention {
			found = append(found, r)
		}
	}
	slices.SortStableFunc(found, func(a, b oneRecord) int { return cmp.Compare(a.at, b.at) })
	for _, r := range found {
		lines = append(lines, fmt.Sprint(r))
	}
	return lines
}

// recordsOf is a store of records whose values are strings, however it keeps them.
type recordsOf interface {
	flow.Store
	put(k string, at int64, v string) (bool, error)
	skip(k string, at int64) (bool, error)
	fetch(k string, from, to int64) ([]string, error)
	all(from, to int64) ([]string, error)
}

type stringRecords struct{ *Records[string, string] }

func (s stringRecords) put(k string, at int64, v string) (bool, error) { return s.Put(k, at, v) }
func (s stringRecords) skip(k string, at int64) (bool, error)          { return s.Skip(k, at) }
func (s stringRecords) fetch(k string, from, to int64) (lines []string, err error) {
	err = s.Fetch(k, from, to, func(at int64, v string) bool {
		lines = append(lines, fmt.Sprint(oneRecord{k, at, v}))
		return true
	})
	return lines, err
}
func (s stringRecords) all(from, to int64) (lines []string, err error) {
	err = s.FetchAll(from, to, func(k string, at int64, v string) bool {
		lines = append(lines, fmt.Sprint(oneRecord{k, at, v}))
		return true
	})
	return lines, err
}

type bytesRecords struct{ *Records[string, []byte] }

func (s bytesRecords) put(k string, at int64, v string) (bool, error) { return s.Put(k, at, []byte(v)) }
func (s bytesRecords) skip(k string, at int64) (bool, error)          { return s.Skip(k, at) }
func (s bytesRecords) fetch(k string, from, to int64) (lines []string, err error) {
	err = s.Fetch(k, from, to, func(at int64, v []byte) bool {
		lines = append(lines, fmt.Sprint(oneRecord{k, at, string(v)}))
		return true
	})
	return lines, err
}
func (s bytesRecords) all(from, to int64) (lines []string, err error) {
	err = s.FetchAll(from, to, func(k string, at int64, v []byte) bool {
		lines = append(lines, fmt.Sprint(oneRecord{k, at, string(v)}))
		return true
	})
	return lines, err
}

// TestRecordsAgainstModel runs a store of records, with two epochs open, undo, crashes and too little memory, beside a list.
func TestRecordsAgainstModel(t *testing.T) {
	for seed := range uint64(40) {
		if err := recordsAgainstModel(seed, nil); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

// TestRecordsModelCatches plants mistakes.
func TestRecordsModelCatches(t *testing.T) {
	for name, mutate := range map[string]func(recordsOf) recordsOf{
		"undo of one epoch only": func(s recordsOf) recordsOf { return halfUndoRecords{s} },
		"a record is forgotten when restored": func(s recordsOf) recordsOf {
			return shortRestoreRecords{s}
		},
	} {
		caught := false
		for seed := range uint64(40) {
			caught = caught || recordsAgainstModel(seed, mutate) != nil
		}
		if !caught {
			t.Errorf("%s: not noticed", name)
		}
	}
}

type halfUndoRecords struct{ recordsOf }

func (s halfUndoRecords) Undo(epoch uint32) error { return s.recordsOf.Undo(epoch + 1) }

type shortRestoreRecords struct{ recordsOf }

func (s shortRestoreRecords) Restore(in []flow.In, next int64) error {
	return s.recordsOf.Restore(in[1:], next)
}

func recordsAgainstModel(seed uint64, mutate func(recordsOf) recordsOf) (err error) {
	const retention = 200
	rnd := rand.New(rand.NewPCG(seed, 5))
	db := tier.NewMem()
	topic := &flow.Topic{Name: "s-changelog"}
	var s recordsOf
	open := func() error {
		st, err := db.Store("s", tier.Expect{})
		if err != nil {
			return err
		}
		env := flow.StoreEnv{Spec: &flow.StoreSpec{Name: "s", Retention: retention, Ordered: seed%3 == 0}, Changelog: topic, Tier: st}
		if seed%2 == 0 {
			all, err := NewRecords(env, serde.String, serde.String)
			if err != nil {
				return err
			}
			s = stringRecords{all}
		} else {
			all, err := NewRecords(env, serde.String, serde.Bytes)
			if err != nil {
				return err
			}
			s = bytesRecords{all}
		}
		if mutate != nil {
			s = mutate(s)
		}
		return nil
	}
	if err := open(); err != nil {
		return err
	}
	done, cur := recordModel{seen: -1}, recordModel{seen: -1}
	var sealed *recordModel
	var log, pending []flow.In
	epoch, now := uint32(0), int64(0)
	for n := range 2500 {
		k := fmt.Sprint("k", rnd.IntN(5))
		switch dice := rnd.IntN(100); {
		case dice < 50:
			at := max(0, now-rnd.Int64N(2)*rnd.Int64N(250))
			now += rnd.Int64N(3)
			cur.seen = max(cur.seen, at)
			want := at <= cur.seen-retention
			var expired bool
			if rnd.IntN(12) == 0 {
				expired, err = s.skip(k, at)
			} else {
				if expired, err = s.put(k, at, fmt.Sprint(n)); !want {
					cur.all = append(cur.all, oneRecord{k, at, fmt.Sprint(n)})
				}
			}
			if expired != want {
				return fmt.Errorf("put at %d, stream time %d: expired %v", at, cur.seen, expired)
			}
		case dice < 75:
			from := max(0, now-rnd.Int64N(250))
			to := from + rnd.Int64N(200)
			var got, want []string
			if rnd.IntN(2) == 0 {
				got, err = s.fetch(k, from, to)
				want = cur.where(retention, func(r oneRecord) bool { return r.k == k && from <= r.at && r.at <= to })
			} else {
				got, err = s.all(from, to)
				want = cur.where(retention, func(r oneRecord) bool { return from <= r.at && r.at <= to })
			}
			if err == nil && !slices.Equal(got, want) {
				return fmt.Errorf("fetch %s %d..%d:\n%v\nwant\n%v", k, from, to, got, want)
			}
		case dice < 84 && sealed == nil:
			epoch++
			var out flow.Effects
			err = s.Seal(epoch, &out)
			for _, o := range out.Records {
				pending = append(pending, flow.In{Offset: int64(len(log) + len(pending)), Time: o.Time, Key: o.Key, Value: o.Value})
			}
			c := cur.clone()
			sealed = &c
		case dice < 90 && sealed != nil:
			log = append(log, pending...)
			err = s.Done(epoch, int64(len(log)))
			pending, done, sealed = nil, *sealed, nil
		case dice < 92 && sealed != nil:
			err = s.Undo(epoch)
			pending, sealed, cur = nil, nil, done.clone()
		case dice < 94:
			err = s.Undo(epoch + 1)
			cur = done.clone()
			if sealed != nil {
				cur = sealed.clone()
			}
		case dice < 97:
			s.Shrink(1 << 12)
		case dice < 98:
			err = db.Flush(0)
		case dice < 99:
			db = db.Crash()
			if err = open(); err == nil {
				if from := max(0, s.Position()); from < int64(len(log)) {
					err = s.Restore(log[from:], int64(len(log)))
				}
			}
			pending, sealed, cur = nil, nil, done.clone()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// TestRecordKeys: the changelog has the keys of Kafka Streams' window stores that keep duplicates; numbers begin at 1 and count what is
// null or too late as well.
func TestRecordKeys(t *testing.T) {
	env := flow.StoreEnv{Spec: &flow.StoreSpec{Name: "s", Retention: 100}, Changelog: benchTopic, Tier: memTier(t, tier.NewMem())}
	s, err := NewRecords(env, serde.String, serde.String)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []struct {
		at   int64
		v    string
		late bool
	}{{1000, "a", false}, {1000, "", false}, {900, "late", true}, {1000, "b", false}} {
		var late bool
		if r.v == "" {
			late, err = s.Skip("k", r.at)
		} else {
			late, err = s.Put("k", r.at, r.v)
		}
		if err != nil || late != r.late {
			t.Fatal(r, late, err)
		}
	}
	var lines []string
	for _, o := range commit(t, s, 1, 4) {
		key, at, _ := stamp{}.split(o.Key)
		lines = append(lines, fmt.Sprintf("%s %d %d %q %d", key, at.at, at.seq, o.Value, o.Time))
	}
	want := []string{`k 1000 2 "" 1000`, `k 900 3 "late" 900`, `k 1000 1 "a" 1000`, `k 1000 4 "b" 1000`}
	if !slices.Equal(lines, want) {
		t.Errorf("got  %q\nwant %q", lines, want)
	}
	if key := (stamp{1, 2}).append([]byte("k")); !bytes.Equal(key, []byte("k\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x02")) {
		t.Errorf("%x", key)
	}
}

// TestNumbersBeginAgain after the greatest, as in Kafka Streams.
func TestNumbersBeginAgain(t *testing.T) {
	env := flow.StoreEnv{Spec: &flow.StoreSpec{Name: "s", Retention: math.MaxInt64}, Changelog: benchTopic, Tier: memTier(t, tier.NewMem())}
	s, err := NewRecords(env, serde.String, serde.String)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Restore([]flow.In{{Time: 5, Key: stamp{5, lastNumber}.append([]byte("k")), Value: []byte("last")}}, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put("k", 6, "first"); err != nil {
		t.Fatal(err)
	}
	if out := commit(t, s, 1, 2); !bytes.Equal(out[0].Key, stamp{6, 0}.append([]byte("k"))) {
		t.Errorf("%x", out[0].Key)
	}
}

func TestUnmatched(t *testing.T) {
	db := tier.NewMem()
	env := flow.StoreEnv{Spec: &flow.StoreSpec{Name: "u"}, Changelog: benchTopic, Tier: memTier(t, db)}
	u, err := NewUnmatched(env, serde.String)
	if err != nil {
		t.Fatal(err)
	}
	add := func(k string, at int64, left bool, v string) {
		t.Helper()
		if err := u.Add(k, at, left, func(dst []byte) ([]byte, error) { return append(dst, v...), nil }); err != nil {
			t.Fatal(err)
		}
	}
	each := func() (lines []string) {
		t.Helper()
		if err := u.Each(func(k string, at int64, left bool, v []byte) bool {
			lines = append(lines, fmt.Sprintf("%d %v %s:%s", at, left, k, v))
			return true
		}); err != nil {
			t.Fatal(err)
		}
		return lines
	}
	add("b", 2, true, "3")
	add("a", 2, true, "1")
	add("a", 2, true, "2")
	add("z", 2, false, "")
	add("y", 1, true, "0")
	want := []string{"1 true y:0", "2 false z:", "2 true a:1", "2 true a:2", "2 true b:3"}
	if got := each(); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	out := commit(t, u, 1, 5)
	if got := fmt.Sprintf("%x=%x@%d", out[1].Key, out[1].Value, out[1].Time); got != "0000000000000002"+"01"+"61"+"="+"01"+"00000002"+"00000002"+"0131"+"00000002"+"0132"+"@2" {
		t.Error(got)
	}
	if ok, err := u.Drop("a", 2, true); !ok || err != nil {
		t.Error(ok, err)
	}
	if ok, err := u.Drop("a", 2, false); ok || err != nil {
		t.Error(ok, err)
	}
	add("c", 0, false, "4")
	if got := each(); !slices.Equal(got, []string{"0 false c:4", "1 true y:0", "2 false z:", "2 true b:3"}) {
		t.Errorf("%q", got)
	}
	if err := u.Undo(2); err != nil {
		t.Fatal(err)
	}
	if got := each(); !slices.Equal(got, want) {
		t.Errorf("undone: %q", got)
	}
	u.Shrink(1 << 20)
	if got := each(); !slices.Equal(got, want) {
		t.Errorf("from the tier: %q", got)
	}
}

// FuzzUnmatched: whatever stands on a changelog is given or refused.
func FuzzUnmatched(f *testing.F) {
	key := append(binary.BigEndian.AppendUint64(nil, 7), 1, 'k')
	f.Add(key, []byte("\x01\x00\x00\x00\x02\x00\x00\x00\x02\x01a\x00\x00\x00\x01\x01"))
	f.Add(key, []byte("\x01\xff\xff\xff\xff\x00\x00\x00\x02\x01a"))
	f.Add(key, []byte("\x01\x00\x00\x00\x01\xff\xff\xff\xff\x01a"))
	f.Add(key[:5], []byte("\x00"))
	f.Fuzz(func(t *testing.T, key, value []byte) {
		u, err := NewUnmatched(flow.StoreEnv{Spec: &flow.StoreSpec{Name: "u"}, Changelog: benchTopic, Tier: memTier(t, tier.NewMem())}, serde.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if err := u.Restore([]flow.In{{Key: key, Value: value}}, 1); err != nil {
			t.Fatal(err)
		}
		n := 0
		err = u.Each(func(k []byte, at int64, _ bool, _ []byte) bool {
			if n++; !bytes.Equal(k, key[9:]) || at != int64(binary.BigEndian.Uint64(key)) {
				t.Fatalf("%q at %d of key %q", k, at, key)
			}
			return true
		})
		if err == nil && (len(key) < 9 || len(value) < 5 || uint32(n) != binary.BigEndian.Uint32(value[1:])) {
			t.Fatalf("%d values of %q under %q", n, value, key)
		}
	})
}
