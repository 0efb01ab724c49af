package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/moldau/moldau/examples/flights/topics"
)

// child is the application, run as a process of its own.
type child struct {
	cmd     *exec.Cmd
	began   time.Time
	up      chan struct{} // closed once both addresses are known
	upAfter time.Duration // valid after up
	kafka   string        // address of the broker that it works on
	exited  chan struct{} // closed once it is gone
	err     error         // of the process; valid after exited
}

var (
	httpLine  = regexp.MustCompile(`http://\S+`)
	kafkaLine = regexp.MustCompile(`^kafka\s+(\S+)`)
)

// build makes the application's binary.
func build(ctx context.Context, bin string) error {
	if err := os.MkdirAll(filepath.Dir(bin), 0o755); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-o", bin, "github.com/moldau/moldau/examples/flights")
	cmd.Env = append(os.Environ(), "GOTOOLCHAIN=auto")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building the application: %w; name a binary with -run, or start this in the repository\n%s", err, out)
	}
	return nil
}

// start runs the application; its output goes to log as well.
func start(bin string, args []string, log io.Writer) (*child, error) {
	c := &child{cmd: exec.Command(bin, args...), up: make(chan struct{}), exited: make(chan struct{})}
	c.cmd.Stderr = log
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.began = time.Now()
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the application: %w", err)
	}
	go c.watch(out, log)
	return c, nil
}

// watch reads the child's output to its end and then waits for the process.
func (c *child) watch(out io.Reader, log io.Writer) {
	defer close(c.exited)
	var page, kafka string
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		fmt.Fprintln(log, lines.Text())
		if page != "" && kafka != "" {
			continue
		}
		if at := httpLine.FindString(lines.Text()); at != "" {
			page = at
		}
		if at := kafkaLine.FindStringSubmatch(lines.Text()); at != nil {
			kafka = at[1]
		}
		if page != "" && kafka != "" {
			c.kafka, c.upAfter = kafka, time.Since(c.began)
			close(c.up)
		}
	}
	c.err = c.cmd.Wait()
}

// awaitUp waits until the child has said where it listens.
func (c *child) awaitUp(ctx context.Context) error {
	select {
	case <-c.up:
		return nil
	case <-c.exited:
		return fmt.Errorf("the application ended before it was up: %w", c.ended())
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *child) ended() error {
	if c.err != nil {
		return c.err
	}
	return errors.New("exit status 0")
}

// kill ends it as a power cut would end the process.
func (c *child) kill() {
	_ = c.cmd.Process.Kill() // it may be gone already
	<-c.exited
}

// stop asks it to stop, as Ctrl-C does, and returns how long that took.
func (c *child) stop(ctx context.Context) (time.Duration, error) {
	began := time.Now()
	if err := c.cmd.Process.Signal(syscall.SIGINT); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return 0, err
	}
	select {
	case <-c.exited:
		return time.Since(began), c.err
	case <-ctx.Done():
		return 0, fmt.Errorf("the application does not stop: %w", ctx.Err())
	}
}

// awaitProcessing waits until the group's committed offsets move and returns the time since the process began.
func (c *child) awaitProcessing(ctx context.Context) (time.Duration, error) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.kafka))
	if err != nil {
		return 0, err
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	first := int64(-1)
	for {
		p, err := topics.ReadProgress(ctx, adm, group, topics.Flights, byRoute)
		switch {
		case ctx.Err() != nil:
			return 0, ctx.Err()
		case err != nil: // not there yet
		case first >= 0 && p.Committed > first:
			return time.Since(c.began), nil
		case first < 0:
			first = p.Committed
		}
		select {
		case <-c.exited:
			return 0, fmt.Errorf("the application ended by itself: %w", c.ended())
		case <-time.After(5 * time.Millisecond):
		}
	}
}
