// Package conformance holds our language against recordings of Kafka Streams: a topology as a JSON spec, input events, and all that
// came out. It builds each spec through the public DSL, runs it in streamtest and compares record by record. Keys and values
// are strings that may be null.
package conformance

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Vector is one recording.
type Vector struct {
	ID, Family string
	Spec       Spec
	Events     []Event
	Outputs    []Output
	Stores     map[string]Dump
	Dropped    int64
	Scheduling string
	FailsAt    *int
	Raw        struct {
		Changelogs map[string][]RawRecord
		Internal   []RawRecord
	}

	perCommit bool // results go on once per key and commit, although the recording's did with every update
	spare     bool // sessions and windows of co-grouped streams are kept for longer than it takes: an update of one that has expired is given on at once or never
}

// cached is whether Java had a record cache.
func (v *Vector) cached() bool { return v.Spec.Config.CacheBytes > 0 }

// Spec is a topology in words.
type Spec struct {
	Config struct {
		Optimization string
		CacheBytes   int64
		Stores       string
		OnError      string
	}
	Steps []Step
}

// Event is an input record or a move of the wall clock.
type Event struct {
	Topic              string
	Key, Value         *string
	TS                 int64
	Headers            [][2]*string
	AdvanceWallClockMs *int64
	Commit             bool // of recordings whose record cache was flushed by some events only: by this one
}

// Output is a record that came out because of event At.
type Output struct {
	At         int
	Topic      string
	Key, Value *string
	TS         int64
	Headers    [][2]*string
}

// Dump is the contents of a store.
type Dump struct {
	Kind    string
	Entries []Entry
}

// Entry is one row of a store; which fields there are depends on its kind.
type Entry struct {
	Key        *string
	Value      *string
	TS         *int64
	Start, End *int64
}

// RawRecord is a record of an internal topic, in hexadecimal.
type RawRecord struct {
	At         int
	Topic      string
	Key, Value *string
	TS         *int64 // nil: left to the producer
	Headers    [][2]*string
}

// Step is one step of a spec: an operator and its settings.
type Step map[string]json.RawMessage

func (s Step) has(name string) bool { _, ok := s[name]; return ok }

func (s Step) text(name string) string {
	var v string
	s.read(name, &v)
	return v
}

func (s Step) texts(name string) []string {
	var v []string
	s.read(name, &v)
	return v
}

func (s Step) number(name string) int64 {
	var v int64
	s.read(name, &v)
	return v
}

func (s Step) duration(name string) time.Duration {
	return time.Duration(s.number(name)) * time.Millisecond
}

func (s Step) steps(name string) []Step {
	var v []Step
	s.read(name, &v)
	return v
}

func (s Step) sub(name string) Step {
	var v Step
	s.read(name, &v)
	return v
}

func (s Step) in(i int) string { return s.texts("in")[i] }

func (s Step) read(name string, v any) {
	if raw, ok := s[name]; ok {
		if err := json.Unmarshal(raw, v); err != nil {
			panic(unsupported(fmt.Sprintf("field %s: %v", name, err)))
		}
	}
}

// Load reads every vector of a folder of .jsonl.gz files, or of those families only.
func Load(dir string, families ...string) ([]*Vector, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.jsonl.gz"))
	if err != nil {
		return nil, err
	}
	slices.Sort(files)
	var all []*Vector
	for _, file := range files {
		family := strings.TrimSuffix(filepath.Base(file), ".jsonl.gz")
		if len(families) > 0 && !slices.Contains(families, family) {
			continue
		}
		vs, err := read(file)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		all = append(all, vs...)
	}
	return all, nil
}

func read(file string) ([]*Vector, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, err
	}
	var all []*Vector
	lines := bufio.NewScanner(z)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		v := new(Vector)
		if err := json.Unmarshal(lines.Bytes(), v); err != nil {
			return nil, fmt.Errorf("vector %d: %w", len(all)+1, err)
		}
		all = append(all, v)
	}
	return all, lines.Err()
}
