package assign

import "container/heap"

// queue hands out members, the one with the least load first, then by index.
type queue struct {
	members []int
	load    func(int) int
}

func newQueue(n int, load func(int) int) *queue {
	q := &queue{load: load}
	for m := range n {
		q.members = append(q.members, m)
	}
	heap.Init((*byLoad)(q))
	return q
}

func (q *queue) pop() (int, bool) {
	if len(q.members) == 0 {
		return 0, false
	}
	return heap.Pop((*byLoad)(q)).(int), true
}

func (q *queue) push(m int) { heap.Push((*byLoad)(q), m) }

type byLoad queue

func (q *byLoad) Len() int { return len(q.members) }
func (q *byLoad) Less(i, j int) bool {
	a, b := q.members[i], q.members[j]
	if x, y := q.load(a), q.load(b); x != y {
		return x < y
	}
	return a < b
}
func (q *byLoad) Swap(i, j int) { q.members[i], q.members[j] = q.members[j], q.members[i] }
func (q *byLoad) Push(x any)    { q.members = append(q.members, x.(int)) }
func (q *byLoad) Pop() any {
	last := len(q.members) - 1
	m := q.members[last]
	q.members = q.members[:last]
	return m
}
