package input

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ErrMalformed is in the chain of every error about the contents of a CSV.
var ErrMalformed = errors.New("malformed CSV")

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
	return fmt.Sprintf("%s:%d:%d: %s %q %s; correct the line or take it out, then start again: nothing of this file has been published",
		e.File, e.Line, e.Column, e.Field, e.Value, e.Reason)
}

func (e *FieldError) Unwrap() error { return ErrMalformed }

// table reads a CSV with a fixed header and reports what is wrong with a field by its place.
type table struct {
	file   string
	header []string
	r      *csv.Reader
	fields []string
	err    error
}

func newTable(file string, r io.Reader, header ...string) (*table, error) {
	t := &table{file: file, header: header, r: csv.NewReader(r)}
	t.r.ReuseRecord = true
	t.r.FieldsPerRecord = len(header)
	first, err := t.r.Read()
	if err == io.EOF {
		return nil, fmt.Errorf("%w: %s is empty; its first line must be %q", ErrMalformed, file, strings.Join(header, ","))
	}
	if err != nil && !errors.Is(err, csv.ErrFieldCount) {
		return nil, t.located(err)
	}
	if !slices.Equal(first, header) {
		return nil, fmt.Errorf("%w: %s:1: the first line is %q and must be %q", ErrMalformed, file,
			strings.Join(first, ","), strings.Join(header, ","))
	}
	return t, nil
}

// next reads a line; false at the end of the file and after an error.
func (t *table) next() bool {
	if t.err != nil {
		return false
	}
	fields, err := t.r.Read()
	if err == io.EOF {
		return false
	}
	if err != nil {
		t.err = t.located(err)
		return false
	}
	t.fields = fields
	return true
}

// located puts file, line and a way out around an error of encoding/csv or of the reader below it.
func (t *table) located(err error) error {
	var at *csv.ParseError
	if !errors.As(err, &at) {
		return fmt.Errorf("reading %s: %w", t.file, err)
	}
	return fmt.Errorf("%w: %s:%d:%d: %w, where %d fields (%s) are due; correct the line or take it out, then start again: "+
		"nothing of this file has been published", ErrMalformed, t.file, at.Line, at.Column, at.Err, len(t.header), strings.Join(t.header, ","))
}

func (t *table) fail(i int, reason string) {
	if t.err != nil {
		return
	}
	line, column := t.r.FieldPos(i)
	t.err = &FieldError{t.file, line, column, t.header[i], t.fields[i], reason}
}

func (t *table) text(i int) string {
	if t.fields[i] == "" {
		t.fail(i, "is empty")
	}
	return t.fields[i]
}

func (t *table) whole(i int) int64 {
	n, err := strconv.ParseInt(t.fields[i], 10, 32)
	if err != nil {
		t.fail(i, "is not a whole number of 32 bits")
	}
	return n
}

func (t *table) decimal(i int) float64 {
	x, err := strconv.ParseFloat(t.fields[i], 64)
	if err != nil {
		t.fail(i, "is not a number")
	}
	return x
}

// minute returns the field as minutes since 1970.
func (t *table) minute(i int) int64 {
	at, err := time.Parse(TimeLayout, t.fields[i])
	switch {
	case err != nil:
		t.fail(i, "is not a time such as 2001-01-31T17:05Z")
	case at.Unix() < 0:
		t.fail(i, "is before 1970")
	}
	return at.Unix() / 60
}

func readRows(file string, text []byte) ([]row, error) {
	t, err := newTable(file, bytes.NewReader(text), "scheduled", "delay_min", "distance_mi", "origin", "destination")
	if err != nil {
		return nil, err
	}
	rows := make([]row, 0, bytes.Count(text, []byte("\n")))
	for t.next() {
		f := Flight{t.fields[0], t.whole(1), t.whole(2), t.text(3), t.text(4)}
		rows = append(rows, row{f, t.minute(0) + f.DelayMin})
	}
	return rows, t.err
}

// ReadAirports reads a CSV of airports; name is for messages.
func ReadAirports(name string, r io.Reader) ([]Airport, error) {
	t, err := newTable(name, r, "iata", "name", "city", "state", "country", "latitude", "longitude")
	if err != nil {
		return nil, err
	}
	var list []Airport
	for t.next() {
		list = append(list, Airport{t.text(0), t.fields[1], t.fields[2], t.fields[3], t.fields[4], t.decimal(5), t.decimal(6)})
	}
	return list, t.err
}
