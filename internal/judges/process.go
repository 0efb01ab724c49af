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
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is a program that runs beside us. What it writes goes to a log, and its output line by line to whoever waits.
type process struct {
	name  string
	log   string // file
	cmd   *exec.Cmd
	in    io.WriteCloser
	gone  chan struct{} // closed once it has ended
	err   error         // how; valid after gone
	mu    sync.Mutex
	lines []string // of its output; guarded by mu
}

// start runs a program; its log is appended to.
func start(dir, name string, command ...string) (*process, error) {
	p := &process{name: name, log: filepath.Join(dir, name+".log"), cmd: exec.Command(command[0], command[1:]...), gone: make(chan struct{})}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	p.cmd.Stderr = log
	out, err := p.cmd.StdoutPipe()
	if err == nil {
		p.in, err = p.cmd.StdinPipe()
	}
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		log.Close()
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	go func() {
		defer close(p.gone)
		defer log.Close()
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 1<<28) // a judge that fails shows all records on one
		for lines.Scan() {
			fmt.Fprintln(log, lines.Text())
			p.mu.Lock()
			p.lines = append(p.lines, lines.Text())
			p.mu.Unlock()
		}
		p.err = p.cmd.Wait()
	}()
	return p, nil
}

// said is the last line of its output that has the text, from where on.
func (p *process) said(text string) (line string, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := len(p.lines) - 1; i >= 0; i-- {
		if strings.Contains(p.lines[i], text) {
			return p.lines[i], true
		}
	}
	return "", false
}

// await waits for a line that has one of the texts and returns it.
func (p *process) await(ctx context.Context, texts ...string) (string, error) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		over := p.ended() != nil
		for _, text := range texts {
			if line, ok := p.said(text); ok {
				return line, nil
			}
		}
		if over {
			return "", fmt.Errorf("%w; it was to say %q, and what it said is in %s", p.ended(), texts[0], p.log)
		}
		select {
		case <-tick.C:
		case <-p.gone:
		case <-ctx.Done():
			return "", fmt.Errorf("waiting for %s to say %q: %w; what it said is in %s", p.name, texts[0], ctx.Err(), p.log)
		}
	}
}

// ended is nil while it runs, and then how it ended.
func (p *process) ended() error {
	select {
	case <-p.gone:
		if p.err != nil {
			return fmt.Errorf("%s has ended: %w", p.name, p.err)
		}
		return fmt.Errorf("%s has ended", p.name)
	default:
		return nil
	}
}

// kill ends it as the end of its machine would. It is an error if it has ended by itself.
func (p *process) kill() error {
	if err := p.ended(); err != nil {
		return fmt.Errorf("%w by itself; what it said is in %s", err, p.log)
	}
	err := p.cmd.Process.Kill()
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	<-p.gone
	return err
}

// stop asks it to stop and waits until it has.
func (p *process) stop(ctx context.Context) error {
	if err := p.ended(); err != nil {
		return fmt.Errorf("%w by itself; what it said is in %s", err, p.log)
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.gone:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s does not stop: %w", p.name, ctx.Err())
	}
}
