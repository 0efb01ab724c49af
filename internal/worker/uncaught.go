package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/moldau/moldau/internal/cluster"
)

// Response is what to do about an error that no policy has dealt with.
type Response int

const (
	// StopClient stops this process.
	StopClient Response = iota
	// ReplaceWorker starts the worker whose error it is again, with its tasks opened anew, up to five times in ten minutes. An
	// error that is no worker's stops the process.
	ReplaceWorker
	// StopApplication stops this process and all others of the application.
	StopApplication
)

// ErrStopApplication: another process of the application has had all of them stopped.
var ErrStopApplication = errors.New("the application was stopped")

// respond asks what to do about an error.
func (n *Node) respond(err error) Response {
	if n.cfg.Uncaught == nil || errors.Is(err, ErrStopApplication) {
		return StopClient
	}
	return n.cfg.Uncaught(err)
}

// stopWait bounds how long telling the other processes may take.
const stopWait = 2 * time.Second

// stopOthers tells the other processes why to stop.
func (n *Node) stopOthers(why error) {
	ctx, cancel := context.WithTimeout(n.work, stopWait)
	defer cancel()
	text := fmt.Sprintf("process %s: %v", n.cfg.Identity.Instance, why)
	if err := n.record(ctx, stopKey, []byte(text)); err != nil {
		n.log.Error("the other processes cannot be told to stop", "error", err)
	}
}

// stopped says why another process wants all to stop; nil: none does.
func (n *Node) stopped(ctx context.Context) error {
	_, stop, at, err := n.deployed(ctx, cluster.TP{Topic: DeployedTopic(n.cfg.App)}, n.deployedAt)
	if err != nil {
		return nil // the next look tells
	}
	n.deployedAt = at
	if stop == nil {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrStopApplication, stop)
}
