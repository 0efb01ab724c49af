package table

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/internal/tier"
	"github.com/moldau/moldau/serde"
)

type sessionKey struct {
	k          string
	start, end int64
}

type sessionModel struct {
	all  map[sessionKey]int64
	seen int64
}

func (m sessionModel) clone() sessionModel { return sessionModel{maps.Clone(m.all), m.seen} }

func (m sessionModel) expired(end, retention int64) bool {
	return m.seen >= 0 && end <= m.seen-retention
}

func (m sessionModel) where(retention int64, f func(sessionKey) bool) (keys []string) {
	var all []sessionKey
	for k := range m.all {
		if f(k) && !m.expired(k.end, retention) {
			all = append(all, k)
		}
	}
	slices.SortFunc(all, func(a, b sessionKey) int {
		return cmp.Or(cmp.Compare(a.end, b.end), cmp.Compare(a.start, b.start), cmp.Compare(a.k, b.k))
	})
	for _, k := range all {
		keys = append(keys, fmt.Sprint(k, m.all[k]))
	}
	return keys
}

// TestSessionsAgainstModel runs a session store, with two epochs open, undo, crashes and too little memory, beside maps.
func TestSessionsAgainstModel(t *testing.T) {
	const retention = 200
	for seed := range uint64(40) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		db := tier.NewMem()
		topic := &flow.Topic{Name: "s-changelog"}
		var s *Sessions[string, int64]
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
		open := func() {
			st, err := db.Store("s", tier.Expect{})
			must(err)
			s, err = NewSessions(flow.StoreEnv{Spec: &flow.StoreSpec{Name: "s", Retention: retention, Ordered: seed%2 == 0}, Changelog: topic, Tier: st}, serde.String, serde.Int64)
			must(err)
		}
		open()
		empty := sessionModel{map[sessionKey]int64{}, -1}
		done, cur, told := empty.clone(), empty.clone(), empty.clone()
		var sealed *sessionModel
		var log, pending []flow.In
		epoch, now := uint32(0), int64(0)
		key := func() sessionKey {
			start := max(0, now-rnd.Int64N(250))
			return sessionKey{fmt.Sprint("k", rnd.IntN(6)), start, start + rnd.Int64N(20)}
		}
		for range 2500 {
			switch n := rnd.IntN(100); {
			case n < 50:
				k := key()
				r, expired, err := s.Touch(k.k, k.start, k.end)
				must(err)
				if expired != cur.expired(k.end, retention) {
					t.Fatalf("seed %d: touch %v: expired %v, stream time %d", seed, k, expired, cur.seen)
				}
				if expired {
					break
				}
				cur.seen = max(cur.seen, k.end)
				if old, _, ok := s.At(r); ok {
					if old != cur.all[k] {
						t.Fatalf("seed %d: at %v: %d, want %d", seed, k, old, cur.all[k])
					}
				}
				if rnd.IntN(4) == 0 {
					s.Unset(r, now, nil)
					delete(cur.all, k)
				} else {
					v := rnd.Int64N(1000)
					s.Set(r, v, now, nil)
					cur.all[k] = v
				}
				now += rnd.Int64N(4)
			case n < 75:
				k, committed, reverse, one := key(), rnd.IntN(3) == 0, rnd.IntN(2) == 0, rnd.IntN(2) == 0
				v, _, ok, err := s.Told(k.k, k.start, k.end)
				must(err)
				if was, has := told.all[k]; ok != (has && !told.expired(k.end, retention)) || ok && v != was {
					t.Fatalf("seed %d: told %v: %d %v, want %d %v at %d", seed, k, v, ok, was, has, told.seen)
				}
				m := cur
				if committed {
					m, reverse = done, false
				}
				var want, got []string
				if one {
					want = m.where(retention, func(o sessionKey) bool { return o.k == k.k && o.end >= k.start && o.start <= k.end })
				} else {
					want = m.where(retention, func(o sessionKey) bool { return o.end >= k.start && o.end <= k.end })
				}
				if reverse {
					slices.Reverse(want)
				}
				all := func(key string, start, end, v, _ int64) bool {
					got = append(got, fmt.Sprint(sessionKey{key, start, end}, v))
					return true
				}
				f := func(start, end, v, at int64) bool { return all(k.k, start, end, v, at) }
				switch {
				case one && committed:
					must(s.CommittedFind(k.k, k.start, k.end, f))
				case one && reverse:
					must(s.FindReverse(k.k, k.start, k.end, f))
				case one:
					must(s.Find(k.k, k.start, k.end, f))
				case committed:
					must(s.CommittedFindAll(k.start, k.end, all))
				case reverse:
					must(s.FindAllReverse(k.start, k.end, all))
				default:
					must(s.FindAll(k.start, k.end, all))
				}
				if !slices.Equal(got, want) {
					t.Fatalf("seed %d: find %v (one %v, reverse %v, committed %v):\n%v\nwant\n%v", seed, k, one, reverse, committed, got, want)
				}
			case n < 84 && sealed == nil:
				epoch++
				var out flow.Effects
				must(s.Seal(epoch, &out))
				for _, o := range out.Records {
					pending = append(pending, flow.In{Offset: int64(len(log) + len(pending)), Time: o.Time, Key: o.Key, Value: o.Value})
				}
				c := cur.clone()
				sealed, told = &c, c
			case n < 90 && sealed != nil:
				log = append(log, pending...)
				must(s.Done(epoch, int64(len(log))))
				pending, done, sealed = nil, *sealed, nil
			case n < 93 && sealed != nil:
				must(s.Undo(epoch))
				pending, sealed, cur, told = nil, nil, done.clone(), done.clone()
			case n < 95:
				must(s.Undo(epoch + 1))
				cur = done.clone()
				if sealed != nil {
					cur = sealed.clone()
				}
				told = cur.clone()
			case n < 97:
				s.Shrink(1 << 12)
			case n < 98:
				must(db.Flush(0))
			case n < 99:
				db = db.Crash()
				open()
				if from := max(0, s.Position()); from < int64(len(log)) {
					must(s.Restore(log[from:], int64(len(log))))
				}
				if seen := s.sessions.(*sessioned[string, int64, int64]).seen; seen != done.seen { // that of a session made and taken away within an epoch as well
					t.Fatalf("seed %d: restored to stream time %d, want %d", seed, seen, done.seen)
				}
				pending, sealed = nil, nil
				cur, told = done.clone(), done.clone()
			}
		}
	}
}

// TestSessionKeys: the end comes first, then the start, as in Kafka Streams' changelogs and topics.
func TestSessionKeys(t *testing.T) {
	b := session{end: 300, start: 100}.append([]byte("key"))
	if len(b) != 19 || binary.BigEndian.Uint64(b[3:]) != 300 || binary.BigEndian.Uint64(b[11:]) != 100 {
		t.Errorf("%x", b)
	}
	k, s, ok := session{}.split(b)
	if string(k) != "key" || s != (session{300, 100}) || !ok {
		t.Errorf("%s %v %v", k, s, ok)
	}
	if _, _, ok := (session{}).split(b[4:]); ok {
		t.Error("a key that is too short was read")
	}
}
