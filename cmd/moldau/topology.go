package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"

	"github.com/moldau/moldau/topology"
)

var topologyCommand = command{name: "topology", summary: "show a topology, or what a change of code does to stores and internal topics", run: runTopology}

const topologyUsage = `usage: moldau topology show [-format text|json|dot|mermaid] FILE
       moldau topology diff OLD NEW

Files are descriptions in JSON: Topology.Describe().JSON() in a program, /topology?format=json of one that runs, or the
value of the record in the topic APPLICATION-topology. diff fails if a change is not safe.
`

func runTopology(_ context.Context, args []string, std streams) error {
	f := flag.NewFlagSet("moldau topology", flag.ContinueOnError)
	f.SetOutput(std.err)
	f.Usage = func() { fmt.Fprint(std.err, topologyUsage) }
	format := f.String("format", "text", "")
	verb := ""
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		verb, args = args[0], args[1:]
	}
	if err := f.Parse(args); errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return usageError{err}
	}
	switch {
	case verb == "show" && f.NArg() == 1:
		d, err := describedIn(f.Arg(0))
		if err != nil {
			return err
		}
		text, err := d.Format(*format)
		if err != nil {
			return usageError{err}
		}
		fmt.Fprint(std.out, text)
		return nil
	case verb == "diff" && f.NArg() == 2:
		last, err1 := describedIn(f.Arg(0))
		next, err2 := describedIn(f.Arg(1))
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		changes := topology.Diff(last, next)
		if len(changes) == 0 {
			fmt.Fprintln(std.out, "stores and internal topics stay as they are")
			return nil
		}
		fmt.Fprintln(std.out, changes)
		if n := len(changes.Unsafe()); n > 0 {
			return fmt.Errorf("unsafe changes: %d", n)
		}
		return nil
	}
	f.Usage()
	return usageError{errors.New("say show and a file, or diff and two")}
}

func describedIn(file string) (topology.Description, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return topology.Description{}, err
	}
	d, err := topology.ParseDescription(b)
	if err != nil {
		err = fmt.Errorf("%s: %w", file, err)
	}
	return d, err
}
