package assign

import (
	"cmp"
	"slices"
)

// balancer works out one plan. Members are ordered by ID and known by their index from here on.
type balancer struct {
	members []member
	subs    []sub // ordered by number
	subOf   map[int32]int
	owners  map[Task]owner
	warm    map[Task][]holder // who has state of a task, best first
}

type member struct {
	*Member
	active  []Task
	standby []Task
	load    int // tasks it is to run: the sum of its quotas
}

type holder struct {
	member int
	lag    int64
}

// sub is a sub-topology: its tasks and how many of them each member is to run. able are the members that can run it.
type sub struct {
	number int32
	tasks  []Task
	able   []int
	can    []bool // by member
	quota  []int  // by member; counts down as tasks are placed
	owned  []int  // tasks that a member runs already
	claims []int  // those, and those that nobody runs and whose state it has best
	base   int    // what each able member runs at least; some run one more
}

func newBalancer(in Input) *balancer {
	sorted := slices.Clone(in.Members)
	slices.SortFunc(sorted, func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
	b := &balancer{
		members: make([]member, len(sorted)),
		subOf:   map[int32]int{},
		owners:  ownersOf(sorted),
		warm:    map[Task][]holder{},
	}
	for i := range sorted {
		b.members[i].Member = &sorted[i]
		for _, l := range sorted[i].Local {
			b.warm[l.Task] = append(b.warm[l.Task], holder{i, l.Lag})
		}
	}
	tasks := slices.SortedFunc(slices.Values(in.Tasks), compareTasks)
	for len(tasks) > 0 {
		n := 1
		for n < len(tasks) && tasks[n].Sub == tasks[0].Sub {
			n++
		}
		b.subOf[tasks[0].Sub] = len(b.subs)
		b.subs = append(b.subs, b.newSub(tasks[0].Sub, tasks[:n]))
		tasks = tasks[n:]
	}
	return b
}

func (b *balancer) newSub(number int32, tasks []Task) sub {
	s := sub{
		number: number, tasks: tasks,
		can:    make([]bool, len(b.members)),
		quota:  make([]int, len(b.members)),
		owned:  make([]int, len(b.members)),
		claims: make([]int, len(b.members)),
	}
	for i := range b.members {
		if !slices.Contains(b.members[i].Without, number) {
			s.able = append(s.able, i)
			s.can[i] = true
		}
	}
	for _, t := range tasks {
		if o, ok := b.owners[t]; ok {
			if !o.disputed {
				s.owned[o.member]++
				s.claims[o.member]++
			}
			continue
		}
		// Holders came in member order; a stable sort keeps it among equals.
		slices.SortStableFunc(b.warm[t], func(x, y holder) int { return cmp.Compare(x.lag, y.lag) })
		if h := b.warm[t]; len(h) > 0 {
			s.claims[h[0].member]++
		}
	}
	return s
}

// quotas decides how many tasks of each sub-topology each member runs: the even share, and one more for as many as the
// remainder says. The extra ones go to those that run, or have state of, more than the even share already, then to those
// with the least load; then they are shifted until no member has two tasks more than another.
func (b *balancer) quotas() {
	for i := range b.subs {
		s := &b.subs[i]
		if len(s.able) == 0 {
			continue
		}
		s.base = len(s.tasks) / len(s.able)
		for _, m := range s.able {
			s.quota[m] = s.base
			b.members[m].load += s.base
		}
	}
	for i := range b.subs {
		s := &b.subs[i]
		if len(s.able) == 0 {
			continue
		}
		more := func(count int) int { // sorts first whoever has more than the even share
			if count > s.base {
				return 0
			}
			return 1
		}
		order := slices.Clone(s.able)
		slices.SortStableFunc(order, func(x, y int) int {
			return cmp.Or(
				cmp.Compare(more(s.owned[x]), more(s.owned[y])),
				cmp.Compare(more(s.claims[x]), more(s.claims[y])),
				cmp.Compare(b.members[x].load, b.members[y].load),
			)
		})
		for _, m := range order[:len(s.tasks)-s.base*len(s.able)] {
			s.quota[m]++
			b.members[m].load++
		}
	}
	for b.shift() {
	}
}

// shift moves one extra task from a member with the greatest load to one with the least that may take it, if that
// brings them closer together.
func (b *balancer) shift() bool {
	order := make([]int, len(b.members))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(x, y int) int { return cmp.Compare(b.members[x].load, b.members[y].load) })
	for hi := len(order) - 1; hi > 0; hi-- {
		for _, low := range order[:hi] {
			high := order[hi]
			if b.members[high].load-b.members[low].load < 2 {
				break
			}
			if s := b.shiftable(high, low); s != nil {
				s.quota[high]--
				s.quota[low]++
				b.members[high].load--
				b.members[low].load++
				return true
			}
		}
	}
	return false
}

// shiftable finds the sub-topology in which high has an extra task, low has none and could, and the least is lost by it.
func (b *balancer) shiftable(high, low int) *sub {
	var best *sub
	bestCost := 0
	for i := range b.subs {
		s := &b.subs[i]
		if !s.can[high] || !s.can[low] || s.quota[high] <= s.base || s.quota[low] > s.base {
			continue
		}
		cost := 0
		if s.owned[high] > s.base {
			cost += 4
		}
		if s.owned[low] > s.base {
			cost -= 2
		}
		if s.claims[high] > s.base {
			cost++
		}
		if best == nil || cost < bestCost {
			best, bestCost = s, cost
		}
	}
	return best
}

// place fills the quotas: with what members run already, then with what they have state of, then evenly.
func (b *balancer) place() {
	for i := range b.subs {
		s := &b.subs[i]
		var free []Task
		for _, t := range s.tasks {
			if o, ok := b.owners[t]; !ok || o.disputed || !b.take(s, o.member, t) {
				free = append(free, t)
			}
		}
		type offer struct {
			task Task
			holder
		}
		var offers []offer
		for _, t := range free {
			for _, h := range b.warm[t] {
				offers = append(offers, offer{t, h})
			}
		}
		slices.SortStableFunc(offers, func(x, y offer) int { return cmp.Compare(x.lag, y.lag) })
		taken := map[Task]bool{}
		for _, o := range offers {
			if !taken[o.task] && b.take(s, o.member, o.task) {
				taken[o.task] = true
			}
		}
		at := 0
		for _, t := range free {
			if taken[t] {
				continue
			}
			for at < len(s.able) && !b.take(s, s.able[at], t) {
				at++
			}
		}
	}
}

// take gives a task to a member that has room for it.
func (b *balancer) take(s *sub, m int, t Task) bool {
	if s.quota[m] == 0 {
		return false
	}
	s.quota[m]--
	b.members[m].active = append(b.members[m].active, t)
	return true
}

// standbys places the copies: where state lies already, as long as no member gets more than its share of copies, else
// with the members that have fewest. A member never has a copy of what it runs.
func (b *balancer) standbys(in Input) {
	if in.Standbys == 0 {
		return
	}
	var tasks []Task
	for i := range b.subs {
		if in.Stateful[b.subs[i].number] {
			tasks = append(tasks, b.subs[i].tasks...)
		}
	}
	copies := min(in.Standbys, len(b.members)-1)
	if copies == 0 || len(tasks) == 0 {
		return
	}
	limit := (len(tasks)*copies + len(b.members) - 1) / len(b.members)
	runs := make(map[Task]int, len(tasks))
	for i := range b.members {
		for _, t := range b.members[i].active {
			runs[t] = i
		}
	}
	got := make(map[Task][]int, len(tasks))
	can := func(m int, t Task) bool {
		r, ok := runs[t]
		return (!ok || r != m) && !slices.Contains(got[t], m) && !slices.Contains(b.members[m].Without, t.Sub)
	}
	give := func(m int, t Task) {
		got[t] = append(got[t], m)
		b.members[m].standby = append(b.members[m].standby, t)
	}
	for _, t := range tasks {
		for _, h := range b.warm[t] {
			if len(got[t]) < copies && len(b.members[h.member].standby) < limit && can(h.member, t) {
				give(h.member, t)
			}
		}
	}
	q := newQueue(len(b.members), func(m int) int { return len(b.members[m].standby) })
	for _, t := range tasks {
		var passed []int
		for len(got[t]) < copies {
			m, ok := q.pop()
			if !ok {
				break
			}
			if can(m, t) {
				give(m, t)
			}
			passed = append(passed, m)
		}
		for _, m := range passed {
			q.push(m)
		}
	}
}
