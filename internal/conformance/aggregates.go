package conformance

import (
	"fmt"
	"slices"
	"time"

	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/stream"
	"github.com/moldau/moldau/window"
)

func (in *interpreter) windowedBy(step Step) any {
	w := step.sub("window")
	grace := w.duration("graceMs")
	var tw window.TimeWindows
	switch w.text("type") {
	case "tumbling":
		tw = window.Tumbling(w.duration("sizeMs")).Grace(grace)
	case "hopping":
		tw = window.Hopping(w.duration("sizeMs"), w.duration("advanceMs")).Grace(grace)
	case "unlimited":
		tw = window.Unlimited(time.UnixMilli(w.number("startMs")))
	case "sliding":
		sw := window.Sliding(w.duration("diffMs")).Grace(grace)
		if c, ok := in.objects[step.in(0)].(cogroup); ok {
			return c.SlidingBy(sw)
		}
		g := get[group](in, step.in(0)).SlidingBy(sw)
		if step.text("emit") == "close" {
			g = g.OnClose()
		}
		return g
	case "session":
		return in.sessionsBy(step, window.Session(w.duration("gapMs")).Grace(grace))
	default:
		panic(unsupported(w.text("type") + " windows"))
	}
	if c, ok := in.objects[step.in(0)].(cogroup); ok {
		return c.WindowedBy(tw)
	}
	g := get[group](in, step.in(0)).WindowedBy(tw)
	if step.text("emit") == "close" {
		g = g.OnClose()
	}
	return g
}

// cogroup makes a co-grouping; what it starts from is said by the step that aggregates it.
func (in *interpreter) cogroup(step Step) any {
	var start text
	for id := step.text("id"); ; {
		next := in.user(id)
		if next.has("init") {
			start = s(next.text("init"))
			break
		}
		id = next.text("id")
	}
	var all cogroup
	ids, last := step.texts("in"), map[string]string{} // of a grouping given twice Kafka Streams calls the last aggregator
	for i, name := range step.texts("fns") {
		last[ids[i]] = name
	}
	for i, id := range ids {
		if slices.Index(ids, id) < i {
			continue
		}
		f := aggregator(last[id])
		fold := stream.Fold[text, text, text]{Init: func() text { return start }, Add: func(a text, r record) (text, bool, error) {
			next := f(r.Key, r.Value, a)
			return next, next != nil, nil
		}}
		if g := get[group](in, id); all == nil {
			all = g.CogroupFold(fold)
		} else {
			all = all.AndFold(g, fold)
		}
	}
	return all
}

// user is a step that uses an object.
func (in *interpreter) user(id string) Step {
	for _, step := range in.vector.Spec.Steps {
		if step.has("in") && slices.Contains(step.texts("in"), id) {
			return step
		}
	}
	panic(unsupported("nobody uses " + id))
}

func (in *interpreter) count(step Step) any {
	switch g := in.objects[step.in(0)].(type) {
	case group:
		return g.Count(in.counts(step)).MapValues(decimals)
	case panes:
		return stream.FlattenTable(g.Count(windows(in, step, serde.Int64)).MapValues(decimals))
	case runs:
		return stream.FlattenTable(g.Count(sessions(in, step, serde.Int64)).MapValues(decimals))
	case grouped:
		return g.Count(in.counts(step)).MapValues(decimals)
	}
	panic(unsupported(fmt.Sprintf("count of %T", in.objects[step.in(0)])))
}

func (in *interpreter) reduce(step Step) any {
	f := reducer(step.text("fn"))
	switch g := in.objects[step.in(0)].(type) {
	case group:
		return g.Reduce(in.keyValue(step), f)
	case panes:
		return stream.FlattenTable(g.Reduce(windows[text](in, step, nullable), f))
	case runs:
		return stream.FlattenTable(g.Reduce(sessions[text](in, step, nullable), f))
	case grouped:
		return g.Reduce(in.keyValue(step), f, reducer(step.text("subtract")))
	}
	panic(unsupported(fmt.Sprintf("reduce of %T", in.objects[step.in(0)])))
}

func (in *interpreter) aggregate(step Step) any {
	fold := stream.Fold[text, text, text]{Init: func() text { return s(step.text("init")) }}
	if step.has("fn") {
		f := aggregator(step.text("fn"))
		fold.Add = func(a text, r record) (text, bool, error) {
			next := f(r.Key, r.Value, a)
			return next, next != nil, nil
		}
	}
	switch g := in.objects[step.in(0)].(type) {
	case group:
		return g.Fold(in.keyValue(step), fold)
	case panes:
		return stream.FlattenTable(g.Fold(windows[text](in, step, nullable), fold))
	case runs:
		merge := merger(step.text("merge"))
		return stream.FlattenTable(g.Fold(sessions[text](in, step, nullable), fold, func(_, a, b text) (text, error) { return merge(a, b), nil }))
	case coruns:
		return stream.FlattenTable(g.Aggregate(sessions[text](in, step, nullable), merger(step.text("merge"))))
	case cogroup:
		return g.Aggregate(in.keyValue(step))
	case copanes:
		return stream.FlattenTable(g.Aggregate(windows[text](in, step, nullable)))
	case grouped:
		f := aggregator(step.text("subtract"))
		return g.Fold(in.keyValue(step), fold, stream.Fold[text, text, text]{Add: func(a text, r record) (text, bool, error) {
			next := f(r.Key, r.Value, a)
			return next, next != nil, nil
		}})
	}
	panic(unsupported(fmt.Sprintf("aggregate of %T", in.objects[step.in(0)])))
}

func decimals(n int64) text { return dec(n) }
