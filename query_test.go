package moldau_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/moldau/moldau"
	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/state"
	"github.com/moldau/moldau/stream"
	"github.com/moldau/moldau/window"
)

func TestQueries(t *testing.T) {
	app := start(t, "wordcount", build(t, WordCount), moldau.Config{StateDir: t.TempDir()})
	write(t, app.App, "lines", "to be or", "not to be")
	ctx := t.Context()
	counts := app.KeyValue(Counts)
	eventually(t, "be is counted twice", func() bool {
		n, ok, err := counts.Get(ctx, "be")
		return err == nil && ok && n == 2
	})
	if n, ok, err := counts.Get(ctx, "hamlet"); ok || n != 0 || err != nil {
		t.Errorf("a word that was never written: %d, %v, %v", n, ok, err)
	}
	list := func() []string {
		var all []string
		for e, err := range counts.All(ctx) {
			if err != nil {
				t.Fatal(err)
			}
			if time.Since(e.Time) > time.Minute {
				t.Errorf("%v has the time %v", e.Key, e.Time)
			}
			all = append(all, fmt.Sprintf("%s=%d", e.Key, e.Value))
		}
		slices.Sort(all)
		return all
	}
	eventually(t, "all are there", func() bool { return fmt.Sprint(list()) == "[be=2 not=1 or=1 to=2]" })
	var some []string
	for e, err := range counts.Range(ctx, "c", "p") {
		if err != nil {
			t.Fatal(err)
		}
		some = append(some, e.Key)
	}
	if slices.Sort(some); fmt.Sprint(some) != "[not or]" {
		t.Errorf("from c to p: %v", some)
	}
	if _, _, err := app.KeyValue(state.NewKeyValue("unknown", serde.String, serde.Int64)).Get(ctx, "x"); !errors.Is(err, moldau.ErrNoStore) {
		t.Errorf("an unknown store: %v", err)
	}
	// A handle of the same name with other types, or of another kind, is an error of the query's alone.
	for what, query := range map[string]func() error{
		"other keys": func() error {
			_, _, err := app.KeyValue(state.NewKeyValue("counts", serde.Int64, serde.Int64)).Get(ctx, 5)
			return err
		},
		"other values": func() error {
			_, _, err := app.KeyValue(state.NewKeyValue("counts", serde.String, serde.String)).Get(ctx, "be")
			return err
		},
		"all": func() (last error) {
			for _, err := range app.KeyValue(state.NewKeyValue("counts", serde.String, serde.String)).All(ctx) {
				last = err
			}
			return last
		},
		"a window": func() error {
			_, _, err := app.Window(state.NewWindow("counts", serde.String, serde.Int64)).Get(ctx, "be", time.Now())
			return err
		},
		"a session": func() error {
			_, _, err := app.Session(state.NewSession("counts", serde.String, serde.Int64)).Get(ctx, window.Key[string]{Key: "be"})
			return err
		},
		"a version": func() error {
			_, _, err := app.Versioned(state.NewVersioned("counts", serde.String, serde.Int64, 0)).Get(ctx, "be")
			return err
		},
		"no handle": func() error { _, _, err := app.KeyValue(state.KeyValue[string, int64]{}).Get(ctx, "be"); return err },
	} {
		if err := query(); !errors.Is(err, moldau.ErrNoStore) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := app.end(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := counts.Get(context.Background(), "be"); !errors.Is(err, moldau.ErrNotHere) {
		t.Errorf("after the end: %v", err)
	}
}

func TestSlices(t *testing.T) {
	ordered := state.NewKeyValue("ordered", serde.String, serde.Int64).Ordered()
	app := start(t, "slices", build(t, func(b *stream.Builder) {
		b.Stream(Lines).GroupBy(ByWord, func(_ []byte, line string) string { return line }).Count(ordered)
	}), moldau.Config{StateDir: t.TempDir()})
	var lines []string
	for i := range 5000 {
		lines = append(lines, fmt.Sprintf("line%05d", i))
	}
	write(t, app.App, "lines", lines...)
	all := func(seq iter.Seq2[moldau.Entry[string, int64], error]) (keys []string) {
		for e, err := range seq {
			if err != nil {
				t.Fatal(err)
			}
			keys = append(keys, e.Key)
		}
		return keys
	}
	r := app.KeyValue(ordered)
	eventually(t, "all are there", func() bool { return len(all(r.All(t.Context()))) == 5000 })
	got := all(r.All(t.Context()))
	slices.Sort(got)
	if !slices.Equal(got, lines) {
		t.Error("the slices do not make up the whole")
	}
	got = all(r.Range(t.Context(), "line01000", "line03999"))
	slices.Sort(got)
	if !slices.Equal(got, lines[1000:4000]) {
		t.Errorf("a range of 3000 gave %d", len(got))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, err := range r.All(ctx) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("with a context that has ended: %v", err)
		}
	}
}

func TestWindowQueries(t *testing.T) {
	hours := state.NewWindow("hours", serde.String, serde.Int64).Size(time.Hour)
	app := start(t, "windows", build(t, func(b *stream.Builder) {
		b.Stream(Lines).GroupBy(ByWord, func(_ []byte, line string) string { return line }).
			WindowedBy(window.Tumbling(time.Hour)).Count(hours)
	}), moldau.Config{StateDir: t.TempDir()})
	write(t, app.App, "lines", "a", "b", "a")
	now := time.Now()
	from, to := now.Add(-2*time.Hour), now.Add(time.Hour)
	r := app.Window(hours)
	var got []moldau.Entry[window.Key[string], int64]
	list := func(seq iter.Seq2[moldau.Entry[window.Key[string], int64], error]) (n int64) {
		got = nil
		for e, err := range seq {
			if errors.Is(err, moldau.ErrNotHere) {
				return -1 // its task does not run yet
			}
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, e)
			n += e.Value
		}
		return n
	}
	eventually(t, "a is counted", func() bool { return list(r.Fetch(t.Context(), "a", from, to)) == 2 })
	if k := got[0].Key; k.Key != "a" || k.End.Sub(k.Start) != time.Hour || k.Start.After(now) {
		t.Errorf("the window is %v", k)
	}
	if n, ok, err := r.Get(t.Context(), "a", got[0].Key.Start); !ok || n == 0 || err != nil {
		t.Errorf("Get: %d, %v, %v", n, ok, err)
	}
	eventually(t, "all are counted", func() bool { return list(r.FetchAll(t.Context(), from, to)) == 3 })
	if n := list(r.Fetch(t.Context(), "a", from.Add(-24*time.Hour), from)); n != 0 {
		t.Errorf("yesterday: %d", n)
	}
	// The partition may be said, or be that of another key.
	i := stream.Partition([]byte("a"), 2)
	if n := list(r.In(i).Fetch(t.Context(), "a", from, to)); n != 2 {
		t.Errorf("in partition %d: %d", i, n)
	}
	if n := list(r.In(1-i).Fetch(t.Context(), "a", from, to)); n != 0 {
		t.Errorf("in the other one: %d", n)
	}
	if n := list(r.By([]byte("a")).Fetch(t.Context(), "a", from, to)); n != 2 {
		t.Errorf("by its own key: %d", n)
	}
}

func TestQueriesNameTheOwner(t *testing.T) {
	dir := t.TempDir()
	addr := address(t, filepath.Join(dir, "broker"))
	cl := reader(t, kgo.SeedBrokers(addr))
	topicsFor(t, cl)
	var apps []*runs
	for i := range 2 {
		apps = append(apps, start(t, "words", build(t, WordCount), moldau.Config{Brokers: []string{addr},
			StateDir: filepath.Join(dir, fmt.Sprint(i)), Advertise: fmt.Sprintf("host%d:80", i)}))
	}
	text, want := workload(rng(4), 200)
	if err := feed(t.Context(), cl, text, 0); err != nil {
		t.Fatal(err)
	}
	eventually(t, "both have tasks", func() bool { return len(apps[0].Tasks()) == 2 && len(apps[1].Tasks()) == 2 })
	for word, n := range want {
		eventually(t, word+" is counted", func() bool {
			here := 0
			for i, a := range apps {
				got, _, err := a.KeyValue(Counts).Get(t.Context(), word)
				switch e, ok := errors.AsType[*moldau.NotHere](err); {
				case err == nil && got == n:
					here++
				case ok && e.Owner != "" && e.Owner != fmt.Sprintf("host%d:80", 1-i):
					t.Fatalf("process %d says that %s is at %q", i, word, e.Owner)
				}
			}
			return here == 1
		})
	}
}

func TestHealthAndMetrics(t *testing.T) {
	app := start(t, "wordcount", build(t, WordCount), moldau.Config{StateDir: t.TempDir(), HTTP: "127.0.0.1:0"})
	write(t, app.App, "lines", "to be")
	get := func(path string) (int, string) {
		resp, err := http.Get("http://" + app.HTTPAddr() + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	defer http.DefaultClient.CloseIdleConnections()
	eventually(t, "the application is ready", func() bool { code, _ := get("/readyz"); return code == 200 })
	if code, body := get("/livez"); code != 200 || body != "running\n" {
		t.Errorf("livez: %d %s", code, body)
	}
	eventually(t, "the figures are there", func() bool {
		_, body := get("/metrics")
		for _, want := range []string{`moldau_task_records_total{task="0_0"}`, "moldau_commit_seconds_count", "moldau_latency_seconds_bucket",
			`moldau_input_lag{partition="0",topic="lines"} 0`, `moldau_store_memory_bytes{store="counts",task="1_1"}`, `moldau_state{state="running"} 1`, "go_goroutines"} {
			if !strings.Contains(body, want) {
				return false
			}
		}
		return true
	})
	if err := app.end(); err != nil {
		t.Fatal(err)
	}
	rec := httptest.NewRecorder()
	app.Handler().ServeHTTP(rec, httptest.NewRequest("GET", "/readyz", nil))
	if rec.Code != 503 {
		t.Errorf("readyz after the end: %d", rec.Code)
	}
}
