package main

import (
	"context"
	"log/slog"
	"os"
	"strings"

	"github.com/moldau/moldau"
	"github.com/moldau/moldau/internal/judges/relational"
	"github.com/moldau/moldau/internal/judges/smoke"
	"github.com/moldau/moldau/stream"
)

// apply is our application, in a process of its own.
func (o options) apply(ctx context.Context) error {
	b, id := stream.NewBuilder(), smoke.AppID
	if o.topology == "smoke" {
		smoke.Build(b, o.wrong)
	} else {
		id = relational.AppID
		relational.Build(b, o.wrong)
	}
	topo, err := b.Build()
	if err != nil {
		return err
	}
	cfg := moldau.Config{Brokers: strings.Split(o.brokers, ","), StateDir: o.state, Workers: 2, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	if o.guarantee == atLeastOnce {
		cfg.Guarantee = moldau.AtLeastOnce
	}
	app, err := moldau.New(id, topo, cfg)
	if err != nil {
		return err
	}
	return app.Run(ctx)
}
