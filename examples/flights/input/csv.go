package input

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// ErrMalformed is in the chain of every error about the contents of a CSV.
var ErrMalformed = errors.New("malformed CSV")

// wayOut ends every message about a line: files are read whole before the first row is published.
const wayOut = "correct the line or take it out, then start again: nothing of this file has been published"

// FieldError is a field of a CSV that cannot be read.
type FieldError struct {
	File   string
	Line   int    // from 1
	Column int    // from 1, in bytes
	Field  string // name of the column
	Value  string
	Reason string
}

func (e *FieldError) Error() string {
	return fmt.Sprintf("%s:%d:%d: %s %q %s; %s", e.File, e.Line, e.Column, e.Field, e.Value, e.Reason, wayOut)
}

func (e *FieldError) Unwrap() error { return ErrMalformed }

// ReadAirports reads a CSV of airports; name is for messages.
func ReadAirports(name string, r io.Reader) ([]Airport, error) {
	const header = "iata,name,city,state,country,latitude,longitude"
	rows := csv.NewReader(r)
	all, err := rows.ReadAll()
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w; %s", ErrMalformed, name, err, wayOut)
	}
	if len(all) == 0 || strings.Join(all[0], ",") != header {
		return nil, fmt.Errorf("%w: %s:1: the first line must be %q", ErrMalformed, name, header)
	}
	var list []Airport
	for i, f := range all[1:] {
		a := Airport{IATA: f[0], Name: f[1], City: f[2], State: f[3], Country: f[4]}
		if a.Latitude, err = strconv.ParseFloat(f[5], 64); err == nil {
			a.Longitude, err = strconv.ParseFloat(f[6], 64)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %s, airport %d (%s): %w; %s", ErrMalformed, name, i+1, f[0], err, wayOut)
		}
		list = append(list, a)
	}
	return list, nil
}
