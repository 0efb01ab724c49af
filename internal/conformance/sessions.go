package conformance

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

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
	// Of sessions that wait for their close, other than of windows, Java has no record cache.
	cached := in.vector.cached() && in.step(step.in(0)).text("emit") != "close"
	if !cached {
		h = h.ExpireFirst()
	}
	if in.each() {
		h = h.EveryUpdate()
	}
	if step.has("retentionMs") {
		h = h.Retention(step.duration("retentionMs"))
	}
	if cached || in.vector.spare && !in.persistent() {
		h = h.Retention(forCaches)
	}
	if in.persistent() {
		h = h.ExpireBySegment()
	}
	return h
}

// forCaches is how long windows and sessions are kept in front of whose store Java has a record cache: it finds what the store has let go of,
// as long as there is room, and recordings have room for all.
const forCaches = 1000 * 24 * time.Hour

// cachedOnly says which of the windows in Java's store have expired below its record cache, and are not in ours: those of sliding windows, which
// go by what has expired and are kept no longer for the cache's sake.
func (r *run) cachedOnly(store string, lines, got []string) func(line string) bool {
	start := func(line string) int64 {
		_, rest, _ := strings.Cut(line, "[")
		digits, _, _ := strings.Cut(rest, "=")
		return num(&digits)
	}
	s, _ := r.topology.Store(store)
	seen := int64(0)
	for _, l := range lines {
		seen = max(seen, start(l))
	}
	return func(l string) bool { return !slices.Contains(got, l) && start(l) <= seen-s.Spec.Retention }
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

// sessionsKept is how long Java's stores keep sessions, ms; -1: there are none.
func (v *Vector) sessionsKept() int64 {
	keep := int64(-1)
	for _, step := range v.Spec.Steps {
		if !step.has("in") || v.step(step.in(0)) == nil {
			continue
		}
		if w := v.step(step.in(0)).sub("window"); w.text("type") == "session" {
			keep = max(keep, w.number("gapMs")+w.number("graceMs"), step.number("retentionMs"))
		}
	}
	return keep
}

// slides says whether a vector has sliding windows.
func (v *Vector) slides() bool {
	return slices.ContainsFunc(v.Spec.Steps, func(s Step) bool { return s.sub("window").text("type") == "sliding" })
}

// gone says which lines, up to an event, delete a session that Java has in its record cache only, since it has expired in the store below:
// it goes on with that session, and does not tell that it is another one now.
func (r *run) gone(event int) func(line string) bool {
	keep, seen := r.sessionsKept(), int64(0)
	for _, e := range r.Events[:event+1] {
		seen = max(seen, e.TS)
	}
	return func(line string) bool {
		session, _, null := strings.Cut(line, "=null@")
		end, err := strconv.ParseInt(session[strings.LastIndex(session, "/")+1:], 10, 64)
		return r.cached() && keep >= 0 && null && err == nil && end <= seen-keep
	}
}
