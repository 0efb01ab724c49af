package conformance

import (
	"slices"
	"time"

	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/state"
)

func storeName(step Step) string {
	if step.has("store") {
		return step.text("store")
	}
	return "unnamed-" + step.text("id")
}

func (in *interpreter) keyValue(step Step) state.Table[text, text] {
	if step.has("historyMs") {
		return versioned[text](step, nullable)
	}
	h := state.NewKeyValue(storeName(step), nullable, nullable)
	if in.each() {
		h = h.EveryUpdate()
	}
	return h
}

func (in *interpreter) counts(step Step) state.Table[text, int64] {
	if step.has("historyMs") {
		return versioned[int64](step, serde.Int64)
	}
	h := state.NewKeyValue(storeName(step), nullable, serde.Int64)
	if in.each() {
		h = h.EveryUpdate()
	}
	return h
}

func windows[V any](in *interpreter, step Step, v serde.Serde[V]) state.Window[text, V] {
	h := state.NewWindow(storeName(step), nullable, v)
	if in.each() {
		h = h.EveryUpdate()
	}
	sliding := in.step(step.in(0)).sub("window").text("type") == "sliding"
	if !in.vector.cached() || sliding {
		h = h.ExpireFirst() // else Java's record cache still has what the store below it has let go of
	}
	if step.has("retentionMs") {
		h = h.Retention(step.duration("retentionMs"))
	}
	if in.vector.cached() && !sliding {
		h = h.Retention(forCaches)
	}
	if in.vector.spare && in.step(in.step(step.in(0)).in(0)).text("op") == "cogroup" {
		h = h.Retention(forCaches)
	}
	if in.persistent() {
		h = h.ExpireBySegment()
	}
	if by := in.step(step.in(0)); by.text("emit") == "close" && in.persistent() {
		// Java's persistent stores for emission on close keep a window one millisecond longer.
		w := by.sub("window")
		h = h.Retention(max(step.duration("retentionMs"), w.duration("sizeMs")+2*w.duration("diffMs")+w.duration("graceMs")) + time.Millisecond)
	}
	return h
}

// each says whether results go on with every update, as Java's do without its record cache.
func (in *interpreter) each() bool { return !in.vector.cached() && !in.vector.perCommit }

// persistent says whether Java's windowed stores of this vector expire by segment.
func (in *interpreter) persistent() bool { return in.vector.Spec.Config.Stores == "rocksDB" }

// keeps says whether Java keeps a table without being asked to: some step looks it, or what is made of it, up.
func (in *interpreter) keeps(id string) bool {
	for _, step := range in.vector.Spec.Steps {
		if !step.has("in") || !slices.Contains(step.texts("in"), id) {
			continue
		}
		switch step.text("op") {
		case "toStream":
		case "tableFilter", "tableFilterNot", "tableMapValues", "tableTransformValues":
			if !step.has("store") && in.keeps(step.text("id")) {
				return true
			}
		default:
			return true
		}
	}
	return false
}
