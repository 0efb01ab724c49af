package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// truth makes a month of n flights and what a faultless application writes about it, computed another way than the
// model's: record by record, windows emitted as they close.
func truth(t *testing.T, seed uint64, n int) (source, contents) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 1))
	places := map[string]int32{}
	airports := []string{"ORD", "LAX", "JFK", "SEA", "ATL", "DEN", "XXX"}
	s := source{airports: map[string][2]string{}}
	for _, a := range airports {
		places[a] = partitionOf(a, 4)
	}
	for _, a := range airports[:6] {
		s.airports[a] = [2]string{"Airport " + a, "City of " + a}
	}
	c := contents{partitions: map[string]int{"flights": 4, "airport-hours": 4, "flights-late": 4, "routes": 4}}
	base := time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC)
	offset := map[string]int64{}
	put := func(topic string, to *[]record, p int32, at int64, key, value string) {
		id := fmt.Sprint(topic, p)
		*to = append(*to, record{p, offset[id], at, key, value})
		offset[id]++
	}
	stream := map[int32]int64{}
	open := map[string]*hour{}
	times := map[string]int64{}
	routes := map[string]*tally{}
	for i := range n {
		// Mostly forwards, sometimes many hours back, so that some rows are late.
		at := base.Add(time.Duration(i) * time.Minute)
		if rng.IntN(10) == 0 {
			at = at.Add(-time.Duration(rng.IntN(1200)) * time.Minute)
		}
		at = time.UnixMilli(max(at.UnixMilli(), base.UnixMilli())).UTC()
		f := flight{at.Format("2006-01-02T15:04Z"), int64(rng.IntN(60) - 20), 100, airports[rng.IntN(7)], airports[rng.IntN(7)]}
		s.flights = append(s.flights, f)
		p := places[f.Origin]
		ms := at.UnixMilli()
		put("flights", &c.flights, p, ms, f.Origin, text(f))
		if ms > stream[p] {
			stream[p] = ms
		}
		key := windowedKey(f.Origin, at.Truncate(time.Hour).UnixMilli())
		if at.Truncate(time.Hour).Add(7*time.Hour).UnixMilli() <= stream[p] {
			put("late", &c.late, p, ms, f.Origin, text(f))
		} else {
			if open[key] == nil {
				a := s.airports[f.Origin]
				open[key] = &hour{Name: a[0], City: a[1]}
			}
			open[key].add(f.DelayMin)
			times[key] = max(times[key], ms)
		}
		var closed []string
		for k := range open {
			if places[k[:3]] == p && startOf(k)+7*time.Hour.Milliseconds() <= stream[p] {
				closed = append(closed, k)
			}
		}
		slices.Sort(closed)
		for _, k := range closed {
			put("hours", &c.hours, p, times[k], k, text(*open[k]))
			delete(open, k)
		}
		route := f.Origin + "-" + f.Destination
		if routes[route] == nil {
			routes[route] = &tally{}
		}
		routes[route].add(f.DelayMin)
		if i%3 == 0 || i > n-200 { // the last of each commit is enough
			put("routes", &c.routes, partitionOf(route, 4), ms, route, text(*routes[route]))
		}
	}
	for route, t := range routes {
		last := slices.IndexFunc(c.routes, func(r record) bool { return r.key == route && r.value == text(*t) })
		if last < 0 {
			put("routes", &c.routes, partitionOf(route, 4), 0, route, text(*t))
		}
	}
	return s, c
}

func TestFaultlessApplicationPasses(t *testing.T) {
	for seed := range uint64(20) {
		s, c := truth(t, seed, 2000)
		verdicts, err := check(s, c)
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if !report(&out, verdicts) {
			t.Fatalf("seed %d:\n%s", seed, out.String())
		}
		if len(c.late) == 0 || len(c.hours) == 0 {
			t.Fatalf("seed %d shows nothing: %d late, %d hours", seed, len(c.late), len(c.hours))
		}
	}
}

// TestSeededBugsAreCaught plants one mistake at a time, as small as it can be.
func TestSeededBugsAreCaught(t *testing.T) {
	drop := func(rs *[]record, rng *rand.Rand) { i := rng.IntN(len(*rs)); *rs = slices.Delete(*rs, i, i+1) }
	double := func(rs *[]record, rng *rand.Rand) {
		i := rng.IntN(len(*rs))
		*rs = slices.Insert(*rs, i, (*rs)[i])
	}
	replace := func(rs []record, rng *rand.Rand, old, new string) {
		for {
			if i := rng.IntN(len(rs)); strings.Contains(rs[i].value, old) {
				rs[i].value = strings.Replace(rs[i].value, old, new, 1)
				return
			}
		}
	}
	move := func(rs []record, rng *rand.Rand) { i := rng.IntN(len(rs)); rs[i].partition = (rs[i].partition + 1) % 4 }
	for _, bug := range []struct {
		name, topic string
		plant       func(*contents, *rand.Rand)
	}{
		{"row dropped", "flights", func(c *contents, r *rand.Rand) { drop(&c.flights, r) }},
		{"row doubled", "flights", func(c *contents, r *rand.Rand) { double(&c.flights, r) }},
		{"row altered", "flights", func(c *contents, r *rand.Rand) { replace(c.flights, r, `"distance_mi":100`, `"distance_mi":101`) }},
		{"row in another form", "flights", func(c *contents, r *rand.Rand) { replace(c.flights, r, `,`, `, `) }},
		{"row with another time", "flights", func(c *contents, r *rand.Rand) { c.flights[r.IntN(len(c.flights))].time++ }},
		{"row in another partition", "flights", func(c *contents, r *rand.Rand) { move(c.flights, r) }},
		{"hour dropped", "airport-hours", func(c *contents, r *rand.Rand) { drop(&c.hours, r) }},
		{"hour doubled", "airport-hours", func(c *contents, r *rand.Rand) { double(&c.hours, r) }},
		{"hour with a wrong count", "airport-hours", func(c *contents, r *rand.Rand) { replace(c.hours, r, `"flights":1`, `"flights":2`) }},
		{"hour with a wrong sum", "airport-hours", func(c *contents, r *rand.Rand) { replace(c.hours, r, `"delay_min":`, `"delay_min":1`) }},
		{"hour without its airport", "airport-hours", func(c *contents, r *rand.Rand) { replace(c.hours, r, "Airport ", "") }},
		{"hour in another partition", "airport-hours", func(c *contents, r *rand.Rand) { move(c.hours, r) }},
		{"open hour emitted", "airport-hours", func(c *contents, r *rand.Rand) {
			last := c.flights[len(c.flights)-1]
			c.hours = append(c.hours, record{last.partition, 1 << 20, last.time, windowedKey(last.key, last.time-last.time%window),
				`{"flights":1,"delayed":0,"delay_min":0,"name":"","city":""}`})
		}},
		{"key without its window", "airport-hours", func(c *contents, r *rand.Rand) { c.hours[r.IntN(len(c.hours))].key = "ORD" }},
		{"late row dropped", "flights-late", func(c *contents, r *rand.Rand) { drop(&c.late, r) }},
		{"late row doubled", "flights-late", func(c *contents, r *rand.Rand) { double(&c.late, r) }},
		{"late row in another partition", "flights-late", func(c *contents, r *rand.Rand) { move(c.late, r) }},
		{"late row counted as well", "flights-late", func(c *contents, r *rand.Rand) {
			f := c.flights[0]
			c.late = append(c.late, record{f.partition, 1 << 20, f.time, f.key, f.value})
		}},
		{"late rows out of order", "flights-late", func(c *contents, r *rand.Rand) {
			for i := range c.late {
				for j := i + 1; j < len(c.late); j++ {
					if c.late[i].partition == c.late[j].partition && c.late[i].value != c.late[j].value {
						c.late[i], c.late[j] = c.late[j], c.late[i]
						return
					}
				}
			}
		}},
		{"route dropped", "routes", func(c *contents, r *rand.Rand) {
			key := c.routes[r.IntN(len(c.routes))].key
			c.routes = slices.DeleteFunc(c.routes, func(r record) bool { return r.key == key })
		}},
		{"route counted twice", "routes", func(c *contents, r *rand.Rand) {
			last := c.routes[len(c.routes)-1]
			c.routes = append(c.routes, last)
		}},
		{"route ends at a wrong value", "routes", func(c *contents, r *rand.Rand) {
			i := len(c.routes) - 1
			c.routes[i].value = strings.Replace(c.routes[i].value, `"delayed":`, `"delayed":1`, 1)
		}},
		{"route that never flew", "routes", func(c *contents, r *rand.Rand) {
			c.routes = append(c.routes, record{partitionOf("ORD-???", 4), 1 << 20, 0, "ORD-???", text(tally{1, 0, 0})})
		}},
		{"route in another partition", "routes", func(c *contents, r *rand.Rand) { move(c.routes, r) }},
		{"route that is no JSON", "routes", func(c *contents, r *rand.Rand) { c.routes[r.IntN(len(c.routes))].value = "1" }},
	} {
		t.Run(bug.name, func(t *testing.T) {
			for seed := range uint64(3) {
				s, c := truth(t, seed, 1500)
				bug.plant(&c, rand.New(rand.NewPCG(seed, 2)))
				verdicts, err := check(s, c)
				if err != nil {
					t.Fatal(err)
				}
				i := slices.IndexFunc(verdicts, func(v *verdict) bool { return v.Topic == bug.topic })
				if verdicts[i].OK() || len(verdicts[i].First) == 0 {
					t.Fatalf("seed %d: not caught", seed)
				}
				var out bytes.Buffer
				if report(&out, verdicts) || !strings.Contains(out.String(), "FAIL "+bug.topic) {
					t.Fatalf("seed %d: the report says all is well:\n%s", seed, out.String())
				}
			}
		})
	}
}

// TestDoubledIsNotLost holds doubling and loss apart.
func TestDoubledIsNotLost(t *testing.T) {
	for name, c := range map[string]struct {
		plant func(*contents)
		want  bool
	}{
		"faultless": {func(*contents) {}, false},
		"a flight counted twice": {func(c *contents) {
			last := &c.routes[len(c.routes)-1]
			var due tally
			if err := json.Unmarshal([]byte(last.value), &due); err != nil {
				t.Fatal(err)
			}
			due.add(20)
			last.value = text(due)
		}, true},
		"a flight lost": {func(c *contents) { c.routes = c.routes[:len(c.routes)-200] }, false},
		"the loader doubled": {func(c *contents) {
			c.flights = append(c.flights, c.flights[0])
		}, false},
	} {
		s, read := truth(t, 1, 1500)
		c.plant(&read)
		verdicts, err := check(s, read)
		if err != nil {
			t.Fatal(err)
		}
		if got := doubled(verdicts); got != c.want {
			t.Errorf("%s: doubled is %v", name, got)
		}
	}
}

func TestSource(t *testing.T) {
	s, err := openSource("")
	if err != nil {
		t.Fatal(err)
	}
	if len(s.flights) != 508_239 || len(s.airports) != 229 {
		t.Errorf("%d flights, %d airports", len(s.flights), len(s.airports))
	}
	if a := s.airports["BTR"]; a != [2]string{"Baton Rouge Metropolitan, Ryan", "Baton Rouge"} {
		t.Errorf("BTR is %q", a)
	}
}
