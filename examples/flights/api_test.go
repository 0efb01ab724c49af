package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// fakeModel knows one airport, one route, one flight; keys that begin with X are held elsewhere.
type fakeModel struct{ broken error }

var chicago = Standing{IATA: "ORD", Name: "Chicago O'Hare", City: "Chicago", Tally: Tally{200, 50, 900}, Share: 0.25,
	Latest: time.Date(2001, 1, 2, 3, 4, 0, 0, time.UTC)}

func (m fakeModel) Known(_ context.Context, k FlightKey) ([]Flight, error) {
	if k.Origin[0] == 'X' {
		return nil, &ElsewhereError{Owner: "http://other:8080"}
	}
	if k != (FlightKey{"ORD", "LAX", "2001-01-01T12:00Z"}) {
		return nil, m.broken
	}
	return []Flight{{Scheduled: k.Scheduled, DelayMin: 20, DistanceMi: 1745, Origin: "ORD", Destination: "LAX"}}, m.broken
}

func (m fakeModel) Route(_ context.Context, name string) (Tally, bool, error) {
	return Tally{10, 2, -30}, name == "ORD-LAX", m.broken
}

func (m fakeModel) Hours(_ context.Context, iata string, from, to time.Time) (HoursAnswer, bool, error) {
	h := HoursAnswer{IATA: iata, Name: chicago.Name, City: chicago.City, Hours: []HourAnswer{}}
	for i := range 3 {
		at := time.Date(2001, 1, 1, i, 0, 0, 0, time.UTC)
		if !at.Before(from) && at.Before(to) {
			h.Hours = append(h.Hours, HourAnswer{at.Format("2006-01-02T15:04Z"), Tally{4, 1, 30}, i < 2})
		}
	}
	return h, iata == "ORD", m.broken
}

func (m fakeModel) Leaderboard(context.Context) (Leaderboard, error) {
	small := Standing{IATA: "AAA", Tally: Tally{2, 2, 60}, Share: 1}
	twin := chicago
	twin.IATA, twin.Latest = "MDW", time.Time{}
	return Leaderboard{Airports: []Standing{twin, small, chicago}, Complete: true}, m.broken
}

func serve(t *testing.T, m readModel, stop <-chan struct{}) *httptest.Server {
	t.Helper()
	mux := http.NewServeMux()
	(&api{m, slog.New(slog.DiscardHandler)}).register(mux)
	p := &page{model: m, flow: func() Flow { return Flow{Rate: 5000, Lag: 3, Processed: 42, Rows: 100} }, every: time.Millisecond, stop: stop}
	if err := p.register(mux); err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	r, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, strings.TrimSpace(string(b))
}

func TestAPI(t *testing.T) {
	s := serve(t, fakeModel{}, nil)
	for _, c := range []struct {
		path   string
		status int
		want   string // all of it, or a part after "..."
	}{
		{"/api/flight?origin=ORD&destination=LAX&scheduled=2001-01-01T12:00Z", 200,
			`{"origin":"ORD","destination":"LAX","scheduled":"2001-01-01T12:00Z","flights":[{"scheduled":"2001-01-01T12:00Z","delay_min":20,"distance_mi":1745,"origin":"ORD","destination":"LAX"}],"route":{"flights":10,"delayed":2,"delay_min":-30}}`},
		{"/api/flight?origin=ord&destination=lax&scheduled=2001-01-01T12:00Z", 200, `..."origin":"ORD"`},
		{"/api/flight?origin=ORD&destination=LAX&scheduled=2001-01-01T12:01Z", 404, `{"error":"nothing is known of a flight from ORD to LAX scheduled at 2001-01-01T12:01Z"}`},
		{"/api/flight?origin=ORD&destination=LAX", 400, `{"error":"scheduled=\"\" is not a time such as 2001-01-31T17:05Z"}`},
		{"/api/flight?origin=ORD&destination=LAX&scheduled=noon", 400, `...is not a time`},
		{"/api/flight?origin=Chicago&destination=LAX&scheduled=2001-01-01T12:00Z", 400, `{"error":"origin=\"Chicago\" is not an IATA code such as ORD"}`},
		{"/api/flight?destination=LAX&scheduled=2001-01-01T12:00Z", 400, `...origin=\"\"`},
		{"/api/flight?from=ORD", 400, `...unknown parameter \"from\"; there are origin, destination, scheduled`},
		{"/api/flight?origin=XXX&destination=LAX&scheduled=2001-01-01T12:00Z", 421, `{"error":"another process holds this key; ask it at http://other:8080","owner":"http://other:8080"}`},
		{"/api/airports/ORD?from=2001-01-01T01:00Z&to=2001-01-01T03:00Z", 200,
			`{"iata":"ORD","name":"Chicago O'Hare","city":"Chicago","hours":[{"start":"2001-01-01T01:00Z","flights":4,"delayed":1,"delay_min":30,"final":true},{"start":"2001-01-01T02:00Z","flights":4,"delayed":1,"delay_min":30,"final":false}]}`},
		{"/api/airports/ord", 200, `..."start":"2001-01-01T00:00Z"`},
		{"/api/airports/ORD?from=2002-01-01T00:00Z", 200, `..."hours":[]`},
		{"/api/airports/ZZZ", 404, `{"error":"no flight from ZZZ is known"}`},
		{"/api/airports/ORDX", 400, `...not an IATA code`},
		{"/api/airports/ORD?from=yesterday", 400, `...from=\"yesterday\" is not a time`},
		{"/api/airports/ORD?from=2001-01-02T00:00Z&to=2001-01-01T00:00Z", 400, `...is not before`},
		{"/api/leaderboard", 200, `...{"airports":[{"iata":"AAA","name":"","city":"","flights":2,"delayed":2,"delay_min":60,"share":1},{"iata":"MDW"`},
		{"/api/leaderboard?limit=1&min_flights=100", 200,
			`{"airports":[{"iata":"MDW","name":"Chicago O'Hare","city":"Chicago","flights":200,"delayed":50,"delay_min":900,"share":0.25}],"complete":true}`},
		{"/api/leaderboard?limit=0", 400, `...limit=\"0\" is not a whole number`},
		{"/api/nothing", 404, "...not found"},
	} {
		status, body := get(t, s.URL+c.path)
		part, isPart := strings.CutPrefix(c.want, "...")
		if status != c.status || (isPart && !strings.Contains(body, part)) || (!isPart && body != c.want) {
			t.Errorf("%s\n got %d %s\nwant %d %s", c.path, status, body, c.status, c.want)
		}
	}
	status, body := get(t, serve(t, fakeModel{broken: errors.New("rebalancing")}, nil).URL+"/api/airports/ORD")
	if status != 503 || body != `{"error":"rebalancing"}` {
		t.Errorf("a model that cannot answer: %d %s", status, body)
	}
}

func TestPageAndItsEvents(t *testing.T) {
	stop := make(chan struct{})
	s := serve(t, fakeModel{}, stop)
	for path, want := range map[string]string{"/": "<title>Moldau", "/page.js": "EventSource", "/style.css": ":root"} {
		if status, body := get(t, s.URL+path); status != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: %d, without %q", path, status, want)
		}
	}
	r, err := http.Get(s.URL + "/api/events")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	seen := map[string]string{}
	lines := bufio.NewScanner(r.Body)
	for name := ""; len(seen) < 2 && lines.Scan(); {
		if n, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
			name = n
		}
		if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			seen[name] = data
		}
	}
	var f Flow
	if err := json.Unmarshal([]byte(seen["flow"]), &f); err != nil || f.Processed != 42 || f.Clock != "2001-01-02T03:04Z" || f.Source == "" {
		t.Errorf("flow %s (%v)", seen["flow"], err)
	}
	var b Leaderboard
	if err := json.Unmarshal([]byte(seen["leaderboard"]), &b); err != nil || len(b.Airports) != 2 {
		t.Errorf("leaderboard %s (%v)", seen["leaderboard"], err)
	}
	close(stop)
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		t.Errorf("the stream does not end when the program stops: %v", err)
	}
}
