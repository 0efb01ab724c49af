package state

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/window"
)

// task is an Opener over stores without a tier.
type task struct {
	stores map[*flow.StoreSpec]flow.Store
	ctx    flow.Ctx
	fail   error // of OpenStore
	broken bool  // the tier cannot be read
}

func newTask() *task { return &task{stores: map[*flow.StoreSpec]flow.Store{}} }

func (t *task) Step() (*flow.Ctx, int) { return &t.ctx, 7 }

func (t *task) Expired() {}

func (t *task) OpenStore(spec *flow.StoreSpec) (flow.Store, error) {
	if t.fail != nil {
		return nil, t.fail
	}
	if s := t.stores[spec.Root]; s != nil {
		return s, nil
	}
	s, err := spec.New(flow.StoreEnv{Spec: spec, Changelog: &flow.Topic{Name: spec.Name}, Tier: noTier{t}})
	if err == nil {
		t.stores[spec.Root] = s
	}
	return s, err
}

// noTier keeps nothing, and can fail.
type noTier struct{ t *task }

var errDisk = errors.New("disk on fire")

func (n noTier) err() error {
	if n.t.broken {
		return errDisk
	}
	return nil
}
func (n noTier) Get(dst, _ []byte) ([]byte, bool, error)          { return dst, false, n.err() }
func (n noTier) Scan(_, _ []byte, _ func(_, _ []byte) bool) error { return n.err() }
func (n noTier) Apply([]flow.TierChange, int64) error             { return n.err() }
func (n noTier) DropRange(_, _ []byte) error                      { return n.err() }
func (noTier) Position() int64                                    { return -1 }
func (noTier) Count() int64                                       { return 1 } // so that it is asked
func (noTier) Memory() int64                                      { return 0 }
func (noTier) Flush() error                                       { return nil }
func (noTier) Close() error                                       { return nil }

func at(ms int64) time.Time { return time.UnixMilli(ms) }

func collect[K, V any](seq func(func(K, V) bool)) string {
	var all []string
	for k, v := range seq {
		all = append(all, fmt.Sprintf("%v=%v", k, v))
	}
	return strings.Join(all, " ")
}

func TestSettingsAreCopies(t *testing.T) {
	h := NewKeyValue("counts", serde.String, serde.Int64)
	plain := *h.Spec()
	settings := map[string]string{"segment.ms": "1000"}
	a := h.Ordered().TTL(time.Minute).EveryUpdate().Unlogged().Changelog(settings)
	b := a.Changelog(map[string]string{"segment.bytes": "1"})
	settings["segment.ms"] = "2"
	if got := *h.Spec(); got.Ordered || got.TTL != 0 || got.EveryUpdate || got.Unlogged || got.Changelog != nil || got.At != plain.At {
		t.Errorf("the handle has changed: %+v", got)
	}
	s := a.Spec()
	if !s.Ordered || s.TTL != 60_000 || !s.EveryUpdate || !s.Unlogged || len(s.Changelog) != 1 || s.Changelog["segment.ms"] != "1000" {
		t.Errorf("settings: %+v", s)
	}
	if len(b.Spec().Changelog) != 2 {
		t.Errorf("settings of the changelog do not add up: %v", b.Spec().Changelog)
	}
	if s.Root != h.Spec().Root || s.Root == nil || NewKeyValue("counts", serde.String, serde.Int64).Spec().Root == s.Root {
		t.Error("a copy must have the root of its handle, and another handle another one")
	}
	var zero KeyValue[string, int64]
	if zero.Ordered().TTL(1).Changelog(settings).Spec() != nil {
		t.Error("the zero handle has come to something")
	}
	w := NewWindow("w", serde.String, serde.Int64).Retention(time.Hour).Ordered().EveryUpdate().Unlogged().Changelog(settings)
	if s := w.Spec(); s.Retention != 3_600_000 || !s.Ordered || !s.EveryUpdate || !s.Unlogged || len(s.Changelog) != 1 || s.Kind != flow.Window {
		t.Errorf("settings of a window store: %+v", s)
	}
}

func TestKV(t *testing.T) {
	task := newTask()
	h := NewKeyValue("kv", serde.String, serde.Int64).Ordered()
	s := h.Open(task)
	task.ctx.Time = 5
	for i, k := range []string{"c", "a", "b", "ab"} {
		s.Put(k, int64(i))
	}
	if !task.ctx.Wrote {
		t.Error("the task was not told of a write")
	}
	s.Delete("c")
	if v, when, ok := s.GetTimed("a"); v != 1 || !when.Equal(at(5)) || !ok {
		t.Errorf("a: %d %v %v", v, when, ok)
	}
	if _, ok := s.Get("c"); ok {
		t.Error("c was deleted and is there")
	}
	for name, c := range map[string]struct{ got, want string }{
		"all":      {collect(s.All()), "a=1 ab=3 b=2"},
		"range":    {collect(s.Range("ab", "b")), "ab=3 b=2"},
		"reversed": {collect(s.RangeReverse("a", "ab")), "ab=3 a=1"},
		"prefix":   {collect(s.Prefix([]byte("a"))), "a=1 ab=3"},
	} {
		if c.got != c.want {
			t.Errorf("%s: %s, want %s", name, c.got, c.want)
		}
	}
	for k := range s.All() { // taking away what one walks along
		s.Delete(k)
	}
	if got := collect(s.All()); got != "" {
		t.Errorf("left: %s", got)
	}
}

func TestNilIsNull(t *testing.T) {
	task := newTask()
	s := NewKeyValue("kv", serde.String, serde.Bytes).Open(task)
	s.Put("a", []byte("1"))
	s.Put("empty", []byte{})
	s.Put("a", nil)
	if _, ok := s.Get("a"); ok {
		t.Error("a nil value was put, not deleted")
	}
	if v, ok := s.Get("empty"); !ok || v == nil || len(v) != 0 {
		t.Errorf("an empty value: %v %v", v, ok)
	}
	w := NewWindow("w", serde.String, serde.JSON[*int]()).Retention(time.Hour).Open(task)
	one := 1
	w.Put("a", &one, at(0))
	w.Put("a", nil, at(0))
	if _, ok := w.Get("a", at(0)); ok {
		t.Error("a nil window was put, not deleted")
	}
}

func TestWindowStore(t *testing.T) {
	task := newTask()
	h := NewWindow("w", serde.String, serde.Int64).Retention(100 * time.Millisecond).Size(10 * time.Millisecond)
	s := h.Open(task)
	if !s.Put("a", 1, at(0)) || !s.Put("b", 2, at(10)) || !s.Put("a", 3, at(10)) || !s.Put("a", 4, at(20)) {
		t.Error("a window was not kept")
	}
	s.Delete("a", at(20))
	var spans []string
	for k, v := range s.Fetch("a", at(0), at(50)) {
		spans = append(spans, fmt.Sprintf("%s %d-%d=%d", k.Key, k.Start.UnixMilli(), k.End.UnixMilli(), v))
	}
	if want := []string{"a 0-10=1", "a 10-20=3"}; !slices.Equal(spans, want) {
		t.Errorf("fetched %v, want %v", spans, want)
	}
	sum := ""
	for _, v := range s.FetchReverse("a", at(0), at(50)) {
		sum += fmt.Sprint(v, " ")
	}
	for _, v := range s.FetchAll(at(0), at(50)) {
		sum += fmt.Sprint(v, " ")
	}
	for _, v := range s.FetchAllReverse(at(5), at(50)) {
		sum += fmt.Sprint(v, " ")
	}
	if want := "3 1 1 3 2 2 3 "; sum != want {
		t.Errorf("fetched %q, want %q", sum, want)
	}
	if !s.Put("a", 5, at(105)) || s.Put("a", 6, at(5)) {
		t.Error("a window is kept for the retention")
	}
	if _, ok := s.Get("a", at(0)); ok {
		t.Error("an expired window was found")
	}
}

// TestErrorsReachTheTask: a view has no error results, so the record in hand takes them, and after the first one nothing
// happens any more.
func TestErrorsReachTheTask(t *testing.T) {
	task := newTask()
	kv := NewKeyValue("kv", serde.String, serde.Int64).Open(task)
	w := NewWindow("w", serde.String, serde.Int64).Retention(time.Hour).Open(task)
	kv.Put("a", 1)
	task.broken = true
	calls := map[string]func(){
		"get":    func() { kv.Get("b") },
		"put":    func() { kv.Put("b", 1) },
		"delete": func() { kv.Delete("b") },
		"range":  func() { collect(kv.All()) },
	}
	for name, call := range calls {
		task.ctx = flow.Ctx{}
		call()
		if !errors.Is(task.ctx.Err, errDisk) || task.ctx.Failed != 7 || !strings.Contains(task.ctx.Err.Error(), `store "kv"`) {
			t.Errorf("%s: %v of node %d", name, task.ctx.Err, task.ctx.Failed)
		}
	}
	task.broken = false
	first := errors.New("first")
	task.ctx = flow.Ctx{Err: first}
	kv.Put("a", 2)
	w.Put("a", 2, at(0))
	if _, ok := kv.Get("a"); ok || task.ctx.Wrote || task.ctx.Err != first {
		t.Error("a view went on after an error")
	}
	task.ctx = flow.Ctx{}
	if v, _ := kv.Get("a"); v != 1 {
		t.Errorf("a is %d", v)
	}
	task.fail = errors.New("not connected")
	broken, brokenWindows := NewKeyValue("other", serde.String, serde.Int64).Open(task), NewWindow("v", serde.String, serde.Int64).Open(task)
	broken.Put("a", 1)
	brokenWindows.Put("a", 1, at(0))
	if _, ok := broken.Get("a"); ok || collect(broken.All()) != "" {
		t.Error("a store that could not be opened holds something")
	}
	for range brokenWindows.FetchAll(at(0), at(1)) {
		t.Error("a store that could not be opened holds something")
	}
}

func TestViewsSeeWhatIsCommitted(t *testing.T) {
	task := newTask()
	kvh := NewKeyValue("kv", serde.String, serde.JSON[map[string]int]())
	wh := NewWindow("w", serde.String, serde.Int64).Retention(time.Hour).Size(time.Second)
	kv, w := kvh.Open(task), wh.Open(task)
	kvStore, wStore := task.stores[kvh.Spec()], task.stores[wh.Spec().Root]
	kv.Put("a", map[string]int{"n": 1})
	w.Put("a", 1, at(0))
	commit := func(epoch uint32) {
		for _, s := range []flow.Store{kvStore, wStore} {
			if err := errors.Join(s.Seal(epoch, &flow.Effects{}), s.Done(epoch, -1)); err != nil {
				t.Fatal(err)
			}
		}
	}
	view, wview := kvh.View(kvStore), wh.View(wStore)
	if _, _, ok, _ := view.Get("a"); ok || collect(view.All()) != "" {
		t.Error("seen before the commit")
	}
	commit(1)
	kv.Put("a", map[string]int{"n": 2})
	kv.Put("b", map[string]int{"n": 2})
	w.Put("a", 2, at(0))
	w.Put("b", 2, at(1000))
	v, _, ok, err := view.Get("a")
	if !ok || err != nil || v["n"] != 1 {
		t.Errorf("a: %v %v %v", v, ok, err)
	}
	v["n"] = 99 // it is the caller's
	if got := collect(view.Range("a", "z")); got != "a=map[n:1]" || view.Err() != nil {
		t.Errorf("range: %s %v", got, view.Err())
	}
	if v, _, ok, err := wview.Get("a", at(0)); v != 1 || !ok || err != nil {
		t.Errorf("window: %v %v %v", v, ok, err)
	}
	n := 0
	for k, v := range wview.FetchAll(at(0), at(5000)) {
		if n++; k.Key != "a" || v != 1 || k.End.Sub(k.Start) != time.Second {
			t.Errorf("window: %v=%d", k, v)
		}
	}
	for range wview.Fetch("a", at(0), at(5000)) {
		n++
	}
	if n != 2 || wview.Err() != nil {
		t.Errorf("%d windows, %v", n, wview.Err())
	}
	kvStore.Shrink(1 << 30)
	task.broken = true
	if _, _, _, err := view.Get("nowhere"); err == nil {
		// A filter may know that it is nowhere; a range cannot.
		collect(view.All())
		if !errors.Is(view.Err(), errDisk) {
			t.Errorf("a disk that cannot be read: %v", view.Err())
		}
	}
}

func TestSessionStore(t *testing.T) {
	task := newTask()
	h := NewSession("s", serde.String, serde.JSON[*int]()).Retention(time.Second)
	s := h.Open(task)
	n := func(i int) *int { return &i }
	k := func(k string, from, to int64) window.Key[string] { return span(k, from, to) }
	if !s.Put(k("a", 0, 10), n(1)) || !s.Put(k("a", 50, 60), n(2)) || !s.Put(k("b", 5, 55), n(3)) || !s.Put(k("a", 70, 70), n(4)) {
		t.Error("a session was not kept")
	}
	s.Put(k("a", 70, 70), nil)
	if v, ok := s.Get(k("a", 50, 60)); !ok || *v != 2 {
		t.Error("a session was not found")
	}
	if _, ok := s.Get(k("a", 70, 70)); ok {
		t.Error("a nil session was put, not deleted")
	}
	values := func(seq func(func(window.Key[string], *int) bool)) (text string) {
		for k, v := range seq {
			text += fmt.Sprintf("%s%d-%d=%d ", k.Key, k.Start.UnixMilli(), k.End.UnixMilli(), *v)
		}
		return text
	}
	if got, want := values(s.Find("a", at(10), at(50))), "a0-10=1 a50-60=2 "; got != want {
		t.Errorf("find: %s, want %s", got, want)
	}
	if got, want := values(s.FindAll(at(50), at(60))), "b5-55=3 a50-60=2 "; got != want {
		t.Errorf("find all: %s, want %s", got, want)
	}
	store := task.stores[h.Spec().Root]
	if err := errors.Join(store.Seal(1, &flow.Effects{}), store.Done(1, -1)); err != nil {
		t.Fatal(err)
	}
	s.Delete(k("a", 0, 10))
	view := h.View(store)
	if got, want := values(view.Find("a", at(0), at(90))), "a0-10=1 a50-60=2 "; got != want || view.Err() != nil {
		t.Errorf("view: %s, want %s; %v", got, want, view.Err())
	}
	if got, want := values(view.FindAll(at(0), at(90))), "a0-10=1 b5-55=3 a50-60=2 "; got != want {
		t.Errorf("view: %s, want %s", got, want)
	}
	if v, _, ok, err := view.Get(k("a", 0, 10)); !ok || *v != 1 || err != nil {
		t.Errorf("view: %v %v %v", v, ok, err)
	}
	if s.Put(k("late", 0, 10), n(9)) == false {
		t.Error("a session that has not expired was not kept")
	}
	s.Put(k("a", 2000, 2000), n(5))
	if s.Put(k("late", 0, 1000), n(9)) {
		t.Error("an expired session was kept")
	}
}

// TestViewsThatWereNotOpened: a field that Init has not set is the author's mistake, not a bug of ours that ends the process.
func TestViewsThatWereNotOpened(t *testing.T) {
	for name, use := range map[string]func(){
		"get":  func() { (*KV[string, string])(nil).Get("k") },
		"put":  func() { (*KV[string, string])(nil).Put("k", "v") },
		"zero": func() { new(KV[string, string]).Put("k", "v") },
		"range": func() {
			for range (*KV[string, string])(nil).All() {
			}
		},
		"window":       func() { (*WindowStore[string, string])(nil).Put("k", "v", time.Now()) },
		"session":      func() { (*SessionStore[string, string])(nil).Get(window.Key[string]{}) },
		"versions":     func() { (*VersionedStore[string, string])(nil).Get("k") },
		"timers":       func() { (*TimerStore[string])(nil).Set("k", time.Now()) },
		"zero of many": func() { new(WindowStore[string, string]).Get("k", time.Now()) },
	} {
		var c flow.Ctx
		func() {
			defer c.Recover()
			use()
		}()
		if p, ok := errors.AsType[*flow.Panic](c.Err); !ok || !strings.Contains(p.Error(), "has not been opened") {
			t.Errorf("%s: %v", name, c.Err)
		}
	}
}
