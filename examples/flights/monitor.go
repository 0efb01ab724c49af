package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/moldau/moldau/examples/flights/loader"
	"github.com/moldau/moldau/examples/flights/topics"
)

// monitor watches how the records flow: for the page, for the terminal, and for -exit.
type monitor struct {
	kafka  []kgo.Opt
	model  readModel
	inputs []string // topics that the application reads
	every  time.Duration
	out    io.Writer // of the progress lines
	tty    bool      // a line may be written over
	log    *slog.Logger

	mu       sync.Mutex // guards the following
	flow     Flow
	position loader.Position
	loaded   bool // the loader has finished

	said time.Time // when the last progress line was written; of run alone
}

// smoothing is the weight of the newest measurement in the rate.
const smoothing = 0.4

// Flow is how it flowed at the last look.
func (m *monitor) Flow() Flow {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.flow
}

// Published takes note of the loader's position.
func (m *monitor) Published(p loader.Position) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.position, m.flow.Rows = p, p.Rows
}

// Loaded takes note of the loader's end.
func (m *monitor) Loaded() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.loaded = true
}

// run looks again and again until ctx ends; done is called each time when all input has been processed and committed.
func (m *monitor) run(ctx context.Context, done func()) error {
	cl, err := kgo.NewClient(m.kafka...)
	if err != nil {
		return fmt.Errorf("watching the flow: %w", err)
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	tick := time.NewTicker(m.every)
	defer tick.Stop()
	last, at := int64(-1), time.Now()
	finished := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		m.mu.Lock()
		loaded := m.loaded // read before the lag: what comes later is not in it
		m.mu.Unlock()
		board, err := m.model.Leaderboard(ctx)
		if err != nil {
			continue // starting or rebalancing
		}
		progress, err := topics.ReadProgress(ctx, adm, appID, m.inputs...)
		if err != nil {
			m.log.Debug("watching the flow", "error", err)
			continue
		}
		now, processed := time.Now(), flights(board)
		m.look(processed, last, progress.Behind(), now.Sub(at))
		last, at = processed, now
		all := loaded && len(progress.Lag) == len(m.inputs) && progress.Behind() == 0
		m.say(now, all, finished)
		if finished = all; all {
			done()
		}
	}
}

// flights is how many flights an application has counted.
func flights(board Leaderboard) (n int64) {
	for _, s := range board.Airports {
		n += s.Flights
	}
	return n
}

func (m *monitor) look(processed, before, lag int64, passed time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.flow.Processed, m.flow.Lag = processed, lag
	if before < 0 {
		return // the first look: what came before it was no rate
	}
	rate := float64(processed-before) / passed.Seconds()
	m.flow.Rate += smoothing * (rate - m.flow.Rate)
	if lag == 0 && rate == 0 {
		m.flow.Rate = 0
	}
}

// say writes a progress line: on a terminal over the last one, elsewhere every five seconds.
func (m *monitor) say(now time.Time, all, before bool) {
	m.mu.Lock()
	f, p := m.flow, m.position
	m.mu.Unlock()
	switch {
	case all && before, p.Rows == 0:
		return
	case all:
		m.line(fmt.Sprintf("all %d flights of %s are processed and committed", p.Rows, p.Input), "\n")
	case m.tty:
		m.line(progressLine(f, p), "")
	case now.Sub(m.said) >= 5*time.Second:
		m.line(progressLine(f, p), "\n")
		m.said = now
	}
}

func progressLine(f Flow, p loader.Position) string {
	return fmt.Sprintf("published %d of %d flights (%d %%), processed %d, %.0f records/s, lag %d",
		p.Published, p.Rows, 100*p.Published/p.Rows, f.Processed, f.Rate, f.Lag)
}

func (m *monitor) line(text, end string) {
	if m.tty {
		text = "\r\x1b[K" + text
	}
	fmt.Fprint(m.out, text+end)
}
