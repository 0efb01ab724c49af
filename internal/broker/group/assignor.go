package group

import (
	"cmp"
	"maps"
	"slices"
)

// Part names a partition by its topic's id.
type Part struct {
	Topic     [16]byte
	Partition int32
}

// Compare orders by topic id, then partition.
func (a Part) Compare(b Part) int {
	return cmp.Or(slices.Compare(a.Topic[:], b.Topic[:]), cmp.Compare(a.Partition, b.Partition))
}

// subscription is what one member takes part in.
type subscription struct {
	member string
	topics map[[16]byte]int32 // partitions of each topic
	had    []Part             // its last target
}

// assign distributes partitions over members. Members are in a fixed order.
type assign func(members []subscription) map[string][]Part

// assignors are the assignors members may ask for, the default first.
var assignors = []struct {
	name   string
	assign assign
}{{"uniform", uniform}, {"range", ranges}}

func assignorByName(name string) (assign, bool) {
	for _, a := range assignors {
		if a.name == name {
			return a.assign, true
		}
	}
	return nil, false
}

// subscribers returns the topics of a subscription, in order, and who takes part in each.
func subscribers(members []subscription) (topics [][16]byte, who map[[16]byte][]int, partitions map[[16]byte]int32) {
	who, partitions = map[[16]byte][]int{}, map[[16]byte]int32{}
	for i, m := range members {
		for t, n := range m.topics { //lint:ordered members come in order within each topic, topics are sorted below
			who[t] = append(who[t], i)
			partitions[t] = n
		}
	}
	topics = slices.SortedFunc(maps.Keys(who), func(a, b [16]byte) int { return slices.Compare(a[:], b[:]) })
	return topics, who, partitions
}

// ranges gives each member a run of each topic's partitions, so that topics with as many partitions are split alike.
func ranges(members []subscription) map[string][]Part {
	out := map[string][]Part{}
	topics, who, partitions := subscribers(members)
	for _, t := range topics {
		n, k := int(partitions[t]), len(who[t])
		for i, m := range who[t] {
			for p := i * n / k; p < (i+1)*n/k; p++ {
				out[members[m].member] = append(out[members[m].member], Part{t, int32(p)})
			}
		}
	}
	return out
}

// uniform gives all members as many partitions as it can, and moves as few as it can.
func uniform(members []subscription) map[string][]Part {
	topics, who, partitions := subscribers(members)
	load := make([]int, len(members))
	owner := map[Part]int{}
	for i, m := range members {
		for _, p := range m.had {
			n, ok := m.topics[p.Topic]
			if _, taken := owner[p]; ok && !taken && p.Partition < n {
				owner[p] = i
				load[i]++
			}
		}
	}
	least := func(t [16]byte) int {
		best := who[t][0]
		for _, i := range who[t] {
			if load[i] < load[best] {
				best = i
			}
		}
		return best
	}
	var all []Part
	for _, t := range topics {
		for p := range partitions[t] {
			part := Part{t, p}
			all = append(all, part)
			if _, ok := owner[part]; !ok {
				owner[part] = least(t)
				load[owner[part]]++
			}
		}
	}
	// The fullest give first, so that nobody gives what it gets back. What nobody takes from them now is not looked at again here.
	has := make([][]Part, len(members))
	for _, p := range all {
		has[owner[p]] = append(has[owner[p]], p)
	}
	for level, average := slices.Max(load), len(all)/len(members)+1; level > average; level-- {
		for m := range members {
			for load[m] >= level && len(has[m]) > 0 {
				p := has[m][0]
				has[m] = has[m][1:]
				if to := least(p.Topic); load[m] > load[to]+1 {
					load[m]--
					load[to]++
					owner[p] = to
				}
			}
		}
	}
	// Moving from the fuller to the emptier by two or more lowers the sum of squares: this ends.
	for moved := true; moved; {
		moved = false
		for _, p := range all {
			if to := least(p.Topic); load[owner[p]] > load[to]+1 {
				load[owner[p]]--
				load[to]++
				owner[p] = to
				moved = true
			}
		}
	}
	out := map[string][]Part{}
	for _, p := range all {
		m := members[owner[p]].member
		out[m] = append(out[m], p)
	}
	return out
}
