package task_test

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/internal/task"
)

// must panics: an error there is a bug of the test.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestChoiceIsByTimeThenByTopic(t *testing.T) {
	f := &fake{t: t}
	k := f.start(nil, "a", "b")
	k.Add("a", recs(0, "1@10", "2@30", "3@5", "4@40"), 4, nil)
	k.Add("b", recs(0, "1@10", "2@30", "3@30", "4@35"), 4, nil)
	k.Caught("a", 4)
	k.Caught("b", 4)
	if n, err := k.Step(0, 100); n != 8 || err != nil {
		t.Fatal(n, err)
	}
	want := "a:1@10 b:1@10 a:2@30 a:3@5 b:2@30 b:3@30 b:4@35 a:4@40"
	if got := strings.Join(f.seen, " "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if k.StreamTime() != 40 {
		t.Errorf("stream time %d", k.StreamTime())
	}
}

// A run is no different from single steps: the choice is the same however many records a step takes.
func TestStepsOfAnySizeChooseAlike(t *testing.T) {
	var want string
	for size := 1; size < 9; size++ {
		f := &fake{t: t}
		k := f.start(nil, "a", "b")
		k.Add("a", recs(0, "1@1", "2@2", "3@2", "4@2", "5@9", "6@4"), 6, nil)
		k.Add("b", recs(0, "1@2", "2@2", "3@1", "4@9", "5@9", "6@9"), 6, nil)
		k.Caught("a", 6)
		k.Caught("b", 6)
		for n := 1; n > 0; {
			n, _ = k.Step(0, size)
		}
		got := strings.Join(f.seen, " ")
		if want == "" {
			want = got
		}
		if got != want || len(f.seen) != 12 {
			t.Errorf("size %d:\n%s\nsize 1:\n%s", size, got, want)
		}
	}
}

func TestIdling(t *testing.T) {
	tests := []struct {
		name  string
		idle  time.Duration
		setup func(k *task.Task)
		at    []int64 // times of steps
		want  []int   // records taken
	}{
		{"never wait", -1, func(k *task.Task) {}, []int64{0}, []int{1}},
		{"end unknown", 0, func(k *task.Task) {}, []int64{0, 1e9}, []int{0, 0}},
		{"broker has more", 0, func(k *task.Task) { k.Caught("b", 3) }, []int64{0, 1e9}, []int{0, 0}},
		{"caught up", 0, func(k *task.Task) { k.Caught("b", 0) }, []int64{0}, []int{1}},
		{"caught up past a marker", 0, func(k *task.Task) { k.Add("b", nil, 3, nil); k.Caught("b", 3) }, []int64{0}, []int{1}},
		{"caught up, wait a while", 50 * time.Millisecond, func(k *task.Task) { k.Caught("b", 0) }, []int64{10, 59, 60}, []int{0, 0, 1}},
		{"more comes while waiting", 50 * time.Millisecond, func(k *task.Task) { k.Caught("b", 3) }, []int64{10, 60, 100}, []int{0, 0, 0}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := &fake{t: t}
			k := f.start(func(c *task.Config) { c.MaxIdle = test.idle }, "a", "b")
			k.Add("a", recs(0, "1@1"), 1, nil)
			test.setup(k)
			for i, at := range test.at {
				n, err := k.Step(at, 10)
				if err != nil || n != test.want[i] {
					t.Errorf("step at %d took %d records (%v), want %d", at, n, err, test.want[i])
				}
			}
		})
	}
	t.Run("wake", func(t *testing.T) {
		f := &fake{t: t}
		k := f.start(func(c *task.Config) { c.MaxIdle = 50 * time.Millisecond }, "a", "b")
		if k.Wake() != math.MaxInt64 {
			t.Error(k.Wake())
		}
		k.Add("a", recs(0, "1@1"), 1, nil)
		k.Caught("b", 0)
		k.Step(10, 1)
		if k.Wake() != 60 {
			t.Error(k.Wake())
		}
	})
}

func TestPunctuation(t *testing.T) {
	t.Run("stream time: at once, then on the grid, missed ones left out", func(t *testing.T) {
		f := &fake{t: t, streams: 10}
		k := f.start(nil, "a")
		k.Add("a", recs(0, "x@13", "x@14", "x@19", "x@20", "x@57", "x@59", "x@60"), 7, nil)
		k.Step(0, 100)
		want := "stream13@13, stream20@20, stream57@57, stream60@60"
		if got := onlyKey(k.Take(), "stream"); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	})
	t.Run("wall clock: after the first interval, then on the grid", func(t *testing.T) {
		f := &fake{t: t, walls: 10}
		k := f.start(func(c *task.Config) { c.Now = 1000 }, "a")
		for _, now := range []int64{1000, 1009, 1010, 1011, 1019, 1047, 1049, 1050} {
			if err := k.Tick(now); err != nil {
				t.Fatal(err)
			}
		}
		want := "out wall1010@1010, out wall1047@1047, out wall1050@1050"
		if got := outs(k.Take()); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		if k.Wake() != 1060 {
			t.Error(k.Wake())
		}
		f.stop()
		if k.Wake() != math.MaxInt64 {
			t.Error(k.Wake())
		}
	})
	t.Run("undo takes calls and stops back", func(t *testing.T) {
		f := &fake{t: t, walls: 10}
		k := f.start(nil, "a")
		k.Tick(10)
		f.stop()
		if _, err := k.Undo(k.Current()); err != nil {
			t.Fatal(err)
		}
		k.Tick(12)
		if got := outs(k.Take()); got != "out wall12@12" {
			t.Errorf("got %s", got)
		}
	})
}

func onlyKey(records []flow.Out, prefix string) string {
	var s []string
	for _, o := range records {
		if strings.HasPrefix(string(o.Key), prefix) {
			s = append(s, fmt.Sprintf("%s%s@%d", o.Key, o.Value, o.Time))
		}
	}
	return strings.Join(s, ", ")
}

func TestEpochs(t *testing.T) {
	f := &fake{t: t}
	k := f.start(nil, "a")
	if e := must(k.Seal(0)); e.Dirty {
		t.Error("an epoch without anything is dirty")
	}
	k.Add("a", recs(0, "1@10", "2@20"), 5, nil) // two transaction markers and a compacted record behind them
	k.Step(0, 10)
	e1 := must(k.Seal(0))
	if got := outs(e1.Records); got != "out k1@10, out k2@20, app-counts-changelog k2@0" {
		t.Error(got)
	}
	p := e1.Offsets["a"]
	m, err := task.ReadMetadata(p.Metadata)
	if err != nil || p.Next != 5 || m.PartitionTime != 20 || m.Sequence() != 0 || m.Numbers["counts@time"] != 20 {
		t.Error(p, m, err)
	}
	// The next one is computed while the first is pending.
	k.Add("a", recs(5, "3@30"), 6, nil)
	k.Step(0, 10)
	e2 := must(k.Seal(0))
	if e2.N != e1.N+1 || e2.Sequence != e1.Sequence+1 || outs(e2.Records) != "out k3@30, app-counts-changelog k3@0" {
		t.Error(e2.N, e2.Sequence, outs(e2.Records))
	}
	if err := k.Done(e1.N, map[string]int64{"app-counts-changelog": 7}); err != nil || f.store.done[e1.N] != 7 {
		t.Error(err, f.store.done)
	}
	// The second is refused: back to where it began.
	to, err := k.Undo(e2.N)
	if err != nil || to["a"] != 5 || f.store.now["k"] != 2 || k.StreamTime() != 20 || k.Current() != e2.N {
		t.Error(to, err, f.store.now, k.StreamTime(), k.Current())
	}
	if f.wired != 2 || f.closed != 1 {
		t.Error("operators were not started afresh:", f.wired, f.closed)
	}
	k.Add("a", recs(5, "3@30"), 6, nil)
	k.Step(0, 10)
	if again := must(k.Seal(0)); outs(again.Records) != "out k3@30, app-counts-changelog k3@0" || again.Offsets["a"] != e2.Offsets["a"] {
		t.Error(outs(again.Records), again.Offsets, e2.Offsets)
	}
}

func TestUndoOfTwoEpochs(t *testing.T) {
	f := &fake{t: t}
	k := f.start(nil, "a")
	released := 0
	release := func() { released++ }
	k.Add("a", recs(0, "1@10"), 1, release)
	k.Step(0, 10)
	e1 := must(k.Seal(0))
	k.Add("a", recs(1, "2@20", "3@30"), 3, release)
	k.Step(0, 1)
	must(k.Seal(0))
	k.Step(0, 1)
	k.Add("a", recs(3, "4@40"), 4, release)
	to := must(k.Undo(e1.N))
	if to["a"] != 0 || len(f.store.now) != 0 || k.StreamTime() != -1 || released != 3 || k.Open() != 0 {
		t.Error(to, f.store.now, k.StreamTime(), released, k.Open())
	}
	if n, b := k.Buffered("a"); n != 0 || b != 0 {
		t.Error(n, b)
	}
}

func TestNumbersOutliveARestart(t *testing.T) {
	f := &fake{t: t}
	k := f.start(nil, "a", "b")
	k.Add("a", recs(0, "1@50"), 1, nil)
	k.Add("b", recs(0, "1@20"), 1, nil)
	k.Step(0, 1)
	e := must(k.Seal(0)) // b moved
	if len(e.Offsets) != 1 || e.Offsets["b"].Next != 1 {
		t.Fatal(e.Offsets)
	}
	k.Caught("b", 1)
	k.Step(0, 1)
	e2 := must(k.Seal(0)) // a moved
	k2 := (&fake{t: t}).start(func(c *task.Config) {
		c.Start = map[string]int64{"a": 1, "b": 1}
		c.Committed = map[string]string{"a": e2.Offsets["a"].Metadata, "b": e.Offsets["b"].Metadata}
	}, "a", "b")
	if k2.StreamTime() != 50 || k2.Sequence() != e2.Sequence {
		t.Error(k2.StreamTime(), k2.Sequence())
	}
	k2.Add("b", recs(1, "2@1"), 2, nil)
	k2.Caught("a", 1)
	k2.Step(0, 1)
	e3 := must(k2.Seal(0))
	m := must(task.ReadMetadata(e3.Offsets["b"].Metadata))
	if m.Numbers["counts@time"] != 50 || m.PartitionTime != 20 || m.Sequence() != e2.Sequence+1 {
		t.Error(m)
	}
}

// TestNumbersOfSomebodyElse: Kafka Streams has gone on with one partition. It has committed our numbers along with its own.
func TestNumbersOfSomebodyElse(t *testing.T) {
	f := &fake{t: t}
	k := f.start(nil, "a", "b")
	k.Add("a", recs(0, "1@50"), 1, nil)
	k.Add("b", recs(0, "1@60"), 1, nil)
	k.Caught("a", 1)
	k.Step(0, 2)
	e := must(k.Seal(0))
	moved := must(task.ReadMetadata(e.Offsets["a"].Metadata))
	moved.PartitionTime, moved.Numbers["windows"] = 70, 30
	for at, want := range map[int64]int64{1: 60, 3: 55} { // 1: nobody has gone on
		k = (&fake{t: t}).start(func(c *task.Config) {
			c.Start = map[string]int64{"a": at, "b": 1}
			c.Committed = map[string]string{"a": moved.String(), "b": e.Offsets["b"].Metadata}
		}, "a", "b")
		k.Add("b", recs(1, "2@55"), 2, nil)
		k.Caught("a", at)
		k.Step(0, 1)
		m := must(task.ReadMetadata(must(k.Seal(0)).Offsets["b"].Metadata))
		if m.Numbers["counts@time"] != want || m.Sequence() != e.Sequence+1 || k.StreamTime() != 70 {
			t.Errorf("position %d: %v, stream time %d", at, m, k.StreamTime())
		}
	}
}

func TestPunctuationAloneCommitsAnOffset(t *testing.T) {
	f := &fake{t: t, walls: 10}
	k := f.start(func(c *task.Config) { c.Start = map[string]int64{"a": 42} }, "a")
	k.Tick(100)
	e := must(k.Seal(100))
	if !e.Dirty || e.Offsets["a"].Next != 42 {
		t.Error(e)
	}
}

func TestErrorPolicy(t *testing.T) {
	skip := func(c *task.Config) { c.Errors.Processing.Action = task.Skip }
	t.Run("fail", func(t *testing.T) {
		f := &fake{t: t}
		k := f.start(nil, "a")
		k.Add("a", recs(0, "1@1", "fail@2", "3@3"), 3, nil)
		n, err := k.Step(0, 10)
		var e *task.Error
		if n != 1 || !errors.As(err, &e) || !errors.Is(err, errFake) || e.Undo {
			t.Fatal(n, err)
		}
		want := "processing a[0]@1 in count-1 (task 0_0, app.go:7): no good"
		if err.Error() != want {
			t.Errorf("got  %s\nwant %s", err, want)
		}
		if _, again := k.Step(0, 10); again != err {
			t.Error("a broken task goes on:", again)
		}
		if _, again := k.Seal(0); again != err {
			t.Error("a broken task seals:", again)
		}
	})
	t.Run("skip before any write", func(t *testing.T) {
		f := &fake{t: t}
		k := f.start(skip, "a")
		k.Add("a", recs(0, "1@1", "fail@2", "3@3"), 3, nil)
		if n, err := k.Step(0, 10); n != 3 || err != nil {
			t.Fatal(n, err)
		}
		e := must(k.Seal(0))
		if got := outs(e.Records); got != "out k1@1, out k3@3, app-counts-changelog k2@0" || e.Offsets["a"].Next != 3 {
			t.Error(got, e.Offsets)
		}
		if k.Stats().Skipped != 1 {
			t.Error(k.Stats())
		}
	})
	t.Run("skip after a write: undo and run again without it", func(t *testing.T) {
		f := &fake{t: t}
		k := f.start(skip, "a")
		input := recs(0, "1@1", "late-fail@2", "3@3", "late-fail@4")
		k.Add("a", input, 4, nil)
		for range 2 {
			_, err := k.Step(0, 10)
			var e *task.Error
			if !errors.As(err, &e) || !e.Undo {
				t.Fatal(err)
			}
			to := must(k.Undo(k.Current()))
			if to["a"] != 0 {
				t.Fatal(to)
			}
			k.Add("a", input, 4, nil)
		}
		if n, err := k.Step(0, 10); n != 4 || err != nil {
			t.Fatal(n, err)
		}
		e := must(k.Seal(0))
		if got := outs(e.Records); got != "out k1@1, out k3@3, app-counts-changelog k2@0" {
			t.Error(got)
		}
		if err := k.Done(e.N, nil); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("continue: the rest of the record stands", func(t *testing.T) {
		f := &fake{t: t}
		k := f.start(func(c *task.Config) { c.Errors.Processing.Action = task.Continue }, "a")
		k.Add("a", recs(0, "1@1", "late-fail@2", "fail@3"), 3, nil)
		if n, err := k.Step(0, 10); n != 3 || err != nil {
			t.Fatal(n, err)
		}
		e := must(k.Seal(0))
		if got := outs(e.Records); got != "out k1@1, out klate-fail@2, out kfail@3, app-counts-changelog k2@0" || k.Stats().Skipped != 2 {
			t.Error(got, k.Stats())
		}
	})
	t.Run("a flush that fails", func(t *testing.T) {
		f := &fake{t: t, flush: func(c *flow.Ctx) { c.Fail(1, errFake) }}
		k := f.start(nil, "a")
		k.Add("a", recs(0, "1@1"), 1, nil)
		k.Step(0, 10)
		if _, err := k.Seal(0); !errors.Is(err, errFake) || !strings.Contains(err.Error(), "flushing") {
			t.Error(err)
		}
		if _, err := k.Undo(1); err != nil {
			t.Error(err)
		}
	})
	t.Run("a store that cannot be sealed", func(t *testing.T) {
		f := &fake{t: t}
		k := f.start(nil, "a")
		k.Add("a", recs(0, "1@1"), 1, nil)
		k.Step(0, 10)
		f.store.fail = true
		if _, err := k.Seal(0); !errors.Is(err, errFake) || !strings.Contains(err.Error(), `"counts"`) {
			t.Error(err)
		}
	})
}

func TestCommitRequestStopsTheStep(t *testing.T) {
	f := &fake{t: t}
	k := f.start(nil, "a")
	k.Add("a", recs(0, "1@1", "commit@2", "3@3"), 3, nil)
	if n, _ := k.Step(0, 10); n != 2 || !k.CommitRequested() {
		t.Error(n, k.CommitRequested())
	}
	must(k.Seal(0))
	if n, _ := k.Step(0, 10); n != 1 || k.CommitRequested() {
		t.Error(n, k.CommitRequested())
	}
}

func TestAddLeavesOutWhatItHas(t *testing.T) {
	f := &fake{t: t}
	k := f.start(func(c *task.Config) { c.Start = map[string]int64{"a": 1} }, "a")
	k.Add("a", recs(0, "0@1", "1@2", "2@3"), 3, nil)
	k.Add("a", recs(2, "2@3", "3@4"), 4, nil)
	k.Add("a", recs(2, "2@3"), 3, nil)
	k.Step(0, 10)
	if got := strings.Join(f.seen, " "); got != "a:1@2 a:2@3 a:3@4" {
		t.Error(got)
	}
	if k.Position("a") != 4 {
		t.Error(k.Position("a"))
	}
}

// A store is told of every record once, before it runs, whatever the size of batches and steps.
func TestStoresAreToldOfRecordsToCome(t *testing.T) {
	f := &fake{t: t}
	k := f.start(nil, "a")
	next := int64(0)
	for _, n := range []int{70, 1, 32, 5} {
		words := make([]string, n)
		for i := range words {
			words[i] = "x@1"
		}
		k.Add("a", recs(next, words...), next+int64(n), nil)
		next += int64(n)
	}
	for n, size := 1, 1; n > 0; size = size%7 + 1 {
		n = must(k.Step(0, size))
		if len(f.store.told) < len(f.seen) {
			t.Fatalf("told of %d records when %d had run", len(f.store.told), len(f.seen))
		}
	}
	if len(f.store.told) != int(next) || len(f.seen) != int(next) {
		t.Fatalf("told of %d records, %d ran, of %d", len(f.store.told), len(f.seen), next)
	}
	for i, offset := range f.store.told {
		if offset != int64(i) {
			t.Fatalf("told of %d as number %d", offset, i)
		}
	}
}

func TestTakeAndRecycle(t *testing.T) {
	f := &fake{t: t}
	k := f.start(nil, "a")
	k.Add("a", recs(0, "1@1", "2@2", "3@3"), 3, nil)
	k.Step(0, 2)
	first := k.Take()
	if outs(first) != "out k1@1, out k2@2" {
		t.Error(outs(first))
	}
	k.Recycle(first)
	k.Step(0, 2)
	e := must(k.Seal(0))
	if outs(e.Records) != "out k3@3, app-counts-changelog k3@0" {
		t.Error(outs(e.Records))
	}
}
