// Command moldau runs Moldau's tools: the bundled broker as a server of its own, and what is asked about topologies.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// command is one of the program's commands.
type command struct {
	name, summary string
	run           func(ctx context.Context, args []string, std streams) error
}

func commands() []command {
	return []command{brokerCommand, topologyCommand}
}

// usageError is a mistake on the command line; the exit code is 2, as flag's.
type usageError struct{ error }

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 {
		for _, c := range commands() {
			if c.name != args[0] {
				continue
			}
			err := c.run(ctx, args[1:], streams{stdout, stderr})
			if err == nil {
				return 0
			}
			fmt.Fprintf(stderr, "moldau %s: %v\n", c.name, err)
			if _, ok := err.(usageError); ok {
				return 2
			}
			return 1
		}
	}
	fmt.Fprint(stderr, "usage: moldau COMMAND [flags]\n\n")
	for _, c := range commands() {
		fmt.Fprintf(stderr, "  %-8s %s\n", c.name, c.summary)
	}
	fmt.Fprint(stderr, "\nmoldau COMMAND -h describes the flags of a command.\n")
	if len(args) == 1 && (args[0] == "help" || args[0] == "-h" || args[0] == "-help" || args[0] == "--help") {
		return 0
	}
	if len(args) > 0 {
		fmt.Fprintf(stderr, "moldau: unknown command %q\n", args[0])
	}
	return 2
}
