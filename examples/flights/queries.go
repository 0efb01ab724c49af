package main

import (
	"context"
	"errors"
	"time"

	"github.com/moldau/moldau"

	"github.com/moldau/moldau/examples/flights/input"
	"github.com/moldau/moldau/examples/flights/topics"
)

// stores answers from the application's state: what has been committed, in this process.
type stores struct{ app *moldau.App }

// elsewhere translates what the framework says of a key that is not here.
func elsewhere(err error) error {
	if at, ok := errors.AsType[*moldau.NotHere](err); ok {
		return &ElsewhereError{Owner: at.Owner}
	}
	if errors.Is(err, moldau.ErrNotHere) {
		return &ElsewhereError{}
	}
	return err
}

func (s *stores) Known(ctx context.Context, k FlightKey) ([]Flight, error) {
	known, _, err := s.app.KeyValue(ByName).By([]byte(k.Route())).Get(ctx, k.String())
	return known, elsewhere(err)
}

func (s *stores) Route(ctx context.Context, name string) (Tally, bool, error) {
	t, ok, err := s.app.KeyValue(RouteTotals).Get(ctx, name)
	return t, ok, elsewhere(err)
}

func (s *stores) Hours(ctx context.Context, iata string, from, to time.Time) (HoursAnswer, bool, error) {
	answer := HoursAnswer{IATA: iata, Hours: []HourAnswer{}}
	_, known, err := s.app.KeyValue(Leaving).Get(ctx, iata)
	if err != nil || !known {
		return answer, false, elsewhere(err)
	}
	airport, _, err := s.app.KeyValue(AirportList).Get(ctx, iata)
	if err != nil {
		return answer, false, elsewhere(err)
	}
	answer.Name, answer.City = airport.Name, airport.City
	// Asked before the hours: one that closes in between is called open, which it was.
	closed, any, err := s.app.KeyValue(LastClosed).Get(ctx, iata)
	if err != nil {
		return answer, false, elsewhere(err)
	}
	for h, err := range s.app.Window(Hours).Fetch(ctx, iata, from, to.Add(-time.Millisecond)) {
		if err != nil {
			return answer, false, elsewhere(err)
		}
		start := h.Key.Start
		answer.Hours = append(answer.Hours, HourAnswer{start.Format(input.TimeLayout), h.Value, any && start.UnixMilli() <= closed})
	}
	return answer, true, nil
}

func (s *stores) Leaderboard(ctx context.Context) (Leaderboard, error) {
	airports := map[string]Airport{}
	for a, err := range s.app.KeyValue(AirportList).All(ctx) {
		if err != nil {
			return Leaderboard{}, elsewhere(err)
		}
		airports[a.Key] = a.Value
	}
	board := Leaderboard{Complete: true}
	departures := s.app.KeyValue(Leaving)
	for p := range int32(topics.Partitions) {
		if departures.In(p).Owner("") != nil {
			board.Complete = false
		}
	}
	for d, err := range departures.All(ctx) {
		if err != nil {
			return Leaderboard{}, elsewhere(err)
		}
		latest, err := time.Parse(input.TimeLayout, d.Value.Latest)
		if err != nil {
			return Leaderboard{}, err
		}
		a := airports[d.Key]
		board.Airports = append(board.Airports, Standing{IATA: d.Key, Name: a.Name, City: a.City, Tally: d.Value.Tally,
			Share: float64(d.Value.Delayed) / float64(d.Value.Flights), Latest: latest})
	}
	return board, nil
}
