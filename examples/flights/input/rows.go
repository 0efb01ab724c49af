package input

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// columns of the flights' CSV.
const columns = "scheduled,delay_min,distance_mi,origin,destination"

// readRows reads the flights' CSV, in which no field is quoted. It is done at every start, next to an application that wants to be
// up, so it goes without encoding/csv: a third of the time, and no allocation per line.
func readRows(file, text string) ([]Flight, []int64, error) {
	l := &lines{file: file, rest: text}
	switch first, ok := l.next(); {
	case !ok:
		return nil, nil, fmt.Errorf("%w: %s is empty; its first line must be %q", ErrMalformed, file, columns)
	case first != columns:
		return nil, nil, fmt.Errorf("%w: %s:1: the first line is %q and must be %q", ErrMalformed, file, first, columns)
	}
	n := strings.Count(text, "\n")
	flights, arrivals := make([]Flight, 0, n), make([]int64, 0, n) // in minutes since 1970
	for line, ok := l.next(); ok && l.err == nil; line, ok = l.next() {
		l.split(line)
		f := Flight{l.fields[0], l.whole(1), l.whole(2), l.text(3), l.text(4)}
		flights, arrivals = append(flights, f), append(arrivals, l.minute(0)+f.DelayMin)
	}
	return flights, arrivals, l.err
}

// lines cuts a CSV into lines and fields. The first mistake ends it.
type lines struct {
	file   string
	rest   string
	number int // of the line, from 1
	line   string
	fields [5]string
	err    error

	last    string // the last time that was read, and its minute: flights of a minute stand together
	minutes int64
}

// next is the next line that is not empty.
func (l *lines) next() (line string, ok bool) {
	for l.rest != "" {
		line, l.rest, _ = strings.Cut(l.rest, "\n")
		l.number++
		if line = strings.TrimSuffix(line, "\r"); line != "" {
			return line, true
		}
	}
	return "", false
}

func (l *lines) split(line string) {
	l.line, l.fields = line, [5]string{}
	i, rest, more := 0, line, true
	for ; more && i < len(l.fields); i++ {
		l.fields[i], rest, more = strings.Cut(rest, ",")
	}
	if i < len(l.fields) || more {
		l.err = fmt.Errorf("%w: %s:%d: %d fields, where 5 (%s) are due; %s", ErrMalformed, l.file, l.number, strings.Count(line, ",")+1, columns, wayOut)
	}
}

func (l *lines) fail(i int, reason string) {
	if l.err != nil {
		return
	}
	column := 1
	for _, f := range l.fields[:i] {
		column += len(f) + 1
	}
	l.err = &FieldError{l.file, l.number, column, strings.Split(columns, ",")[i], l.fields[i], reason}
}

func (l *lines) text(i int) string {
	switch s := l.fields[i]; {
	case s == "":
		l.fail(i, "is empty")
	case strings.Contains(s, `"`):
		l.fail(i, "is quoted; in this file no field is")
	}
	return l.fields[i]
}

func (l *lines) whole(i int) int64 {
	n, err := strconv.ParseInt(l.fields[i], 10, 32)
	if err != nil {
		l.fail(i, "is not a whole number of 32 bits")
	}
	return n
}

// minute returns the field as minutes since 1970.
func (l *lines) minute(i int) int64 {
	s := l.fields[i]
	if s == l.last {
		return l.minutes
	}
	at, err := time.Parse(TimeLayout, s)
	switch {
	case err != nil:
		l.fail(i, "is not a time such as 2001-01-31T17:05Z")
	case at.Unix() < 0:
		l.fail(i, "is before 1970")
	}
	l.last, l.minutes = s, at.Unix()/60
	return l.minutes
}
