package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/moldau/moldau/examples/flights/topics"
)

// The windows of the example: an hour of schedule, closed six hours of stream time after its end.
const (
	window = int64(time.Hour / time.Millisecond)
	grace  = 6 * window
)

// flight is a row of the CSV as it must stand in the value of a record, field by field.
type flight struct {
	Scheduled   string `json:"scheduled"`
	DelayMin    int64  `json:"delay_min"`
	DistanceMi  int64  `json:"distance_mi"`
	Origin      string `json:"origin"`
	Destination string `json:"destination"`
}

// tally is the value of topic routes, and most of the value of airport-hours.
type tally struct {
	Flights  int64 `json:"flights"`
	Delayed  int64 `json:"delayed"`
	DelayMin int64 `json:"delay_min"`
}

func (t *tally) add(delay int64) {
	t.Flights++
	t.DelayMin += delay
	if delay >= 15 {
		t.Delayed++
	}
}

// hour is the value of topic airport-hours.
type hour struct {
	tally
	Name string `json:"name"`
	City string `json:"city"`
}

// record is a record of Kafka, as much of it as is checked.
type record struct {
	partition int32
	offset    int64
	time      int64 // ms
	key       string
	value     string
}

func (r record) String() string {
	return fmt.Sprintf("%s -> %s @%s", showKey(r.key), r.value, time.UnixMilli(r.time).UTC().Format(time.RFC3339))
}

// showKey writes a windowed key as text: the last eight bytes are the start in ms.
func showKey(key string) string {
	if n := len(key) - 8; n >= 0 && strings.ContainsFunc(key, func(r rune) bool { return r < ' ' }) {
		return fmt.Sprintf("%s/%s", key[:n], time.UnixMilli(startOf(key)).UTC().Format("2006-01-02T15:04Z"))
	}
	return key
}

func startOf(key string) (ms int64) {
	for _, b := range []byte(key[len(key)-8:]) {
		ms = ms<<8 | int64(b)
	}
	return ms
}

func windowedKey(key string, start int64) string {
	b := []byte(key)
	for shift := 56; shift >= 0; shift -= 8 {
		b = append(b, byte(start>>shift))
	}
	return string(b)
}

// source is what the CSVs say: the rows and the airports.
type source struct {
	flights  []flight
	airports map[string][2]string // IATA code -> name, city
}

// expected is what the topics must hold.
type expected struct {
	// flights: the multiset of records that the CSV makes. Partition and offset are unset.
	flights map[record]int
	// hours and late: by partition; hours in any order, late in the order of flights.
	hours, late map[int32][]record
	// routes: the last value of each key.
	routes map[string]string
}

// expect computes it: flights and routes from the CSV alone, the windows from the order that topic flights really has.
func expect(s source, flights []record) (*expected, error) {
	e := &expected{flights: map[record]int{}, routes: map[string]string{}}
	routes := map[string]*tally{}
	for _, f := range s.flights {
		at, err := time.Parse("2006-01-02T15:04Z", f.Scheduled)
		if err != nil {
			return nil, fmt.Errorf("the CSV: %w", err)
		}
		e.flights[record{time: at.UnixMilli(), key: f.Origin, value: text(f)}]++
		name := f.Origin + "-" + f.Destination
		if routes[name] == nil {
			routes[name] = &tally{}
		}
		routes[name].add(f.DelayMin)
	}
	for name, t := range routes {
		e.routes[name] = text(*t)
	}
	e.windows(s, flights)
	return e, nil
}

// windows folds each partition of topic flights in order.
func (e *expected) windows(s source, flights []record) {
	e.hours, e.late = map[int32][]record{}, map[int32][]record{}
	type open struct {
		tally
		time int64
	}
	stream := map[int32]int64{}
	hours := map[int32]map[string]*open{}
	for _, r := range flights {
		var f flight
		if json.Unmarshal([]byte(r.value), &f) != nil {
			continue // reported by the check of topic flights
		}
		p := r.partition
		if hours[p] == nil {
			hours[p], stream[p] = map[string]*open{}, -1
		}
		stream[p] = max(stream[p], r.time)
		start := r.time - r.time%window
		if start+window <= stream[p]-grace {
			e.late[p] = append(e.late[p], record{partition: p, time: r.time, key: r.key, value: r.value})
			continue
		}
		key := windowedKey(r.key, start)
		h := hours[p][key]
		if h == nil {
			h = &open{}
			hours[p][key] = h
		}
		h.add(f.DelayMin)
		h.time = max(h.time, r.time)
	}
	for p, opened := range hours {
		for key, h := range opened {
			if startOf(key)+window > stream[p]-grace {
				continue // still open at the end of the input
			}
			a := s.airports[key[:len(key)-8]]
			e.hours[p] = append(e.hours[p], record{partition: p, time: h.time, key: key, value: text(hour{h.tally, a[0], a[1]})})
		}
		slices.SortFunc(e.hours[p], func(a, b record) int {
			if c := startOf(a.key) - startOf(b.key); c != 0 {
				return int(c)
			}
			return strings.Compare(a.key, b.key)
		})
	}
}

// text is the JSON form; it cannot fail for the types above.
func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// partitionOf is where Java's producer puts a key.
func partitionOf(key string, partitions int) int32 {
	p := kgo.StickyKeyPartitioner(nil).ForTopic(topics.Flights)
	return int32(p.Partition(&kgo.Record{Key: []byte(key)}, partitions))
}
