package main

import (
	"time"

	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/state"
	"github.com/moldau/moldau/stream"
	"github.com/moldau/moldau/window"

	"github.com/moldau/moldau/examples/flights/topics"
)

// appID begins the names of everything that the application keeps for itself: its consumer group and internal topics.
const appID = "flights"

const (
	hour  = time.Hour
	grace = 6 * time.Hour        // news of a flight may come this much later than the end of its hour
	years = 400 * 24 * time.Hour // how long the hours of an airport can be asked for
)

// forever keeps a changelog's records whatever their age: the flights are of 2001, and a cluster goes by its own clock.
var forever = map[string]string{"retention.ms": "-1"}

// The data dictionary: every durable name of the application.
var (
	flight = serde.JSON[Flight]()
	tally  = serde.JSON[Tally]()

	// Topics that other applications see.
	Flights      = stream.NewTopic(topics.Flights, serde.String, flight).FromEarliest()
	Airports     = stream.NewTopic(topics.Airports, serde.String, serde.JSON[Airport]()).FromEarliest()
	AirportHours = stream.NewWindowedTopic(topics.AirportHours, serde.String, serde.JSON[Hour](), hour)
	FlightsLate  = stream.NewTopic(topics.FlightsLate, serde.String, flight)
	Routes       = stream.NewTopic(topics.Routes, serde.String, tally)

	// Our own: flights by route, so that those of one route meet.
	ByRoute = stream.NewRepartition("by-route", serde.String, flight).Partitions(topics.Partitions)

	// State, which the HTTP API reads.
	AirportList = state.NewKeyValue("airports", serde.String, serde.JSON[Airport]())
	Hours       = state.NewWindow("hours", serde.String, tally).Retention(years).Size(hour).Changelog(forever)
	LastClosed  = state.NewKeyValue("last-closed", serde.String, serde.Int64) // start in ms, by airport
	Leaving     = state.NewKeyValue("departures", serde.String, serde.JSON[Departures]())
	ByName      = state.NewKeyValue("known-flights", serde.String, serde.JSON[[]Flight]())
	RouteTotals = state.NewKeyValue("routes", serde.String, tally)
)

// build is the topology.
func build(b *stream.Builder) {
	airports := b.GlobalTable(Airports, AirportList)
	flights := b.Stream(Flights)

	// Each hour of an airport: one final result, when no more news of it can come. What comes later still is let go, but not lost.
	open := flights.GroupByKey().WindowedBy(window.Tumbling(hour).Grace(grace)).OnClose()
	closed := open.Aggregate(Hours, Tally.Add).ToStream()
	closed.LeftJoinGlobal(airports, withAirport).To(AirportHours)
	open.Late().To(FlightsLate)

	// An airport's windows close in the order of time, so the last one tells which are final. Its key is still the origin.
	closed.Map(startOfHour).AssumePartitioned().GroupByKey().Reduce(LastClosed, later)

	// Each airport since the start, for the leaderboard.
	flights.GroupByKey().Aggregate(Leaving, Departures.Add)

	// Each route since the start, and what is known of each of its flights.
	byRoute := flights.SelectKey(route).Repartition(ByRoute)
	byRoute.GroupByKey().Aggregate(RouteTotals, Tally.Add).ToStream().To(Routes)
	byRoute.Process(newRegister, ByName)
}

func withAirport(_ window.Key[string], t Tally, a *Airport) Hour {
	if a == nil {
		return Hour{Tally: t}
	}
	return Hour{t, a.Name, a.City}
}

func startOfHour(k window.Key[string], _ Tally) (string, int64) { return k.Key, k.Start.UnixMilli() }

func later(a, b int64) int64 { return max(a, b) }

// register keeps what is known of each flight. Its keys are finer than those of the topic that it reads: all flights of
// a route are in the partition of the route.
type register struct{ byName *state.KV[string, []Flight] }

func newRegister() stream.Processor[string, Flight, string, Flight] { return &register{} }

func (r *register) Init(s *stream.Scope[string, Flight]) error {
	r.byName = ByName.Open(s)
	return nil
}

func (r *register) Process(_ *stream.Context[string, Flight], rec stream.Record[string, Flight]) error {
	f := rec.Value
	name := FlightKey{f.Origin, f.Destination, f.Scheduled}.String()
	known, _ := r.byName.Get(name)
	r.byName.Put(name, append(known, f))
	return nil
}
