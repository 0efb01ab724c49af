// Command flights plays a month of real US flights through a Moldau topology, exactly once, and answers questions about
// them. README.md says what it does; topology.go is where to start reading.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	o, err := parse(os.Args[1:], os.Stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		fmt.Fprintf(os.Stderr, "flights: %v\n", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C does not wait
	info, err := os.Stdout.Stat()
	c := console{
		out: os.Stdout,
		tty: err == nil && info.Mode()&os.ModeCharDevice != 0,
		log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	if err := play(ctx, o, c); err != nil {
		fmt.Fprintf(os.Stderr, "flights: %v\n", err)
		os.Exit(1)
	}
}
