package group

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

func TestStreamsTopologies(t *testing.T) {
	internal := func(name string, n int32) InternalTopic { return InternalTopic{Name: name, Partitions: n} }
	one := func(s ...Subtopology) *Topology { return &Topology{Subtopologies: s} }
	joined := func(fixed int32) *Topology {
		return one(Subtopology{ID: "0", Sources: []string{"left"}, Sinks: []string{"re"}},
			Subtopology{ID: "1", Sources: []string{"right"}, Repartitions: []InternalTopic{internal("re", fixed)},
				Changelogs: []InternalTopic{internal("log", 0)}, Copartitioned: [][]string{{"re", "right"}}})
	}
	for _, x := range []struct {
		name     string
		topology *Topology
		topics   map[string]int32
		err      error
		status   []int8
		missing  string // names with partitions
		tasks    string
	}{
		{"as wide as the source", wordcount(), map[string]int32{"words": 4}, nil, []int8{MissingInternalTopics}, "app-by-repartition:4 app-count-changelog:4", "0:4 1:4"},
		{"all there", wordcount(), wordTopics(3).partitions, nil, nil, "", "0:3 1:3"},
		{"no source", wordcount(), nil, nil, []int8{MissingSources}, "", ""},
		{"a changelog of another width", wordcount(), map[string]int32{"words": 4, "app-count-changelog": 3}, nil, []int8{WronglyPartitioned}, "", ""},
		{"joined: the source decides", joined(0), map[string]int32{"left": 2, "right": 5}, nil, []int8{MissingInternalTopics}, "log:5 re:5", "0:2 1:5"},
		{"joined: fixed to the same", joined(5), map[string]int32{"left": 2, "right": 5}, nil, []int8{MissingInternalTopics}, "log:5 re:5", "0:2 1:5"},
		{"joined: fixed to another", joined(4), map[string]int32{"left": 2, "right": 5}, nil, []int8{WronglyPartitioned}, "", ""},
		{"sources of two widths", one(Subtopology{ID: "0", Sources: []string{"a", "b"}, Copartitioned: [][]string{{"a", "b"}}}), map[string]int32{"a": 1, "b": 2}, nil, []int8{WronglyPartitioned}, "", ""},
		{"sources of two widths, not joined", one(Subtopology{ID: "0", Sources: []string{"a", "b"}}), map[string]int32{"a": 1, "b": 2}, nil, nil, "", "0:2"},
		{"a chain", one(Subtopology{ID: "2", Repartitions: []InternalTopic{internal("y", 0)}}, Subtopology{ID: "1", Repartitions: []InternalTopic{internal("x", 0)}, Sinks: []string{"y"}},
			Subtopology{ID: "0", Sources: []string{"s"}, Sinks: []string{"x"}}), map[string]int32{"s": 3}, nil, []int8{MissingInternalTopics}, "x:3 y:3", "0:3 1:3 2:3"},
		{"two repartition topics, one fixed", one(Subtopology{ID: "0", Sources: []string{"s"}, Sinks: []string{"x", "y"}},
			Subtopology{ID: "1", Repartitions: []InternalTopic{internal("x", 7), internal("y", 0)}, Copartitioned: [][]string{{"x", "y"}}}),
			map[string]int32{"s": 3}, nil, []int8{MissingInternalTopics}, "x:7 y:7", "0:3 1:7"},
		{"a circle", one(Subtopology{ID: "0", Sinks: []string{"x"}, Repartitions: []InternalTopic{internal("x", 0)}}), nil, kerr.StreamsInvalidTopology, nil, "", ""},
		{"nobody writes it", one(Subtopology{ID: "0", Repartitions: []InternalTopic{internal("x", 0)}}), nil, kerr.StreamsInvalidTopology, nil, "", ""},
		{"nothing to read", one(Subtopology{ID: "0"}), nil, kerr.StreamsInvalidTopology, nil, "", ""},
	} {
		t.Run(x.name, func(t *testing.T) {
			g := NewStreams("g", limits1071, time.Unix(1000, 0))
			res, err := g.Heartbeat(time.Unix(1000, 0), enter("a", "p", x.topology), &fakeTopics{version: 1, partitions: x.topics})
			if err != x.err {
				t.Fatalf("%v, want %v", err, x.err)
			}
			if err != nil {
				if len(g.members) > 0 {
					t.Error("the member is in though its topology is refused")
				}
				return
			}
			var missing, tasks []string
			for _, in := range res.Missing {
				missing = append(missing, fmt.Sprintf("%s:%d", in.Name, in.Partitions))
			}
			for _, id := range slices.Sorted(maps.Keys(g.wiring.tasks)) {
				tasks = append(tasks, fmt.Sprintf("%s:%d", id, g.wiring.tasks[id]))
			}
			if got := strings.Join(missing, " "); got != x.missing {
				t.Errorf("missing %s, want %s", got, x.missing)
			}
			if got := strings.Join(tasks, " "); got != x.tasks {
				t.Errorf("tasks %s, want %s", got, x.tasks)
			}
			if !slices.Equal(codes(res.Status), x.status) {
				t.Errorf("status %+v, want %v", res.Status, x.status)
			}
			if ready := g.State() != "NotReady"; ready != (x.status == nil) || ready != (len(res.Assigned) > 0) {
				t.Errorf("%s with %v", g.State(), res.Assigned)
			}
		})
	}
}

// countedTopics counts what it is asked.
type countedTopics struct {
	*fakeTopics
	asked int
}

func (c *countedTopics) Lookup(name string) ([16]byte, int32, bool) {
	c.asked++
	return [16]byte{}, 1, name == "s"
}

// A topology costs as much as it is long, and is not longer than it may be.
func TestStreamsTopologyCost(t *testing.T) {
	const n = 2000
	wide := Subtopology{ID: "0"}
	for i := range n {
		wide.Sources = append(wide.Sources, "s")
		wide.Sinks = append(wide.Sinks, fmt.Sprint("sink", i))
		wide.Changelogs = append(wide.Changelogs, InternalTopic{Name: fmt.Sprint("log", i)})
	}
	topics := &countedTopics{fakeTopics: &fakeTopics{version: 1}}
	g := NewStreams("g", limits1071, time.Unix(1000, 0))
	if _, err := g.Heartbeat(time.Unix(1000, 0), enter("a", "p", &Topology{Subtopologies: []Subtopology{wide}}), topics); err != nil || topics.asked > 20*n {
		t.Errorf("asked for topics %d times (%v)", topics.asked, err)
	}
	long := &Topology{}
	for i := range maxSubtopologies + 1 {
		long.Subtopologies = append(long.Subtopologies, Subtopology{ID: fmt.Sprint(i), Sources: []string{"s"}})
	}
	if r := enter("a", "p", long); r.Check() != kerr.StreamsInvalidTopology {
		t.Error("a topology of any length is taken")
	}
}
