package tier

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"go.uber.org/goleak"

	"github.com/moldau/moldau/internal/flow"
)

func open(t *testing.T, fs vfs.FS) DB {
	t.Helper()
	db, err := Open("task", Options{FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func apply(t *testing.T, s flow.Tier, next int64, kv ...string) {
	t.Helper()
	var changes []flow.TierChange
	for i := 0; i < len(kv); i += 2 {
		c := flow.TierChange{Key: []byte(kv[i]), Value: []byte(kv[i+1])}
		if kv[i+1] == "-" {
			c.Value = nil
		}
		changes = append(changes, c)
	}
	if err := s.Apply(changes, next); err != nil {
		t.Fatal(err)
	}
}

func dump(t *testing.T, s Store, from, to []byte, reverse bool) string {
	t.Helper()
	var all []string
	scan := s.Scan
	if reverse {
		scan = s.ScanReverse
	}
	if err := scan(from, to, func(k, v []byte) bool {
		all = append(all, string(k)+"="+string(v))
		return true
	}); err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, " ")
}

// dbs are the kinds of DB; what can be seen of a tier must be the same in all.
func dbs(t *testing.T) map[string]DB {
	return map[string]DB{"memory": NewMem(), "disk": open(t, vfs.NewMem())}
}

func TestReads(t *testing.T) {
	for name, db := range dbs(t) {
		t.Run(name, func(t *testing.T) {
			defer db.Close()
			s := must(db.Store("s", Expect{}))(t)
			other := must(db.Store("s2", Expect{}))(t)
			if s.Position() != -1 || s.Count() != 0 {
				t.Errorf("a new tier: position %d, count %d", s.Position(), s.Count())
			}
			apply(t, other, 1, "b", "other")
			apply(t, s, 5, "a", "1", "c", "3", "e", "5", "empty", "")
			if err := db.Flush(1); err != nil {
				t.Fatal(err)
			}
			apply(t, s, 6, "b", "2", "c", "-", "e", "55", "d", "-")
			if got, want := dump(t, s, nil, nil, false), "a=1 b=2 e=55 empty="; got != want {
				t.Errorf("all: %s, want %s", got, want)
			}
			if got, want := dump(t, s, nil, nil, true), "empty= e=55 b=2 a=1"; got != want {
				t.Errorf("all, reversed: %s, want %s", got, want)
			}
			if got, want := dump(t, s, []byte("b"), []byte("e"), false), "b=2"; got != want {
				t.Errorf("b to e: %s, want %s", got, want)
			}
			if got := dump(t, s, []byte("e"), []byte("b"), false); got != "" {
				t.Errorf("e to b: %s", got)
			}
			for _, c := range []struct {
				key, want string
				ok        bool
			}{{"a", "x1", true}, {"c", "x", false}, {"e", "x55", true}, {"empty", "x", true}, {"nowhere", "x", false}} {
				if v, ok, err := s.Get([]byte("x"), []byte(c.key)); string(v) != c.want || ok != c.ok || err != nil {
					t.Errorf("get %s: %s %v %v", c.key, v, ok, err)
				}
			}
			if s.Position() != 6 || s.Count() == 0 {
				t.Errorf("position %d, count %d", s.Position(), s.Count())
			}
			if err := s.DropRange([]byte("b"), []byte("empty")); err != nil {
				t.Fatal(err)
			}
			if got, want := dump(t, s, nil, nil, false), "a=1 empty="; got != want {
				t.Errorf("after dropping: %s, want %s", got, want)
			}
			apply(t, s, 7, "c", "again")
			if err := s.Flush(); err != nil {
				t.Fatal(err)
			}
			if got, want := dump(t, s, nil, nil, false), "a=1 c=again empty="; got != want {
				t.Errorf("after dropping and writing: %s, want %s", got, want)
			}
			if got, want := dump(t, other, nil, nil, false), "b=other"; got != want {
				t.Errorf("the neighbour: %s, want %s", got, want)
			}
			n := 0
			if err := s.Scan(nil, nil, func(_, _ []byte) bool { n++; return false }); err != nil || n != 1 {
				t.Errorf("a scan that was told to stop went on for %d keys, %v", n, err)
			}
		})
	}
}

// TestBothKindsAgree does the same at random to a tier on disk and to one in memory.
func TestBothKindsAgree(t *testing.T) {
	for seed := range uint64(10) {
		rnd := rand.New(rand.NewPCG(seed, 9))
		mem := NewMem()
		disk := must(Open("task", Options{FS: vfs.NewMem(), FlushBytes: 1 << 10}))(t)
		a, b := must(mem.Store("s", Expect{}))(t), must(disk.Store("s", Expect{}))(t)
		key := func() []byte {
			k := make([]byte, rnd.IntN(4))
			for i := range k {
				k[i] = []byte{0, 1, 'a', 0xff}[rnd.IntN(4)]
			}
			return k
		}
		for n := range int64(600) {
			switch rnd.IntN(10) {
			case 0:
				if err := disk.Flush(n); err != nil {
					t.Fatal(err)
				}
			case 1:
				from, to := key(), key()
				if err := errors.Join(a.DropRange(from, to), b.DropRange(from, to)); err != nil {
					t.Fatal(err)
				}
			case 2:
				from, to, reverse := key(), key(), rnd.IntN(2) == 0
				if x, y := dump(t, a, from, to, reverse), dump(t, b, from, to, reverse); x != y {
					t.Fatalf("seed %d: %q to %q:\n%q\n%q", seed, from, to, x, y)
				}
			case 3:
				k := key()
				v, ok, _ := a.Get(nil, k)
				w, okay, err := b.Get(nil, k)
				if string(v) != string(w) || ok != okay || err != nil {
					t.Fatalf("seed %d: get %q: %q %v and %q %v, %v", seed, k, v, ok, w, okay, err)
				}
			default:
				var changes []flow.TierChange
				for range rnd.IntN(8) {
					c := flow.TierChange{Key: key()}
					if rnd.IntN(3) > 0 {
						c.Value = fmt.Append([]byte{}, "v", n, strings.Repeat("x", rnd.IntN(50)))
					}
					changes = append(changes, c)
				}
				if err := errors.Join(a.Apply(changes, n), b.Apply(changes, n)); err != nil {
					t.Fatal(err)
				}
			}
			if a.Count() > 0 && b.Count() == 0 {
				t.Fatalf("seed %d: the tier says that it is empty and is not", seed)
			}
		}
		if err := disk.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestStale(t *testing.T) {
	id, other := [16]byte{1}, [16]byte{2}
	base := Expect{TopicID: id, LogStart: 10, LogEnd: 100, Asked: true, Now: 1_000_000, DeleteRetention: 5000}
	f := found{position: 50, topicID: id, savedAt: 999_000}
	for _, c := range []struct {
		name   string
		change func(*Expect, *found)
		want   string
	}{
		{"as it should be", func(*Expect, *found) {}, ""},
		{"nothing there", func(_ *Expect, f *found) { f.position = -1; f.topicID = other }, ""},
		{"nothing known", func(e *Expect, _ *found) { *e = Expect{} }, ""},
		{"topic id", func(e *Expect, _ *found) { e.TopicID = other }, "another topic of the same name"},
		{"log start", func(e *Expect, _ *found) { e.LogStart = 51 }, "starts at offset 51, the store ends at 50"},
		{"log start, just", func(e *Expect, _ *found) { e.LogStart = 50 }, ""},
		{"emptied log", func(e *Expect, _ *found) { e.LogStart, e.LogEnd = 0, 0 }, "ends at offset 0, the store is at 50"},
		{"end not asked for", func(e *Expect, _ *found) { e.LogEnd, e.Asked = 0, false }, ""},
		{"log end", func(e *Expect, _ *found) { e.LogEnd = 49 }, "ends at offset 49, the store is at 50"},
		{"tombstones", func(_ *Expect, f *found) { f.savedAt = 994_999 }, "delete.retention.ms"},
		{"tombstones, just", func(_ *Expect, f *found) { f.savedAt = 995_000 }, ""},
		{"partitions", func(e *Expect, f *found) { several(e, f) }, ""},
		{"partitions of another topic", func(e *Expect, f *found) { several(e, f); e.TopicID = other }, "another topic of the same name"},
		{"partitions that are more by now", func(e *Expect, f *found) { several(e, f); e.Parts = append(e.Parts, Part{5, 9}) }, ""},
		{"partitions that are fewer", func(e *Expect, f *found) { several(e, f); e.Parts = e.Parts[:2] }, "has read partition 2, the topic has 2"},
		{"start of a partition", func(e *Expect, f *found) { several(e, f); e.Parts[2].Start = 8 }, "partition 2 starts at offset 8, the store ends at 7"},
		{"end of a partition", func(e *Expect, f *found) { several(e, f); e.Parts[0].End = 49 }, "partition 0 ends at offset 49, the store is at 50"},
		{"partitions and tombstones", func(e *Expect, f *found) { several(e, f); f.savedAt = 994_999 }, "delete.retention.ms"},
	} {
		e, f := base, f
		c.change(&e, &f)
		if got := e.stale(f); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// several makes a store one of three partitions, of which it has begun two.
func several(e *Expect, f *found) {
	e.LogStart, e.LogEnd, e.Asked, e.Parts = 0, 0, false, []Part{{10, 100}, {0, 0}, {7, 7}}
	f.position, f.at = -1, []int64{50, -1, 7}
}

// TestPartitions: the positions in several partitions come and go with what was applied, and rows without any are not used.
func TestPartitions(t *testing.T) {
	fs := vfs.NewCrashableMem()
	mem := NewMem()
	for name, db := range map[string]func() DB{"disk": func() DB { return open(t, fs) }, "memory": func() DB { mem = mem.Crash(); return mem }} {
		t.Run(name, func(t *testing.T) {
			e := Expect{Parts: []Part{{0, 100}, {0, 100}, {0, 100}}, Now: 1}
			expect := func(s Store, positions, stale string) {
				t.Helper()
				if got := fmt.Sprint(s.Positions()); got != positions || !strings.Contains(s.Stale(), stale) || stale == "" && s.Stale() != "" {
					t.Fatalf("positions %s, stale %q; want %s, %q", got, s.Stale(), positions, stale)
				}
			}
			end := func(d DB, flush bool) {
				t.Helper()
				if flush {
					must(0, d.Flush(1))(t)
				}
				must(0, d.Close())(t)
			}
			d := db()
			s := must(d.Store("s", Expect{Now: 1}))(t)
			apply(t, s, 5, "a", "of one partition")
			end(d, true)

			d = db()
			s = must(d.Store("s", e))(t)
			expect(s, "[]", "how far it has read each partition")
			s = must(s.Rebuild())(t)
			s.Advance(2, 7)
			expect(s, "[]", "")
			apply(t, s, -1, "a", "x")
			expect(s, "[-1 -1 7]", "")
			end(d, true)

			d = db()
			s = must(d.Store("s", e))(t)
			expect(s, "[-1 -1 7]", "")
			s.Advance(0, 3)
			apply(t, s, -1, "b", "y")
			end(d, false)

			d = db()
			s = must(d.Store("s", e))(t)
			expect(s, "[-1 -1 7]", "")
			s.Advance(0, 4)
			apply(t, s, -1) // nothing but markers
			s.Advance(1, 9) // the store has refused it
			end(d, true)

			d = db()
			s = must(d.Store("s", e))(t)
			expect(s, "[4 -1 7]", "")
			if got := dump(t, s, nil, nil, false); got != "a=x" {
				t.Fatal(got)
			}
			end(d, false)
		})
	}
}

// TestRebuild: the old one stays until the new one is settled, and a crash finds the new one as far as it had come.
func TestRebuild(t *testing.T) {
	fs := vfs.NewCrashableMem()
	db := open(t, fs)
	s := must(db.Store("s", Expect{TopicID: [16]byte{1}, Now: 1}))(t)
	apply(t, s, 50, "a", "old", "b", "old")
	if err := errors.Join(db.Flush(1), db.Close()); err != nil {
		t.Fatal(err)
	}
	e := Expect{TopicID: [16]byte{2}, Now: 2}
	reopen := func() Store {
		db = open(t, fs)
		return must(db.Store("s", e))(t)
	}
	s = reopen()
	if s.Stale() == "" || dump(t, s, nil, nil, false) != "a=old b=old" {
		t.Fatalf("stale: %q; %s", s.Stale(), dump(t, s, nil, nil, false))
	}
	n := must(s.Rebuild())(t)
	if n.Position() != -1 || n.Count() != 0 || n.Stale() != "" {
		t.Fatalf("rebuilt: position %d, count %d, stale %q", n.Position(), n.Count(), n.Stale())
	}
	apply(t, n, 3, "a", "new")
	if err := db.Close(); err != nil { // not flushed: as if it had never been begun
		t.Fatal(err)
	}
	s = reopen()
	if s.Stale() == "" {
		t.Fatal("the old one was taken for good")
	}
	n = must(s.Rebuild())(t)
	apply(t, n, 3, "a", "new")
	if err := errors.Join(db.Flush(2), db.Close()); err != nil {
		t.Fatal(err)
	}
	s = reopen() // half rebuilt
	if s.Stale() != "" || s.Position() != 3 || dump(t, s, nil, nil, false) != "a=new" {
		t.Fatalf("half rebuilt: stale %q, position %d; %s", s.Stale(), s.Position(), dump(t, s, nil, nil, false))
	}
	if err := errors.Join(s.Settle(), db.Close()); err != nil {
		t.Fatal(err)
	}
	e.TopicID = [16]byte{1} // were the old one still there, it would be good now
	if s = reopen(); s.Stale() == "" {
		t.Error("the old one survived being settled")
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestLocked(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	for name, fs := range map[string]vfs.FS{"memory": vfs.NewMem(), "disk": vfs.Default} {
		dir := filepath.Join(t.TempDir(), "0_1")
		db := must(Open(dir, Options{FS: fs}))(t)
		_, err := Open(dir, Options{FS: fs})
		if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v", name, err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		db, err = Open(dir, Options{FS: fs})
		if err != nil {
			t.Fatalf("%s: after closing: %v", name, err)
		}
		db.Close()
	}
}

func TestFormat(t *testing.T) {
	fs := vfs.NewMem()
	db := open(t, fs)
	d := db.(*directory)
	if err := errors.Join(d.db.Set([]byte(formatKey), []byte{9}, pebble.NoSync), d.db.Flush(), db.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := Open("task", Options{FS: fs}); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "task has format [9]") {
		t.Errorf("our own: %v", err)
	}
	fs = vfs.NewMem()
	db = open(t, fs)
	must(db.Store("s", Expect{}))(t)
	d = db.(*directory)
	s := d.stores[0]
	if err := errors.Join(d.db.Set(s.base(0, aboutItself), []byte("later"), pebble.NoSync), d.db.Flush(), db.Close()); err != nil {
		t.Fatal(err)
	}
	db = open(t, fs)
	if _, err := db.Store("s", Expect{}); !errors.Is(err, ErrFormat) {
		t.Errorf("a store's: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestDamage turns single bits of the files around: it is noticed, or it does no harm.
func TestDamage(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	fs := vfs.NewCrashableMem()
	db := open(t, fs)
	s := must(db.Store("s", Expect{}))(t)
	want := ""
	for i := range 300 {
		apply(t, s, int64(i), fmt.Sprintf("key-%03d", i), fmt.Sprint("value ", i))
		want += fmt.Sprintf("key-%03d=value %d ", i, i)
	}
	if err := errors.Join(db.Flush(1), db.Close()); err != nil {
		t.Fatal(err)
	}
	noticed := 0
	for range 60 {
		broken := fs.CrashClone(vfs.CrashCloneCfg{})
		names := must(broken.List("task"))(t)
		names = slices.DeleteFunc(names, func(n string) bool { return !strings.HasSuffix(n, ".sst") })
		path := broken.PathJoin("task", names[rnd.IntN(len(names))])
		turn(t, broken, path, rnd)
		got, err := func() (string, error) {
			db, err := Open("task", Options{FS: broken})
			if err != nil {
				return "", err
			}
			defer db.Close()
			s, err := db.Store("s", Expect{})
			if err != nil {
				return "", err
			}
			got := ""
			err = s.Scan(nil, nil, func(k, v []byte) bool { got += string(k) + "=" + string(v) + " "; return true })
			return got, err
		}()
		switch {
		case err != nil && !errors.Is(err, ErrDamaged):
			t.Errorf("noticed as something else: %v", err)
		case err != nil:
			noticed++
		case got != want:
			t.Errorf("wrong data, not noticed: %.200s", got)
		}
	}
	if noticed < 20 {
		t.Errorf("of 60 bits turned around only %d were noticed: the test shows little", noticed)
	}
}

func turn(t *testing.T, fs vfs.FS, path string, rnd *rand.Rand) {
	t.Helper()
	f := must(fs.Open(path))(t)
	b := must(io.ReadAll(f))(t)
	f.Close()
	b[rnd.IntN(len(b))] ^= 1 << rnd.IntN(8)
	f = must(fs.Create(path, vfs.WriteCategoryUnspecified))(t)
	must(f.Write(b))(t)
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestMaybeFlush(t *testing.T) {
	fs := vfs.NewMem()
	db := must(Open("task", Options{FS: fs, FlushBytes: 10 << 10, FlushAge: 1000}))(t)
	defer db.Close()
	s := must(db.Store("s", Expect{}))(t)
	flushed := func(now int64) bool {
		t.Helper()
		if err := db.MaybeFlush(now); err != nil {
			t.Fatal(err)
		}
		return !s.(*store).changed
	}
	apply(t, s, 1, "a", "1")
	if flushed(5000) || flushed(5999) {
		t.Error("flushed at once")
	}
	if !flushed(6000) {
		t.Error("not flushed when old")
	}
	apply(t, s, 2, "a", strings.Repeat("x", 20<<10))
	if !flushed(6001) {
		t.Error("not flushed when large")
	}
	for i := range int64(30) {
		apply(t, s, 3+i, fmt.Sprint(i), strings.Repeat("x", 2<<10))
	}
	if s.Memory() > 60<<10 {
		t.Errorf("a worker that never asks for flushes gathers %d bytes", s.Memory())
	}
}

// TestFatal: what can no longer be trusted to have been written ends the process, by way of the option.
func TestFatal(t *testing.T) {
	mem := vfs.NewMem()
	sick := false
	fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if sick && op.Kind == errorfs.OpFileSync && strings.Contains(op.Path, "MANIFEST") {
			return errors.New("disk on fire")
		}
		return nil
	}))
	type fatal struct{ message string }
	db, err := Open("task", Options{FS: fs, Fatal: func(m string) { panic(fatal{m}) }})
	if err != nil {
		t.Fatal(err)
	}
	s := must(db.Store("s", Expect{}))(t)
	apply(t, s, 1, "a", "1")
	sick = true
	defer func() {
		if f, ok := recover().(fatal); !ok || !strings.Contains(f.message, "disk on fire") || !strings.Contains(f.message, "task") {
			t.Errorf("told %v", f)
		}
	}()
	t.Error("flushed: ", db.Flush(1))
}

// TestLeftOver: files of a flush that a crash cut short are removed.
func TestLeftOver(t *testing.T) {
	fs := vfs.NewMem()
	if err := open(t, fs).Close(); err != nil {
		t.Fatal(err)
	}
	f := must(fs.Create("task/"+ingestPrefix+"7", vfs.WriteCategoryUnspecified))(t)
	f.Close()
	db := open(t, fs)
	defer db.Close()
	if names := must(fs.List("task"))(t); slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(n, ingestPrefix) }) {
		t.Errorf("left over: %v", names)
	}
}

func FuzzMeta(f *testing.F) {
	f.Add([]byte{})
	f.Add(found{position: 7, topicID: [16]byte{1, 2}, savedAt: 9}.meta())
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := readMeta(b)
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatal(err)
			}
			return
		}
		if string(m.meta()) != string(b) {
			t.Fatalf("%x is read as %+v and written as %x", b, m, m.meta())
		}
	})
}

// TestAge: a store is as young as when it last was at the end of its changelog, however often it was flushed on the way.
func TestAge(t *testing.T) {
	fs := vfs.NewCrashableMem()
	mem := NewMem()
	for name, db := range map[string]func() DB{"disk": func() DB { return open(t, fs) }, "memory": func() DB { mem = mem.Crash(); return mem }} {
		t.Run(name, func(t *testing.T) {
			at := func(now int64) Expect { return Expect{LogEnd: 100, Asked: true, DeleteRetention: 1000, Now: now} }
			end := func(d DB, now int64) {
				t.Helper()
				if err := errors.Join(d.Flush(now), d.Close()); err != nil {
					t.Fatal(err)
				}
			}
			d := db()
			s := must(d.Store("s", at(1000)))(t)
			apply(t, s, 10, "a", "x")
			if err := s.Settle(); err != nil {
				t.Fatal(err)
			}
			end(d, 1000)

			d = db()
			s = must(d.Store("s", at(1900)))(t)
			if s.Stale() != "" {
				t.Fatalf("stale though it has missed %d ms: %s", 900, s.Stale())
			}
			apply(t, s, 20, "b", "x")
			end(d, 1900) // a restore that is broken off

			d = db()
			s = must(d.Store("s", at(2500)))(t)
			if s.Stale() == "" {
				t.Fatal("a restore that was broken off has made the store young")
			}
			s = must(s.Rebuild())(t)
			if err := s.Settle(); err != nil {
				t.Fatal(err)
			}
			end(d, 2500)

			d = db()
			s = must(d.Store("s", at(2600)))(t)
			if err := s.Settle(); err != nil {
				t.Fatal(err)
			}
			end(d, 4000) // no change, but a sign of life

			d = db()
			if s = must(d.Store("s", at(4900)))(t); s.Stale() != "" {
				t.Fatalf("a store without changes has aged while it was open: %s", s.Stale())
			}
			end(d, 4900)
		})
	}
}
