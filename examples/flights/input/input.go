// Package input reads the month of flights and the list of airports that the example plays back. It knows CSV and the
// order in which news arrives; it knows nothing of Kafka.
package input

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Where the embedded data come from, as the page and the README say it.
const Source = "U.S. Bureau of Transportation Statistics, on-time performance (14 CFR Part 234), January 2001, " +
	"by way of vega-datasets 3.2.1; airports: data.gov, same package"

// EmbeddedName is how messages call the month that comes with the program.
const EmbeddedName = "flights-2001-01.csv.gz (embedded)"

//go:embed flights-2001-01.csv.gz
var embeddedFlights []byte

//go:embed airports.csv
var embeddedAirports []byte

// TimeLayout is how a scheduled departure is written: minutes, with a Z although it is the airport's local time.
const TimeLayout = "2006-01-02T15:04Z"

// Flight is one row of the CSV: the strings as they stand there, the numbers as whole numbers. Its JSON form is the value
// of a record of topic flights.
type Flight struct {
	Scheduled   string `json:"scheduled"`   // departure, TimeLayout
	DelayMin    int64  `json:"delay_min"`   // of the arrival, minutes; negative is early
	DistanceMi  int64  `json:"distance_mi"` // miles
	Origin      string `json:"origin"`      // IATA code
	Destination string `json:"destination"` // IATA code
}

// Departure is Scheduled as a time.
func (f Flight) Departure() (time.Time, error) { return time.Parse(TimeLayout, f.Scheduled) }

// Airport is one row of the airports' CSV. Its JSON form is the value of a record of topic airports, keyed by IATA.
type Airport struct {
	IATA      string  `json:"iata"`
	Name      string  `json:"name"`
	City      string  `json:"city"`
	State     string  `json:"state"`
	Country   string  `json:"country"`
	Latitude  float64 `json:"latitude"`
	Longitude float64 `json:"longitude"`
}

// Month is one input file, read whole.
type Month struct {
	Name string
	// Hash is the SHA-256 of the CSV text, in hex. A file and its compressed form have the same.
	Hash string
	// Flights in the order in which their news arrives: by scheduled departure plus delay; rows of the same minute
	// stay in the order of the file.
	Flights []Flight
}

// Open reads the CSV at path, plain or gzip (told by its first bytes, not by its name). An empty path is the month that
// comes with the program.
func Open(path string) (*Month, error) {
	if path == "" {
		return Read(EmbeddedName, bytes.NewReader(embeddedFlights))
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("opening the input: %w; -input wants a CSV of flights, plain or .gz", err)
	}
	defer f.Close()
	return Read(filepath.Base(path), f)
}

// Read is Open on any reader; name is for messages.
func Read(name string, r io.Reader) (*Month, error) {
	r, err := plain(r)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	flights, arrivals, err := readRows(name, string(text))
	if err != nil {
		return nil, err
	}
	hash := sha256.Sum256(text)
	return &Month{Name: name, Hash: hex.EncodeToString(hash[:]), Flights: byArrival(flights, arrivals)}, nil
}

// plain unpacks r if it starts as gzip does.
func plain(r io.Reader) (io.Reader, error) {
	b := bufio.NewReaderSize(r, 64<<10)
	magic, err := b.Peek(2)
	if err != nil && err != io.EOF {
		return nil, err
	}
	if len(magic) == 2 && magic[0] == 0x1f && magic[1] == 0x8b {
		return gzip.NewReader(b)
	}
	return b, nil
}

// byArrival sorts stably: a key holds the minute of arrival above the place in the file, so no two are equal. 28 bits are
// for the place; a file of more rows would not fit in memory.
func byArrival(flights []Flight, arrivals []int64) []Flight {
	const placeBits = 28
	for i := range arrivals {
		arrivals[i] = arrivals[i]<<placeBits | int64(i)
	}
	slices.Sort(arrivals)
	sorted := make([]Flight, len(flights))
	for i, k := range arrivals {
		sorted[i] = flights[k&(1<<placeBits-1)]
	}
	return sorted
}

// Airports is the list that comes with the program.
func Airports() ([]Airport, error) {
	return ReadAirports("airports.csv (embedded)", bytes.NewReader(embeddedAirports))
}

// Embedded returns both files as they are, for a checker that wants to read them by itself.
func Embedded() (flights, airports []byte) {
	return bytes.Clone(embeddedFlights), bytes.Clone(embeddedAirports)
}
