package table

import (
	"bytes"
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

type windowKey struct {
	k     string
	start int64
}

// windowModel is a window store as anyone would write it: a copy of everything per epoch, expired windows left out
// when it is read.
type windowModel struct {
	all  map[windowKey]value
	seen int64
}

func (m windowModel) clone() windowModel { return windowModel{maps.Clone(m.all), m.seen} }

func (m windowModel) has(k windowKey, retention int64) (value, bool) {
	v, ok := m.all[k]
	return v, ok && !m.expired(k.start, retention)
}

func (m windowModel) expired(start, retention int64) bool {
	return m.seen >= 0 && start <= m.seen-retention
}

// between gives the windows that start between from and to, by start and key.
func (m windowModel) between(from, to, retention int64) []windowKey {
	var keys []windowKey
	for k := range m.all {
		if from <= k.start && k.start <= to && !m.expired(k.start, retention) {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, func(a, b windowKey) int {
		return cmp.Or(cmp.Compare(a.start, b.start), cmp.Compare(a.k, b.k))
	})
	return keys
}

type windowHarness struct {
	t         *testing.T
	rnd       *rand.Rand
	spec      *flow.StoreSpec
	topic     *flow.Topic
	db        *tier.Mem
	keys      int
	now       int64 // about which starts are put
	log       []flow.In
	pending   []flow.In
	epoch     uint32
	done      windowModel
	sealed    *windowModel
	cur       windowModel
	reported  windowModel // as of the last Changes, or the start of the epoch
	order     []windowKey // by last update since then
	store     *Windows[string, []byte]
	plain     *Windows[string, string]
	retention int64
}

func (h *windowHarness) flow() flow.Store {
	if h.store != nil {
		return h.store
	}
	return h.plain
}

func (h *windowHarness) must(err error) {
	if err != nil {
		h.t.Helper()
		h.t.Fatal(err)
	}
}

func (h *windowHarness) open() {
	st, err := h.db.Store("s", tier.Expect{})
	h.must(err)
	env := flow.StoreEnv{Spec: h.spec, Changelog: h.topic, Partition: 3, Tier: st}
	if h.store != nil || h.plain == nil && h.rnd.IntN(2) == 0 {
		h.store, err = NewWindows(env, serde.String, serde.Bytes)
		h.must(err)
		s := h.store.windows.(*windowed[string, []byte, cell])
		s.worth, s.rep.(*coded[[]byte]).worth, s.marks = 0, 0, 20
	} else {
		h.plain, err = NewWindows(env, serde.String, serde.String)
		h.must(err)
		s := h.plain.windows.(*windowed[string, string, string])
		s.worth, s.marks = 0, 20
	}
}

func (h *windowHarness) key() windowKey {
	n := h.rnd.IntN(h.keys)
	h.now = max(h.now, 0)
	start := max(0, h.now-int64(h.rnd.IntN(int(h.retention)*5/4)))
	if h.rnd.IntN(3) > 0 {
		start -= start % 10
	}
	return windowKey{fmt.Sprintf("%s%d", "a-rather-long-prefix-of-a-key-"[:n%7*5], n), start}
}

func (h *windowHarness) set(k windowKey, v string, at int64, null bool) {
	var r Ref
	var expired bool
	var err error
	if h.store != nil {
		r, expired, err = h.store.Touch(k.k, k.start)
	} else {
		r, expired, err = h.plain.Touch(k.k, k.start)
	}
	h.must(err)
	if want := h.cur.expired(k.start, h.retention); expired != want {
		h.t.Fatalf("touch %v: expired %v, want %v (seen %d)", k, expired, want, h.cur.seen)
	}
	if expired {
		return
	}
	was, has := h.cur.all[k]
	h.cur.seen = max(h.cur.seen, k.start)
	h.order = append(slices.DeleteFunc(h.order, func(o windowKey) bool { return o == k }), k)
	if h.store != nil {
		old, t, live := h.store.At(r)
		if live != has || live && (string(old) != was.v || t != was.at) {
			h.t.Fatalf("at %v: %s %d %v, want %v %v", k, old, t, live, was, has)
		}
		switch {
		case null:
			h.store.Unset(r, at, nil)
		case live && len(old) == len(v):
			copy(old, v)
			h.store.Set(r, old, at, nil)
		default:
			h.store.Set(r, []byte(v), at, nil)
		}
	} else if null {
		h.plain.Unset(r, at, nil)
	} else {
		h.plain.Set(r, v, at, nil)
	}
	if null {
		delete(h.cur.all, k)
	} else {
		h.cur.all[k] = value{v, at}
	}
}

// get compares the ways to read one.
func (h *windowHarness) get(k windowKey) {
	h.t.Helper()
	text := func(b []byte, at int64, ok bool, err error) (string, int64, bool, error) {
		return string(b), at, ok, err
	}
	for name, m := range map[string]windowModel{"get": h.cur, "told": h.reported, "committed": h.done} {
		var v string
		var at int64
		var ok bool
		var err error
		switch s, p := h.store, h.plain; {
		case s != nil && name == "get":
			v, at, ok, err = text(s.Get(k.k, k.start))
		case s != nil && name == "told":
			v, at, ok, err = text(s.Told(k.k, k.start))
		case s != nil:
			v, at, ok, err = text(s.Committed(k.k, k.start))
		case name == "get":
			v, at, ok, err = p.Get(k.k, k.start)
		case name == "told":
			v, at, ok, err = p.Told(k.k, k.start)
		default:
			v, at, ok, err = p.Committed(k.k, k.start)
		}
		h.must(err)
		if want, has := m.has(k, h.retention); ok != has || ok && (v != want.v || at != want.at) {
			h.t.Fatalf("%s %v: %v %d %v, want %v %v", name, k, v, at, ok, want, has)
		}
	}
}

func (h *windowHarness) step() {
	at := int64(h.rnd.IntN(1000))
	switch n := h.rnd.IntN(100); {
	case n < 45:
		h.set(h.key(), fmt.Sprintf("v%03d", h.rnd.IntN(1000)), at, false)
		h.now += int64(h.rnd.IntN(4))
	case n < 53:
		h.set(h.key(), "", at, true)
	case n < 65:
		h.get(h.key())
	case n < 75:
		h.fetch()
	case n < 78:
		h.changes()
	case n < 87:
		h.seal()
	case n < 92:
		h.commit()
	case n < 94:
		h.undo()
	case n < 97:
		h.flow().Shrink(int64(h.rnd.IntN(1 << 13)))
	case n < 98:
		h.must(h.db.Flush(0))
	default:
		h.crash()
	}
}

// fetch compares one of the ways to read many.
func (h *windowHarness) fetch() {
	a, b := h.key(), h.key()
	from, to := min(a.start, b.start), max(a.start, b.start)
	committed, reverse, one := h.rnd.IntN(3) == 0, h.rnd.IntN(2) == 0, h.rnd.IntN(2) == 0
	m := h.cur
	if committed {
		m, reverse = h.done, false
	}
	var want, got []string
	for _, k := range m.between(from, to, h.retention) {
		if !one || k.k == a.k {
			want = append(want, fmt.Sprint(k, m.all[k]))
		}
	}
	if reverse {
		slices.Reverse(want)
	}
	add := func(k string, start int64, v string, at int64) bool {
		got = append(got, fmt.Sprint(windowKey{k, start}, value{v, at}))
		return true
	}
	addBytes := func(k string, start int64, v []byte, at int64) bool { return add(k, start, string(v), at) }
	addOne := func(start int64, v string, at int64) bool { return add(a.k, start, v, at) }
	addOneBytes := func(start int64, v []byte, at int64) bool { return add(a.k, start, string(v), at) }
	var err error
	switch s, p := h.store, h.plain; {
	case s != nil && one && committed:
		err = s.CommittedFetch(a.k, from, to, addOneBytes)
	case s != nil && one && reverse:
		err = s.FetchReverse(a.k, from, to, addOneBytes)
	case s != nil && one:
		err = s.Fetch(a.k, from, to, addOneBytes)
	case s != nil && committed:
		err = s.CommittedFetchAll(from, to, addBytes)
	case s != nil && reverse:
		err = s.FetchAllReverse(from, to, addBytes)
	case s != nil:
		err = s.FetchAll(from, to, addBytes)
	case one && committed:
		err = p.CommittedFetch(a.k, from, to, addOne)
	case one && reverse:
		err = p.FetchReverse(a.k, from, to, addOne)
	case one:
		err = p.Fetch(a.k, from, to, addOne)
	case committed:
		err = p.CommittedFetchAll(from, to, add)
	case reverse:
		err = p.FetchAllReverse(from, to, add)
	default:
		err = p.FetchAll(from, to, add)
	}
	h.must(err)
	if !slices.Equal(got, want) {
		h.t.Fatalf("fetch %d..%d (one %v, reverse %v, committed %v, seen %d):\n%v\nwant\n%v", from, to, one, reverse, committed, m.seen, got, want)
	}
}

func (h *windowHarness) changes() {
	var want, got []string
	for _, k := range h.order {
		old, was := h.reported.all[k]
		now, is := h.cur.all[k]
		if was || is {
			want = append(want, fmt.Sprint(k, old.v, was, now.v, is))
		}
	}
	var err error
	if h.store != nil {
		err = h.store.Changes(func(k string, start int64, c Change[[]byte]) error {
			got = append(got, fmt.Sprint(windowKey{k, start}, string(c.Old), c.WasLive, string(c.New), c.Live))
			return nil
		})
	} else {
		err = h.plain.Changes(func(k string, start int64, c Change[string]) error {
			got = append(got, fmt.Sprint(windowKey{k, start}, c.Old, c.WasLive, c.New, c.Live))
			return nil
		})
	}
	h.must(err)
	if !slices.Equal(got, want) {
		h.t.Fatalf("changes:\n%v\nwant\n%v", got, want)
	}
	h.began()
}

// began notes that from here on changes are told anew.
func (h *windowHarness) began() { h.reported, h.order = h.cur.clone(), nil }

func (h *windowHarness) seal() {
	if h.sealed != nil {
		return
	}
	h.epoch++
	var out flow.Effects
	h.must(h.flow().Seal(h.epoch, &out))
	seen := map[windowKey]bool{}
	for _, o := range out.Records {
		n := len(o.Key) - 12
		k := windowKey{string(o.Key[:n]), int64(binary.BigEndian.Uint64(o.Key[n:]))}
		if seen[k] || o.Topic != h.topic || o.Partition != 3 || !bytes.Equal(o.Key[n+8:], []byte{0, 0, 0, 0}) {
			h.t.Fatalf("changelog record %+v", o)
		}
		seen[k] = true
		now, is := h.cur.all[k]
		if is != (o.Value != nil) || is && (string(o.Value) != now.v || o.Time != now.at) {
			h.t.Fatalf("changelog record %v=%s@%d, want %v %v", k, o.Value, o.Time, now, is)
		}
		h.pending = append(h.pending, flow.In{Offset: int64(len(h.log) + len(h.pending)), Time: o.Time, Key: o.Key, Value: o.Value})
	}
	for k, v := range h.cur.all {
		if h.done.all[k] != v && !seen[k] {
			h.t.Fatalf("%v is not on the changelog", k)
		}
	}
	c := h.cur.clone()
	h.sealed = &c
	h.began()
}

func (h *windowHarness) commit() {
	if h.sealed == nil {
		return
	}
	next := int64(-1)
	if len(h.pending) > 0 {
		h.log = append(h.log, h.pending...)
		next = int64(len(h.log))
	}
	h.must(h.flow().Done(h.epoch, next))
	h.pending = nil
	h.done, h.sealed = *h.sealed, nil
}

func (h *windowHarness) undo() {
	if h.sealed != nil && h.rnd.IntN(2) == 0 {
		h.must(h.flow().Undo(h.epoch))
		h.pending, h.sealed = nil, nil
		h.cur = h.done.clone()
	} else {
		h.must(h.flow().Undo(h.epoch + 1))
		h.cur = h.done.clone()
		if h.sealed != nil {
			h.cur = h.sealed.clone()
		}
	}
	h.began()
}

func (h *windowHarness) crash() {
	h.db = h.db.Crash()
	h.open()
	h.pending, h.sealed = nil, nil
	from := max(0, h.flow().Position())
	for from < int64(len(h.log)) {
		n := min(int64(len(h.log))-from, 1+int64(h.rnd.IntN(200)))
		h.must(h.flow().Restore(h.log[from:from+n], from+n))
		from += n
		if h.rnd.IntN(4) == 0 {
			h.flow().Shrink(1 << 12)
		}
	}
	if seen := h.seen(); seen != h.done.seen { // that of a window that was made and taken away within an epoch as well
		h.t.Fatalf("restored to stream time %d, want %d", seen, h.done.seen)
	}
	h.cur = h.done.clone()
	h.began()
}

func (h *windowHarness) seen() int64 {
	if h.plain != nil {
		return h.plain.windows.(*windowed[string, string, string]).seen
	}
	return h.store.windows.(*windowed[string, []byte, cell]).seen
}

func TestWindowsAgainstModel(t *testing.T) {
	for seed := range uint64(120) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			h := &windowHarness{t: t, rnd: rand.New(rand.NewPCG(seed, 2)), db: tier.NewMem(), topic: &flow.Topic{Name: "s-changelog"},
				keys: 3 << (seed % 5), retention: []int64{40, 300, 5000}[seed%3]}
			h.spec = &flow.StoreSpec{Name: "s", Retention: h.retention, Ordered: seed%2 == 0}
			empty := windowModel{map[windowKey]value{}, -1}
			h.done, h.cur, h.reported = empty.clone(), empty.clone(), empty.clone()
			h.open()
			for range 2500 {
				h.step()
			}
		})
	}
}
