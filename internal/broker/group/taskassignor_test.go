package group

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

// deal deals tasks of subtopologies with some partitions each to members of processes, and returns what each member gets.
func deal(processes map[string]string, partitions []int32, stateful []bool, standbys int, had map[string]Tasks) map[string]Tasks {
	var workers []*worker
	for _, m := range slices.Sorted(maps.Keys(processes)) {
		workers = append(workers, &worker{member: m, process: processes[m], had: had[m]})
	}
	var active, kept []Task
	for i, n := range partitions {
		for p := range n {
			t := Task{fmt.Sprint(i), p}
			active = append(active, t)
			if stateful[i] {
				kept = append(kept, t)
			}
		}
	}
	dealTasks(workers, active, kept, standbys)
	out := map[string]Tasks{}
	for _, w := range workers {
		out[w.member] = w.tasks
	}
	return out
}

// checkDeal says what is wrong with an assignment: a task that is active not once, a standby too many or too few or beside
// another one of its task, or a member with much more than its share.
func checkDeal(got map[string]Tasks, processes map[string]string, partitions []int32, stateful []bool, standbys int) error {
	in := map[string]int{}
	for _, p := range processes {
		in[p]++
	}
	active, copies := map[Task]int{}, map[Task]int{}
	homes := map[Task]map[string]bool{}
	most := 0
	for m, tasks := range got {
		n := 0
		for t, h := range tasks {
			if homes[t] == nil {
				homes[t] = map[string]bool{}
			}
			if homes[t][processes[m]] {
				return fmt.Errorf("process %s has %v twice", processes[m], t)
			}
			homes[t][processes[m]] = true
			if h.Standby {
				copies[t]++
				continue
			}
			active[t]++
			n++
		}
		most = max(most, n)
	}
	total := 0
	for i, n := range partitions {
		want := 0
		if stateful[i] {
			want = min(standbys, len(in)-1)
		}
		for p := range n {
			t := Task{fmt.Sprint(i), p}
			if active[t] != 1 {
				return fmt.Errorf("%v is active %d times", t, active[t])
			}
			if copies[t] != want {
				return fmt.Errorf("%v has %d standbys, want %d", t, copies[t], want)
			}
			total++
		}
	}
	if share := (total + len(got) - 1) / len(got); most > share+1 {
		return fmt.Errorf("a member has %d active tasks, its share is %d", most, share)
	}
	return nil
}

func TestTasksAreDealt(t *testing.T) {
	for seed := range uint64(1000) {
		r := rand.New(rand.NewPCG(seed, 1))
		processes := map[string]string{}
		for i := range 1 + r.IntN(8) {
			processes[fmt.Sprintf("m%d", i)] = fmt.Sprintf("p%d", r.IntN(4))
		}
		var partitions []int32
		var stateful []bool
		for range 1 + r.IntN(4) {
			partitions, stateful = append(partitions, 1+r.Int32N(9)), append(stateful, r.IntN(3) > 0)
		}
		standbys := r.IntN(3)
		var had map[string]Tasks
		for step := range 6 {
			got := deal(processes, partitions, stateful, standbys, had)
			if err := checkDeal(got, processes, partitions, stateful, standbys); err != nil {
				t.Fatalf("seed %d, step %d: %v\nprocesses %v\ntasks %v", seed, step, err, processes, got)
			}
			if again := deal(processes, partitions, stateful, standbys, got); standbys == 0 && !maps.EqualFunc(got, again, sameTasks) {
				t.Fatalf("seed %d, step %d: tasks move though nothing has changed\n%v\n%v", seed, step, got, again)
			}
			had = got
			switch ids := slices.Sorted(maps.Keys(processes)); {
			case r.IntN(2) == 0 && len(ids) > 1:
				gone := ids[r.IntN(len(ids))]
				delete(processes, gone)
				// Who stays keeps what it had, if it had no more than its share.
				after := deal(processes, partitions, stateful, 0, had)
				for m, tasks := range after {
					for task, h := range had[m] {
						if !h.Standby && !tasks.has(task, false) && standbys == 0 {
							t.Fatalf("seed %d, step %d: %s loses %v though only %s is gone", seed, step, m, task, gone)
						}
					}
				}
			default:
				processes[fmt.Sprintf("m%d", 10+step)] = fmt.Sprintf("p%d", r.IntN(5))
			}
		}
	}
}

// A member that joins takes over no more than its share, and one that kept a standby gets the task when its worker is gone.
func TestTasksAreSticky(t *testing.T) {
	partitions, stateful := []int32{6, 6}, []bool{true, true}
	two := deal(map[string]string{"a": "1", "b": "2"}, partitions, stateful, 1, nil)
	three := deal(map[string]string{"a": "1", "b": "2", "c": "3"}, partitions, stateful, 1, two)
	moved := 0
	for _, m := range []string{"a", "b"} {
		for task, h := range two[m] {
			if !h.Standby && !three[m].has(task, false) {
				moved++
			}
		}
	}
	if moved != 4 {
		t.Errorf("%d of 12 active tasks move to a third member, want 4", moved)
	}
	alone := deal(map[string]string{"a": "1", "c": "3"}, partitions, stateful, 1, three)
	for task, h := range three["b"] {
		if h.Standby {
			continue
		}
		for _, m := range []string{"a", "c"} {
			if three[m].has(task, true) && !alone[m].has(task, false) && len(alone[m]) < 12 {
				t.Errorf("%v is not given to %s, which has kept it in standby", task, m)
			}
		}
	}
}

// The checker finds an assignor that forgets a task, or doubles one, or puts a standby beside its task.
func TestCheckDealFindsMistakes(t *testing.T) {
	processes, partitions, stateful := map[string]string{"a": "1", "b": "1", "c": "2"}, []int32{4, 3}, []bool{true, false}
	for what, spoil := range map[string]func(map[string]Tasks){
		"forgotten": func(got map[string]Tasks) { delete(got["c"], slices.SortedFunc(maps.Keys(got["c"]), Task.Compare)[0]) },
		"doubled": func(got map[string]Tasks) {
			for task, h := range got["c"] {
				if !h.Standby {
					got["a"][task] = h
				}
			}
		},
		"hoarded": func(got map[string]Tasks) {
			for _, m := range []string{"b", "c"} {
				for task, h := range got[m] {
					if !h.Standby {
						delete(got[m], task)
						got["a"][task] = h
					}
				}
			}
		},
	} {
		got := deal(processes, partitions, stateful, 1, nil)
		if err := checkDeal(got, processes, partitions, stateful, 1); err != nil {
			t.Fatal(err)
		}
		spoil(got)
		if checkDeal(got, processes, partitions, stateful, 1) == nil {
			t.Errorf("%s: not found in %v", what, got)
		}
	}
}
