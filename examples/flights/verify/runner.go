package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// slow is a restart that is worth a look.
const slow = 3 * time.Second

// runner starts the application over one data directory, again and again.
type runner struct {
	bin  string
	args []string
	rate int
	n    int // kills
	log  *os.File
}

func newRunner(o options, data string) (*runner, error) {
	args := []string{"-data", data, "-http", "127.0.0.1:0", "-guarantee", o.guarantee}
	if o.brokers != "" {
		args = append(args, "-brokers", o.brokers)
	} else {
		args = append(args, "-listen", "127.0.0.1:0")
	}
	if o.input != "" {
		args = append(args, "-input", o.input)
	}
	if err := os.MkdirAll(data, 0o755); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(filepath.Join(data, "verify.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	return &runner{bin: o.run, args: args, rate: o.rate, n: o.kills, log: log}, nil
}

func (r *runner) start(more ...string) (*child, error) {
	return start(r.bin, append(slices.Clone(r.args), more...), r.log)
}

// explain adds where the application's own words are.
func (r *runner) explain(err error) error {
	return fmt.Errorf("%w; what the application said is in %s", err, r.log.Name())
}

// killAll lets it live for a short while, n times. Every other life ends at any moment, start-up included; the others
// end at a random moment after it has processed something, and show how long that took.
func (r *runner) killAll(ctx context.Context, rng *rand.Rand) error {
	var up, processing []time.Duration
	for i := range r.n {
		c, err := r.start("-rate", strconv.Itoa(r.rate))
		if err != nil {
			return err
		}
		err = r.life(ctx, c, i%2 == 0, rng, &up, &processing)
		c.kill()
		if err != nil {
			return fmt.Errorf("life %d of %d: %w", i+1, r.n, err)
		}
	}
	if r.n > 0 {
		fmt.Printf("killed %d times; up after %s; processing again %s later\n", r.n, spread(up), spread(processing))
	}
	return nil
}

func (r *runner) life(ctx context.Context, c *child, blind bool, rng *rand.Rand, up, processing *[]time.Duration) error {
	if blind {
		sleep(ctx, time.Duration(rng.IntN(1000))*time.Millisecond)
		select {
		case <-c.exited:
			return fmt.Errorf("the application ended by itself: %w", c.ended())
		default:
			return ctx.Err()
		}
	}
	if err := c.awaitUp(ctx); err != nil {
		return err
	}
	took, err := c.awaitProcessing(ctx)
	if err != nil {
		return err
	}
	took -= c.upAfter
	if took > slow {
		fmt.Printf("%s: processing only %v after it was up\n", c.began.UTC().Format(time.TimeOnly), took.Round(time.Millisecond))
	}
	*up = append(*up, c.upAfter)
	*processing = append(*processing, took)
	sleep(ctx, time.Duration(rng.IntN(500))*time.Millisecond)
	return ctx.Err()
}

// finish lets it run to the end of its input, where it must stop by itself.
func (r *runner) finish(ctx context.Context) error {
	c, err := r.start("-exit")
	if err != nil {
		return err
	}
	select {
	case <-c.exited:
	case <-ctx.Done():
		c.kill()
		return fmt.Errorf("running to the end with -exit: %w", ctx.Err())
	}
	if c.err != nil {
		return fmt.Errorf("running to the end with -exit: %w", c.err)
	}
	fmt.Printf("ran to the end of its input in %v\n", time.Since(c.began).Round(time.Millisecond))
	return nil
}

// spread is the least, the median and the most.
func spread(ds []time.Duration) string {
	if len(ds) == 0 {
		return "(not measured)"
	}
	ds = slices.Sorted(slices.Values(ds))
	round := func(d time.Duration) time.Duration { return d.Round(time.Millisecond) }
	return fmt.Sprintf("%v (least %v, most %v)", round(ds[len(ds)/2]), round(ds[0]), round(ds[len(ds)-1]))
}
