// Package loader publishes a month of flights to Kafka, each row exactly once, however often it is killed. It plays the
// application that comes before ours: it uses franz-go alone and knows nothing of Moldau.
//
// Its position is a record of a compacted topic, keyed by the content hash of the input and written in the transaction of
// the rows that it counts. Whoever starts next fences the loader before it, reads the position and goes on from there.
package loader

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/moldau/moldau/examples/flights/input"
	"github.com/moldau/moldau/examples/flights/topics"
)

// TransactionalID is the loader's. All processes on a cluster share it: only one of them loads, the others follow.
const TransactionalID = "flights-loader"

// Config is what Run needs.
type Config struct {
	Kafka []kgo.Opt // how to reach the cluster
	// Month gives what is to be published. It is called once the loader before this one has been fenced: what that one
	// left open holds up readers, and reading a month takes a while.
	Month    func(context.Context) (*input.Month, error)
	Airports []input.Airport
	Rate     int          // rows per second; 0: no limit
	Log      *slog.Logger // nil: silent
	// Progress, if not nil, is called after each commit, by Run's goroutine.
	Progress func(Position)
}

// Position is how far an input has been published: the value of a record of topics.Positions.
type Position struct {
	Input     string `json:"input"`     // file name, for people
	Published int    `json:"published"` // rows in topic flights
	Rows      int    `json:"rows"`      // rows in the input
}

// Done says whether all of the input has been published.
func (p Position) Done() bool { return p.Published >= p.Rows }

// giveUpAfter is how many sessions in a row may fail without a commit before Run returns the error.
const giveUpAfter = 5

// Run publishes what has not been published yet and returns nil once everything has been. If another process takes over,
// Run waits for it to finish.
func Run(ctx context.Context, c Config) error {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	for failed := 0; ; {
		s := session{Config: c}
		err := s.run(ctx)
		var unreadable *inputError
		if s.committed {
			failed = 0
		}
		switch {
		case err == nil:
			return nil
		case errors.As(err, &unreadable):
			return unreadable.error
		case ctx.Err() != nil:
			return ctx.Err()
		case fenced(err):
			c.Log.Info("another process loads this cluster's flights now; this one follows")
			return follow(ctx, c)
		}
		if failed++; failed == giveUpAfter {
			return fmt.Errorf("publishing the flights: %w; what was committed stays, the next start goes on from there", err)
		}
		c.Log.Warn("loading was interrupted; going on from the last commit", "error", err)
		if !sleep(ctx, time.Duration(failed)*200*time.Millisecond) {
			return ctx.Err()
		}
	}
}

func fenced(err error) bool {
	return errors.Is(err, kerr.ProducerFenced) || errors.Is(err, kerr.InvalidProducerEpoch)
}

// inputError is an input that cannot be read: trying again does not help.
type inputError struct{ error }

// follow waits until another process has published everything.
func follow(ctx context.Context, c Config) error {
	month, err := c.Month(ctx)
	if err != nil {
		return err
	}
	for sleep(ctx, time.Second) {
		p, _, err := ReadPosition(ctx, c.Kafka, month.Hash)
		if err != nil {
			return err
		}
		if c.Progress != nil {
			c.Progress(p)
		}
		if p.Done() {
			return nil
		}
	}
	return ctx.Err()
}

// ReadPosition returns the last committed position of the input with that hash; false if none of it has been published.
func ReadPosition(ctx context.Context, kafka []kgo.Opt, hash string) (at Position, found bool, err error) {
	err = ReadPositions(ctx, kafka, func(h string, p Position) {
		if h == hash {
			at, found = p, true
		}
	})
	return at, found, err
}

// ReadPositions calls f with the committed positions of all inputs; the last one of a hash counts.
func ReadPositions(ctx context.Context, kafka []kgo.Opt, f func(hash string, p Position)) error {
	var bad error
	err := topics.Read(ctx, kafka, topics.Positions, func(r *kgo.Record) {
		var p Position
		if err := json.Unmarshal(r.Value, &p); err != nil && bad == nil {
			bad = fmt.Errorf("topic %s, partition %d, offset %d: not a position: %w", topics.Positions, r.Partition, r.Offset, err)
		}
		f(string(r.Key), p)
	})
	return errors.Join(err, bad)
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
