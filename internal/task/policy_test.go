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

// again undoes what a step asks for, and feeds the same input again.
func again(t *testing.T, k *task.Task, err error, input []flow.In) {
	t.Helper()
	if e, ok := errors.AsType[*task.Error](err); !ok || !e.Undo {
		t.Fatal(err)
	}
	must(k.Undo(k.Current()))
	if n, err := k.Step(0, 10); n != 0 || err != nil {
		t.Fatal("without input:", n, err)
	}
	k.Add("a", input, int64(len(input)), nil)
}

func TestPanic(t *testing.T) {
	input := recs(0, "1@1", "panic@2", "3@3")
	for _, action := range []task.Action{task.Fail, task.Skip, task.Continue} {
		t.Run(action.String(), func(t *testing.T) {
			f := &fake{t: t}
			k := f.start(func(c *task.Config) { c.Errors.Processing.Action = action }, "a")
			k.Add("a", input, 3, nil)
			n, err := k.Step(0, 10)
			if n != 1 {
				t.Errorf("%d records were taken up", n)
			}
			if action == task.Fail {
				p, ok := errors.AsType[*flow.Panic](err)
				if !ok || !errors.Is(err, errFake) || !strings.Contains(string(p.Stack), "fake_test.go") {
					t.Fatal(err)
				}
				if want := "processing a[0]@1 in count-1 (task 0_0, app.go:7): panic: no good"; !strings.HasPrefix(err.Error(), want) {
					t.Errorf("got %s", err)
				}
				return
			}
			// It is not known what a function that panics has done: the record is left out altogether.
			again(t, k, err, input)
			if n, err := k.Step(0, 10); n != 3 || err != nil {
				t.Fatal(n, err)
			}
			if got := outs(must(k.Seal(0)).Records); got != "out k1@1, out k3@3, app-counts-changelog k2@0" {
				t.Error(got)
			}
		})
	}
	t.Run("in a timer", func(t *testing.T) {
		f := &fake{t: t, timer: func(*flow.Ctx, int64) { panic("boom") }}
		k := f.start(nil, "a")
		err := k.Tick(10)
		if err == nil || !strings.HasPrefix(err.Error(), "punctuating in count-1 (task 0_0, app.go:7): panic: boom\n") {
			t.Error(err)
		}
	})
	t.Run("in a flush", func(t *testing.T) {
		f := &fake{t: t, flush: func(c *flow.Ctx) { panic("boom") }}
		k := f.start(nil, "a")
		k.Add("a", recs(0, "1@1"), 1, nil)
		k.Step(0, 10)
		if _, err := k.Seal(0); err == nil || !strings.Contains(err.Error(), "flushing in count-1 (task 0_0, app.go:7): panic: boom") {
			t.Error(err)
		}
	})
	t.Run("in a timestamp extractor", func(t *testing.T) {
		f := &fake{t: t}
		k := f.start(func(c *task.Config) {
			c.Errors.Processing.Action = task.Skip
			for _, n := range c.Sub.Nodes {
				n.Extract = func(_ *flow.Ctx, _, v []byte, _ int64) (int64, error) {
					if string(v) == "2" {
						panic("boom")
					}
					return 7, nil
				}
			}
		}, "a")
		k.Add("a", recs(0, "1@1", "2@2", "3@3"), 3, nil)
		if n, err := k.Step(0, 10); n != 3 || err != nil {
			t.Fatal(n, err)
		}
		if got := outs(must(k.Seal(0)).Records); got != "out k1@7, out k3@7, app-counts-changelog k2@0" {
			t.Error(got)
		}
	})
}

func TestRetry(t *testing.T) {
	policy := func(c *task.Config) {
		c.Errors.Processing = task.ErrorPolicy{Action: task.Skip, Retries: 2, Backoff: 10 * time.Millisecond, MaxBackoff: 15 * time.Millisecond}
	}
	t.Run("before a write", func(t *testing.T) {
		f := &fake{t: t, flaky: 2}
		k := f.start(policy, "a")
		k.Add("a", recs(0, "1@1", "flaky@2", "3@3"), 3, nil)
		for _, test := range []struct {
			now  int64
			n    int
			wake int64
		}{{100, 1, 110}, {109, 0, 110}, {110, 0, 125}, {124, 0, 125}, {125, 2, math.MaxInt64}} {
			if n, err := k.Step(test.now, 10); n != test.n || err != nil || k.Wake() != test.wake {
				t.Errorf("at %d: %d records (%v), wake at %d", test.now, n, err, k.Wake())
			}
		}
		if got := outs(must(k.Seal(0)).Records); got != "out k1@1, out kflaky@2, out k3@3, app-counts-changelog k3@0" {
			t.Error(got)
		}
	})
	t.Run("after a write, and too often", func(t *testing.T) {
		f := &fake{t: t, flaky: 9}
		k := f.start(policy, "a")
		input := recs(0, "1@1", "flaky-late@2", "3@3")
		k.Add("a", input, 3, nil)
		for _, now := range []int64{100, 110, 125} {
			if now > 100 {
				if n, err := k.Step(now-1, 10); n != 1 || err != nil {
					t.Error(now, n, err)
				}
			}
			_, err := k.Step(now, 10)
			again(t, k, err, input)
		}
		if n, err := k.Step(125, 10); n != 3 || err != nil {
			t.Error(n, err)
		}
		if got := outs(must(k.Seal(0)).Records); got != "out k1@1, out k3@3, app-counts-changelog k2@0" || f.flaky != 6 {
			t.Error(got, f.flaky)
		}
	})
}

func TestDeadLetter(t *testing.T) {
	policy := task.ErrorPolicy{Action: task.Skip, DeadLetter: "bad"}
	headers := func(o flow.Out) string {
		var s []string
		for _, h := range o.Headers {
			v, _, _ := strings.Cut(string(h.Value), "\n")
			s = append(s, strings.TrimPrefix(h.Key, "__streams.errors.")+"="+v)
		}
		return strings.Join(s, "; ")
	}
	for _, test := range []struct{ value, want string }{
		{"fail", "id=7; exception=*errors.errorString; message=no good; stacktrace=processing a[0]@1 in count-1 (task 0_0, app.go:7): no good; topic=a; partition=0; offset=1"},
		{"late-fail", "id=7; exception=*errors.errorString; message=no good; stacktrace=processing a[0]@1 in count-1 (task 0_0, app.go:7): no good; topic=a; partition=0; offset=1"},
		{"panic", "id=7; exception=*flow.Panic; message=panic: no good; stacktrace=goroutine; topic=a; partition=0; offset=1"},
	} {
		t.Run(test.value, func(t *testing.T) {
			f := &fake{t: t}
			k := f.start(func(c *task.Config) { c.Errors.Processing = policy }, "a")
			input := recs(0, "1@1", test.value+"@2", "3@3")
			input[1].Headers = []flow.Header{{Key: "id", Value: []byte("7")}}
			k.Add("a", input, 3, nil)
			if _, err := k.Step(0, 10); err != nil {
				again(t, k, err, input)
				if _, err := k.Step(0, 10); err != nil {
					t.Fatal(err)
				}
			}
			records := must(k.Seal(0)).Records
			if got, want := outs(records), "out k1@1, bad k"+test.value+"@2, out k3@3, app-counts-changelog k2@0"; got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
			got := headers(records[1])
			if strings.Contains(got, "stacktrace=goroutine ") {
				from, to := strings.Index(got, "goroutine ")+9, strings.Index(got, "; topic")
				got = got[:from] + got[to:]
			}
			if got != test.want || records[1].Partition != 0 {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
	t.Run("its topic does not exist", func(t *testing.T) {
		f := &fake{t: t}
		k := f.start(func(c *task.Config) {
			c.Errors.Processing = policy
			topics := c.Topics
			c.Topics = func(name string) (*flow.Topic, error) {
				if name == "bad" {
					return nil, nil
				}
				return topics(name)
			}
		}, "a")
		k.Add("a", recs(0, "fail@2"), 1, nil)
		if _, err := k.Step(0, 10); !errors.Is(err, errFake) || !strings.Contains(err.Error(), `"bad" does not exist`) {
			t.Error(err)
		}
	})
}

func TestPolicies(t *testing.T) {
	kinds := map[task.ErrorKind]error{
		task.Decoding: &flow.DecodeError{Part: "key", Err: errFake}, task.Processing: errFake,
		task.Production: fmt.Errorf("with words: %w", &flow.WriteError{Topic: "out", Err: errFake}),
	}
	for kind, cause := range kinds {
		var asked []string
		f := &fake{t: t}
		k := f.start(func(c *task.Config) {
			c.Errors = task.Errors{Decoding: task.ErrorPolicy{DeadLetter: "decoding"}, Processing: task.ErrorPolicy{DeadLetter: "processing"}, Production: task.ErrorPolicy{DeadLetter: "production"}}
			c.Errors.Except = func(e *task.Error, p task.ErrorPolicy) task.ErrorPolicy {
				asked = append(asked, string(e.Kind)+" "+p.DeadLetter)
				return task.ErrorPolicy{Action: task.Skip}
			}
			for _, n := range c.Sub.Nodes {
				n.Extract = func(*flow.Ctx, []byte, []byte, int64) (int64, error) { return 0, cause }
			}
		}, "a")
		k.Add("a", recs(0, "1@1"), 1, nil)
		if n, err := k.Step(0, 1); n != 1 || err != nil || strings.Join(asked, ", ") != string(kind)+" "+string(kind) {
			t.Errorf("%s: %d records, %v; asked %v", kind, n, err, asked)
		}
	}
	wrong := task.Errors{Decoding: task.ErrorPolicy{Action: 9}, Processing: task.ErrorPolicy{DeadLetter: "a b"}, Production: task.ErrorPolicy{Retries: -1}, DeadLetters: []string{"fine", "c d"}}
	err := wrong.Validate()
	for _, want := range []string{"Decoding: unknown Action 9", `Processing: DeadLetter "a b"`, "but Action is Fail", "Production: Retries", `DeadLetters[1] "c d"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v lacks %q", err, want)
		}
	}
	if err := (task.Errors{}).Validate(); err != nil {
		t.Error(err)
	}
	named := task.Errors{Decoding: task.ErrorPolicy{DeadLetter: "a"}, Production: task.ErrorPolicy{DeadLetter: "a"}, DeadLetters: []string{"b", "a"}}
	if got := named.Topics(); fmt.Sprint(got) != "[a b]" {
		t.Error(got)
	}
}
