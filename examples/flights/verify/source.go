package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/csv"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/moldau/moldau/examples/flights/input"
)

// readSource reads the CSVs with no code of the application's, so that a row which its reader loses is found missing.
func readSource(flights, airports io.Reader) (source, error) {
	s := source{airports: map[string][2]string{}}
	b := bufio.NewReader(flights)
	flights = b
	if magic, _ := b.Peek(2); bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(b)
		if err != nil {
			return s, fmt.Errorf("the flights: %w", err)
		}
		flights = z
	}
	rows, err := csv.NewReader(flights).ReadAll()
	if err != nil {
		return s, fmt.Errorf("the flights: %w", err)
	}
	for i, r := range rows[1:] {
		delay, err := strconv.ParseInt(r[1], 10, 64)
		if err != nil {
			return s, fmt.Errorf("the flights, row %d: %w", i+1, err)
		}
		distance, err := strconv.ParseInt(r[2], 10, 64)
		if err != nil {
			return s, fmt.Errorf("the flights, row %d: %w", i+1, err)
		}
		s.flights = append(s.flights, flight{r[0], delay, distance, r[3], r[4]})
	}
	rows, err = csv.NewReader(airports).ReadAll()
	if err != nil {
		return s, fmt.Errorf("the airports: %w", err)
	}
	for _, r := range rows[1:] {
		s.airports[r[0]] = [2]string{r[1], r[2]}
	}
	return s, nil
}

// openSource reads the CSV at path, or the embedded month.
func openSource(path string) (source, error) {
	flights, airports := input.Embedded()
	if path == "" {
		return readSource(bytes.NewReader(flights), bytes.NewReader(airports))
	}
	f, err := os.Open(path)
	if err != nil {
		return source{}, err
	}
	defer f.Close()
	return readSource(f, bytes.NewReader(airports))
}
