package moldau_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/moldau/moldau"
	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/stream"
)

// An application that is at an end with itself says so to all its processes, and starts a worker again when the cluster was slow.
func ExampleConfig_uncaught() {
	cfg := moldau.Config{
		Brokers: []string{"kafka:9092"},
		Uncaught: func(err error) moldau.Response {
			switch {
			case errors.Is(err, moldau.ErrTooLarge):
				return moldau.StopApplication
			case errors.Is(err, context.DeadlineExceeded):
				return moldau.ReplaceWorker
			}
			return moldau.StopClient
		},
		Listener: func(e moldau.Event) {
			switch e.Kind {
			case moldau.StateChanged:
				slog.Info("state", "now", e.State)
			case moldau.RestoreProgress:
				slog.Info("restoring", "store", e.Store, "left", e.To-e.At)
			}
		},
	}
	fmt.Println(cfg.Validate())
	// Output: <nil>
}

// Hold an application while something that it depends on is being looked after.
func ExampleApp_Pause() {
	b := stream.NewBuilder()
	b.Stream(stream.NewTopic("in", serde.String, serde.String)).To(stream.NewTopic("out", serde.String, serde.String))
	topo, err := b.Build()
	if err != nil {
		panic(err)
	}
	app, err := moldau.New("copy", topo, moldau.Config{})
	if err != nil {
		panic(err)
	}
	defer app.Close()
	app.Pause()
	defer app.Resume()
	time.Sleep(time.Minute) // the work on the other system
}

// Take an application back to what it read an hour ago.
func ExampleResetApp() {
	report, err := moldau.ResetApp(context.Background(), "wordcount", moldau.ResetConfig{
		Brokers: []string{"kafka:9092"},
		To:      moldau.ResetToTime(time.Now().Add(-time.Hour)),
		DryRun:  true,
	})
	if err != nil {
		panic(err)
	}
	fmt.Print(report)
}
