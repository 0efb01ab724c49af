// Package assign decides which member of a group runs which task: members, tasks and what each member holds already in,
// a plan out. It is a pure function, so that every leader reaches the same plan and a test needs no group.
//
// A plan is balanced first (every member within one task of every other, in each sub-topology and in all), then sticky
// (what a member runs stays there), then warm (a task that nobody runs goes to where its state lies). The cost is
// O(n log n) in tasks and members.
//
// It refuses to know topics' contents, clients and time: the edge turns plans into partitions and bytes into requests.
package assign

import (
	"cmp"
	"slices"
)

// Task is one partition of one sub-topology.
type Task struct{ Sub, Partition int32 }

func compareTasks(a, b Task) int {
	return cmp.Or(cmp.Compare(a.Sub, b.Sub), cmp.Compare(a.Partition, b.Partition))
}

// Subtopology is a part of the application that runs as one task per partition. Task n reads partition n of each topic
// that has it.
type Subtopology struct {
	Topics   []string
	Patterns []string // by which it reads further topics
	Matched  []string // those, as far as known
	Stateful bool     // has stores worth a standby
}

// Reads are all topics of a sub-topology.
func (s Subtopology) Reads() []string { return slices.Concat(s.Topics, s.Matched) }

// Fit notes in members what they cannot run, and returns sub-topologies with those Matched topics that every member which can run them
// has found. A topic that is new to one of them could be given to nobody else's task: it waits until the last has found it, who
// joins again then.
func Fit(subs []Subtopology, members []Member) []Subtopology {
	fit := slices.Clone(subs)
	for i := range fit {
		s := &fit[i]
		for j := range members {
			m := &members[j]
			if !within(s.Topics, m.Topics) || !within(s.Patterns, m.Patterns) {
				m.Without = append(m.Without, int32(i))
				continue
			}
			s.Matched = slices.DeleteFunc(slices.Clone(s.Matched), func(t string) bool { return !slices.Contains(m.Topics, t) })
		}
	}
	return fit
}

func within(some, all []string) bool {
	return !slices.ContainsFunc(some, func(s string) bool { return !slices.Contains(all, s) })
}

// Tasks returns the tasks of sub-topologies whose topics have the given numbers of partitions, in order: as many as the
// widest topic has. A sub-topology with a topic that is missing has none; of those that were matched any may be missing.
func Tasks(subs []Subtopology, partitions map[string]int32) []Task {
	var tasks []Task
	for i, s := range subs {
		n := int32(0)
		for _, t := range s.Topics {
			p := partitions[t]
			if p == 0 {
				n = 0
				break
			}
			n = max(n, p)
		}
		for _, t := range s.Matched {
			if n > 0 || len(s.Topics) == 0 {
				n = max(n, partitions[t])
			}
		}
		for p := range n {
			tasks = append(tasks, Task{int32(i), p})
		}
	}
	return tasks
}

// Member is one process of the group and what it brings along.
type Member struct {
	// ID names it in the plan and breaks ties; it should survive a restart (the instance id where there is one).
	ID string
	// Endpoint is where other processes reach it.
	Endpoint string
	// Owned are the tasks that it runs now, as of group generation Generation.
	Owned      []Task
	Generation int32
	// Local is the state on its disk.
	Local []Local
	// Topics and Patterns are what it reads.
	Topics, Patterns []string
	// Without are the sub-topologies that it cannot run: it has another version of the application.
	Without []int32
}

// Local says that a member holds state of a task, and how many changelog records are missing.
type Local struct {
	Task
	Lag int64
}

// Input is all that a plan depends on.
type Input struct {
	Members []Member
	Tasks   []Task
	// Standbys is the number of standby copies of each task of a Stateful sub-topology.
	Standbys int
	Stateful map[int32]bool
}

// Plan says who runs what, ordered by member ID.
type Plan struct {
	Members []Share
	// Releasing are the IDs of members that run what others are to have, in order: they let go of it and join again. One that is
	// started anew in the place of another before that one has joined again must do so instead.
	Releasing []string
}

// Share is one member's part of a plan, tasks in order.
type Share struct {
	ID, Endpoint string
	Active       []Task
	Standby      []Task
}

// Balance makes the plan that the group is to reach. Every task is in exactly one Share's Active, unless no member can
// run it. Members must have distinct IDs and Tasks be distinct; their order does not matter.
func Balance(in Input) Plan {
	if len(in.Members) == 0 {
		return Plan{}
	}
	b := newBalancer(in)
	b.quotas()
	b.place()
	b.standbys(in)
	plan := Plan{Members: make([]Share, len(b.members))}
	for i := range b.members {
		m := &b.members[i]
		slices.SortFunc(m.active, compareTasks)
		slices.SortFunc(m.standby, compareTasks)
		plan.Members[i] = Share{ID: m.ID, Endpoint: m.Endpoint, Active: m.active, Standby: m.standby}
	}
	return plan
}

// Cooperative takes out of a plan every task that another member still runs: that member must give it up first, and the
// rebalance that follows hands it over. Without it two members would run the task at once.
func Cooperative(plan Plan, members []Member) Plan {
	owners := ownersOf(members)
	out := Plan{Members: slices.Clone(plan.Members)}
	for i := range out.Members {
		s := &out.Members[i]
		s.Active = slices.DeleteFunc(slices.Clone(s.Active), func(t Task) bool {
			o, ok := owners[t]
			if !ok || !o.disputed && members[o.member].ID == s.ID {
				return false
			}
			for j := range members {
				if slices.Contains(members[j].Owned, t) {
					out.Releasing = append(out.Releasing, members[j].ID)
				}
			}
			return true
		})
	}
	slices.Sort(out.Releasing)
	out.Releasing = slices.Compact(out.Releasing)
	return out
}

// owner is who runs a task. Two members that claim it in the same generation dispute it; neither is believed, and both
// have to let go.
type owner struct {
	member   int // index
	disputed bool
}

// ownersOf believes the claim of the latest generation: an older one comes from a member that missed a rebalance.
func ownersOf(members []Member) map[Task]owner {
	n := 0
	for i := range members {
		n += len(members[i].Owned)
	}
	owners := make(map[Task]owner, n)
	for i := range members {
		for _, t := range members[i].Owned {
			o, ok := owners[t]
			switch {
			case !ok || members[i].Generation > members[o.member].Generation:
				owners[t] = owner{member: i}
			case members[i].Generation == members[o.member].Generation && o.member != i:
				o.disputed = true
				owners[t] = o
			}
		}
	}
	return owners
}

// Share returns the part of one member.
func (p Plan) Share(id string) Share {
	i, ok := slices.BinarySearchFunc(p.Members, id, func(s Share, id string) int { return cmp.Compare(s.ID, id) })
	if !ok {
		return Share{ID: id}
	}
	return p.Members[i]
}
