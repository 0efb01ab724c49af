package main

import (
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"time"

	"github.com/moldau/moldau/examples/flights/input"
)

//go:embed web
var web embed.FS

// page serves the page and the events that make it move.
type page struct {
	model readModel
	flow  func() Flow
	every time.Duration   // between two events
	stop  <-chan struct{} // closed when the program stops: streams end, so that the server can
}

// Flow is how the records flow, at one moment.
type Flow struct {
	Rate      float64 `json:"rate"`      // records per second, processed and committed
	Lag       int64   `json:"lag"`       // records published and not yet processed
	Processed int64   `json:"processed"` // flights
	Rows      int     `json:"rows"`      // flights in the input; 0: not known yet
	Clock     string  `json:"clock"`     // the latest departure seen; empty before the first
	Source    string  `json:"source"`    // of the data
}

func (p *page) register(mux *http.ServeMux) error {
	assets, err := fs.Sub(web, "web")
	if err != nil {
		return err
	}
	mux.Handle("GET /", http.FileServerFS(assets))
	mux.HandleFunc("GET /api/events", p.events)
	return nil
}

// boardLeast is how many flights an airport needs to be on the page: one delayed flight of two is no news.
const boardLeast = 100

// events is a stream of server-sent events: "flow" (a Flow) and "leaderboard" (a Leaderboard).
func (p *page) events(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	out := http.NewResponseController(w)
	tick := time.NewTicker(p.every)
	defer tick.Stop()
	for {
		p.send(r.Context(), w)
		if out.Flush() != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-p.stop:
			return
		case <-tick.C:
		}
	}
}

// send writes one of each kind. A part that cannot be asked now, as during a rebalance, is left out.
func (p *page) send(ctx context.Context, w http.ResponseWriter) {
	flow := p.flow()
	flow.Source = input.Source
	board, err := p.model.Leaderboard(ctx)
	flow.Clock = latest(board)
	event(w, "flow", flow)
	if err != nil {
		return
	}
	ranked := rank(board, len(board.Airports), boardLeast)
	if len(ranked.Airports) == 0 {
		ranked = rank(board, len(board.Airports), 1)
	}
	event(w, "leaderboard", ranked)
}

func event(w http.ResponseWriter, name string, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // our own types
	}
	fmt.Fprintf(w, "event: %s\ndata: %s\n\n", name, b)
}

func latest(board Leaderboard) string {
	var at time.Time
	for _, s := range board.Airports {
		if s.Latest.After(at) {
			at = s.Latest
		}
	}
	if at.IsZero() {
		return ""
	}
	return at.Format(input.TimeLayout)
}
