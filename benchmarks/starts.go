package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/moldau/moldau"
	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/state"
	"github.com/moldau/moldau/stream"
)

// The application of the start measurements: a keyed count on the bundled broker.
var (
	startIn     = stream.NewTopic("start-in", serde.String, serde.Bytes).Partitions(partitions)
	startOut    = stream.NewTopic("start-out", serde.String, serde.Int64).Partitions(partitions)
	startCounts = state.NewKeyValue("start-counts", serde.String, serde.Int64)
)

// runStart is one life of that application: it starts, gives itself -records input records if asked to, and one more with
// a key of its own, and says "output" when the result of that one is committed. It goes on until it is stopped or killed.
func runStart(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("start", flag.ContinueOnError)
	fs.String("broker", "", "not used: the bundled one runs in process")
	dir := fs.String("state", "", "state directory")
	fill := fs.Int("records", 0, "records to give it first, each with a key of its own")
	probe := fs.String("probe", "", "key of the record to wait for")
	if err := fs.Parse(args); err != nil {
		return err
	}
	b := stream.NewBuilder()
	b.Stream(startIn).GroupByKey().Count(startCounts).ToStream().To(startOut)
	topo, err := b.Build()
	if err != nil {
		return err
	}
	app, err := moldau.New("start", topo, moldau.Config{StateDir: *dir, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- app.Run(ctx) }()
	select {
	case <-app.Ready():
	case err := <-ended:
		return err
	}
	if err := feed(ctx, app, *fill, *probe); err != nil {
		stop()
		return errors.Join(err, <-ended)
	}
	fmt.Println("output")
	return <-ended
}

// feed gives the application its input and waits until the result of the last record is committed.
func feed(ctx context.Context, app *moldau.App, fill int, probe string) error {
	cl, err := kgo.NewClient(append(app.Client(), kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)), kgo.ProducerLinger(0),
		kgo.ConsumeTopics(startOut.Name()), kgo.ConsumeResetOffset(kgo.NewOffset().AtEnd()), kgo.FetchIsolationLevel(kgo.ReadCommitted()))...)
	if err != nil {
		return err
	}
	defer cl.Close()
	for i := range fill {
		cl.Produce(ctx, &kgo.Record{Topic: startIn.Name(), Key: appendKey(nil, i), Value: []byte("x")}, nil)
	}
	if err := cl.Flush(ctx); err != nil {
		return err
	}
	if err := cl.ProduceSync(ctx, &kgo.Record{Topic: startIn.Name(), Key: []byte(probe), Value: []byte("x")}).FirstErr(); err != nil {
		return err
	}
	// The reader starts at the end that it finds, which may be after the result: then the committed positions tell.
	for {
		wait, cancel := context.WithTimeout(ctx, 5*time.Millisecond)
		found := false
		cl.PollFetches(wait).EachRecord(func(r *kgo.Record) { found = found || string(r.Key) == probe })
		cancel()
		if found || caughtUp(app) {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

func caughtUp(app *moldau.App) bool {
	tasks := app.Tasks()
	for _, t := range tasks {
		for _, in := range t.Inputs {
			if in.End < 0 || in.Lag() > 0 {
				return false
			}
		}
	}
	return len(tasks) == partitions
}

// life is one run of "start", from the start of its process.
type life struct {
	cmd *exec.Cmd
	out *bufio.Reader
}

func (b *bench) live(ctx context.Context, dir string, fill int, probe string) (*life, time.Duration, error) {
	l := &life{cmd: exec.CommandContext(ctx, b.self, "start", "-state", dir, "-records", strconv.Itoa(fill), "-probe", probe)}
	l.cmd.Stderr = os.Stderr
	out, err := l.cmd.StdoutPipe()
	if err != nil {
		return nil, 0, err
	}
	from := time.Now()
	if err := l.cmd.Start(); err != nil {
		return nil, 0, err
	}
	l.out = bufio.NewReader(out)
	line, err := l.out.ReadString('\n')
	if err != nil || strings.TrimSpace(line) != "output" {
		return nil, 0, fmt.Errorf("a start gave no output: %q %w", line, errors.Join(err, l.cmd.Wait()))
	}
	return l, time.Since(from), nil
}

// measureStarts prints how long it takes from the start of a process, bundled broker included, to a committed result: on an
// empty directory, after a clean stop, and after kill -9 with a million keys of state.
func (b *bench) measureStarts(ctx context.Context, runs int) error {
	var first, stop, again, killed []float64
	for i := range runs {
		dir := filepath.Join(b.dir, fmt.Sprintf("start-%d", i))
		l, took, err := b.live(ctx, dir, 0, "first")
		if err != nil {
			return err
		}
		first = append(first, took.Seconds())
		from := time.Now()
		if err := l.cmd.Process.Signal(os.Interrupt); err != nil {
			return err
		}
		if err := l.cmd.Wait(); err != nil {
			return err
		}
		stop = append(stop, time.Since(from).Seconds())
		if l, took, err = b.live(ctx, dir, 1_000_000, "second"); err != nil {
			return err
		}
		_ = took // this one also fills
		if err := l.kill(); err != nil {
			return err
		}
		if l, took, err = b.live(ctx, dir, 0, "third"); err != nil {
			return err
		}
		killed = append(killed, took.Seconds())
		if err := l.cmd.Process.Signal(os.Interrupt); err != nil {
			return err
		}
		if err := l.cmd.Wait(); err != nil {
			return err
		}
		if l, took, err = b.live(ctx, dir, 0, "fourth"); err != nil {
			return err
		}
		again = append(again, took.Seconds())
		if err := l.kill(); err != nil {
			return err
		}
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nstart and stop, bundled broker included, exactly once\tseconds, median")
	for _, row := range []struct {
		what   string
		values []float64
	}{
		{"empty directory: process start to first committed output", first},
		{"clean stop", stop},
		{"start after a clean stop, 1M keys, to new committed output", again},
		{"start after kill -9, 1M keys, to new committed output", killed},
	} {
		fmt.Fprintf(w, "%s\t%.2f\n", row.what, median(row.values))
	}
	return w.Flush()
}

func (l *life) kill() error {
	if err := l.cmd.Process.Kill(); err != nil {
		return err
	}
	_ = l.cmd.Wait() // "signal: killed"
	return nil
}
