package task_test

import (
	"errors"
	"testing"
	"time"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/internal/task"
)

// What fails of what had been held back is left out alone: skipped with the record in hand it would fail again with the next one, and the
// next.
func TestHeldBack(t *testing.T) {
	start := func(p task.ErrorPolicy, held func(c *flow.Ctx)) *task.Task {
		f := &fake{t: t, held: held}
		k := f.start(func(c *task.Config) { c.Errors.Processing = p }, "a")
		k.Add("a", recs(0, "1@1", "2@2"), 2, nil)
		return k
	}
	for name, wrote := range map[string]bool{"": false, "after a write": true} {
		t.Run(name, func(t *testing.T) {
			fails := func(c *flow.Ctx) { c.Wrote = wrote; c.Fail(c.Node, errFake) }
			k := start(task.ErrorPolicy{Action: task.Skip, DeadLetter: "bad"}, fails)
			if n, err := k.Step(0, 10); n != 2 || err != nil {
				t.Fatal(n, err)
			}
			if got := outs(must(k.Seal(0)).Records); got != "bad @1, out k1@1, bad @2, out k2@2, app-counts-changelog k2@0" {
				t.Error(got)
			}

			k = start(task.ErrorPolicy{Action: task.Skip, Retries: 1, Backoff: time.Millisecond}, fails)
			done := 0
			for now := range int64(10) {
				n, err := k.Step(now, 10)
				done += n
				if err == nil {
					continue
				}
				if e, ok := errors.AsType[*task.Error](err); !ok || !e.Undo {
					t.Fatal(err)
				}
				must(k.Undo(k.Current()))
				k.Add("a", recs(0, "1@1", "2@2"), 2, nil)
				done = 0
			}
			if done != 2 {
				t.Errorf("%d records of 2", done)
			}
		})
	}
	k := start(task.ErrorPolicy{Action: task.Continue}, func(*flow.Ctx) { panic(errFake) })
	_, err := k.Step(0, 10)
	if e, ok := errors.AsType[*task.Error](err); !ok || e.Undo {
		t.Errorf("a panic: %v", err)
	}
}

// A panic on what is given on at the commit stops the application: what the operator has not given on yet would be lost.
func TestPanicInAFlush(t *testing.T) {
	for _, action := range []task.Action{task.Fail, task.Skip, task.Continue} {
		f := &fake{t: t, flush: func(*flow.Ctx) { panic(errFake) }}
		k := f.start(func(c *task.Config) { c.Errors.Processing.Action = action }, "a")
		k.Add("a", recs(0, "1@1"), 1, nil)
		must(k.Step(0, 10))
		_, err := k.Seal(0)
		if e, ok := errors.AsType[*task.Error](err); !ok || e.Undo || e.Doing != "flushing" {
			t.Errorf("%v: %v", action, err)
		}
	}
}
