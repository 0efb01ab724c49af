package conformance

import (
	"fmt"

	"github.com/moldau/moldau/stream"
)

func (in *interpreter) toStream(step Step) any {
	if t, ok := in.objects[step.in(0)].(wtable); ok {
		in.rekeyed[step.text("id")] = true
		return t.ToStream().SelectKey(func(k wkey, _ text) text { return render(k) })
	}
	in.rekeyed[step.text("id")] = false
	return get[ktable](in, step.in(0)).ToStream()
}

// render is a windowed key as a string.
func render(k wkey) text {
	return s(fmt.Sprintf("%s@%d/%d", str(k.Key), k.Start.UnixMilli(), k.End.UnixMilli()))
}

func (in *interpreter) derive(step Step) any {
	t := get[ktable](in, step.in(0))
	if isFilter(step.text("op")) && in.tellsAll(step) {
		return in.filterAll(t, step)
	}
	switch step.text("op") {
	case "tableFilter":
		t = t.Filter(predicate(step.text("fn")))
	case "tableFilterNot":
		t = t.FilterNot(predicate(step.text("fn")))
	case "tableTransformValues":
		f := mapper(step.text("fn"))
		t = t.TransformValues(func(r record) (text, error) { return f(r.Key, r.Value) })
	default:
		f := mapper(step.text("fn"))
		t = t.TryMapValues(func(r record) (text, error) { return f(r.Key, r.Value) })
	}
	if step.has("store") {
		t = t.Stored(in.keyValue(step))
	}
	return t
}

func windowedTable(t wtable, step Step) any {
	switch step.text("op") {
	case "tableFilter", "tableFilterNot":
		f := predicate(step.text("fn"))
		test := func(k wkey, v text) bool { return f(render(k), v) }
		if step.text("op") == "tableFilterNot" {
			return t.FilterNot(test)
		}
		return t.Filter(test)
	}
	f := mapper(step.text("fn"))
	return t.TryMapValues(func(r stream.Record[wkey, text]) (text, error) { return f(render(r.Key), r.Value) })
}

func (in *interpreter) tableGroupBy(step Step) any {
	key, value := selector(step.text("key")), mapper(step.text("fn"))
	f := func(k, v text) (text, text, error) {
		v2, err := value(k, v)
		return key(k, v), v2, err
	}
	to := in.through(step.text("name"))
	if t, ok := in.objects[step.in(0)].(wtable); ok {
		return t.TryGroupBy(to, func(r stream.Record[wkey, text]) (text, text, error) { return f(render(r.Key), r.Value) })
	}
	return get[ktable](in, step.in(0)).TryGroupBy(to, func(r record) (text, text, error) { return f(r.Key, r.Value) })
}
