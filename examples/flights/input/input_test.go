package input

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const header = "scheduled,delay_min,distance_mi,origin,destination\n"

func TestEmbeddedMonth(t *testing.T) {
	m, err := Open("")
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Flights) != 508_239 {
		t.Errorf("%d flights, want 508239", len(m.Flights))
	}
	last := int64(0)
	for i, f := range m.Flights {
		at, err := f.Departure()
		if err != nil {
			t.Fatal(err)
		}
		arrival := at.Unix()/60 + f.DelayMin
		if arrival < last {
			t.Fatalf("flight %d (%v) arrives before its predecessor", i, f)
		}
		last = arrival
	}
	airports, err := Airports()
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, a := range airports {
		known[a.IATA] = true
	}
	if len(known) != 229 || len(airports) != 229 {
		t.Errorf("%d airports, %d codes, want 229", len(airports), len(known))
	}
	for _, f := range m.Flights {
		if !known[f.Origin] || !known[f.Destination] {
			t.Fatalf("%v: an airport is not in the list", f)
		}
	}
}

func TestOrderOfArrivalIsStable(t *testing.T) {
	m, err := Read("x.csv", strings.NewReader(header+
		"2001-01-01T00:10Z,5,100,AAA,BBB\n"+
		"2001-01-01T00:20Z,-10,100,BBB,CCC\n"+
		"2001-01-01T00:15Z,0,100,CCC,DDD\n"+
		"2001-01-01T00:15Z,0,100,DDD,EEE\n"))
	if err != nil {
		t.Fatal(err)
	}
	var order []string
	for _, f := range m.Flights {
		order = append(order, f.Origin)
	}
	if got := strings.Join(order, " "); got != "BBB AAA CCC DDD" {
		t.Errorf("order %s", got)
	}
	b, err := json.Marshal(m.Flights[0])
	if err != nil {
		t.Fatal(err)
	}
	want := `{"scheduled":"2001-01-01T00:20Z","delay_min":-10,"distance_mi":100,"origin":"BBB","destination":"CCC"}`
	if string(b) != want {
		t.Errorf("JSON %s, want %s", b, want)
	}
}

func TestCompressedByContent(t *testing.T) {
	text := header + "2001-01-01T00:10Z,5,100,AAA,BBB\n"
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var hashes []string
	for name, b := range map[string][]byte{"plain.gz": []byte(text), "packed.csv": z.Bytes()} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		m, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		hashes = append(hashes, m.Hash)
	}
	if hashes[0] != hashes[1] {
		t.Errorf("hash of the file and of its compressed form differ: %v", hashes)
	}
}

func TestMalformed(t *testing.T) {
	good := "2001-01-01T00:10Z,5,100,AAA,BBB\n"
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", `x.csv is empty; its first line must be "scheduled,`},
		{"header", "when,delay\n", `x.csv:1: the first line is "when,delay" and must be "scheduled,`},
		{"delay", header + good + "2001-01-01T00:10Z,late,100,AAA,BBB\n", `x.csv:3:19: delay_min "late" is not a whole number`},
		{"fraction", header + "2001-01-01T00:10Z,1,1.5,AAA,BBB\n", `x.csv:2:21: distance_mi "1.5" is not a whole number`},
		{"time", header + "2001-13-01T00:10Z,1,1,AAA,BBB\n", `x.csv:2:1: scheduled "2001-13-01T00:10Z" is not a time such as`},
		{"before 1970", header + "1969-12-31T23:59Z,1,1,AAA,BBB\n", `is before 1970`},
		{"no origin", header + good + "2001-01-01T00:10Z,1,1,,BBB\n", `x.csv:3:23: origin "" is empty`},
		{"short line", header + good + "2001-01-01T00:10Z,1\n", `x.csv:3: 2 fields, where 5 (scheduled,`},
		{"long line", header + "2001-01-01T00:10Z,5,100,AAA,BBB,CCC\n", `x.csv:2: 6 fields`},
		{"quote", header + "2001-01-01T00:10Z,5,100,\"AAA\",BBB\n", `x.csv:2:25: origin "\"AAA\"" is quoted`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Read("x.csv", strings.NewReader(c.text))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("error %v, want %q in it", err, c.want)
			}
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("%v is not ErrMalformed", err)
			}
		})
	}
}

func TestLineEndsAndEmptyLines(t *testing.T) {
	m, err := Read("x.csv", strings.NewReader(strings.ReplaceAll(header+"\n2001-01-01T00:10Z,5,100,AAA,BBB\n\n", "\n", "\r\n")+"2001-01-01T00:10Z,5,100,AAA,CCC"))
	if err != nil || len(m.Flights) != 2 || m.Flights[0].Destination != "BBB" || m.Flights[1].Destination != "CCC" {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestMalformedAirports(t *testing.T) {
	const header = "iata,name,city,state,country,latitude,longitude\n"
	for text, want := range map[string]string{
		"":                             "x.csv:1: the first line must be",
		header + "ABC,a,b,c,d,x,1\n":   `x.csv, airport 1 (ABC): strconv.ParseFloat: parsing "x"`,
		header + "ABC,a,b,c,d,1\n":     "x.csv: record on line 2: wrong number of fields",
		header + "ABC,\"a,b,c,d,1,1\n": "x.csv: parse error on line 2",
	} {
		if _, err := ReadAirports("x.csv", strings.NewReader(text)); !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q in it", text, err, want)
		}
	}
}

func TestMissingFile(t *testing.T) {
	_, err := Open(filepath.Join(t.TempDir(), "none.csv"))
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "-input wants") {
		t.Errorf("error %v", err)
	}
}

func BenchmarkOpen(b *testing.B) {
	for b.Loop() {
		if _, err := Open(""); err != nil {
			b.Fatal(err)
		}
	}
}
