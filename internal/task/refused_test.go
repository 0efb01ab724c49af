package task_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/internal/task"
)

// What the broker refuses is decided as if its sink had refused it; what the record did is undone where the policy says so.
func TestRefused(t *testing.T) {
	ofRecord := flow.Refusal{Topic: "out", Sink: 2, Input: 1, InHand: 1, Time: 2, Err: errFake}
	ofCommit := flow.Refusal{Topic: "out", Sink: 2, InHand: -1, Time: 3, Err: errFake}
	letter := task.ErrorPolicy{Action: task.Skip, DeadLetter: "bad"}
	aside := task.ErrorPolicy{Action: task.Continue, DeadLetter: "bad"}
	const all = "out k1@1, out k2@2, out k3@3, app-counts-changelog k3@0"
	for _, test := range []struct {
		name    string
		policy  task.ErrorPolicy
		refused []flow.Refusal
		letters string
		undo    bool
		then    string // after it was undone
		again   string // letters if the broker refuses the same once more
		skipped int64
	}{
		{name: "continue", policy: task.ErrorPolicy{Action: task.Continue}, refused: []flow.Refusal{ofRecord}, skipped: 1},
		{name: "skip", policy: task.ErrorPolicy{Action: task.Skip}, refused: []flow.Refusal{ofRecord, ofRecord}, undo: true,
			then: "out k1@1, out k3@3, app-counts-changelog k2@0", skipped: 1},
		{name: "skip, at commit", policy: task.ErrorPolicy{Action: task.Skip}, refused: []flow.Refusal{ofCommit, ofCommit}, skipped: 2},
		{name: "letter", policy: letter, refused: []flow.Refusal{ofRecord, ofRecord}, undo: true,
			then: "out k1@1, bad k2@2, out k3@3, app-counts-changelog k2@0", skipped: 1},
		{name: "letter, at commit", policy: letter, refused: []flow.Refusal{ofCommit}, letters: "bad @3", skipped: 1},
		{name: "letter and go on", policy: aside, refused: []flow.Refusal{ofRecord}, undo: true,
			then: all, again: "bad k2@2", skipped: 1},
		{name: "both", policy: letter, refused: []flow.Refusal{ofCommit, ofRecord}, undo: true,
			then: "out k1@1, bad k2@2, out k3@3, app-counts-changelog k2@0", skipped: 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := &fake{t: t}
			k := f.start(func(c *task.Config) { c.Errors.Production = test.policy }, "a")
			input := recs(0, "1@1", "2@2", "3@3")
			k.Add("a", input, 3, nil)
			k.Step(0, 10)
			first := must(k.Seal(0))
			if got := outs(first.Records); got != all {
				t.Fatal(got)
			}
			letters, err := k.Refused(test.refused, 5)
			if got := outs(letters); got != test.letters {
				t.Errorf("letters %s, want %s", got, test.letters)
			}
			if !test.undo {
				if err != nil {
					t.Fatal(err)
				}
			} else {
				if e, ok := errors.AsType[*task.Error](err); !ok || !e.Undo {
					t.Fatal(err)
				}
				for range 2 { // another failure undoes it once more
					must(k.Undo(first.N))
					k.Add("a", input, 3, nil)
					if n, err := k.Step(5, 10); n != 3 || err != nil {
						t.Fatal(n, err)
					}
				}
				if got := outs(must(k.Seal(5)).Records); got != test.then {
					t.Errorf("then %s, want %s", got, test.then)
				}
				if test.policy.Action == task.Continue {
					letters, err := k.Refused(test.refused, 6)
					if got := outs(letters); got != test.again || err != nil {
						t.Errorf("letters %s, want %s; %v", got, test.again, err)
					}
				} else {
					test.skipped++ // it was left out twice
				}
			}
			if got := k.Stats().Skipped; got != test.skipped {
				t.Errorf("%d skipped, want %d", got, test.skipped)
			}
		})
	}
}

// A refused record is tried again with the policy's backoff, and then left out; records without which nothing can be left out stop the task.
func TestRefusedRetry(t *testing.T) {
	f := &fake{t: t}
	k := f.start(func(c *task.Config) {
		c.Errors.Production = task.ErrorPolicy{Action: task.Skip, Retries: 2, Backoff: 10 * time.Millisecond}
	}, "a")
	input := recs(0, "1@1", "2@2")
	refused := []flow.Refusal{{Topic: "out", Sink: 2, Input: 1, InHand: 1, Err: errFake}, {Topic: "out", Sink: 2, Input: 1, InHand: 1, Err: errFake}}
	now := int64(100)
	for _, wait := range []int64{10, 20, 0} {
		k.Add("a", input, 2, nil)
		k.Step(now, 10)
		e := must(k.Seal(now))
		if got := outs(e.Records); got != "out k1@1, out k2@2, app-counts-changelog k2@0" {
			t.Fatal(got)
		}
		if _, err := k.Refused(refused, now); err == nil {
			t.Fatal("no error")
		}
		must(k.Undo(e.N))
		k.Add("a", input, 2, nil)
		if wait == 0 {
			break
		}
		if n, err := k.Step(now+wait-1, 10); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		if at := k.Wake(); at != now+wait {
			t.Errorf("wakes at %d, want %d", at, now+wait)
		}
		must(k.Undo(k.Current()))
		now += wait
	}
	k.Step(now, 10)
	e := must(k.Seal(now))
	if got := outs(e.Records); got != "out k1@1, app-counts-changelog k1@0" {
		t.Error(got)
	}
	if _, err := k.Refused([]flow.Refusal{{Topic: "app-counts-changelog", InHand: -1, Err: errFake}}, now); !errors.Is(err, errFake) || !strings.Contains(err.Error(), "app-counts-changelog") {
		t.Error(err)
	}

	f = &fake{t: t}
	k = f.start(nil, "a")
	k.Add("a", input, 2, nil)
	k.Step(0, 10)
	_, err := k.Refused(refused[:1], 0)
	if want := "writing a[0]@1 in count-1 (task 0_0, app.go:7): writing to topic out: no good"; fmt.Sprint(err) != want {
		t.Errorf("got %v", err)
	}
}
