package main

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moldau/moldau/examples/flights/topics"
	"github.com/moldau/moldau/stream"
	"github.com/moldau/moldau/streamtest"
)

// day is a driver with the airports that it is told of, and a way to send flights as the loader does.
type day struct {
	*streamtest.Driver
	t       *testing.T
	flights *streamtest.Input[string, Flight]
}

func newDay(t *testing.T, options ...streamtest.Option) *day {
	t.Helper()
	d := streamtest.New(t, build, append(options, streamtest.App(appID), streamtest.Partitions(topics.Partitions),
		streamtest.TopicPartitions(topics.Airports, 1))...)
	airports := streamtest.In(d, Airports)
	airports.Send("ORD", Airport{IATA: "ORD", Name: "O'Hare", City: "Chicago"})
	airports.Send("LAX", Airport{IATA: "LAX", Name: "International", City: "Los Angeles"})
	return &day{d, t, streamtest.In(d, Flights)}
}

// fly sends "ORD-LAX 00:10 +20"; hours beyond 23 are of the next days.
func (d *day) fly(news ...string) {
	d.t.Helper()
	for _, n := range news {
		var hours, minutes int
		var delay int64
		var from, to string
		if _, err := fmt.Sscanf(strings.Replace(n, "-", " ", 1), "%s %s %d:%d %d", &from, &to, &hours, &minutes, &delay); err != nil {
			d.t.Fatalf("%q: %v", n, err)
		}
		at := time.Date(2001, 1, 1, hours, minutes, 0, 0, time.UTC)
		d.flights.Send(from, Flight{Scheduled: at.Format("2006-01-02T15:04Z"), DelayMin: delay, DistanceMi: 100, Origin: from, Destination: to}, at)
	}
}

// want compares what came out with lines, in any order where partitions are in none.
func want(t *testing.T, what string, got []string, lines ...string) {
	t.Helper()
	slices.Sort(got)
	slices.Sort(lines)
	if !slices.Equal(got, lines) {
		t.Errorf("%s\n got %s\nwant %s", what, strings.Join(got, "\n     "), strings.Join(lines, "\n     "))
	}
}

func (d *day) hours() (out []string) {
	for _, r := range streamtest.Out(d.Driver, AirportHours).All() {
		out = append(out, fmt.Sprintf("%s %s %d/%d %+d %s|%s @%s", r.Key.Key, r.Key.Start.Format("02 15:04"), r.Value.Delayed, r.Value.Flights,
			r.Value.DelayMin, r.Value.Name, r.Value.City, r.Time.Format("02 15:04")))
	}
	return out
}

func (d *day) late() (out []string) {
	for _, r := range streamtest.Out(d.Driver, FlightsLate).All() {
		out = append(out, fmt.Sprintf("%s-%s %s %+d", r.Key, r.Value.Destination, r.Time.Format("15:04"), r.Value.DelayMin))
	}
	return out
}

func (d *day) routes() (out []string) {
	for _, r := range streamtest.Out(d.Driver, Routes).All() {
		out = append(out, fmt.Sprintf("%s %d/%d %+d", r.Key, r.Value.Delayed, r.Value.Flights, r.Value.DelayMin))
	}
	return out
}

func TestAnHourIsFinalSixHoursAfterItsEnd(t *testing.T) {
	d := newDay(t)
	d.fly("ORD-LAX 00:10 +20", "ORD-SEA 00:50 -5", "ORD-LAX 06:59 0", "ORD-LAX 00:30 +15")
	want(t, "while the hour is open", d.hours())
	d.fly("ORD-SEA 07:00 0")
	want(t, "once it has closed", d.hours(), "ORD 01 00:00 2/3 +30 O'Hare|Chicago @01 00:50")
	d.fly("ORD-LAX 00:40 +400", "ORD-SEA 01:00 +1")
	want(t, "late flights", d.late(), "ORD-LAX 00:40 +400")
	want(t, "a closed hour stays as it is", d.hours(), "ORD 01 00:00 2/3 +30 O'Hare|Chicago @01 00:50")
	d.fly("ORD-SEA 08:00 0")
	want(t, "the next hour", d.hours(), "ORD 01 00:00 2/3 +30 O'Hare|Chicago @01 00:50", "ORD 01 01:00 0/1 +1 O'Hare|Chicago @01 01:00")
	if at, ok := streamtest.Get(d.Driver, LastClosed, "ORD"); !ok || time.UnixMilli(at).UTC().Hour() != 1 {
		t.Errorf("last closed hour of ORD %v, %v", time.UnixMilli(at).UTC(), ok)
	}
}

func TestAnAirportThatIsNotInTheListHasNoName(t *testing.T) {
	d := newDay(t)
	d.fly("XYZ-LAX 00:10 +20", "XYZ-LAX 30:00 0")
	want(t, "hours", d.hours(), "XYZ 01 00:00 1/1 +20 | @01 00:10")
}

func TestRoutesAndWhatIsKnownOfAFlight(t *testing.T) {
	d := newDay(t)
	d.fly("ORD-LAX 00:10 +20", "ORD-SEA 00:10 -5", "ORD-LAX 00:10 +20", "LAX-ORD 00:10 +14")
	want(t, "routes", d.routes(), "ORD-LAX 1/1 +20", "ORD-SEA 0/1 -5", "ORD-LAX 2/2 +40", "LAX-ORD 0/1 +14")
	known, _ := streamtest.Get(d.Driver, ByName, "ORD-LAX 2001-01-01T00:10Z")
	if len(known) != 2 || known[0] != known[1] || known[0].DelayMin != 20 {
		t.Errorf("known of the flight: %v", known)
	}
	if dep, _ := streamtest.Get(d.Driver, Leaving, "ORD"); dep != (Departures{Tally{3, 2, 35}, "2001-01-01T00:10Z"}) {
		t.Errorf("departures of ORD: %+v", dep)
	}
}

func TestLateRowsAreUnchanged(t *testing.T) {
	d := newDay(t)
	d.fly("ORD-LAX 20:00 0", "ORD-LAX 00:10 +1191")
	in, late := d.Raw(topics.Flights), d.Raw(topics.FlightsLate)
	if len(late) != 1 {
		t.Fatalf("%d late rows", len(late))
	}
	was, is := in[len(in)-1], late[0]
	if string(is.Key) != string(was.Key) || string(is.Value) != string(was.Value) || !is.Time.Equal(was.Time) || is.Partition != was.Partition {
		t.Errorf("late %+v, was %+v", is, was)
	}
}

func TestKeysOfHours(t *testing.T) {
	d := newDay(t)
	d.fly("ORD-LAX 00:10 +20", "ORD-LAX 20:00 0")
	raw := d.Raw(topics.AirportHours)
	start := time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli()
	key := binary.BigEndian.AppendUint64([]byte("ORD"), uint64(start))
	value := `{"flights":1,"delayed":1,"delay_min":20,"name":"O'Hare","city":"Chicago"}`
	if len(raw) != 1 || string(raw[0].Key) != string(key) || string(raw[0].Value) != value || raw[0].Partition != d.Raw(topics.Flights)[0].Partition {
		t.Errorf("got %q %s, want %q %s", raw[0].Key, raw[0].Value, key, value)
	}
}

// TestWhatCrashesDoNotChange runs the same random flights with and without crashes, warm and cold.
func TestWhatCrashesDoNotChange(t *testing.T) {
	run := func(crashes bool, options ...streamtest.Option) (hours, late, last []string) {
		d := newDay(t, append(options, streamtest.CommitEvery(7))...)
		rng, when := rand.New(rand.NewPCG(7, 7)), rand.New(rand.NewPCG(8, 8))
		codes := []string{"ORD", "LAX", "SEA", "JFK", "ATL"}
		for i := range 1500 {
			at := max(0, i-rng.IntN(700)*rng.IntN(2)*rng.IntN(2))
			d.fly(fmt.Sprintf("%s-%s %d:%02d %d", codes[rng.IntN(5)], codes[rng.IntN(5)], at/60, at%60, rng.IntN(90)-30))
			if crashes && when.IntN(40) == 0 {
				d.Restart()
			}
		}
		d.Commit()
		state := map[string]string{}
		for _, r := range d.routes() {
			state[strings.Fields(r)[0]] = r
		}
		for _, r := range state {
			last = append(last, r)
		}
		return d.hours(), d.late(), last
	}
	hours, late, last := run(false)
	if len(hours) < 50 || len(late) < 10 || len(last) != 25 {
		t.Fatalf("too little to show anything: %d hours, %d late, %d routes", len(hours), len(late), len(last))
	}
	for name, options := range map[string][]streamtest.Option{"cold": nil, "warm": {streamtest.WarmRestart()}} {
		h, l, r := run(true, options...)
		want(t, name+": hours", h, slices.Clone(hours)...)
		want(t, name+": late", l, slices.Clone(late)...)
		want(t, name+": routes", r, slices.Clone(last)...)
	}
}

func TestATopologyOfTwoParts(t *testing.T) {
	b := stream.NewBuilder()
	build(b)
	built, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	if len(built.Subs) != 2 || len(built.Globals) != 1 {
		t.Errorf("%d sub-topologies, %d global tables; want 2 and 1", len(built.Subs), len(built.Globals))
	}
	for _, sub := range built.Subs {
		for _, s := range sub.Stores {
			if !strings.Contains(s.Spec.At, "topology.go:") {
				t.Errorf("store %s is declared at %s", s.Spec.Name, s.Spec.At)
			}
		}
	}
	for _, topic := range built.Topics { // messages about a topic name the line that declares it
		if !strings.Contains(topic.At, "topology.go:") {
			t.Errorf("topic %s is declared at %s", topic.Name, topic.At)
		}
	}
}
