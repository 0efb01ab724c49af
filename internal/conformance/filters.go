package conformance

import (
	"slices"

	"github.com/moldau/moldau/state"
)

// tellsAll says whether Kafka Streams' filter of a table tells of deletions of rows that it never had, although the table is kept.
// It does if the table was not when the filter was declared, and nobody below has asked for old values since. Nobody hears it
// where streams only look rows up.
func (in *interpreter) tellsAll(step Step) bool {
	at := slices.IndexFunc(in.vector.Spec.Steps, func(s Step) bool { return s.text("id") == step.text("id") })
	root := in.step(step.in(0))
	for root.has("in") && !root.has("store") && rowwise(root.text("op")) {
		root = in.step(root.in(0))
	}
	id := root.text("id")
	if root.has("store") || root.text("op") != "table" && root.text("op") != "toTable" || !in.keeps(id) || in.before(at).keeps(id) {
		return false
	}
	return !in.wantsOld(step.text("id"), id) && in.heard(step.text("id"))
}

// heard says whether some step is told of a table's changes, or a store of it is.
func (in *interpreter) heard(id string) bool {
	return in.step(id).has("store") || slices.ContainsFunc(in.vector.Spec.Steps, func(s Step) bool {
		switch {
		case !s.has("in") || !slices.Contains(s.texts("in"), id):
			return false
		case rowwise(s.text("op")):
			return in.heard(s.text("id"))
		}
		return s.text("op") != "streamTableJoin"
	})
}

// before is the spec as it was before a step.
func (in *interpreter) before(at int) *interpreter {
	v := *in.vector
	v.Spec.Steps = v.Spec.Steps[:at]
	return &interpreter{vector: &v}
}

// wantsOld says whether some step asks a table, made of root, for old values.
func (in *interpreter) wantsOld(id, root string) bool {
	for i, step := range in.vector.Spec.Steps {
		if !step.has("in") || !slices.Contains(step.texts("in"), id) {
			continue
		}
		switch op := step.text("op"); {
		case op == "tableGroupBy", op == "foreignKeyJoin", op == "suppress":
			return true
		case op == "tableJoin":
			if kind := step.text("kind"); kind == "outer" || kind == "left" && step.in(0) == id || in.wantsOld(step.text("id"), root) || in.filtered(step.text("id")) {
				return true
			}
		case isFilter(op) && in.before(i).keeps(root):
			return true
		case rowwise(op) && !step.has("store") && in.wantsOld(step.text("id"), root):
			return true
		}
	}
	return false
}

// filtered says whether a filter lies below a table, with nothing between but what works row by row.
func (in *interpreter) filtered(id string) bool {
	return slices.ContainsFunc(in.vector.Spec.Steps, func(s Step) bool {
		return s.has("in") && rowwise(s.text("op")) && s.in(0) == id && (isFilter(s.text("op")) || !s.has("store") && in.filtered(s.text("id")))
	})
}

func isFilter(op string) bool { return op == "tableFilter" || op == "tableFilterNot" }

// rowwise says whether a step computes a table row by row.
func rowwise(op string) bool {
	return isFilter(op) || op == "tableMapValues" || op == "tableTransformValues"
}

// filterAll is a filter that tells of all deletions: as a stream, and a table again.
func (in *interpreter) filterAll(t ktable, step Step) ktable {
	keep, not := predicate(step.text("fn")), step.text("op") == "tableFilterNot"
	all := t.ToStream().TryMapValues(func(r record) (text, error) {
		if r.Value == nil || keep(r.Key, r.Value) == not {
			return nil, nil
		}
		return r.Value, nil
	})
	var h state.Table[text, text] = state.NewKeyValue(storeName(step), nullable, nullable).EveryUpdate()
	if step.has("store") {
		h = in.keyValue(step)
	}
	return all.ToTable(h)
}
