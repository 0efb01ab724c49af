package moldau_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moldau/moldau"
)

func TestReset(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	topo := build(t, WordCount)
	app := start(t, "wordcount", topo, moldau.Config{StateDir: dir, Listen: "127.0.0.1:0"})
	count := func(app *runs, word string) int64 {
		n, _, err := app.KeyValue(Counts).Get(ctx, word)
		if err != nil && !errors.Is(err, moldau.ErrNotHere) {
			t.Fatal(err)
		}
		return n
	}
	write(t, app.App, "lines", "to be or", "not to be")
	eventually(t, "be is counted twice", func() bool { return count(app, "be") == 2 })

	if _, err := moldau.ResetApp(ctx, "wordcount", moldau.ResetConfig{Brokers: []string{app.BrokerAddr()}, StateDir: t.TempDir()}); !errors.Is(err, moldau.ErrActive) {
		t.Errorf("while it runs: %v", err)
	}
	if _, err := moldau.ResetApp(ctx, "wordcount", moldau.ResetConfig{StateDir: dir}); !errors.Is(err, moldau.ErrStateInUse) {
		t.Errorf("while the directory is in use: %v", err)
	}
	if err := app.end(); err != nil {
		t.Fatal(err)
	}

	plan, err := moldau.ResetApp(ctx, "wordcount", moldau.ResetConfig{StateDir: dir, DryRun: true})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"wordcount-by-word-repartition", "wordcount-counts-changelog", "wordcount-topology"}; !slices.Equal(plan.Deleted, want) {
		t.Errorf("would delete %q", plan.Deleted)
	}
	if len(plan.Offsets) != 2 || plan.Offsets[0] != (moldau.ResetOffset{Topic: "lines"}) {
		t.Errorf("would begin at %v", plan.Offsets)
	}
	done, err := moldau.ResetApp(ctx, "wordcount", moldau.ResetConfig{StateDir: dir})
	if err != nil || done.String() != plan.String() {
		t.Fatalf("%v: %s", err, done)
	}
	app = start(t, "wordcount", topo, moldau.Config{StateDir: dir})
	eventually(t, "all of it is counted again", func() bool { return count(app, "be") == 2 && count(app, "or") == 1 })
	write(t, app.App, "lines", "be")
	eventually(t, "and what comes then", func() bool { return count(app, "be") == 3 })
	if err := app.end(); err != nil {
		t.Fatal(err)
	}

	for _, c := range []struct {
		name string
		to   moldau.ResetTo
		want int64 // how often be is there from then on
	}{
		{"latest", moldau.ResetToLatest(), 0},
		{"far behind the end", moldau.ResetToOffset(1 << 40), 0},
		{"the future", moldau.ResetToTime(time.Now().Add(time.Hour)), 0},
		{"the past", moldau.ResetToTime(time.UnixMilli(1)), 3},
		{"an offset", moldau.ResetToOffset(0), 3},
	} {
		if _, err := moldau.ResetApp(ctx, "wordcount", moldau.ResetConfig{StateDir: dir, To: c.to}); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		app := start(t, "wordcount", topo, moldau.Config{StateDir: dir})
		write(t, app.App, "lines", "end")
		eventually(t, "the end is reached", func() bool { return count(app, "end") > 0 && count(app, "be") == c.want })
		if err := app.end(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := moldau.ResetApp(ctx, "wordcount", moldau.ResetConfig{StateDir: dir, Inputs: []string{"nothing"}}); !errors.Is(err, moldau.ErrMissingTopic) {
		t.Errorf("a topic that is not there: %v", err)
	}
	if _, err := moldau.ResetApp(ctx, "other", moldau.ResetConfig{StateDir: t.TempDir() + "/none"}); !errors.Is(err, moldau.ErrConfig) || !strings.Contains(err.Error(), "no state directory") {
		t.Errorf("a directory that is not there: %v", err)
	}
}
