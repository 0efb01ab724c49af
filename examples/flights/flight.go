package main

import (
	"github.com/moldau/moldau/examples/flights/input"
)

// Flight is the value of topic flights: one row of the CSV.
type Flight = input.Flight

// Airport is the value of topic airports.
type Airport = input.Airport

// delayedFrom is how many minutes late a flight counts as delayed.
const delayedFrom = 15

// Tally counts flights. It is the value of topic routes.
type Tally struct {
	Flights  int64 `json:"flights"`
	Delayed  int64 `json:"delayed"`   // 15 minutes or more
	DelayMin int64 `json:"delay_min"` // sum of all delays; early flights lower it
}

// Add counts one more flight.
func (t Tally) Add(f Flight) Tally {
	t.Flights++
	t.DelayMin += f.DelayMin
	if f.DelayMin >= delayedFrom {
		t.Delayed++
	}
	return t
}

// Hour is the value of topic airport-hours: the flights of one hour of schedule, and whose they are.
type Hour struct {
	Tally
	Name string `json:"name"` // of the airport; empty if the list does not have it
	City string `json:"city"`
}

// Departures are an airport's flights since the start.
type Departures struct {
	Tally
	Latest string `json:"latest"` // the greatest scheduled departure
}

// Add counts one more flight.
func (d Departures) Add(f Flight) Departures {
	d.Tally = d.Tally.Add(f)
	d.Latest = max(d.Latest, f.Scheduled)
	return d
}

// FlightKey is how a passenger names a flight; the data have no flight numbers.
type FlightKey struct{ Origin, Destination, Scheduled string }

// Route is the key of topic routes.
func (k FlightKey) Route() string { return k.Origin + "-" + k.Destination }

// String is the key of the store of known flights.
func (k FlightKey) String() string { return k.Route() + " " + k.Scheduled }

// route is the key of topic routes for a flight.
func route(_ string, f Flight) string { return f.Origin + "-" + f.Destination }
