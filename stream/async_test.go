package stream_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/moldau/moldau/internal/task"
	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/state"
	"github.com/moldau/moldau/stream"
	"github.com/moldau/moldau/streamtest"
	"github.com/moldau/moldau/topology"
)

// weather asks a service.
func weather(ctx context.Context, r stream.Record[string, string]) (string, error) {
	if r.Value == "" {
		return "", errors.New("no city")
	}
	return r.Value + ": sunny", ctx.Err()
}

func ExampleKStream_MapAsync() {
	example(func(tb testing.TB) {
		d := streamtest.New(tb, func(b *stream.Builder) {
			b.Stream(exIn).
				MapAsync(stream.Async{MaxInFlight: 100, Timeout: 2 * time.Second}, weather).
				To(exOut)
		}, streamtest.SkipErrors())
		in := streamtest.In(d, exIn)
		in.Send("anna", "Prague")
		in.Send("ben", "")
		in.Send("anna", "Tabor")
		printed(d, exOut)
	})
	// Output:
	// anna: Prague: sunny
	// anna: Tabor: sunny
}

var (
	asyncSum  = state.NewKeyValue("async-sum", serde.String, serde.Int64)
	asyncSeen = stream.NewTopic("seen", serde.String, serde.Int64)
)

// TestMapAsync: what comes out is what TryMapValues gives, with nulls, times and headers, in the order of the records.
func TestMapAsync(t *testing.T) {
	show := func(_ context.Context, r stream.Record[string, string]) (*string, error) {
		if r.Value == "none" {
			return nil, nil
		}
		s := fmt.Sprint(r.Key, r.KeyNull, r.Value, r.Null, r.Time.Unix(), r.Headers)
		return &s, nil
	}
	star := func(s *string) string {
		if s == nil {
			return "nothing"
		}
		return "*" + *s
	}
	run := func(build func(*stream.Builder)) string {
		d := streamtest.New(t, build, streamtest.CommitEvery(5))
		in := streamtest.In(d, exIn)
		for i, v := range []string{"a", "b", "none", "", "c", "d", "e"} {
			r := stream.Record[string, string]{Key: fmt.Sprint("k", i%3), Value: v, Time: time.Unix(int64(100-i), 0), Headers: []stream.Header{{Key: "h", Value: []byte(v)}}}
			r.Null, r.KeyNull = v == "", i == 4
			if r.KeyNull {
				r.Key = ""
			}
			in.SendRecord(r)
		}
		d.Commit()
		var b strings.Builder
		for _, r := range streamtest.Out(d, exOut).All() {
			fmt.Fprintln(&b, r)
		}
		return b.String()
	}
	got := run(func(b *stream.Builder) {
		b.Stream(exIn).MapAsync(stream.Async{MaxInFlight: 2}, show).MapValues(star).To(exOut)
	})
	want := run(func(b *stream.Builder) {
		b.Stream(exIn).TryMapValues(func(r stream.Record[string, string]) (*string, error) { return show(t.Context(), r) }).MapValues(star).To(exOut)
	})
	if got != want || strings.Count(got, "\n") != 7 {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// TestMapAsyncAfterACommit: results that an aggregate gives on with the commit are called for and committed with it.
func TestMapAsyncAfterACommit(t *testing.T) {
	double := func(_ context.Context, r stream.Record[string, int64]) (int64, error) { return 2 * r.Value, nil }
	d := streamtest.New(t, func(b *stream.Builder) {
		b.Stream(exIn).GroupByKey().Count(asyncSum).ToStream().MapAsync(stream.Async{}, double).To(asyncSeen)
	}, streamtest.CommitEvery(0))
	in := streamtest.In(d, exIn)
	for range 3 {
		in.Send("k", "v")
	}
	d.Commit()
	d.Restart()
	if all := streamtest.Out(d, asyncSeen).All(); len(all) != 1 || all[0].Value != 6 {
		t.Error(all)
	}
}

func TestMapAsyncErrors(t *testing.T) {
	tries := 0
	flaky := func(_ context.Context, r stream.Record[string, string]) (string, error) {
		switch r.Value {
		case "flaky":
			if tries++; tries < 3 {
				return "", errors.New("busy")
			}
		case "bad":
			return "", errors.New("no such city")
		case "bang":
			panic("bang")
		}
		return r.Value, nil
	}
	d := streamtest.New(t, func(b *stream.Builder) { b.Stream(exIn).MapAsync(stream.Async{}, flaky).To(exOut) },
		streamtest.TopicPartitions("dead", 1), streamtest.CommitEvery(4),
		streamtest.Errors(task.Errors{Processing: task.ErrorPolicy{Action: task.Skip, Retries: 2, Backoff: time.Second}}))
	in := streamtest.In(d, exIn)
	for _, v := range []string{"a", "flaky", "bad", "bang", "b"} {
		in.Send("k", v)
	}
	for range 10 {
		d.Advance(time.Second)
	}
	d.Commit()
	var got []string
	for _, r := range streamtest.Out(d, exOut).All() {
		got = append(got, r.Value)
	}
	if fmt.Sprint(got) != "[a flaky b]" || d.Skipped() != 2 {
		t.Error(got, d.Skipped())
	}
}

func TestMapAsyncMistakes(t *testing.T) {
	b := stream.NewBuilder()
	b.Stream(exIn).MapAsync(stream.Async{MaxInFlight: -1}, weather).To(exOut)
	if _, err := b.Build(); !errors.Is(err, topology.ErrConflict) || !strings.Contains(err.Error(), "async_test.go") {
		t.Error(err)
	}
}
