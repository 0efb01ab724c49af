// Command benchmarks measures what a record costs: Moldau beside a hand-written franz-go loop that does the same work, as
// processes of their own against one separate broker process, alternating, in one run. It prints medians and ratios of CPU
// time; it asserts nothing but that every program computed the right thing.
//
// It starts itself again for each part: see roles.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime/pprof"
	"sort"
	"strings"
	"syscall"
)

// roles are the parts that run as processes of their own. Without one, the program runs the comparison.
var roles = map[string]func(context.Context, []string) error{
	"load":   runLoad,
	"loop":   runLoop,
	"moldau": runMoldau,
	"check":  runCheck,
	"start":  runStart,
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	args := os.Args[1:]
	run := runCompare
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		role, ok := roles[args[0]]
		if !ok {
			names := make([]string, 0, len(roles))
			for name := range roles {
				names = append(names, name)
			}
			sort.Strings(names)
			fmt.Fprintf(os.Stderr, "benchmarks: no part %q; parts: %s\n", args[0], strings.Join(names, ", "))
			os.Exit(2)
		}
		run, args = role, args[1:]
	}
	err := run(ctx, args)
	pprof.StopCPUProfile()
	if err != nil && err != flag.ErrHelp {
		fmt.Fprintln(os.Stderr, "benchmarks:", err)
		os.Exit(1)
	}
}
