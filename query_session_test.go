package moldau_test

import (
	"errors"
	"testing"
	"time"

	"github.com/moldau/moldau"
	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/state"
	"github.com/moldau/moldau/stream"
	"github.com/moldau/moldau/window"
)

func TestSessionQueries(t *testing.T) {
	visits := state.NewSession("visits", serde.String, serde.Int64)
	app := start(t, "sessions", build(t, func(b *stream.Builder) {
		b.Stream(Lines).GroupBy(ByWord, func(_ []byte, line string) string { return line }).
			SessionsBy(window.Session(time.Hour)).Count(visits)
	}), moldau.Config{StateDir: t.TempDir()})
	write(t, app.App, "lines", "a", "b", "a")
	from, to := time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	r := app.Session(visits)
	var last window.Key[string]
	find := func() (n int64) {
		for e, err := range r.Find(t.Context(), "a", from, to) {
			if errors.Is(err, moldau.ErrNotHere) {
				return -1 // its task does not run yet
			}
			if err != nil {
				t.Fatal(err)
			}
			last, n = e.Key, n+e.Value
		}
		return n
	}
	eventually(t, "a is counted", func() bool { return find() == 2 })
	if n, ok, err := r.Get(t.Context(), last); n != 2 || !ok || err != nil {
		t.Errorf("Get %v: %d, %v, %v", last, n, ok, err)
	}
	all := func(r moldau.SessionReader[string, int64]) (n int64) {
		for e, err := range r.FindAll(t.Context(), from, to) {
			if err != nil {
				t.Fatal(err)
			}
			n += e.Value
		}
		return n
	}
	eventually(t, "all are counted", func() bool { return all(r) == 3 })
	i := stream.Partition([]byte("a"), 2)
	if a, b := all(r.In(i)), all(r.In(1-i)); a+b != 3 || a < 2 {
		t.Errorf("by partition: %d and %d", a, b)
	}
	if n := all(r.By([]byte("a"))); n < 2 {
		t.Errorf("by the key a: %d", n)
	}
}
