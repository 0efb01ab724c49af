package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/moldau/moldau"
	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/state"
	"github.com/moldau/moldau/stream"
	"github.com/moldau/moldau/topology"
	"github.com/moldau/moldau/window"
)

// The stores, named once.
var (
	counts  = state.NewKeyValue("counts", serde.String, serde.Int64)
	windows = state.NewWindow("counts", serde.String, serde.Int64)
)

// build is the workload in Moldau.
func (j job) build() (*topology.Topology, error) {
	b := stream.NewBuilder()
	switch j.workload {
	case "stateless":
		out := stream.NewTopic(j.out, serde.Bytes, serde.Bytes)
		b.Stream(stream.NewTopic(j.in, serde.Bytes, serde.Bytes)).
			Filter(func(_, v []byte) bool { return keep(v) }).
			MapValues(invert).
			To(out)
	case "count":
		b.Stream(stream.NewTopic(j.in, serde.String, serde.Bytes)).
			GroupByKey().
			Count(counts).
			ToStream().
			To(stream.NewTopic(j.out, serde.String, serde.Int64))
	case "tumbling":
		b.Stream(stream.NewTopic(j.in, serde.String, serde.Bytes)).
			GroupByKey().
			WindowedBy(window.Tumbling(windowSize).Grace(time.Second)).
			Count(windows).
			ToStream().
			To(stream.NewWindowedTopic(j.out, serde.String, serde.Int64, windowSize))
	default:
		return nil, fmt.Errorf("no workload %q", j.workload)
	}
	return b.Build()
}

// runMoldau does a job with Moldau, one worker, until every input record is committed.
func runMoldau(ctx context.Context, args []string) error {
	j, err := parseJob("moldau", args)
	if err != nil {
		return err
	}
	topo, err := j.build()
	if err != nil {
		return err
	}
	cfg := moldau.Config{
		Brokers: []string{j.broker}, StateDir: j.state, CommitInterval: j.commit, Workers: 1,
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
	if !j.exactlyOnce {
		cfg.Guarantee = moldau.AtLeastOnce
	}
	app, err := moldau.New(j.app, topo, cfg)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- app.Run(ctx) }()
	m := newMeter(j)
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for {
		select {
		case err := <-ended:
			return errors.Join(err, errors.New("it ended before the input did"))
		case <-look.C:
		}
		stepped, committed, memory := progress(app)
		m.at(stepped)
		if committed < j.records {
			continue
		}
		perKey := 0.0
		if j.workload == "count" {
			perKey = float64(memory) / float64(keysOf(j.in))
		}
		if err := m.report("moldau", perKey); err != nil {
			return err
		}
		stop()
		return <-ended
	}
}

// progress is how many records the App has stepped and committed, and the bytes that its stores hold in memory.
func progress(app *moldau.App) (stepped, committed int, memory int64) {
	for _, t := range app.Tasks() {
		stepped += int(t.Records)
		for _, in := range t.Inputs {
			committed += int(max(in.Committed, 0))
		}
		for _, s := range t.Stores {
			memory += s.Memory
		}
	}
	return stepped, committed, memory
}
