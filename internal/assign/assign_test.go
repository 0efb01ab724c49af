package assign

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"
)

// The laws of a plan, checked on random groups; each check is shown to catch a plan that breaks it.

func tasksOf(counts ...int) []Task {
	var tasks []Task
	for s, n := range counts {
		for p := range n {
			tasks = append(tasks, Task{int32(s), int32(p)})
		}
	}
	return tasks
}

// onceEach reports a task that does not run exactly once.
func onceEach(in Input, p Plan) error {
	runs := map[Task]int{}
	for _, s := range p.Members {
		for _, t := range s.Active {
			runs[t]++
		}
	}
	for _, t := range in.Tasks {
		if runs[t] != 1 {
			return fmt.Errorf("task %v runs %d times", t, runs[t])
		}
		delete(runs, t)
	}
	if len(runs) > 0 {
		return fmt.Errorf("tasks that do not exist: %v", runs)
	}
	return nil
}

// even reports members more than one task apart, in all or in one sub-topology.
func even(p Plan) error {
	spread := func(count func(Share) int) int {
		lo, hi := 1<<30, 0
		for _, s := range p.Members {
			n := count(s)
			lo, hi = min(lo, n), max(hi, n)
		}
		return hi - lo
	}
	if d := spread(func(s Share) int { return len(s.Active) }); d > 1 {
		return fmt.Errorf("members are %d tasks apart", d)
	}
	subs := map[int32]bool{}
	for _, s := range p.Members {
		for _, t := range s.Active {
			subs[t.Sub] = true
		}
	}
	for sub := range subs {
		d := spread(func(s Share) int {
			n := 0
			for _, t := range s.Active {
				if t.Sub == sub {
					n++
				}
			}
			return n
		})
		if d > 1 {
			return fmt.Errorf("members are %d tasks of sub-topology %d apart", d, sub)
		}
	}
	return nil
}

// copies reports a standby beside its own task, twice on one member, or missing.
func copies(in Input, p Plan) error {
	n := map[Task]int{}
	for _, s := range p.Members {
		seen := map[Task]bool{}
		for _, t := range s.Standby {
			if seen[t] || slices.Contains(s.Active, t) {
				return fmt.Errorf("%s has a copy of %v too many", s.ID, t)
			}
			seen[t] = true
			n[t]++
		}
	}
	for _, t := range in.Tasks {
		if want := min(in.Standbys, len(in.Members)-1); in.Stateful[t.Sub] && n[t] != want {
			return fmt.Errorf("%v has %d copies, want %d", t, n[t], want)
		}
	}
	return nil
}

// moved counts the tasks that someone ran and now another is to run.
func moved(members []Member, p Plan) int {
	n := 0
	for _, m := range members {
		for _, t := range m.Owned {
			if !slices.Contains(p.Share(m.ID).Active, t) {
				n++
			}
		}
	}
	return n
}

// adopt is the group after the plan has been reached.
func adopt(members []Member, p Plan) []Member {
	out := slices.Clone(members)
	for i := range out {
		out[i].Owned = p.Share(out[i].ID).Active
		out[i].Generation++
	}
	return out
}

func randomInput(r *rand.Rand) Input {
	var counts []int
	for range 1 + r.IntN(5) {
		counts = append(counts, r.IntN(14))
	}
	in := Input{Tasks: tasksOf(counts...), Standbys: r.IntN(3), Stateful: map[int32]bool{}}
	for s := range counts {
		in.Stateful[int32(s)] = r.IntN(2) == 0
	}
	n := 1 + r.IntN(9)
	for i := range n {
		in.Members = append(in.Members, Member{ID: fmt.Sprintf("m%02d", i)})
	}
	for _, t := range in.Tasks {
		if r.IntN(4) > 0 {
			m := r.IntN(n)
			in.Members[m].Owned = append(in.Members[m].Owned, t)
		}
		if r.IntN(3) == 0 {
			m := r.IntN(n)
			in.Members[m].Local = append(in.Members[m].Local, Local{t, int64(r.IntN(5))})
		}
	}
	return in
}

func TestLaws(t *testing.T) {
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 1))
		in := randomInput(r)
		p := Balance(in)
		for _, err := range []error{onceEach(in, p), even(p), copies(in, p)} {
			if err != nil {
				t.Fatalf("seed %d: %v\n%+v\n%+v", seed, err, in, p)
			}
		}

		// The order of members and tasks decides nothing.
		r.Shuffle(len(in.Members), func(i, j int) { in.Members[i], in.Members[j] = in.Members[j], in.Members[i] })
		r.Shuffle(len(in.Tasks), func(i, j int) { in.Tasks[i], in.Tasks[j] = in.Tasks[j], in.Tasks[i] })
		if again := Balance(in); !reflect.DeepEqual(again, p) {
			t.Fatalf("seed %d: another order, another plan", seed)
		}

		// A plan that has been reached stays.
		in.Members = adopt(in.Members, p)
		if again := Balance(in); moved(in.Members, again) != 0 {
			t.Fatalf("seed %d: a settled group moves %d tasks", seed, moved(in.Members, again))
		}
	}
}

// A member that joins or leaves a settled group moves no more than the balance asks for.
func TestJoinAndLeaveMoveLittle(t *testing.T) {
	for seed := range uint64(1000) {
		r := rand.New(rand.NewPCG(seed, 2))
		in := randomInput(r)
		in.Members = adopt(in.Members, Balance(in))
		subs := len(in.Stateful)

		joined := in
		joined.Members = append(slices.Clone(in.Members), Member{ID: "m50"})
		p := Balance(joined)
		if got, need := moved(joined.Members, p), len(p.Share("m50").Active); got > need+subs {
			t.Errorf("seed %d: a joining member with %d tasks moves %d", seed, need, got)
		}
		if len(in.Members) == 1 {
			continue
		}
		left := in
		left.Members = in.Members[1:]
		if got := moved(left.Members, Balance(left)); got > subs {
			t.Errorf("seed %d: a leaving member moves %d tasks of others", seed, got)
		}
	}
}

// Rounds of cooperative rebalances never give a task to two members at once and end with every task running.
func TestCooperativeNeverRunsTwice(t *testing.T) {
	for seed := range uint64(1000) {
		in := randomInput(rand.New(rand.NewPCG(seed, 3)))
		for round := 0; ; round++ {
			target := Balance(in)
			step := Cooperative(target, in.Members)
			owner := map[Task]string{}
			for _, m := range in.Members {
				for _, task := range m.Owned {
					owner[task] = m.ID
				}
			}
			for _, s := range step.Members {
				for _, task := range s.Active {
					if o, ok := owner[task]; ok && o != s.ID {
						t.Fatalf("seed %d: %v goes to %s while %s runs it", seed, task, s.ID, o)
					}
				}
			}
			in.Members = adopt(in.Members, step)
			if onceEach(in, step) == nil {
				break
			}
			if len(step.Releasing) == 0 {
				t.Fatalf("seed %d: tasks wait, and nobody is to let go of them", seed)
			}
			if round > 2 {
				t.Fatalf("seed %d: not settled after %d rounds", seed, round)
			}
		}
	}
}

func TestChecksCatchBadPlans(t *testing.T) {
	in := Input{Members: []Member{{ID: "a"}, {ID: "b"}}, Tasks: tasksOf(4), Standbys: 1, Stateful: map[int32]bool{0: true}}
	good := Balance(in)
	for name, c := range map[string]struct {
		bad   Plan
		check func(Plan) error
	}{
		"lost":    {Plan{Members: []Share{{ID: "a", Active: in.Tasks[:2]}, {ID: "b", Active: in.Tasks[2:3]}}}, func(p Plan) error { return onceEach(in, p) }},
		"twice":   {Plan{Members: []Share{{ID: "a", Active: in.Tasks[:3]}, {ID: "b", Active: in.Tasks[2:]}}}, func(p Plan) error { return onceEach(in, p) }},
		"uneven":  {Plan{Members: []Share{{ID: "a", Active: in.Tasks}, {ID: "b"}}}, even},
		"no copy": {Plan{Members: []Share{{ID: "a", Active: in.Tasks[:2]}, {ID: "b", Active: in.Tasks[2:]}}}, func(p Plan) error { return copies(in, p) }},
	} {
		if c.check(good) != nil || c.check(c.bad) == nil {
			t.Errorf("%s: good %v, bad %v", name, c.check(good), c.check(c.bad))
		}
	}
}

func TestBalanceCases(t *testing.T) {
	t.Run("a dead member's tasks go where their state is", func(t *testing.T) {
		in := Input{Tasks: tasksOf(4), Members: []Member{
			{ID: "a", Owned: []Task{{0, 0}}},
			{ID: "b", Owned: []Task{{0, 1}}, Local: []Local{{Task{0, 2}, 5}, {Task{0, 3}, 0}}},
		}}
		p := Balance(in)
		if got := p.Share("b").Active; !slices.Equal(got, []Task{{0, 1}, {0, 3}}) {
			t.Errorf("b runs %v", got)
		}
	})
	t.Run("all return after a restart", func(t *testing.T) {
		in := Input{Tasks: tasksOf(5, 3), Members: []Member{{ID: "a"}, {ID: "b"}, {ID: "c"}}}
		p := Balance(in)
		for i := range in.Members {
			for _, task := range p.Members[i].Active {
				in.Members[i].Local = append(in.Members[i].Local, Local{task, 0})
			}
		}
		slices.Reverse(in.Members)
		if again := Balance(in); !reflect.DeepEqual(again, p) {
			t.Errorf("%v became %v", p, again)
		}
	})
	t.Run("another version of the application", func(t *testing.T) {
		in := Input{Tasks: tasksOf(4, 4), Members: []Member{{ID: "a", Without: []int32{1}}, {ID: "b"}}}
		p := Balance(in)
		if err := onceEach(in, p); err != nil {
			t.Error(err)
		}
		if slices.ContainsFunc(p.Share("a").Active, func(t Task) bool { return t.Sub == 1 }) {
			t.Errorf("a runs what it does not know: %v", p)
		}
	})
	t.Run("a claim of an older generation is not believed", func(t *testing.T) {
		members := []Member{
			{ID: "a", Owned: []Task{{0, 0}}, Generation: 3},
			{ID: "b", Owned: []Task{{0, 0}}, Generation: 5},
		}
		p := Cooperative(Balance(Input{Tasks: tasksOf(2), Members: members}), members)
		if !slices.Contains(p.Share("b").Active, Task{0, 0}) {
			t.Errorf("b lost its task: %v", p)
		}
	})
	t.Run("a disputed task waits", func(t *testing.T) {
		members := []Member{
			{ID: "a", Owned: []Task{{0, 0}}, Generation: 5},
			{ID: "b", Owned: []Task{{0, 0}}, Generation: 5},
		}
		p := Cooperative(Balance(Input{Tasks: tasksOf(2), Members: members}), members)
		for _, s := range p.Members {
			if slices.Contains(s.Active, Task{0, 0}) {
				t.Errorf("%s runs a disputed task", s.ID)
			}
		}
		if !slices.Equal(p.Releasing, []string{"a", "b"}) {
			t.Errorf("%v let go of it", p.Releasing)
		}
	})
	t.Run("nobody there", func(t *testing.T) {
		if p := Balance(Input{Tasks: tasksOf(3)}); len(p.Members) != 0 {
			t.Error(p)
		}
	})
}

func TestTasks(t *testing.T) {
	subs := []Subtopology{{Topics: []string{"a", "b"}}, {Topics: []string{"c"}}, {Topics: []string{"a", "gone"}}}
	got := Tasks(subs, map[string]int32{"a": 2, "b": 3, "c": 1})
	if want := []Task{{0, 0}, {0, 1}, {0, 2}, {1, 0}}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// The cost grows like the input: a hundred members and ten thousand tasks take milliseconds.
func TestCost(t *testing.T) {
	in := Input{Tasks: tasksOf(2000, 2000, 2000, 2000, 2000), Standbys: 1, Stateful: map[int32]bool{0: true, 1: true, 2: true, 3: true, 4: true}}
	for i := range 100 {
		in.Members = append(in.Members, Member{ID: fmt.Sprintf("m%03d", i)})
	}
	in.Members = adopt(in.Members, Balance(in))
	in.Members = append(in.Members[:60], in.Members[80:]...)
	start := time.Now()
	p := Balance(in)
	if d := time.Since(start); d > 2*time.Second {
		t.Errorf("took %v", d)
	}
	if err := errors.Join(onceEach(in, p), even(p), copies(in, p)); err != nil {
		t.Error(err)
	}
}

func BenchmarkBalance(b *testing.B) {
	in := Input{Tasks: tasksOf(200, 200, 200, 200, 200)}
	for i := range 20 {
		in.Members = append(in.Members, Member{ID: fmt.Sprintf("m%03d", i)})
	}
	in.Members = adopt(in.Members, Balance(in))
	b.ReportAllocs()
	for b.Loop() {
		Balance(in)
	}
}
