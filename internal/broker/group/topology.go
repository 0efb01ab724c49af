package group

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
)

// Topology is what the members of a streams group run, as the first of them has said.
type Topology struct {
	Epoch         int32         `json:"epoch"`
	Subtopologies []Subtopology `json:"subtopologies,omitempty"`
}

// Subtopology is a part of a topology that has a task for each partition of its input.
type Subtopology struct {
	ID      string   `json:"id"`
	Sources []string `json:"sources,omitempty"` // topics of others
	Sinks   []string `json:"sinks,omitempty"`   // repartition topics that it writes
	// Repartitions are the repartition topics that it reads.
	Repartitions []InternalTopic `json:"repartitions,omitempty"`
	Changelogs   []InternalTopic `json:"changelogs,omitempty"`
	// Copartitioned are sets of what it reads that must have as many partitions as each other.
	Copartitioned [][]string `json:"copartitioned,omitempty"`
}

// InternalTopic is a topic that the broker makes for a group.
type InternalTopic struct {
	Name        string    `json:"name"`
	Partitions  int32     `json:"partitions,omitempty"`  // 0: to be decided
	Replication int16     `json:"replication,omitempty"` // 0: the broker's default
	Settings    []Setting `json:"settings,omitempty"`
}

// Setting is a key and its value: of a topic's configuration, or a client's tag.
type Setting struct {
	Key   string `json:"k"`
	Value string `json:"v"`
}

func bySetting(a, b Setting) int {
	return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Value, b.Value))
}

// sorted returns the topology in an order of its own, so that members that name the same things differently agree.
func (t Topology) sorted() *Topology {
	topics := func(in []InternalTopic) []InternalTopic {
		out := slices.Clone(in)
		for i := range out {
			out[i].Settings = slices.SortedFunc(slices.Values(out[i].Settings), bySetting)
		}
		slices.SortFunc(out, func(a, b InternalTopic) int { return cmp.Compare(a.Name, b.Name) })
		return out
	}
	t.Subtopologies = slices.Clone(t.Subtopologies)
	for i := range t.Subtopologies {
		s := &t.Subtopologies[i]
		s.Sources, s.Sinks = slices.Sorted(slices.Values(s.Sources)), slices.Sorted(slices.Values(s.Sinks))
		s.Repartitions, s.Changelogs = topics(s.Repartitions), topics(s.Changelogs)
		s.Copartitioned = slices.Clone(s.Copartitioned)
		for j := range s.Copartitioned {
			s.Copartitioned[j] = slices.Sorted(slices.Values(s.Copartitioned[j]))
		}
		slices.SortFunc(s.Copartitioned, slices.Compare)
	}
	slices.SortFunc(t.Subtopologies, func(a, b Subtopology) int { return cmp.Compare(a.ID, b.ID) })
	return &t
}

// equal compares sorted topologies.
func (t *Topology) equal(o *Topology) bool { return bytes.Equal(marshal(t), marshal(o)) }

// marshal is JSON of what always has one.
func marshal(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("group: " + err.Error())
	}
	return b
}

// reads returns the topics that a subtopology reads.
func (s *Subtopology) reads() []string {
	names := slices.Clone(s.Sources)
	for _, t := range s.Repartitions {
		names = append(names, t.Name)
	}
	return names
}

// required returns the topics without which the topology cannot run, in order.
func (t *Topology) required() []string {
	var names []string
	for i := range t.Subtopologies {
		s := &t.Subtopologies[i]
		names = append(names, s.reads()...)
		for _, c := range s.Changelogs {
			names = append(names, c.Name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Codes of a Status.
const (
	StaleTopology         = 0
	MissingSources        = 1
	WronglyPartitioned    = 2
	MissingInternalTopics = 3
	ShutDownApplication   = 4
	AssignmentDelayed     = 5
)

// Status tells a member what keeps its group from working.
type Status struct {
	Code   int8
	Detail string
}

const (
	maxTasks         = 100_000 // of a group: they are dealt out in one step
	maxSubtopologies = 1_000   // of a topology: each may be gone over as often as there are others
)

// wiring is a topology as the topics that exist allow it.
type wiring struct {
	tasks    map[string]int32 // of each subtopology; nil if that cannot be told
	internal map[string]int32 // partitions of the internal topics
	missing  []InternalTopic  // internal topics to be made
	problem  *Status          // why it cannot run; nil: it can
	reader   map[[16]byte]string
}

// errPartitioned is what is wrong with the partitions of topics.
type errPartitioned struct{ detail string }

func (e errPartitioned) Error() string { return e.detail }

// wire decides how many partitions the internal topics have and how many tasks there are, as Kafka's InternalTopicManager
// does. An error is a topology that no topics could make right.
func wire(t *Topology, topics Topics) (*wiring, error) {
	var absent []string
	for i := range t.Subtopologies {
		for _, name := range t.Subtopologies[i].Sources {
			if _, _, ok := topics.Lookup(name); !ok {
				absent = append(absent, name)
			}
		}
	}
	if len(absent) > 0 {
		slices.Sort(absent)
		return &wiring{problem: &Status{MissingSources, "Source topics " + strings.Join(slices.Compact(absent), ", ") + " are missing."}}, nil
	}
	w := &wiring{internal: map[string]int32{}, reader: map[[16]byte]string{}}
	err := w.partition(t, topics)
	if err == nil {
		err = w.findMissing(t, topics)
	}
	var wrong errPartitioned
	if errors.As(err, &wrong) {
		return &wiring{problem: &Status{WronglyPartitioned, wrong.detail}}, nil
	}
	if err != nil {
		return nil, err
	}
	w.tasks = map[string]int32{}
	total := 0
	for i := range t.Subtopologies {
		s := &t.Subtopologies[i]
		w.tasks[s.ID] = w.width(s, topics)
		if total += int(w.tasks[s.ID]); total > maxTasks {
			return nil, kerr.StreamsInvalidTopology
		}
		for _, name := range s.reads() {
			if id, _, ok := topics.Lookup(name); ok {
				w.reader[id] = s.ID
			}
		}
	}
	return w, nil
}

// count returns the partitions of a topic that exists, or else those decided on; 0 for none yet.
func (w *wiring) count(name string, topics Topics) int32 {
	if _, n, ok := topics.Lookup(name); ok {
		return n
	}
	return w.internal[name]
}

// width is the number of a subtopology's tasks: the most partitions of what it reads.
func (w *wiring) width(s *Subtopology, topics Topics) int32 {
	n := int32(0)
	for _, name := range s.reads() {
		n = max(n, w.count(name, topics))
	}
	return n
}

// fed is the most partitions of what a subtopology reads, as far as they are decided.
func (w *wiring) fed(s *Subtopology, topics Topics) (n int32) {
	for _, r := range s.Repartitions {
		n = max(n, w.internal[r.Name])
	}
	for _, name := range s.Sources {
		n = max(n, w.count(name, topics))
	}
	return n
}

func (w *wiring) partition(t *Topology, topics Topics) error {
	fixed, sinks := map[string]bool{}, map[string]bool{}
	for i := range t.Subtopologies {
		for _, r := range t.Subtopologies[i].Repartitions {
			if r.Partitions != 0 {
				w.internal[r.Name], fixed[r.Name] = r.Partitions, true
			}
		}
		for _, name := range t.Subtopologies[i].Sinks {
			sinks[name] = true
		}
	}
	// A repartition topic is as wide as what writes it, which may read one itself.
	for open := true; open; {
		open = false
		progress := false
		for i := range t.Subtopologies {
			s := &t.Subtopologies[i]
			n := int32(-1) // of what it reads, once somebody asks
			for _, sink := range s.Sinks {
				if _, done := w.internal[sink]; done {
					continue
				}
				if n < 0 {
					n = w.fed(s, topics)
				}
				if n == 0 {
					open = true
					continue
				}
				w.internal[sink], progress = n, true
			}
		}
		if open && !progress {
			return kerr.StreamsInvalidTopology // the topics write each other
		}
	}
	for i := range t.Subtopologies {
		s := &t.Subtopologies[i]
		if len(s.Sources)+len(s.Repartitions) == 0 {
			return kerr.StreamsInvalidTopology
		}
		for _, r := range s.Repartitions {
			if _, ok := w.internal[r.Name]; !ok {
				return kerr.StreamsInvalidTopology // nobody writes it
			}
		}
	}
	for i := range t.Subtopologies {
		for _, set := range t.Subtopologies[i].Copartitioned {
			if err := w.copartition(set, fixed, sinks, topics); err != nil {
				return err
			}
		}
	}
	for i := range t.Subtopologies {
		s := &t.Subtopologies[i]
		n := w.width(s, topics)
		for _, c := range s.Changelogs {
			w.internal[c.Name] = n
		}
	}
	return nil
}

// copartition makes the repartition topics of a set as wide as its other topics, or as its widest where there are none.
func (w *wiring) copartition(set []string, fixed, sinks map[string]bool, topics Topics) error {
	var repartitions, leading []string // leading decide
	for _, name := range set {
		if fixed[name] || sinks[name] {
			repartitions = append(repartitions, name)
		} else {
			leading = append(leading, name)
		}
	}
	if len(leading) == 0 {
		leading = slices.DeleteFunc(slices.Clone(repartitions), func(name string) bool { return !fixed[name] })
	}
	width := int32(0)
	for i, name := range leading {
		n := w.count(name, topics)
		if i > 0 && n != width {
			return errPartitioned{fmt.Sprintf("Following topics do not have the same number of partitions: [%s]", strings.Join(leading, ", "))}
		}
		width = n
	}
	if len(leading) == 0 {
		for _, name := range repartitions {
			width = max(width, w.count(name, topics))
		}
	}
	for _, name := range repartitions {
		if n := w.count(name, topics); fixed[name] && n != width {
			return errPartitioned{fmt.Sprintf("Number of partitions [%d] of repartition topic [%s] doesn't match number of partitions [%d] of the source topic.", n, name, width)}
		}
		w.internal[name] = width
	}
	return nil
}

func (w *wiring) findMissing(t *Topology, topics Topics) error {
	missing := map[string]InternalTopic{}
	for i := range t.Subtopologies {
		for _, in := range slices.Concat(t.Subtopologies[i].Repartitions, t.Subtopologies[i].Changelogs) {
			want := w.internal[in.Name]
			if in.Partitions != 0 {
				want = in.Partitions
			}
			_, have, ok := topics.Lookup(in.Name)
			if !ok {
				in.Partitions = want
				missing[in.Name] = in
			} else if have != want {
				return errPartitioned{fmt.Sprintf("Existing topic %s has different number of partitions: expected %d, found %d", in.Name, want, have)}
			}
		}
	}
	if len(missing) == 0 {
		return nil
	}
	names := slices.Sorted(maps.Keys(missing))
	for _, name := range names {
		w.missing = append(w.missing, missing[name])
	}
	w.problem = &Status{MissingInternalTopics, fmt.Sprintf("Internal topics are missing: [%s]", strings.Join(names, ", "))}
	return nil
}
