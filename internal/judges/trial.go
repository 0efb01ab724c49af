package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// processes is how many the application has; each has two workers.
const processes = 2

// errVerdict is a verdict that was not expected.
var errVerdict = errors.New("the verdict is not the one that was expected")

// trial is one run: a broker, the application's processes, and the judge.
type trial struct {
	options
	rng     *rand.Rand
	brokers string
	judge   *process
	node    *process // the bundled broker, if there is one
	apps    [processes]*process
	killed  int
}

// try runs a trial and says how it went.
func (o options) try(ctx context.Context) (err error) {
	awaitMidnight(ctx, o)
	began, temporary := time.Now(), o.dir == ""
	if temporary {
		o.dir, err = os.MkdirTemp("", "judges-")
	} else {
		err = os.MkdirAll(o.dir, 0o755)
	}
	if err != nil {
		return err
	}
	t := &trial{options: o, rng: rand.New(rand.NewPCG(o.seed, 0)), brokers: o.brokers}
	defer t.end()
	fmt.Printf("seed %d, state and logs in %s\n", o.seed, o.dir)
	if err := t.run(ctx); err != nil {
		return err
	}
	fmt.Printf("as expected, after %d kills, in %.1f s\n", t.killed, time.Since(began).Seconds())
	t.end()
	if temporary {
		return os.RemoveAll(o.dir)
	}
	return nil
}

// awaitMidnight waits until the run's records lie in one window of a day: by UTC, which is how Kafka Streams cuts them.
// The judge of SmokeTest takes it for granted.
func awaitMidnight(ctx context.Context, o options) {
	now := time.Now().UTC()
	left := now.Truncate(24 * time.Hour).Add(24 * time.Hour).Sub(now)
	if o.topology != "smoke" || left > time.Duration(o.seconds)*time.Second+2*time.Minute {
		return
	}
	fmt.Printf("waiting %v for midnight: the judge wants one day\n", left.Round(time.Second))
	select {
	case <-time.After(left + time.Second):
	case <-ctx.Done():
	}
}

func (t *trial) run(ctx context.Context) error {
	if t.brokers == "" {
		if err := t.startBroker(ctx, "127.0.0.1:0"); err != nil {
			return err
		}
	}
	var err error
	t.judge, err = t.startJava("judge", "judge", strconv.Itoa(t.first), strconv.Itoa(t.second), strconv.Itoa(t.seconds))
	if err != nil {
		return err
	}
	if _, err := t.judge.await(ctx, "topics"); err != nil {
		return err
	}
	for i := range t.apps {
		if err := t.startApp(i); err != nil {
			return err
		}
	}
	if _, err := t.judge.in.Write([]byte("\n")); err != nil {
		return err
	}
	if _, err := t.judge.await(ctx, "produce"); err != nil {
		return err
	}
	if err := t.killing(ctx); err != nil {
		return err
	}
	if err := t.verdict(ctx); err != nil {
		return err
	}
	for _, app := range t.apps {
		if err := app.stop(ctx); err != nil {
			return err
		}
	}
	return nil
}

// startBroker runs the bundled broker.
func (t *trial) startBroker(ctx context.Context, listen string) (err error) {
	t.node, err = start(t.dir, "broker", t.moldau, "broker", "-data", filepath.Join(t.dir, "broker"), "-listen", listen, "-log", "warn")
	if err != nil {
		return err
	}
	line, err := t.node.await(ctx, "broker listens on ")
	if err != nil {
		return err
	}
	t.brokers, _, _ = strings.Cut(strings.TrimPrefix(line, "broker listens on "), ",")
	return nil
}

// startJava runs Judge.java, as the judge or as an application.
func (t *trial) startJava(name, role string, args ...string) (*process, error) {
	command := append(strings.Fields(t.java), "Judge", t.brokers, t.topology, role, strconv.FormatBool(t.guarantee == exactlyOnce))
	return start(t.dir, name, append(command, args...)...)
}

// startApp runs a process of the application, over the state of its predecessor.
func (t *trial) startApp(i int) (err error) {
	name := fmt.Sprintf("application-%d", i)
	state := filepath.Join(t.dir, name)
	if t.client == "java" {
		t.apps[i], err = t.startJava(name, "application", state, t.protocol)
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	t.apps[i], err = start(t.dir, name, self, "-application", "-brokers", t.brokers, "-state", state,
		"-topology", t.topology, "-guarantee", t.guarantee, fmt.Sprintf("-wrong=%v", t.wrong))
	return err
}

// killing kills and starts again, at random moments of the time in which the judge writes; the last quarter of the
// kills may come later still. At least once is killed no later than 25 s after the beginning: when windows of the smoke
// test close, 31 s after it, and at its end, the judge wants each result once, which is more than at least once promises.
func (t *trial) killing(ctx context.Context) error {
	span := time.Duration(t.seconds) * time.Second * 5 / 4
	if t.guarantee == atLeastOnce {
		span = min(time.Duration(t.seconds)*time.Second*4/5, 25*time.Second)
	}
	began := time.Now()
	left := [2]int{t.kills, t.broker}
	for n := left[0] + left[1]; n > 0; n-- {
		// The next of n moments that are spread evenly over what is left of the span.
		pause := time.Duration(float64(max(0, span-time.Since(began))) / float64(n) * 2 * t.rng.Float64())
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
		var err error
		if t.rng.IntN(n) < left[0] {
			left[0]--
			err = t.killApp(t.rng.IntN(processes))
		} else {
			left[1]--
			err = t.killBroker(ctx)
		}
		if err != nil {
			return err
		}
		t.killed++
	}
	return nil
}

func (t *trial) killApp(i int) error {
	if err := t.apps[i].kill(); err != nil {
		return err
	}
	return t.startApp(i)
}

func (t *trial) killBroker(ctx context.Context) error {
	if err := t.node.kill(); err != nil {
		return err
	}
	return t.startBroker(ctx, t.brokers)
}

// verdict waits for the judge's and compares it with what was expected.
func (t *trial) verdict(ctx context.Context) error {
	texts := []string{"verdict: "}
	if t.wrong {
		// The judge of the smoke test tries again for minutes. That all has been processed and is not right, three times in
		// a row, is enough.
		texts = append(texts, "(yet). Retrying...3")
	}
	line, err := t.judge.await(ctx, texts...)
	if err != nil {
		return err
	}
	for _, app := range t.apps {
		if err := app.ended(); err != nil {
			return fmt.Errorf("%w by itself; what it said is in %s", err, app.log)
		}
	}
	said, found := strings.CutPrefix(line, "verdict: ")
	if !found {
		said = "failed"
	}
	passed := said == "passed" || t.guarantee == atLeastOnce && said == "counted-twice"
	if passed && t.guarantee == exactlyOnce && t.topology == "smoke" {
		// Java's judge tells this and lets it pass.
		if more, ok := t.judge.said("PROCESSED-MORE-THAN-GENERATED"); ok {
			passed, said = false, more
		}
	}
	if passed == t.wrong {
		return fmt.Errorf("%w: %s; see %s", errVerdict, said, t.judge.log)
	}
	in := t.client
	if t.protocol != "classic" {
		in += ", group protocol " + t.protocol
	}
	fmt.Printf("%s, %s, application in %s: the judge says %s\n", t.topology, t.guarantee, in, said)
	return nil
}

// end ends whatever runs still. It may be called again.
func (t *trial) end() {
	for _, p := range append(t.apps[:], t.judge, t.node) {
		if p != nil && p.ended() == nil {
			_ = p.kill() // it may end meanwhile
		}
	}
}
