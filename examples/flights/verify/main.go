// Command verify checks that the flights example has lost nothing and doubled nothing: it reads the topics as any consumer
// of committed records does and compares them with what a plain fold of the CSV demands.
//
//	verify                                       build it, kill it 20 times with SIGKILL, let it finish, check
//	verify -brokers HOST:9092                    the same on a cluster that has never seen it
//	verify -guarantee at-least-once -expect doubled
//	verify -running -brokers 127.0.0.1:9092      check an application that is running
//
// It exits with 0 if all is as expected, with 1 if not, with 2 if it could not tell.
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// options are the command line.
type options struct {
	input, brokers, run, data, guarantee, expect string
	running                                      bool
	kills, rate                                  int
	seed                                         uint64
	timeout                                      time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.input, "input", "", "CSV that was published; default: the month that comes with the program")
	flag.StringVar(&o.brokers, "brokers", "", "addresses of a cluster to work on; default: the application's own broker")
	flag.BoolVar(&o.running, "running", false, "check the application that is running on -brokers; start and kill nothing")
	flag.StringVar(&o.run, "run", "", "the flights program; default: built with the go command")
	flag.StringVar(&o.data, "data", "", "the application's data directory; default: a new one, removed if all is well")
	flag.StringVar(&o.guarantee, "guarantee", "exactly-once", "the application's: exactly-once or at-least-once")
	flag.IntVar(&o.kills, "kills", 20, "how many times to kill it")
	flag.IntVar(&o.rate, "rate", 20_000, "records per second while it is being killed")
	flag.Uint64Var(&o.seed, "seed", uint64(time.Now().UnixNano()), "of the moments of killing")
	flag.StringVar(&o.expect, "expect", "exact", "exact, or doubled: the check must find that records were counted twice")
	flag.DurationVar(&o.timeout, "timeout", 10*time.Minute, "give up after this long")
	flag.Parse()
	if problem := o.problem(); problem != "" {
		fmt.Fprintf(os.Stderr, "verify: %s\n", problem)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	ok, err := o.verify(ctx)
	switch {
	case err != nil:
		fmt.Fprintf(os.Stderr, "verify: %v\n", err)
		os.Exit(2)
	case !ok:
		os.Exit(1)
	}
}

func (o options) problem() string {
	switch {
	case flag.NArg() > 0:
		return fmt.Sprintf("unknown argument %q; see -help", flag.Arg(0))
	case o.running && o.brokers == "":
		return "-running needs -brokers: the addresses that the application works on"
	case o.expect != "exact" && o.expect != "doubled":
		return fmt.Sprintf("-expect %q: it is exact or doubled", o.expect)
	case o.kills < 0 || o.rate < 0:
		return "-kills and -rate must not be negative"
	}
	return ""
}

func (o options) verify(ctx context.Context) (bool, error) {
	s, err := openSource(o.input)
	if err != nil {
		return false, err
	}
	if o.running {
		return o.check(ctx, s, o.brokers)
	}
	return o.runAndCheck(ctx, s)
}

// check waits until everything has been processed, reads the topics and reports.
func (o options) check(ctx context.Context, s source, brokers string) (bool, error) {
	kafka := []kgo.Opt{kgo.SeedBrokers(strings.Split(brokers, ",")...)}
	began := time.Now()
	if err := awaitProcessed(ctx, kafka); err != nil {
		return false, err
	}
	fmt.Printf("all input processed and committed (waited %v)\n", time.Since(began).Round(time.Millisecond))
	c, err := readContents(ctx, kafka)
	if err != nil {
		return false, err
	}
	verdicts, err := check(s, c)
	if err != nil {
		return false, err
	}
	exact := report(os.Stdout, verdicts)
	if o.expect == "exact" {
		return exact, nil
	}
	switch {
	case exact:
		fmt.Println("nothing was doubled: more kills, or another seed")
	case doubled(verdicts):
		fmt.Println("flights were counted twice and none was lost: the check has caught it, as it should")
		return true, nil
	default:
		fmt.Println("this is not doubling: flights were lost, or the loader is wrong")
	}
	return false, nil
}

// runAndCheck plays the whole story: kills, the run to the end, the start after it, the check, the stop.
func (o options) runAndCheck(ctx context.Context, s source) (bool, error) {
	data := o.data
	if data == "" {
		dir, err := os.MkdirTemp("", "flights-verify-")
		if err != nil {
			return false, err
		}
		data = dir
	}
	if o.run == "" {
		o.run = filepath.Join(data, "flights")
		if err := build(ctx, o.run); err != nil {
			return false, err
		}
	}
	r, err := newRunner(o, data)
	if err != nil {
		return false, err
	}
	defer r.log.Close()
	fmt.Printf("seed %d, data in %s\n", o.seed, data)
	if err := r.killAll(ctx, rand.New(rand.NewPCG(o.seed, 0))); err != nil {
		return false, r.explain(err)
	}
	if err := r.finish(ctx); err != nil {
		return false, r.explain(err)
	}
	c, err := r.start()
	if err != nil {
		return false, err
	}
	defer c.kill()
	if err := c.awaitUp(ctx); err != nil {
		return false, r.explain(err)
	}
	ok, err := o.check(ctx, s, c.kafka)
	if err != nil {
		return false, r.explain(err)
	}
	took, err := c.stop(ctx)
	if err != nil {
		return false, r.explain(fmt.Errorf("stopping the application: %w", err))
	}
	fmt.Printf("stopped cleanly in %v\n", took.Round(time.Millisecond))
	if ok && o.data == "" {
		return ok, os.RemoveAll(data)
	}
	return ok, nil
}
