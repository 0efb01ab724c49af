package moldau_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/moldau/moldau"
	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/state"
	"github.com/moldau/moldau/stream"
)

// Write to a topic from the program that reads it, as any client of Kafka may.
func ExampleApp_Client() {
	orders := stream.NewTopic("orders", serde.String, serde.Int64)
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	b := stream.NewBuilder()
	b.Stream(orders).Foreach(func(r stream.Record[string, int64]) error {
		fmt.Println(r.Key, r.Value)
		stop()
		return nil
	})
	topo, err := b.Build()
	if err != nil {
		log.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "orders")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	app, err := moldau.New("orders", topo, moldau.Config{StateDir: dir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		log.Fatal(err)
	}
	go func() {
		<-app.Ready() // now the topics are there
		client, err := kgo.NewClient(app.Client()...)
		if err != nil {
			log.Fatal(err)
		}
		defer client.Close()
		// The client chooses the partition, as Kafka's default partitioner does.
		_, key, value, err := stream.Encode(orders, stream.Record[string, int64]{Key: "ann", Value: 300}, 1)
		if err != nil {
			log.Fatal(err)
		}
		client.Produce(ctx, &kgo.Record{Topic: orders.Name(), Key: key, Value: value}, nil)
		client.Flush(ctx)
	}()
	if err := app.Run(ctx); err != nil {
		log.Fatal(err)
	}
	// Output: ann 300
}

// Answer queries over HTTP, whichever process has the key: each says where it is reached (Config.Advertise).
func ExampleApp_KeyValue() {
	counts := state.NewKeyValue("counts", serde.String, serde.Int64)
	var app *moldau.App // that runs a topology with this store
	http.HandleFunc("GET /counts/{word}", func(w http.ResponseWriter, r *http.Request) {
		n, ok, err := app.KeyValue(counts).Get(r.Context(), r.PathValue("word"))
		elsewhere, notHere := errors.AsType[*moldau.NotHere](err)
		switch {
		case notHere && elsewhere.Owner != "":
			http.Redirect(w, r, "http://"+elsewhere.Owner+r.URL.Path, http.StatusTemporaryRedirect)
		case err != nil: // such as while tasks change hands: the client may try again
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		case !ok:
			http.NotFound(w, r)
		default:
			fmt.Fprintln(w, n)
		}
	})
}

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
