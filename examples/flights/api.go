package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moldau/moldau/examples/flights/input"
)

// api is the HTTP API; README.md documents what it answers.
type api struct {
	model readModel
	log   *slog.Logger
}

func (a *api) register(mux *http.ServeMux) {
	mux.HandleFunc("GET /api/flight", a.answer(a.flight))
	mux.HandleFunc("GET /api/airports/{iata}", a.answer(a.airport))
	mux.HandleFunc("GET /api/leaderboard", a.answer(a.leaderboard))
}

// refusal is an answer other than 200.
type refusal struct {
	Status int    `json:"-"`
	Reason string `json:"error"`
	Owner  string `json:"owner,omitempty"`
}

func (r *refusal) Error() string { return r.Reason }

func wrong(err error) error { return &refusal{Status: http.StatusBadRequest, Reason: err.Error()} }

func unknown(format string, args ...any) error {
	return &refusal{Status: http.StatusNotFound, Reason: fmt.Sprintf(format, args...)}
}

// answer writes what f returns, or why it returns nothing, as JSON.
func (a *api) answer(f func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := f(r)
		status := http.StatusOK
		if err != nil {
			no := a.refuse(r, err)
			status, body = no.Status, no
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(body) // whoever asked has gone
	}
}

func (a *api) refuse(r *http.Request, err error) *refusal {
	var no *refusal
	var elsewhere *ElsewhereError
	switch {
	case errors.As(err, &no):
		return no
	case errors.As(err, &elsewhere) && elsewhere.Owner != "":
		return &refusal{Status: http.StatusMisdirectedRequest, Reason: err.Error(), Owner: elsewhere.Owner}
	case errors.As(err, &elsewhere):
		return &refusal{Status: http.StatusServiceUnavailable, Reason: err.Error()}
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return &refusal{Status: http.StatusServiceUnavailable, Reason: "the state did not answer in time: " + err.Error()}
	}
	a.log.Error("answering a question", "path", r.URL.Path, "error", err)
	return &refusal{Status: http.StatusServiceUnavailable, Reason: err.Error()}
}

// flight answers: is my flight on time?
func (a *api) flight(r *http.Request) (any, error) {
	q := r.URL.Query()
	k, err := flightKey(q)
	if err != nil {
		return nil, wrong(err)
	}
	known, err := a.model.Known(r.Context(), k)
	if err != nil {
		return nil, err
	}
	if len(known) == 0 {
		return nil, unknown("nothing is known of a flight from %s to %s scheduled at %s", k.Origin, k.Destination, k.Scheduled)
	}
	route, _, err := a.model.Route(r.Context(), k.Route())
	if err != nil {
		return nil, err
	}
	return FlightAnswer{k.Origin, k.Destination, k.Scheduled, known, route}, nil
}

func flightKey(q url.Values) (k FlightKey, err error) {
	if err := only(q, "origin", "destination", "scheduled"); err != nil {
		return k, err
	}
	if k.Origin, err = iata("origin", q.Get("origin")); err != nil {
		return k, err
	}
	if k.Destination, err = iata("destination", q.Get("destination")); err != nil {
		return k, err
	}
	at, err := parseMinute("scheduled", q.Get("scheduled"))
	k.Scheduled = at.Format(input.TimeLayout)
	return k, err
}

// airport answers with an airport's hours.
func (a *api) airport(r *http.Request) (any, error) {
	code, err := iata("airport", r.PathValue("iata"))
	if err != nil {
		return nil, wrong(err)
	}
	q := r.URL.Query()
	if err := only(q, "from", "to"); err != nil {
		return nil, wrong(err)
	}
	from, to := time.Unix(0, 0).UTC(), time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
	if s := q.Get("from"); s != "" {
		if from, err = parseMinute("from", s); err != nil {
			return nil, wrong(err)
		}
	}
	if s := q.Get("to"); s != "" {
		if to, err = parseMinute("to", s); err != nil {
			return nil, wrong(err)
		}
	}
	if !from.Before(to) {
		return nil, wrong(fmt.Errorf("from=%s is not before to=%s", q.Get("from"), q.Get("to")))
	}
	hours, found, err := a.model.Hours(r.Context(), code, from, to)
	if err == nil && !found {
		err = unknown("no flight from %s is known", code)
	}
	return hours, err
}

// leaderboard answers with the airports by share delayed; limit and min_flights narrow it.
func (a *api) leaderboard(r *http.Request) (any, error) {
	q := r.URL.Query()
	if err := only(q, "limit", "min_flights"); err != nil {
		return nil, wrong(err)
	}
	limit, err := count(q, "limit", 1_000_000)
	if err != nil {
		return nil, wrong(err)
	}
	least, err := count(q, "min_flights", 1)
	if err != nil {
		return nil, wrong(err)
	}
	board, err := a.model.Leaderboard(r.Context())
	if err != nil {
		return nil, err
	}
	return rank(board, limit, least), nil
}

// rank sorts by share delayed, then by number of flights and code, so that the order never depends on chance.
func rank(board Leaderboard, limit, least int) Leaderboard {
	list := slices.DeleteFunc(slices.Clone(board.Airports), func(s Standing) bool { return s.Flights < int64(least) })
	slices.SortFunc(list, func(a, b Standing) int {
		switch {
		case a.Share > b.Share:
			return -1
		case a.Share < b.Share:
			return 1
		case a.Flights != b.Flights:
			return int(b.Flights - a.Flights)
		}
		return strings.Compare(a.IATA, b.IATA)
	})
	if list = list[:min(limit, len(list))]; list == nil {
		list = []Standing{}
	}
	return Leaderboard{Airports: list, Complete: board.Complete}
}

// only refuses parameters that are not there: a misspelt one would be passed over in silence.
func only(q url.Values, names ...string) error {
	for name := range q {
		if !slices.Contains(names, name) {
			return fmt.Errorf("unknown parameter %q; there are %s", name, strings.Join(names, ", "))
		}
	}
	return nil
}

func iata(name, s string) (string, error) {
	code := strings.ToUpper(s)
	if len(code) != 3 || strings.ContainsFunc(code, func(r rune) bool { return (r < 'A' || r > 'Z') && (r < '0' || r > '9') }) {
		return "", fmt.Errorf("%s=%q is not an IATA code such as ORD", name, s)
	}
	return code, nil
}

func count(q url.Values, name string, otherwise int) (int, error) {
	if !q.Has(name) {
		return otherwise, nil
	}
	n, err := strconv.Atoi(q.Get(name))
	if err != nil || n < 1 {
		return 0, fmt.Errorf("%s=%q is not a whole number of at least 1", name, q.Get(name))
	}
	return n, nil
}
