package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/moldau/moldau"
)

var appCommand = command{name: "app", summary: "take an application back to a place in its input", run: runApp}

const appUsage = `usage: moldau app reset -app NAME [flags]

Sets the application's positions in its source topics, deletes its internal topics and its state on this machine. Output
topics stay. It refuses while the application runs. Without -brokers it is the application's bundled broker, whose data is in the
state directory.

`

func runApp(ctx context.Context, args []string, std streams) error {
	if len(args) == 0 || args[0] != "reset" {
		if len(args) > 0 && strings.HasPrefix(args[0], "-h") {
			fmt.Fprint(std.err, appUsage)
			return nil
		}
		return usageError{errors.New("say reset")}
	}
	app, cfg, err := resetFlags(args[1:], std)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return usageError{err}
	}
	cfg.Logger = slog.New(slog.NewTextHandler(std.err, &slog.HandlerOptions{Level: slog.LevelWarn}))
	report, err := moldau.ResetApp(ctx, app, cfg)
	if err != nil {
		return err
	}
	if cfg.DryRun {
		fmt.Fprintln(std.out, "what would be done:")
	}
	fmt.Fprint(std.out, report)
	return nil
}

func resetFlags(args []string, std streams) (app string, cfg moldau.ResetConfig, err error) {
	var inputs, to string
	var cluster connection
	f := flag.NewFlagSet("moldau app reset", flag.ContinueOnError)
	f.SetOutput(std.err)
	f.Usage = func() { fmt.Fprint(std.err, appUsage); f.PrintDefaults() }
	f.StringVar(&app, "app", "", "`name` of the application")
	cluster.register(f)
	f.StringVar(&cfg.StateDir, "state", "", "state `directory`; none: where an application has it unless it is told")
	f.StringVar(&to, "to", "earliest", "`place` to begin from: earliest, latest, offset:N, time:2006-01-02T15:04:05Z")
	f.StringVar(&inputs, "inputs", "", "source `topic,...`; none: those that the application has recorded or committed")
	f.BoolVar(&cfg.DryRun, "dry-run", false, "say what would be done, and do nothing")
	f.BoolVar(&cfg.Force, "force", false, "throw members out of the group that are still in it")
	if err := f.Parse(args); err != nil {
		return "", cfg, err
	}
	var errs []error
	if f.NArg() > 0 {
		errs = append(errs, fmt.Errorf("unexpected argument %q", f.Arg(0)))
	}
	if app == "" {
		errs = append(errs, errors.New("-app is missing: name the application"))
	}
	cfg.Inputs = split(inputs)
	named := os.Getenv("MOLDAU_BROKERS") != ""
	f.Visit(func(f *flag.Flag) { named = named || f.Name == "brokers" })
	if named {
		cfg.Brokers = split(cluster.brokers)
		if cfg.Kafka, err = cluster.options(); err != nil {
			errs = append(errs, err)
		}
	}
	if cfg.To, err = place(to); err != nil {
		errs = append(errs, err)
	}
	return app, cfg, errors.Join(errs...)
}

func split(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ',' })
}

func place(text string) (moldau.ResetTo, error) {
	kind, value, _ := strings.Cut(text, ":")
	switch kind {
	case "earliest":
		return moldau.ResetToEarliest(), nil
	case "latest":
		return moldau.ResetToLatest(), nil
	case "offset":
		n, err := strconv.ParseInt(value, 10, 64)
		if err == nil && n >= 0 {
			return moldau.ResetToOffset(n), nil
		}
	case "time":
		t, err := time.Parse(time.RFC3339, value)
		if err == nil {
			return moldau.ResetToTime(t), nil
		}
	}
	return moldau.ResetTo{}, fmt.Errorf("-to %q is none of earliest, latest, offset:N, time:2006-01-02T15:04:05Z", text)
}
