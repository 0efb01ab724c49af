package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/moldau/moldau/examples/flights/loader"
	"github.com/moldau/moldau/examples/flights/topics"
)

// The application's consumer group, and its internal topic, whose lag counts as well.
const (
	group   = "flights"
	byRoute = "flights-by-route-repartition"
)

// readContents reads the topics as any consumer of committed records does.
func readContents(ctx context.Context, kafka []kgo.Opt) (contents, error) {
	c := contents{partitions: map[string]int{}}
	cl, err := kgo.NewClient(kafka...)
	if err != nil {
		return c, err
	}
	defer cl.Close()
	for _, t := range []struct {
		name string
		to   *[]record
	}{{topics.Flights, &c.flights}, {topics.AirportHours, &c.hours}, {topics.FlightsLate, &c.late}, {topics.Routes, &c.routes}} {
		meta, err := kadm.NewClient(cl).ListTopics(ctx, t.name)
		if err != nil {
			return c, fmt.Errorf("describing topic %s: %w", t.name, err)
		}
		if err := meta[t.name].Err; err != nil {
			return c, fmt.Errorf("describing topic %s: %w", t.name, err)
		}
		c.partitions[t.name] = len(meta[t.name].Partitions)
		err = topics.Read(ctx, kafka, t.name, func(r *kgo.Record) {
			*t.to = append(*t.to, record{r.Partition, r.Offset, r.Timestamp.UnixMilli(), string(r.Key), string(r.Value)})
		})
		if err != nil {
			return c, err
		}
		slices.SortStableFunc(*t.to, func(a, b record) int { return int(a.partition - b.partition) })
	}
	return c, nil
}

// awaitProcessed waits until some input has been published whole and the application has committed all of it.
func awaitProcessed(ctx context.Context, kafka []kgo.Opt) error {
	cl, err := kgo.NewClient(kafka...)
	if err != nil {
		return err
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	last := "the cluster has not answered"
	for {
		loaded, err := allLoaded(ctx, kafka)
		if err == nil {
			var p topics.Progress
			if p, err = topics.ReadProgress(ctx, adm, group, topics.Flights, byRoute); err == nil {
				if loaded && len(p.Lag) == 2 && p.Behind() == 0 {
					return nil
				}
				last = fmt.Sprintf("input published: %v, lag %v", loaded, p.Lag)
			}
		}
		if err != nil && ctx.Err() == nil {
			last = err.Error()
		}
		if !sleep(ctx, 100*time.Millisecond) {
			return fmt.Errorf("waiting for all input to be processed: %w (last seen: %s)", ctx.Err(), last)
		}
	}
}

func allLoaded(ctx context.Context, kafka []kgo.Opt) (bool, error) {
	positions := map[string]loader.Position{}
	err := loader.ReadPositions(ctx, kafka, func(hash string, p loader.Position) { positions[hash] = p })
	for _, p := range positions {
		if !p.Done() {
			return false, err
		}
	}
	return len(positions) > 0, err
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
