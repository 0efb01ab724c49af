package conformance

import (
	"cmp"
	"slices"

	"github.com/moldau/moldau/state"
	"github.com/moldau/moldau/window"
)

func (in *interpreter) streamJoin(step Step) any {
	f := joiner(step.text("fn"))
	w := window.Within(0).Before(step.duration("beforeMs")).After(step.duration("afterMs")).Grace(step.duration("graceMs"))
	buf := state.NewJoinBuffer(storeName(step), nullable, nullable, nullable)
	if in.vector.Spec.Config.Stores == "rocksDB" {
		buf = buf.ExpireBySegment()
	}
	left := in.partitioned(step, 0, step.text("name")+"-left")
	var right streamOf
	if in.vector.optimizes() && in.same(step.in(0), step.in(1)) {
		right, buf = left, buf.SingleStore()
	} else {
		right = in.partitioned(step, 1, step.text("name")+"-right")
	}
	switch step.text("kind") {
	case "inner":
		return left.TryJoin(right, w, buf, func(k, l, r text) (text, error) { return f(k, l, r), nil })
	case "left":
		return left.TryLeftJoin(right, w, buf, func(k, l text, r *text) (text, error) { return f(k, l, missing(r)), nil })
	default:
		return left.TryOuterJoin(right, w, buf, func(k text, l, r *text) (text, error) { return f(k, missing(l), missing(r)), nil })
	}
}

// same says whether two streams are one, as Kafka Streams sees it: sources of the same topics are.
func (in *interpreter) same(a, b string) bool {
	if a == b {
		return true
	}
	x, y := in.step(a), in.step(b)
	return x.text("op") == "stream" && y.text("op") == "stream" && slices.Equal(x.texts("topics"), y.texts("topics")) && x.text("pattern") == y.text("pattern")
}

// byKey puts lines, which are in another order, into that of their keys.
func byKey(keys, lines []string) []string {
	order := make([]int, len(keys))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(keys[a], keys[b]) })
	sorted := make([]string, len(lines))
	for i, at := range order {
		sorted[i] = lines[at]
	}
	return sorted
}
