package main

import (
	"context"
	"fmt"
	"time"

	"github.com/moldau/moldau/examples/flights/input"
)

// readModel is what the HTTP API asks. The application answers it from its state stores; tests answer it from maps.
type readModel interface {
	// Known is what is known of one flight: usually one row, more if rows are alike, none if nothing is known.
	Known(ctx context.Context, k FlightKey) ([]Flight, error)
	// Route is a route's record so far; false: it has not been flown.
	Route(ctx context.Context, name string) (Tally, bool, error)
	// Hours are an airport's hours that begin in [from, to), in order; false: nothing is known of the airport.
	Hours(ctx context.Context, iata string, from, to time.Time) (HoursAnswer, bool, error)
	// Leaderboard is every airport's record, in no order.
	Leaderboard(ctx context.Context) (Leaderboard, error)
}

// ElsewhereError says that another process holds a key.
type ElsewhereError struct{ Owner string }

func (e *ElsewhereError) Error() string {
	if e.Owner == "" {
		return "no process holds this key at the moment; ask again soon"
	}
	return "another process holds this key; ask it at " + e.Owner
}

// FlightAnswer is the answer of GET /api/flight.
type FlightAnswer struct {
	Origin      string   `json:"origin"`
	Destination string   `json:"destination"`
	Scheduled   string   `json:"scheduled"`
	Flights     []Flight `json:"flights"` // what is known of it
	Route       Tally    `json:"route"`   // the route since the start
}

// HoursAnswer is the answer of GET /api/airports/{iata}.
type HoursAnswer struct {
	IATA  string       `json:"iata"`
	Name  string       `json:"name"`
	City  string       `json:"city"`
	Hours []HourAnswer `json:"hours"` // by start
}

// HourAnswer is an hour of an airport's schedule.
type HourAnswer struct {
	Start string `json:"start"` // such as 2001-01-01T17:00Z
	Tally
	Final bool `json:"final"` // false: the window is open, flights may still come
}

// Leaderboard is the answer of GET /api/leaderboard: airports by the share of their departures that were delayed,
// the greatest first.
type Leaderboard struct {
	Airports []Standing `json:"airports"`
	// Complete is false while other processes hold a part of the airports: they are not in the list.
	Complete bool `json:"complete"`
}

// Standing is an airport's place in the leaderboard.
type Standing struct {
	IATA string `json:"iata"`
	Name string `json:"name"`
	City string `json:"city"`
	Tally
	Share  float64   `json:"share"` // delayed / flights
	Latest time.Time `json:"-"`     // the greatest scheduled departure seen
}

// parseMinute reads a time as the data write it.
func parseMinute(name, s string) (time.Time, error) {
	at, err := time.Parse(input.TimeLayout, s)
	if err != nil {
		return at, fmt.Errorf("%s=%q is not a time such as 2001-01-31T17:05Z", name, s)
	}
	return at, nil
}
