package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/moldau/moldau"
	"github.com/moldau/moldau/stream"

	"github.com/moldau/moldau/examples/flights/input"
	"github.com/moldau/moldau/examples/flights/loader"
	"github.com/moldau/moldau/examples/flights/topics"
)

// console is where the program talks to people.
type console struct {
	out io.Writer // addresses, then progress
	tty bool      // out is a terminal
	log *slog.Logger
}

// Limits of a clean stop: together they stay under three seconds. Nobody waits for a stop at the end of the input, so that it may
// take the time to write all state down.
const (
	stopApp  = 2400 * time.Millisecond
	stopHTTP = 300 * time.Millisecond
	stopDone = time.Minute
)

// play runs everything until ctx ends, until all input is processed (-exit), or until something fails.
func play(ctx context.Context, o options, c console) error {
	month := reading(o.input) // meanwhile the broker starts
	server, err := net.Listen("tcp", o.http)
	if err != nil {
		return fmt.Errorf("serving page and API at %s: %w; choose another address with -http, port 0 picks a free one", o.http, err)
	}
	defer server.Close()
	app, err := newApp(o, "http://"+server.Addr().String(), c.log)
	if err != nil {
		return err
	}
	defer app.Close()
	fmt.Fprintf(c.out, "http   http://%s\nkafka  %s\n", server.Addr(), kafkaAddress(o, app))
	if err := topics.Create(ctx, app.Client()); err != nil {
		return err
	}

	// The application outlives all that asks it: they stop first, it is stopped after them.
	appCtx, stopApp := context.WithCancel(context.WithoutCancel(ctx))
	defer stopApp()
	ended := make(chan error, 1)
	go func() { ended <- app.Run(appCtx) }()

	around := newAround(ctx, o, c, app)
	around.goes(func(ctx context.Context) error { return around.load(ctx, o, month) })
	around.goes(func(ctx context.Context) error { return around.monitor.run(ctx, around.done(o.exit)) })
	around.goes(func(ctx context.Context) error { return around.serve(ctx, server) })
	select {
	case err = <-ended:
		around.stop()
		if err == nil {
			err = errors.New("the application has stopped by itself")
		}
		return errors.Join(err, around.wait())
	case <-around.ctx.Done():
	}
	err = around.wait()
	stopApp()
	return errors.Join(err, <-ended)
}

func newApp(o options, advertise string, log *slog.Logger) (*moldau.App, error) {
	b := stream.NewBuilder()
	build(b)
	topo, err := b.Build()
	if err != nil {
		return nil, err
	}
	cfg := moldau.Config{StateDir: o.data, Brokers: o.brokers, Advertise: advertise, StopTimeout: stopApp, Logger: log}
	if len(o.brokers) == 0 {
		cfg.Listen = o.listen
	}
	if o.exit {
		cfg.StopTimeout = stopDone
	}
	if o.guarantee == atLeastOnce {
		cfg.Guarantee = moldau.AtLeastOnce
	}
	return moldau.New(appID, topo, cfg)
}

func kafkaAddress(o options, app *moldau.App) string {
	if len(o.brokers) > 0 {
		return strings.Join(o.brokers, ",")
	}
	return app.BrokerAddr()
}

// reading reads the input in the background. The function waits for it.
func reading(path string) func(context.Context) (*input.Month, error) {
	var month *input.Month
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		month, err = input.Open(path)
	}()
	return func(ctx context.Context) (*input.Month, error) {
		select {
		case <-done:
			return month, err
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// around is what goes on around the application: the loader before it, and the HTTP server that asks it.
type around struct {
	app     *moldau.App
	model   readModel
	monitor *monitor
	log     *slog.Logger
	ctx     context.Context // ends when all of it shall stop
	stop    context.CancelFunc

	group sync.WaitGroup
	mu    sync.Mutex
	err   error // the first; guarded by mu
}

func newAround(ctx context.Context, o options, c console, app *moldau.App) *around {
	a := &around{app: app, model: &stores{app}, log: c.log}
	a.ctx, a.stop = context.WithCancel(ctx)
	a.monitor = &monitor{kafka: app.Client(), model: a.model, inputs: []string{topics.Flights, appID + "-by-route-repartition"},
		every: 500 * time.Millisecond, out: c.out, tty: c.tty, log: c.log}
	if o.exit {
		a.monitor.every = 50 * time.Millisecond
	}
	return a
}

// goes starts f. Its error stops everything.
func (a *around) goes(f func(context.Context) error) {
	a.group.Go(func() {
		if err := f(a.ctx); err != nil && a.ctx.Err() == nil {
			a.mu.Lock()
			a.err = errors.Join(a.err, err)
			a.mu.Unlock()
			a.stop()
		}
	})
}

// wait waits until everything that was started has ended and returns why.
func (a *around) wait() error {
	a.group.Wait()
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.err
}

// done is what happens when all input has been processed.
func (a *around) done(exit bool) func() {
	if exit {
		return a.stop
	}
	return func() {}
}

func (a *around) load(ctx context.Context, o options, month func(context.Context) (*input.Month, error)) error {
	airports, err := input.Airports()
	if err != nil {
		return err
	}
	err = loader.Run(ctx, loader.Config{Kafka: a.app.Client(), Month: month, Airports: airports, Rate: o.rate, Log: a.log, Progress: a.monitor.Published})
	if err == nil {
		a.monitor.Loaded()
	}
	return err
}

func (a *around) serve(ctx context.Context, at net.Listener) error {
	mux := http.NewServeMux()
	(&api{a.model, a.log}).register(mux)
	p := &page{model: a.model, flow: a.monitor.Flow, every: 500 * time.Millisecond, stop: ctx.Done()}
	if err := p.register(mux); err != nil {
		return err
	}
	for _, path := range []string{"GET /metrics", "GET /livez", "GET /readyz"} {
		mux.Handle(path, a.app.Handler())
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-ctx.Done()
		limited, cancel := context.WithTimeout(context.Background(), stopHTTP)
		defer cancel()
		if server.Shutdown(limited) != nil {
			server.Close()
		}
	}()
	if err := server.Serve(at); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving page and API: %w", err)
	}
	<-stopped
	return nil
}
