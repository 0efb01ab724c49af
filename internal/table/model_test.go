package table

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/internal/tier"
	"github.com/moldau/moldau/serde"
)

// value is what a key of the model holds.
type value struct {
	v  string
	at int64
}

// model is a key-value store as anyone would write it: a copy of everything per epoch.
type model struct {
	done   map[string]value
	sealed map[string]value // nil: no epoch is being committed
	now    map[string]value
}

func newModel() *model { return &model{done: map[string]value{}, now: map[string]value{}} }

// base is what the epoch being computed started from.
func (m *model) base() map[string]value {
	if m.sealed != nil {
		return m.sealed
	}
	return m.done
}

func (m *model) sorted(of map[string]value) []string {
	return slices.SortedFunc(maps.Keys(of), func(a, b string) int { return cmp.Compare(a, b) })
}

// harness drives a store and its model with the same operations.
type harness struct {
	t       *testing.T
	rnd     *rand.Rand
	spec    *flow.StoreSpec
	topic   *flow.Topic
	db      *tier.Mem
	keys    int
	log     []flow.In // the committed changelog
	pending []flow.In // of the sealed epoch
	epoch   uint32
	model   *model
	get     func(k string) (value, bool)
	kv      kvOf
}

// kvOf is a store of strings, whatever V it has.
type kvOf interface {
	flow.Store
	put(k string, v string, at int64, write bool) error
	del(k string, at int64) error
	get(k string) (value, bool, error)
	committed(k string) (value, bool, error)
	scan(from, to *string, reverse, committed bool) ([]string, error)
	changes() ([]string, error)
}

type kvStrings struct{ *KV[string, string] }

func (s kvStrings) put(k, v string, at int64, _ bool) error {
	r, err := s.Touch(k)
	if err == nil {
		s.Set(r, v, at, nil)
	}
	return err
}
func (s kvStrings) del(k string, at int64) error {
	r, err := s.Touch(k)
	if err == nil {
		s.Unset(r, at, nil)
	}
	return err
}
func (s kvStrings) get(k string) (value, bool, error) {
	v, at, ok, err := s.Get(k)
	return value{v, at}, ok, err
}
func (s kvStrings) committed(k string) (value, bool, error) {
	v, at, ok, err := s.Committed(k)
	return value{v, at}, ok, err
}
func (s kvStrings) scan(from, to *string, reverse, committed bool) (out []string, err error) {
	f := func(k, v string, at int64) bool { out = append(out, fmt.Sprint(k, "=", v, "@", at)); return true }
	switch {
	case committed:
		err = s.CommittedRange(from, to, f)
	case reverse:
		err = s.RangeReverse(from, to, f)
	default:
		err = s.Range(from, to, f)
	}
	return out, err
}
func (s kvStrings) changes() (out []string, err error) {
	err = s.Changes(func(k string, c Change[string]) error {
		out = append(out, fmt.Sprint(k, ":", c.Old, c.WasLive, ">", c.New, c.Live, "@", c.Time))
		return nil
	})
	return out, err
}

// kvBytes has a V that shares memory: a one-element slice holding a string, which put writes through.
type kvShared struct{ *KV[string, []byte] }

func (s kvShared) put(k, v string, at int64, write bool) error {
	r, err := s.Touch(k)
	if err != nil {
		return err
	}
	old, _, ok := s.At(r)
	if ok && write && len(old) == len(v) {
		copy(old, v)
		s.Set(r, old, at, nil)
	} else {
		s.Set(r, []byte(v), at, nil)
	}
	return nil
}
func (s kvShared) del(k string, at int64) error {
	r, err := s.Touch(k)
	if err == nil {
		s.Unset(r, at, nil)
	}
	return err
}
func (s kvShared) get(k string) (value, bool, error) {
	v, at, ok, err := s.Get(k)
	return value{string(v), at}, ok, err
}
func (s kvShared) committed(k string) (value, bool, error) {
	v, at, ok, err := s.Committed(k)
	return value{string(v), at}, ok, err
}
func (s kvShared) scan(from, to *string, reverse, committed bool) (out []string, err error) {
	f := func(k string, v []byte, at int64) bool {
		out = append(out, fmt.Sprint(k, "=", string(v), "@", at))
		return true
	}
	switch {
	case committed:
		err = s.CommittedRange(from, to, f)
	case reverse:
		err = s.RangeReverse(from, to, f)
	default:
		err = s.Range(from, to, f)
	}
	return out, err
}
func (s kvShared) changes() (out []string, err error) {
	err = s.Changes(func(k string, c Change[[]byte]) error {
		out = append(out, fmt.Sprint(k, ":", string(c.Old), c.WasLive, ">", string(c.New), c.Live, "@", c.Time))
		return nil
	})
	return out, err
}

func (h *harness) open() {
	st, err := h.db.Store("s", tier.Expect{})
	h.must(err)
	env := flow.StoreEnv{Spec: h.spec, Changelog: h.topic, Partition: 3, Tier: st}
	if h.spec.Unlogged {
		env.Changelog = nil
	}
	switch h.spec.Changelog["v"] {
	case "shared":
		s, err := NewKV(env, serde.String, serde.Bytes)
		h.must(err)
		h.kv = kvShared{s}
	default:
		s, err := NewKV(env, serde.String, serde.String)
		h.must(err)
		h.kv = kvStrings{s}
	}
}

func (h *harness) must(err error) {
	if err != nil {
		h.t.Helper()
		h.t.Fatal(err)
	}
}

func (h *harness) key() string {
	n := h.rnd.IntN(h.keys)
	return fmt.Sprintf("%s%d", "a-rather-long-prefix-of-a-key-"[:n%7*5], n)
}

func (h *harness) step() {
	at := int64(h.rnd.IntN(1000))
	switch n := h.rnd.IntN(100); {
	case n < 45:
		k, v := h.key(), fmt.Sprintf("v%03d%s", h.rnd.IntN(1000), "-and-more"[:h.rnd.IntN(2)*9])
		h.must(h.kv.put(k, v, at, h.rnd.IntN(2) == 0))
		h.model.now[k] = value{v, at}
	case n < 55:
		k := h.key()
		h.must(h.kv.del(k, at))
		delete(h.model.now, k)
	case n < 70:
		k := h.key()
		v, ok, err := h.kv.get(k)
		h.must(err)
		if want, has := h.model.now[k]; ok != has || ok && v != want {
			h.t.Fatalf("get %s: %v %v, want %v %v", k, v, ok, want, has)
		}
		v, ok, err = h.kv.committed(k)
		h.must(err)
		if want, has := h.model.done[k]; ok != has || ok && v != want {
			h.t.Fatalf("committed %s: %v %v, want %v %v", k, v, ok, want, has)
		}
	case n < 75:
		h.scan()
	case n < 85:
		h.seal()
	case n < 92:
		h.done()
	case n < 94:
		h.undo()
	case n < 97:
		h.kv.Shrink(int64(h.rnd.IntN(1 << 14)))
	case n < 98:
		h.must(h.db.Flush(0))
	default:
		h.crash()
	}
}

func (h *harness) scan() {
	a, b := h.key(), h.key()
	from, to := &a, &b
	if h.rnd.IntN(4) == 0 {
		from = nil
	}
	if h.rnd.IntN(4) == 0 {
		to = nil
	}
	reverse, committed := h.rnd.IntN(2) == 0, h.rnd.IntN(2) == 0
	of := h.model.now
	if committed {
		of, reverse = h.model.done, false
	}
	var want []string
	for _, k := range h.model.sorted(of) {
		if (from == nil || k >= *from) && (to == nil || k <= *to) {
			want = append(want, fmt.Sprint(k, "=", of[k].v, "@", of[k].at))
		}
	}
	if reverse {
		slices.Reverse(want)
	}
	got, err := h.kv.scan(from, to, reverse, committed)
	h.must(err)
	if !slices.Equal(got, want) {
		h.t.Fatalf("range (reverse %v, committed %v):\n%v\nwant\n%v", reverse, committed, got, want)
	}
}

func (h *harness) seal() {
	if h.model.sealed != nil {
		return
	}
	h.epoch++
	var out flow.Effects
	h.must(h.kv.Seal(h.epoch, &out))
	seen := map[string]bool{}
	for _, o := range out.Records {
		if seen[string(o.Key)] || o.Topic != h.topic || o.Partition != 3 {
			h.t.Fatalf("changelog record %+v", o)
		}
		seen[string(o.Key)] = true
		old, was := h.model.done[string(o.Key)]
		now, is := h.model.now[string(o.Key)]
		if is != (o.Value != nil) || is && (string(o.Value) != now.v || o.Time != now.at) || !is && !was {
			h.t.Fatalf("changelog record %s=%s@%d, want %v %v, was %v", o.Key, o.Value, o.Time, now, is, old)
		}
		h.pending = append(h.pending, flow.In{Offset: int64(len(h.log) + len(h.pending)), Time: o.Time, Key: o.Key, Value: o.Value})
	}
	for k, v := range h.model.now {
		if h.model.done[k] != v && !seen[k] {
			h.t.Fatalf("%s is not on the changelog", k)
		}
	}
	h.model.sealed = maps.Clone(h.model.now)
}

func (h *harness) done() {
	if h.model.sealed == nil {
		return
	}
	next := int64(-1)
	if len(h.pending) > 0 {
		h.log = append(h.log, h.pending...)
		next = int64(len(h.log))
	}
	h.must(h.kv.Done(h.epoch, next))
	h.pending = nil
	h.model.done, h.model.sealed = h.model.sealed, nil
}

func (h *harness) undo() {
	if h.model.sealed != nil && h.rnd.IntN(2) == 0 {
		h.must(h.kv.Undo(h.epoch))
		h.pending = nil
		h.model.now, h.model.sealed = maps.Clone(h.model.done), nil
		return
	}
	h.must(h.kv.Undo(h.epoch + 1))
	h.model.now = maps.Clone(h.model.base())
}

// crash loses what is in memory, and of the tier what was not flushed; the changelog has what was committed.
func (h *harness) crash() {
	h.db = h.db.Crash()
	h.open()
	h.pending = nil
	h.model.sealed, h.model.now = nil, maps.Clone(h.model.done)
	from := max(0, h.kv.Position())
	for from < int64(len(h.log)) {
		n := min(int64(len(h.log))-from, 1+int64(h.rnd.IntN(200)))
		h.must(h.kv.Restore(h.log[from:from+n], from+n))
		from += n
		if h.rnd.IntN(4) == 0 {
			h.kv.Shrink(1 << 12)
		}
	}
}

func TestKeyValueAgainstModel(t *testing.T) {
	for _, v := range []string{"plain", "shared"} {
		for _, ordered := range []bool{false, true} {
			for seed := range uint64(40) {
				t.Run(fmt.Sprint(v, ordered, seed), func(t *testing.T) {
					h := &harness{t: t, rnd: rand.New(rand.NewPCG(seed, 1)), db: tier.NewMem(), model: newModel(),
						topic: &flow.Topic{Name: "s-changelog"}, keys: 20 << (seed % 5)}
					h.spec = &flow.StoreSpec{Name: "s", Ordered: ordered, Changelog: map[string]string{"v": v}}
					h.open()
					for range 3000 {
						h.step()
					}
				})
			}
		}
	}
}
