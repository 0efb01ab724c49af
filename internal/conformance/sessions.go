package conformance

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/moldau/moldau/internal/table"
	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/state"
	"github.com/moldau/moldau/stream"
	"github.com/moldau/moldau/window"
)

type (
	runs   = *stream.SessionWindowedKStream[text, text]
	coruns = *stream.SessionWindowedCogroupedKStream[text, text]
)

func (in *interpreter) sessionsBy(step Step, w window.SessionWindows) any {
	if c, ok := in.objects[step.in(0)].(cogroup); ok {
		return c.SessionsBy(w)
	}
	g := get[group](in, step.in(0)).SessionsBy(w)
	if step.text("emit") == "close" {
		g = g.OnClose()
	}
	return g
}

func sessions[V any](in *interpreter, step Step, v serde.Serde[V]) state.Session[text, V] {
	h := state.NewSession(storeName(step), nullable, v)
	if !in.vector.cached() {
		h = h.ExpireFirst()
	}
	if in.each() {
		h = h.EveryUpdate()
	}
	if step.has("retentionMs") {
		h = h.Retention(step.duration("retentionMs"))
	}
	if in.persistent() {
		h = h.ExpireBySegment()
	}
	return h
}

// merger makes one aggregate of those of two sessions.
func merger(name string) func(a, b text) text {
	switch name {
	case "concat":
		return func(a, b text) text { return limit(str(a) + "|" + str(b)) }
	case "sum":
		return func(a, b text) text { return dec(num(a) + num(b)) }
	case "right":
		return func(_, b text) text { return b }
	}
	panic(unsupported("merger " + name))
}

// sessionLines shows a store by key, start and end.
func sessionLines[V any](st *table.Sessions[text, V], show func(V) string) (lines []string, err error) {
	type row struct {
		key        string
		start, end int64
		line       string
	}
	var rows []row
	err = st.FindAll(0, 1<<62, func(k text, start, end int64, v V, _ int64) bool {
		rows = append(rows, row{str(k), start, end, fmt.Sprintf("%s[%d,%d=%s", str(k), start, end, show(v))})
		return true
	})
	slices.SortFunc(rows, func(a, b row) int {
		return cmp.Or(strings.Compare(a.key, b.key), cmp.Compare(a.start, b.start), cmp.Compare(a.end, b.end))
	})
	for _, r := range rows {
		lines = append(lines, r.line)
	}
	return lines, err
}
