// Command moldau runs Moldau's tools: the bundled broker as a server of its own, what is asked about topologies, and the
// administration of any Kafka cluster. It ends with 0 if all was done, 1 if something failed and 2 for a mistake on the
// command line.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// command is one of the program's commands.
type command struct {
	name, summary string
	verbs         []verb // nil: none
	run           func(ctx context.Context, args []string, std streams) error
}

func commands() []command {
	return []command{brokerCommand, appCommand, topologyCommand, topicCommand, groupCommand, txnCommand, aclCommand, userCommand, logCommand, completion()}
}

func isHelp(s string) bool { return s == "help" || s == "-h" || s == "-help" || s == "--help" }

// usageError is a mistake on the command line; the exit code is 2, as flag's.
type usageError struct{ error }

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(args) > 0 && args[0] == "__complete" {
		complete(args[1:], stdout)
		return 0
	}
	if len(args) > 0 {
		for _, c := range commands() {
			if c.name != args[0] {
				continue
			}
			err := c.run(ctx, args[1:], streams{stdin, stdout, stderr})
			if err == nil {
				return 0
			}
			fmt.Fprintf(stderr, "moldau %s: %v\n", c.name, err)
			var usage usageError
			if errors.As(err, &usage) {
				return 2
			}
			return 1
		}
	}
	fmt.Fprint(stderr, "usage: moldau COMMAND [flags]\n\n")
	for _, c := range commands() {
		fmt.Fprintf(stderr, "  %-11s %s\n", c.name, c.summary)
	}
	fmt.Fprint(stderr, "\nmoldau COMMAND -h describes the flags of a command.\n")
	if len(args) == 1 && isHelp(args[0]) {
		return 0
	}
	if len(args) > 0 {
		fmt.Fprintf(stderr, "moldau: unknown command %q\n", args[0])
	}
	return 2
}
