package table

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/internal/tier"
	"github.com/moldau/moldau/serde"
)

// javaVersions is what RocksDBVersionedStore does, with maps: the latest value of each key, and rows of contiguous older
// versions in segments by the time at which they ended.
type javaVersions struct {
	latest    map[string]javaVersion
	rows      map[int64]map[string]javaRow
	seen      int64
	retention int64
	interval  int64
}

type javaVersion struct {
	from int64
	v    string // "": a deletion
}

type javaRow struct {
	all []javaVersion // ascending
	end int64
}

func newJavaVersions(retention, interval int64) *javaVersions {
	return &javaVersions{map[string]javaVersion{}, map[int64]map[string]javaRow{}, -1, retention, interval}
}

func (j *javaVersions) clone() *javaVersions {
	c := *j
	c.latest, c.rows = maps.Clone(j.latest), map[int64]map[string]javaRow{}
	for id, rows := range j.rows {
		c.rows[id] = map[string]javaRow{}
		for k, r := range rows {
			c.rows[id][k] = javaRow{slices.Clone(r.all), r.end}
		}
	}
	return &c
}

func (j *javaVersions) set(id int64, k string, r javaRow) {
	if j.rows[id] == nil {
		j.rows[id] = map[string]javaRow{}
	}
	j.rows[id][k] = r
}

// onTop adds a version behind all others of a row.
func (j *javaVersions) onTop(id int64, k string, v javaVersion, end int64) {
	r, ok := j.rows[id][k]
	switch {
	case !ok:
		r = javaRow{[]javaVersion{v}, end}
	case r.all[0].from == r.end: // degenerate: a deletion that nothing preceded
		r.all = append(r.all, v)
		if r.end == v.from {
			r.all = []javaVersion{v}
		}
	default:
		if r.end < v.from {
			r.all = append(r.all, javaVersion{r.end, ""})
		}
		r.all = append(r.all, v)
	}
	r.end = end
	j.set(id, k, r)
}

func (j *javaVersions) put(k, v string, at int64) (to int64, kept bool) {
	if at < j.seen-j.retention {
		return 0, false
	}
	j.seen = max(j.seen, at)
	for id := range j.rows {
		if id < (j.seen-j.retention)/j.interval {
			delete(j.rows, id)
		}
	}
	found := int64(Latest)
	if l, ok := j.latest[k]; ok {
		if at >= l.from {
			if at > l.from {
				j.onTop(at/j.interval, k, l, at)
			}
			if delete(j.latest, k); v != "" {
				j.latest[k] = javaVersion{at, v}
			}
			return Latest, true
		}
		found = l.from
	}
	ids := slices.Sorted(maps.Keys(j.rows))
	slices.Reverse(ids)
	for _, id := range ids {
		r, ok := j.rows[id][k]
		if !ok || id < at/j.interval {
			continue
		}
		if r.end <= at {
			break
		}
		if r.all[0].from > at {
			found = r.all[0].from
			continue
		}
		i := len(r.all) - 1
		for r.all[i].from > at {
			i--
		}
		to := r.end
		if i+1 < len(r.all) {
			to = r.all[i+1].from
		}
		switch old := r.all[i]; {
		case old.from == at:
			r.all[i].v = v
		case at/j.interval != id:
			j.onTop(at/j.interval, k, old, at)
			r.all[i] = javaVersion{at, v}
		default:
			r.all = slices.Insert(r.all, i+1, javaVersion{at, v})
		}
		j.set(id, k, r)
		return to, true
	}
	if found == Latest {
		id := at / j.interval
		r, ok := j.rows[id][k]
		switch {
		case v != "":
			j.latest[k] = javaVersion{at, v}
		case !ok:
			j.set(id, k, javaRow{[]javaVersion{{at, ""}}, at})
		case r.end != at:
			j.onTop(id, k, javaVersion{r.end, ""}, at)
		}
		return Latest, true
	}
	id := found / j.interval
	r, ok := j.rows[id][k]
	switch {
	case !ok || r.end <= at:
		j.onTop(id, k, javaVersion{at, v}, found)
	case r.all[0].from == r.end:
		j.set(id, k, javaRow{[]javaVersion{{at, v}}, r.end})
	default:
		r.all = slices.Insert(r.all, 0, javaVersion{at, v})
		j.set(id, k, r)
	}
	return found, true
}

func (j *javaVersions) asOf(k string, at int64) string {
	if l, ok := j.latest[k]; ok && l.from <= at {
		return fmt.Sprint(l.v, "@", l.from)
	}
	if at < j.seen-j.retention {
		return ""
	}
	ids := slices.Sorted(maps.Keys(j.rows))
	slices.Reverse(ids)
	for _, id := range ids {
		r, ok := j.rows[id][k]
		if !ok || id < at/j.interval {
			continue
		}
		if r.end <= at {
			return ""
		}
		for i := len(r.all) - 1; i >= 0; i-- {
			if v := r.all[i]; v.from <= at {
				if v.v == "" {
					return ""
				}
				return fmt.Sprint(v.v, "@", v.from)
			}
		}
	}
	return ""
}

// textVersions is a store of strings, whatever V it has.
type textVersions interface {
	flow.Store
	put(k, v string, at int64) (Placement, error)
	asOf(k string, at int64, committed bool) (string, error)
}

type plainVersions struct{ *Versions[string, string] }

func (s plainVersions) put(k, v string, at int64) (Placement, error) {
	if v == "" {
		return s.Delete(k, at)
	}
	return s.Put(k, v, at)
}

func (s plainVersions) asOf(k string, at int64, committed bool) (string, error) {
	get := s.AsOf
	if committed {
		get = s.CommittedAsOf
	}
	v, from, ok, err := get(k, at)
	if !ok {
		return "", err
	}
	return fmt.Sprint(v, "@", from), err
}

type sharedVersions struct{ *Versions[string, *string] }

func (s sharedVersions) put(k, v string, at int64) (Placement, error) {
	if v == "" {
		return s.Delete(k, at)
	}
	if own, _, ok, err := s.Own(k); err != nil {
		return Placement{}, err
	} else if ok {
		*own = v // as an aggregator may; no version must see it
		return s.Put(k, own, at)
	}
	return s.Put(k, &v, at)
}

func (s sharedVersions) asOf(k string, at int64, committed bool) (string, error) {
	get := s.AsOf
	if committed {
		get = s.CommittedAsOf
	}
	v, from, ok, err := get(k, at)
	if !ok {
		return "", err
	}
	return fmt.Sprint(*v, "@", from), err
}

// TestVersionsAgainstModel runs a versioned store, with two epochs open, undo, crashes and too little memory, beside what
// Kafka Streams does.
func TestVersionsAgainstModel(t *testing.T) {
	var dropped int
	for seed := range uint64(60) {
		rnd := rand.New(rand.NewPCG(seed, 5))
		retention, grid := []int64{0, 20, 200}[seed%3], []int64{1, 10}[seed/2%2]
		db := tier.NewMem()
		topic := &flow.Topic{Name: "v-changelog"}
		var s textVersions
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
		open := func() {
			st, err := db.Store("v", tier.Expect{})
			must(err)
			env := flow.StoreEnv{Spec: &flow.StoreSpec{Name: "v", Retention: retention}, Changelog: topic, Tier: st}
			if seed%2 == 0 {
				v, err := NewVersions(env, serde.String, serde.String)
				must(err)
				s = plainVersions{v}
			} else {
				v, err := NewVersions[string, *string](env, serde.String, serde.Null[string](serde.String))
				must(err)
				s = sharedVersions{v}
			}
		}
		open()
		cur := newJavaVersions(retention, []int64{1, 7, 1000}[rnd.IntN(3)])
		done := cur.clone()
		var sealed *javaVersions
		var log, pending []flow.In
		epoch, now := uint32(0), int64(0)
		for range 3000 {
			k := fmt.Sprint("k", rnd.IntN(6))
			at := max(0, now-rnd.Int64N(rnd.Int64N(retention+20)+1))
			at -= at % grid // several of one time
			switch n := rnd.IntN(100); {
			case n < 45:
				v := ""
				if rnd.IntN(3) > 0 {
					v = fmt.Sprint("v", rnd.IntN(1000))
				}
				p, err := s.put(k, v, at)
				must(err)
				to, kept := cur.put(k, v, at)
				if p.Kept != kept || kept && p.To != to {
					t.Fatalf("seed %d: put %s=%q@%d: %+v, want to %d, kept %v", seed, k, v, at, p, to, kept)
				}
				if rnd.IntN(3) == 0 {
					now += rnd.Int64N(30)
				}
			case n < 75:
				committed := rnd.IntN(2) == 0
				m := cur
				if committed {
					m = done
				}
				if rnd.IntN(4) == 0 {
					at = Latest
				}
				got, err := s.asOf(k, at, committed)
				must(err)
				if want := m.asOf(k, at); got != want {
					t.Fatalf("seed %d: %s as of %d (committed %v, stream time %d): %q, want %q", seed, k, at, committed, m.seen, got, want)
				}
			case n < 84 && sealed == nil:
				epoch++
				var out flow.Effects
				must(s.Seal(epoch, &out))
				for _, o := range out.Records {
					pending = append(pending, flow.In{Offset: int64(len(log) + len(pending)), Time: o.Time, Key: o.Key, Value: o.Value})
				}
				sealed = cur.clone()
			case n < 90 && sealed != nil:
				log = append(log, pending...)
				must(s.Done(epoch, int64(len(log))))
				pending, done, sealed = nil, sealed, nil
			case n < 93 && sealed != nil:
				must(s.Undo(epoch))
				pending, sealed, cur = nil, nil, done.clone()
			case n < 95:
				must(s.Undo(epoch + 1))
				cur = done.clone()
				if sealed != nil {
					cur = sealed.clone()
				}
			case n < 97:
				s.Shrink(1 << 12)
			case n < 98:
				must(db.Flush(0))
			case n < 99 && rnd.IntN(4) == 0:
				db = db.Crash()
				open()
				if from := max(0, s.Position()); from < int64(len(log)) {
					must(s.Restore(log[from:], int64(len(log))))
				}
				// A deletion that left nothing behind left a stream time; it is lost.
				pending, sealed, cur = nil, nil, done.clone()
			}
		}
		st, err := db.Store("v", tier.Expect{})
		must(err)
		if n := st.Count(); n < int64(len(log))/4 {
			dropped++
		}
	}
	if dropped == 0 {
		t.Error("no history has ever expired")
	}
}
