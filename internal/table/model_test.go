package table

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

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

// judge is a testing.T, or what stands for one where something is meant to be found wrong.
type judge interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

// harness drives a store and its model with the same operations.
type harness struct {
	t       judge
	rnd     *rand.Rand
	spec    *flow.StoreSpec
	topic   *flow.Topic
	db      disk
	keys    int
	log     []flow.In // the committed changelog
	pending []flow.In // of the sealed epoch
	epoch   uint32
	model   *model
	kv      kvOf
	mutate  func(kvOf) kvOf // plants a mistake
	// as of the last Changes, or the start of the epoch
	reported map[string]value
	order    []string // keys by last update since then
}

// disk is a tier.DB that can lose what was not flushed.
type disk interface {
	tier.DB
	crash(h *rand.Rand) disk
}

type memDisk struct{ *tier.Mem }

func (d memDisk) crash(*rand.Rand) disk { return memDisk{d.Mem.Crash()} }

type pebbleDisk struct {
	tier.DB
	fs *vfs.MemFS
}

func newPebbleDisk(fs *vfs.MemFS) disk {
	db, err := tier.Open("task", tier.Options{FS: fs, FlushBytes: 2 << 10})
	if err != nil {
		panic(err)
	}
	return pebbleDisk{db, fs}
}

func (d pebbleDisk) crash(rnd *rand.Rand) disk {
	fs := d.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rnd})
	if err := d.DB.Close(); err != nil {
		panic(err)
	}
	return newPebbleDisk(fs)
}

// kvOf is a store of strings, whatever V it has.
type kvOf interface {
	flow.Store
	put(k string, v string, at int64, write bool) error
	del(k string, at int64) error
	get(k string) (value, bool, error)
	told(k string) (value, bool, error)
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
func (s kvStrings) told(k string) (value, bool, error) {
	v, at, ok, err := s.Told(k)
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
		out = append(out, fmt.Sprint(k, ":", c.Old, c.WasLive, ">", c.New, c.Live))
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
func (s kvShared) told(k string) (value, bool, error) {
	v, at, ok, err := s.Told(k)
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
		out = append(out, fmt.Sprint(k, ":", string(c.Old), c.WasLive, ">", string(c.New), c.Live))
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
		kv := s.kv.(*keyValue[string, []byte, cell])
		kv.worth, kv.rep.(*coded[[]byte]).worth, kv.marks = 0, 0, 20
		h.kv = kvShared{s}
	default:
		s, err := NewKV(env, serde.String, serde.String)
		h.must(err)
		kv := s.kv.(*keyValue[string, string, string])
		kv.worth, kv.marks = 0, 20
		h.kv = kvStrings{s}
	}
	if h.mutate != nil {
		h.kv = h.mutate(h.kv)
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
		h.updated(k)
	case n < 55:
		k := h.key()
		h.must(h.kv.del(k, at))
		delete(h.model.now, k)
		h.updated(k)
	case n < 70:
		k := h.key()
		for _, read := range []struct {
			name string
			get  func(string) (value, bool, error)
			of   map[string]value
		}{{"get", h.kv.get, h.model.now}, {"told", h.kv.told, h.reported}, {"committed", h.kv.committed, h.model.done}} {
			v, ok, err := read.get(k)
			h.must(err)
			if want, has := read.of[k]; ok != has || ok && v != want {
				h.t.Fatalf("%s %s: %v %v, want %v %v", read.name, k, v, ok, want, has)
			}
		}
	case n < 75:
		h.scan()
	case n < 77:
		h.changes()
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

func (h *harness) updated(k string) {
	h.order = append(slices.DeleteFunc(h.order, func(o string) bool { return o == k }), k)
}

// began notes that from here on changes are told anew.
func (h *harness) began() { h.reported, h.order = maps.Clone(h.model.now), nil }

func (h *harness) changes() {
	var want []string
	for _, k := range h.order {
		old, was := h.reported[k]
		now, is := h.model.now[k]
		if was || is {
			want = append(want, fmt.Sprint(k, ":", old.v, was, ">", now.v, is))
		}
	}
	got, err := h.kv.changes()
	h.must(err)
	if !slices.Equal(got, want) {
		h.t.Fatalf("changes:\n%v\nwant\n%v", got, want)
	}
	h.began()
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
	h.began()
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
	} else {
		h.must(h.kv.Undo(h.epoch + 1))
		h.model.now = maps.Clone(h.model.base())
	}
	h.began()
}

// crash loses what is in memory, and of the tier what was not flushed; the changelog has what was committed.
func (h *harness) crash() {
	h.db = h.db.crash(h.rnd)
	h.open()
	h.pending = nil
	h.model.sealed, h.model.now = nil, maps.Clone(h.model.done)
	h.began()
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

func newHarness(t judge, seed uint64, mutate func(kvOf) kvOf) *harness {
	h := &harness{t: t, mutate: mutate, rnd: rand.New(rand.NewPCG(seed, 1)), db: memDisk{tier.NewMem()}, model: newModel(),
		topic: &flow.Topic{Name: "s-changelog"}, keys: 20 << (seed % 5)}
	h.spec = &flow.StoreSpec{Name: "s", Ordered: seed%2 == 0, Changelog: map[string]string{"v": []string{"plain", "shared"}[seed/2%2]}}
	if seed%8 == 7 || seed%8 == 4 {
		h.db = newPebbleDisk(vfs.NewCrashableMem())
	}
	h.began()
	h.open()
	return h
}

func TestKeyValueAgainstModel(t *testing.T) {
	for seed := range uint64(80) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			h := newHarness(t, seed, nil)
			defer h.db.Close()
			for range 2000 {
				h.step()
			}
		})
	}
}

// The mistakes a store could make that the model must notice.
type (
	halfUndo     struct{ kvOf }
	shortRestore struct{ kvOf }
	lateDelete   struct{ kvOf }
	earlyDone    struct{ kvOf }
)

// Undo of a sealed epoch leaves that one standing.
func (s halfUndo) Undo(epoch uint32) error { return s.kvOf.Undo(epoch + 1) }

// Restore misses the last record of each batch.
func (s shortRestore) Restore(records []flow.In, next int64) error {
	return s.kvOf.Restore(records[:len(records)-1], next)
}

// Seal leaves out the tombstones.
func (s lateDelete) Seal(epoch uint32, out *flow.Effects) error {
	err := s.kvOf.Seal(epoch, out)
	out.Records = slices.DeleteFunc(out.Records, func(o flow.Out) bool { return o.Value == nil })
	return err
}

// Done hands nothing down, but says that it has.
func (s earlyDone) Done(epoch uint32, next int64) error {
	err := s.kvOf.Done(epoch, next)
	s.kvOf.(kvStrings).kv.(*keyValue[string, string, string]).env.Tier.DropRange(nil, nil)
	return err
}

// complaint is what a finder was told.
type complaint struct{ text string }

type finder struct{}

func (finder) Helper()                   {}
func (finder) Fatal(a ...any)            { panic(complaint{fmt.Sprint(a...)}) }
func (finder) Fatalf(f string, a ...any) { panic(complaint{fmt.Sprintf(f, a...)}) }

func TestModelCatches(t *testing.T) {
	for name, mutate := range map[string]func(kvOf) kvOf{
		"half an undo":     func(s kvOf) kvOf { return halfUndo{s} },
		"short restore":    func(s kvOf) kvOf { return shortRestore{s} },
		"no tombstones":    func(s kvOf) kvOf { return lateDelete{s} },
		"nothing for tier": func(s kvOf) kvOf { return earlyDone{s} },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				f, ok := recover().(complaint)
				if !ok {
					t.Fatal("was not noticed")
				}
				t.Log(f.text)
			}()
			h := newHarness(finder{}, 0, mutate)
			for range 5000 {
				h.step()
			}
		})
	}
}
