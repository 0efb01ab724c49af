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

func (in *interpreter) tableJoin(step Step) any {
	f := joiner(step.text("fn"))
	left, right := get[ktable](in, step.in(0)), get[ktable](in, step.in(1))
	var t ktable
	switch step.text("kind") {
	case "inner":
		t = left.Join(right, func(l, r text) text { return f(nil, l, r) })
	case "left":
		t = left.LeftJoin(right, func(l text, r *text) text { return f(nil, l, missing(r)) })
	default:
		t = left.OuterJoin(right, func(l, r *text) text { return f(nil, missing(l), missing(r)) })
	}
	if step.has("store") {
		t = t.Stored(in.keyValue(step))
	}
	return t
}

func (in *interpreter) streamTableJoin(step Step) any {
	var wait []state.Buffer[text, text]
	if step.has("graceMs") {
		wait = append(wait, state.NewBuffer(step.text("name")+"-Buffer", nullable, nullable).Grace(step.duration("graceMs")))
	}
	f := joiner(step.text("fn"))
	left, t := in.partitioned(step, 0, step.text("name")), get[ktable](in, step.in(1))
	if step.text("kind") == "inner" {
		return left.TryJoinTable(t, func(r record, v text) (text, error) { return f(r.Key, r.Value, v), nil }, wait...)
	}
	return left.TryLeftJoinTable(t, func(r record, v *text) (text, error) {
		return f(r.Key, r.Value, missing(v)), nil
	}, wait...)
}

func (in *interpreter) streamGlobalJoin(step Step) any {
	f, key := joiner(step.text("fn")), selector(step.text("key"))
	left, g := in.stream(step, 0), get[global](in, step.in(1))
	if step.text("kind") == "inner" {
		return left.TryJoinGlobal(g, key, func(r record, v text) (text, error) { return f(r.Key, r.Value, v), nil })
	}
	return left.TryLeftJoinGlobal(g, key, func(r record, v *text) (text, error) {
		return f(r.Key, r.Value, missing(v)), nil
	})
}

// missing is a side of a join that may not be there.
func missing(v *text) text {
	if v == nil {
		return nil
	}
	return *v
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
