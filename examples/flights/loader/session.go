package loader

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/moldau/moldau/examples/flights/input"
	"github.com/moldau/moldau/examples/flights/topics"
)

const (
	// batchRows is the most rows of one transaction: small enough that readers of committed records see a stream.
	batchRows = 10_000
	// tick is how often a limited loader publishes what has become due.
	tick = 50 * time.Millisecond
	// patience is how long one transaction may take before the session is given up and another begins.
	patience = time.Minute
)

// session is one producer's life: from fencing the one before it to the end of the input or the first error.
type session struct {
	Config
	cl        *kgo.Client
	month     *input.Month
	committed bool // at least one transaction

	mu       sync.Mutex
	produced error // first failure of a record in the open transaction; guarded by mu
}

func (s *session) run(ctx context.Context) (err error) {
	s.cl, err = kgo.NewClient(append(s.Kafka[:len(s.Kafka):len(s.Kafka)],
		kgo.TransactionalID(TransactionalID),
		// The partition of a key must be the one that Java's producer would choose.
		kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)),
		// Not RecordDeliveryTimeout: franz-go counts it from the record's timestamp, and these are of 2001.
		kgo.MaxBufferedRecords(2*batchRows))...)
	if err != nil {
		return err
	}
	defer s.cl.Close()
	// Initialising the producer settles what the one before us left open. Only then is the position final.
	if _, _, err := s.cl.ProducerID(ctx); err != nil {
		return fmt.Errorf("initialising transactional id %s: %w", TransactionalID, err)
	}
	if s.month, err = s.Month(ctx); err != nil {
		return &inputError{err}
	}
	at, found, err := ReadPosition(ctx, s.Kafka, s.month.Hash)
	if err != nil {
		return err
	}
	if !found {
		at = Position{Input: s.month.Name, Rows: len(s.month.Flights)}
		if err := s.commit(ctx, at, s.airports); err != nil {
			return fmt.Errorf("publishing the airports: %w", err)
		}
	}
	s.progress(at)
	return s.flights(ctx, at)
}

func (s *session) progress(p Position) {
	if s.Progress != nil {
		s.Progress(p)
	}
}

// flights publishes the rows from at on, at the rate that was asked for.
func (s *session) flights(ctx context.Context, at Position) error {
	began, first := time.Now(), at.Published
	for !at.Done() {
		n := min(batchRows, at.Rows-at.Published)
		if s.Rate > 0 {
			due := first + int(time.Since(began).Seconds()*float64(s.Rate))
			n = min(n, due-at.Published)
		}
		if n <= 0 {
			if !sleep(ctx, tick) {
				return ctx.Err()
			}
			continue
		}
		from := at.Published
		at.Published += n
		if err := s.commit(ctx, at, func(ctx context.Context) error { return s.rows(ctx, from, at.Published) }); err != nil {
			return fmt.Errorf("publishing rows %d to %d: %w", from, at.Published, err)
		}
		s.progress(at)
		if s.Rate > 0 && !sleep(ctx, tick) {
			return ctx.Err()
		}
	}
	return nil
}

// commit runs one transaction: what publish produces, and the position after it. A transaction once begun gets a second
// to finish after ctx has ended: left open, it would hold up the readers of a cluster until it times out.
func (s *session) commit(ctx context.Context, after Position, publish func(context.Context) error) error {
	stopping := ctx
	ctx, cancel := context.WithTimeout(context.WithoutCancel(stopping), patience)
	defer cancel()
	defer context.AfterFunc(stopping, func() { time.AfterFunc(time.Second, cancel) })()
	if err := s.cl.BeginTransaction(); err != nil {
		return err
	}
	if err := publish(ctx); err != nil {
		return err
	}
	value, err := json.Marshal(after)
	if err != nil {
		return err
	}
	s.produce(ctx, &kgo.Record{Topic: topics.Positions, Key: []byte(s.month.Hash), Value: value})
	if err := s.cl.Flush(ctx); err != nil {
		return err
	}
	// Nothing is queued any more, so this only waits: kgo (v1.22.2) may still have to note the partitions of a topic it has
	// just written to for the first time, and a commit before that is none.
	if err := s.cl.AbortBufferedRecords(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	err = s.produced
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if err := s.cl.EndTransaction(ctx, kgo.TryCommit); err != nil {
		return fmt.Errorf("committing: %w", err)
	}
	s.committed = true
	return nil
}

func (s *session) produce(ctx context.Context, r *kgo.Record) {
	s.cl.Produce(ctx, r, func(r *kgo.Record, err error) {
		if err == nil {
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.produced == nil {
			s.produced = fmt.Errorf("topic %s: %w", r.Topic, err)
		}
	})
}

func (s *session) airports(ctx context.Context) error {
	for _, a := range s.Airports {
		value, err := json.Marshal(a)
		if err != nil {
			return err
		}
		s.produce(ctx, &kgo.Record{Topic: topics.Airports, Key: []byte(a.IATA), Value: value})
	}
	return nil
}

func (s *session) rows(ctx context.Context, from, to int) error {
	for _, f := range s.month.Flights[from:to] {
		r, err := flightRecord(f)
		if err != nil {
			return err
		}
		s.produce(ctx, r)
	}
	return nil
}

// flightRecord is the record of topic flights for one row.
func flightRecord(f input.Flight) (*kgo.Record, error) {
	at, err := f.Departure()
	if err != nil {
		return nil, err
	}
	value, err := json.Marshal(f)
	if err != nil {
		return nil, err
	}
	return &kgo.Record{Topic: topics.Flights, Key: []byte(f.Origin), Value: value, Timestamp: at}, nil
}
