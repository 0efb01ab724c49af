package stream_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/state"
	"github.com/moldau/moldau/stream"
	"github.com/moldau/moldau/streamtest"
	"github.com/moldau/moldau/topology"
)

var (
	regions     = stream.NewTopicPattern("region-[a-z]+", serde.String, serde.String)
	north       = stream.NewTopic("region-north", serde.String, serde.String)
	south       = stream.NewTopic("region-south", serde.String, serde.String)
	overview    = stream.NewTopic("region", serde.String, serde.String) // not matched: the whole name counts
	perRegion   = stream.NewTopic("per-region", serde.String, serde.Int64)
	regionCount = state.NewKeyValue("region-count", serde.String, serde.Int64).EveryUpdate()
	sighted     = stream.NewTopic("sighted", serde.String, serde.String)
)

func countRegions(b *stream.Builder) {
	b.StreamPattern(regions).GroupByKey().Count(regionCount).ToStream().To(perRegion)
}

func TestTopicsThatMatchAreRead(t *testing.T) {
	d := streamtest.New(t, countRegions)
	out := streamtest.Out(d, perRegion)
	expect := func(want string) {
		t.Helper()
		var got []string
		for _, r := range out.All() {
			got = append(got, fmt.Sprint(r.Key, "=", r.Value))
		}
		if strings.Join(got, " ") != want {
			t.Errorf("got %v, want %s", got, want)
		}
	}
	streamtest.In(d, overview).Send("a", "")
	expect("")
	streamtest.In(d, north).Send("a", "")
	expect("a=1")
	streamtest.In(d, south).Send("a", "") // appears while another is read: the state goes on
	streamtest.In(d, north).Send("a", "")
	expect("a=2 a=3")
	d.Restart()
	streamtest.In(d, south).Send("a", "")
	expect("a=4")
}

func TestATopicThatTheApplicationWritesMayMatch(t *testing.T) {
	d := streamtest.New(t, func(b *stream.Builder) {
		b.StreamPattern(regions).Filter(func(_, v string) bool { return v == "copy" }).
			MapValues(func(string) string { return "copied" }).To(south)
		b.StreamPattern(regions).To(sighted)
	}, streamtest.Partitions(2))
	streamtest.In(d, north).Send("a", "copy")
	var got []string
	for _, r := range streamtest.Out(d, sighted).All() {
		got = append(got, r.Value)
	}
	if !slices.Equal(got, []string{"copy", "copied"}) {
		t.Error(got)
	}
}

// Topics of different widths are read by as many tasks as the widest has partitions.
func TestTheWidestTopicCounts(t *testing.T) {
	d := streamtest.New(t, func(b *stream.Builder) { b.StreamPattern(regions).To(sighted) },
		streamtest.TopicPartitions("region-north", 1), streamtest.TopicPartitions("region-south", 3))
	streamtest.In(d, north).Put(0, stream.Record[string, string]{Key: "n", Time: time.UnixMilli(1)})
	for p := range int32(3) {
		streamtest.In(d, south).Put(p, stream.Record[string, string]{Key: fmt.Sprint("s", p), Time: time.UnixMilli(1)})
	}
	d.Run()
	if got := streamtest.Out(d, sighted).All(); len(got) != 4 {
		t.Error(got)
	}
}

func TestMistakesWithPatterns(t *testing.T) {
	zones := stream.NewTopicPattern("region-n.*", serde.String, serde.String)
	table := state.NewKeyValue("table", serde.String, serde.String)
	for _, test := range []struct {
		name  string
		build func(b *stream.Builder)
		want  string
	}{
		{"no expression", func(b *stream.Builder) {
			b.StreamPattern(stream.NewTopicPattern("a(", serde.String, serde.String))
		}, "pattern \"a(\": error parsing regexp: missing closing ): `a(`"},
		{"a topic is read by name as well", func(b *stream.Builder) { b.StreamPattern(regions); b.Table(north, table) },
			`the pattern "region-[a-z]+" matches topic "region-north", which is read at `},
		{"a global table matches", func(b *stream.Builder) { b.StreamPattern(regions); b.GlobalTable(north, table) },
			`the pattern "region-[a-z]+" matches topic "region-north", which is read at `},
		{"no handle", func(b *stream.Builder) { b.StreamPattern(stream.TopicPattern[string, string]{}) }, "the topic is the zero value of its handle"},
	} {
		b := stream.NewBuilder()
		test.build(b)
		if _, err := b.Build(); err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "pattern_test.go:") {
			t.Errorf("%s: %v", test.name, err)
		}
	}
	b := stream.NewBuilder()
	b.StreamPattern(regions)
	b.StreamPattern(zones)
	top, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := top.Resolve("app", []string{"region-south"}); err != nil {
		t.Error(err)
	}
	_, err = top.Resolve("app", []string{"region-north"})
	if err == nil || !strings.Contains(err.Error(), `topic "region-north" is matched by the pattern "region-n.*" here and by "region-[a-z]+" at `) {
		t.Error(err)
	}
}

func TestResolve(t *testing.T) {
	b := stream.NewBuilder()
	everything := stream.NewTopicPattern(".*", serde.String, serde.String)
	b.StreamPattern(everything).Repartition(stream.NewRepartition("again", serde.String, serde.String)).GroupByKey().Count(regionCount)
	top, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		names string
		want  string // sources of the first sub-topology, and internal topics
	}{
		{"", ""},
		{"b app-again-repartition a app-region-count-changelog app-topology", "a b; app-again-repartition=3 app-region-count-changelog=3"},
	} {
		r, err := top.Resolve("app", strings.Fields(test.names), "app-topology")
		if err != nil {
			t.Fatal(err)
		}
		var got, plan []string
		for _, s := range r.Subs[0].Sources {
			got = append(got, s.Name)
		}
		plans, err := r.Plan("app", map[string]int32{"a": 2, "b": 3})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range plans {
			plan = append(plan, fmt.Sprint(p.Name, "=", p.Partitions))
		}
		text := strings.Join(got, " ")
		if len(plan) > 0 {
			text += "; " + strings.Join(plan, " ")
		}
		if text != test.want {
			t.Errorf("%s:\ngot  %s\nwant %s", test.names, text, test.want)
		}
	}
	// Grouping by key needs topics of one number of partitions.
	b = stream.NewBuilder()
	countRegions(b)
	if top, err = b.Build(); err != nil {
		t.Fatal(err)
	}
	if top, err = top.Resolve("app", []string{"region-north", "region-south"}); err != nil {
		t.Fatal(err)
	}
	_, err = top.Plan("app", map[string]int32{"region-north": 2, "region-south": 3})
	if err == nil || !strings.Contains(err.Error(), `count needs co-partitioned inputs, but topic "region-north" has 2 partitions and topic "region-south" has 3`) {
		t.Error(err)
	}
}

func TestAPatternIsDescribedAsInJava(t *testing.T) {
	b := stream.NewBuilder()
	countRegions(b)
	top, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	d := top.Describe()
	if text := d.String(); !strings.Contains(text, "Source: source-0 (topics: region-[a-z]+)\n") {
		t.Error(text)
	}
	again, err := topology.ParseDescription(d.JSON())
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{again.Dot(), again.Mermaid()} {
		if !strings.Contains(text, "region-[a-z]+") {
			t.Error(text)
		}
	}
	other := stream.NewBuilder()
	other.StreamPattern(stream.NewTopicPattern("zone-.*", serde.String, serde.String)).GroupByKey().Count(regionCount).ToStream().To(perRegion)
	if top, err = other.Build(); err != nil {
		t.Fatal(err)
	}
	if changes := topology.Diff(again, top.Describe()); len(changes) != 0 { // as for a source topic of another name
		t.Error(changes)
	}
}
