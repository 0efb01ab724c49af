package worker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// stopGrace is how long a stop may go on after it was cut short: what does not hang ends at once.
const stopGrace = 250 * time.Millisecond

// overdue is closed when a stop has taken longer than it may.
func (n *Node) overdue(ctx context.Context) <-chan struct{} {
	late := make(chan struct{})
	context.AfterFunc(ctx, func() {
		time.AfterFunc(n.cfg.StopTimeout+stopGrace, func() { close(late) })
	})
	return late
}

// giveUp ends Run without what hangs, most likely an author's function: there is no way to end a goroutine from outside.
// Nothing that it does can be committed any more. When it comes back what it holds is closed; see Wait.
func (n *Node) giveUp(abort context.CancelFunc) error {
	err := errors.Join(n.failure(), n.cutShort(n.hanging()))
	abort()
	n.mu.Lock()
	n.hung = true
	member := n.member
	n.mu.Unlock()
	if member != nil { // else the group would hold its tasks for it as long as this process lives
		ctx, cancel := context.WithTimeout(context.Background(), stopGrace)
		defer cancel()
		if err := member.Leave(ctx); err != nil {
			n.log.Warn("leaving the group; others wait for the session to end", "error", err)
		}
	}
	return err
}

// cutShort says that a stop was, and what held it up.
func (n *Node) cutShort(what string) error {
	if what != "" {
		what = "; " + what
	}
	return fmt.Errorf("%w after %v%s: what was not committed will be done again", ErrStopTimeout, n.cfg.StopTimeout, what)
}

// Hangs says whether Run has returned without something that did not come back.
func (n *Node) Hangs() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.hung
}

// Wait waits until nothing of the node is at work any more: longer than Run only if something hangs.
func (n *Node) Wait() { n.all.Wait() }

// stopWorkers has workers commit and close. The error says that it had to be cut short.
func (n *Node) stopWorkers(workers *sync.WaitGroup, abort context.CancelFunc) error {
	for _, w := range n.workers {
		w.stop()
	}
	done := make(chan struct{})
	go func() { workers.Wait(); close(done) }()
	t := time.NewTimer(n.cfg.StopTimeout)
	defer t.Stop()
	select {
	case <-done:
		return nil
	case <-t.C:
	}
	cut := n.cutShort(n.hanging())
	abort()
	for _, w := range n.workers {
		w.abandon()
	}
	<-done
	return cut
}
