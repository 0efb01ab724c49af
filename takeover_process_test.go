package moldau_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/moldau/moldau"
	"github.com/moldau/moldau/stream"
)

// open makes an application of ours. Each record takes that long to read.
func (t takeover) open(brokers, app, dir string, slow time.Duration, logger *slog.Logger) (*moldau.App, error) {
	b := stream.NewBuilder()
	t.build(b, takeoverTopics{app: app, a: t.name + "-a", b: t.name + "-b", slow: slow})
	topology, err := b.Build()
	if err != nil {
		return nil, err
	}
	return moldau.New(app, topology, moldau.Config{Brokers: []string{brokers}, StateDir: filepath.Join(dir, app), ReplicationFactor: 1, Workers: 1,
		MaxTaskIdle: 3 * time.Second, SessionTimeout: 6 * time.Second, Logger: logger})
}

// startChild runs applications of ours in a process of their own, each record slowly.
func (h *handover) startChild(all []*handed) *exec.Cmd {
	var names []string
	for _, a := range all {
		names = append(names, a.takeover.name+"="+a.app)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"=takeover", "MOLDAU_TEST_BROKERS="+h.brokers, "MOLDAU_TEST_STATE="+h.dir, "MOLDAU_TEST_APPS="+strings.Join(names, ","))
	cmd.Stdout, cmd.Stderr = &h.log, &h.log
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return cmd
}

// takeoverChild is that process.
func takeoverChild(ctx context.Context) {
	var all sync.WaitGroup
	for name := range strings.SplitSeq(os.Getenv("MOLDAU_TEST_APPS"), ",") {
		topology, app, _ := strings.Cut(name, "=")
		i := slices.IndexFunc(takeovers, func(t takeover) bool { return t.name == topology })
		a, err := takeovers[i].open(os.Getenv("MOLDAU_TEST_BROKERS"), app, os.Getenv("MOLDAU_TEST_STATE"), takeoverSlow,
			slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		all.Go(func() {
			if err := a.Run(ctx); err != nil {
				fmt.Fprintln(os.Stderr, app, err)
			}
		})
	}
	all.Wait()
}
