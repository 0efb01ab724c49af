package moldau_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/moldau/moldau"
	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/state"
	"github.com/moldau/moldau/stream"
)

func TestVersionedQueries(t *testing.T) {
	prices := state.NewVersioned("prices", serde.String, serde.String, time.Hour)
	noon := time.Date(2026, 1, 15, 12, 0, 0, 0, time.UTC)
	// A line is a number of minutes and a price.
	topic := Lines.Timestamps(func(r stream.Record[[]byte, string], _ time.Time) time.Time {
		var minute int
		fmt.Sscan(r.Value, &minute)
		return noon.Add(time.Duration(minute) * time.Minute)
	})
	app := start(t, "prices", build(t, func(b *stream.Builder) {
		b.Stream(topic).GroupBy(ByWord, func([]byte, string) string { return "tea" }).
			Fold(prices, stream.Fold[string, string, string]{Add: func(_ string, r stream.Record[string, string]) (string, bool, error) {
				return r.Value, true, nil
			}})
	}), moldau.Config{StateDir: t.TempDir()})
	write(t, app.App, "lines", "0 300", "10 400", "20 500")
	ctx := t.Context()
	read := app.Versioned(prices)
	eventually(t, "the last price is there", func() bool {
		v, ok, err := read.Get(ctx, "tea")
		return err == nil && ok && v == "20 500"
	})
	if v, ok, err := read.GetAsOf(ctx, "tea", noon.Add(15*time.Minute)); v != "10 400" || !ok || err != nil {
		t.Errorf("as of a quarter past: %q, %v, %v", v, ok, err)
	}
	if v, ok, err := read.GetAsOf(ctx, "tea", noon.Add(-time.Minute)); ok || err != nil {
		t.Errorf("before: %q, %v", v, err)
	}
	var all []string
	for v, err := range read.History(ctx, "tea", noon.Add(time.Minute), noon.Add(15*time.Minute)) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, fmt.Sprint(v.Value, v.From.Format(" 15:04"), v.To.Format(" 15:04")))
	}
	if want := []string{"10 400 12:10 12:20", "0 300 12:00 12:10"}; !slices.Equal(all, want) {
		t.Errorf("history: %q, want %q", all, want)
	}
	if err := app.end(); err != nil {
		t.Fatal(err)
	}
}
