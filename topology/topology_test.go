package topology_test

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/topology"
)

// draft writes graphs in few words.
type draft struct {
	g     topology.Graph
	nodes map[string]*topology.Node
}

func (d *draft) add(name, kind string, parents string, change func(n *topology.Node)) *topology.Node {
	if d.nodes == nil {
		d.nodes = map[string]*topology.Node{}
	}
	n := &topology.Node{Kind: kind, Name: name, At: "app.go:" + fmt.Sprint(len(d.nodes)+1)}
	for _, p := range strings.Fields(parents) {
		n.Parents = append(n.Parents, d.nodes[p])
	}
	if change != nil {
		change(n)
	}
	d.nodes[name] = n
	return d.g.Add(n)
}

func (d *draft) source(topic string) {
	d.add(topic, "source", "", func(n *topology.Node) {
		n.Source = d.g.Topic(topology.Topic{Root: topic, Name: topic, Kind: topology.External})
	})
}

// through is a repartition topic of that name, and the source that reads it.
func (d *draft) through(name, parent string, partitions int32) {
	t := d.g.Topic(topology.Topic{Root: name, Name: name, Kind: topology.Repartition, Partitions: partitions, At: "handles.go:1"})
	d.add("to-"+name, "repartition", parent, func(n *topology.Node) { n.Sinks = []*topology.Topic{t} })
	d.add(name, "source", "", func(n *topology.Node) { n.Source = t })
}

func (d *draft) rekey(name, parent string) {
	d.add(name, "map", parent, func(n *topology.Node) { n.Rekeys = true })
}

// keyed has a store of its own; with is whose tables it looks up.
func (d *draft) keyed(name, parent, with string, kind flow.StoreKind) {
	d.add(name, "aggregate", parent, func(n *topology.Node) {
		n.Keyed = true
		d.g.Own(&flow.StoreSpec{Name: name, Kind: kind, Retention: 1000}, n.At, n)
		for _, w := range strings.Fields(with) {
			n.With = append(n.With, d.nodes[w])
			n.Stores = append(n.Stores, d.nodes[w].Stores...)
		}
	})
}

func TestPlan(t *testing.T) {
	tests := []struct {
		name  string
		build func(d *draft)
		have  map[string]int32
		want  string // name=partitions, or the beginning of an error
	}{
		{"a changelog has a partition per task", func(d *draft) {
			d.source("in")
			d.keyed("sum", "in", "", flow.KeyValue)
		}, map[string]int32{"in": 3}, "app-sum-changelog=3"},
		{"as many as the largest source of the writer", func(d *draft) {
			d.source("a")
			d.source("b")
			d.add("both", "merge", "a b", nil)
			d.through("r", "both", 0)
			d.keyed("sum", "r", "", flow.KeyValue)
		}, map[string]int32{"a": 3, "b": 5}, "app-r-repartition=5 app-sum-changelog=5"},
		{"through a chain, whatever the order", func(d *draft) {
			d.source("in")
			d.through("one", "in", 0)
			d.through("two", "one", 0)
			d.through("three", "two", 0)
		}, map[string]int32{"in": 4}, "app-one-repartition=4 app-two-repartition=4 app-three-repartition=4"},
		{"topics that wait for each other", func(d *draft) {
			d.source("in")
			d.through("r", "in", 0)
			d.through("s", "in", 0)
			d.keyed("a", "r", "", flow.KeyValue)
			d.keyed("b", "s", "a", flow.KeyValue)
			d.keyed("c", "in", "b", flow.KeyValue)
		}, map[string]int32{"in": 4}, "app-r-repartition=4 app-s-repartition=4 app-a-changelog=4 app-b-changelog=4 app-c-changelog=4"},
		{"as the author says", func(d *draft) {
			d.source("in")
			d.through("r", "in", 7)
			d.through("s", "r", 0)
		}, map[string]int32{"in": 4}, "app-r-repartition=7 app-s-repartition=7"},
		{"as the topic it is joined with", func(d *draft) {
			d.source("in")
			d.source("table")
			d.keyed("rows", "table", "", flow.KeyValue)
			d.through("r", "in", 0)
			d.keyed("joined", "r", "rows", flow.KeyValue)
		}, map[string]int32{"in": 4, "table": 2}, "app-r-repartition=2 app-rows-changelog=2 app-joined-changelog=2"},
		{"the most among internal ones", func(d *draft) {
			d.source("a")
			d.source("b")
			d.through("r", "a", 0)
			d.through("s", "b", 0)
			d.add("both", "merge", "r s", nil)
			d.keyed("sum", "both", "", flow.KeyValue)
		}, map[string]int32{"a": 4, "b": 2}, "app-r-repartition=4 app-s-repartition=4 app-sum-changelog=4"},
		{"topics from outside that do not match", func(d *draft) {
			d.source("a")
			d.source("b")
			d.add("both", "merge", "a b", nil)
			d.keyed("sum", "both", "", flow.KeyValue)
		}, map[string]int32{"a": 4, "b": 2}, `app.go:4: aggregate needs co-partitioned inputs, but topic "a" has 4 partitions and topic "b" has 2`},
		{"the author's number does not match", func(d *draft) {
			d.source("a")
			d.source("b")
			d.through("r", "b", 3)
			d.add("both", "merge", "a r", nil)
			d.keyed("sum", "both", "", flow.KeyValue)
		}, map[string]int32{"a": 4, "b": 2}, `app.go:6: aggregate needs co-partitioned inputs, but topic "a" has 4 partitions and topic "r" has 3`},
		{"groups that overlap are one", func(d *draft) {
			d.source("a")
			d.source("b")
			d.source("c")
			d.keyed("ta", "a", "", flow.KeyValue)
			d.keyed("tb", "b", "ta", flow.KeyValue)
			d.keyed("tc", "c", "tb", flow.KeyValue)
		}, map[string]int32{"a": 4, "b": 4, "c": 2}, `app.go:5: aggregate needs co-partitioned inputs`},
		{"a source that is missing", func(d *draft) {
			d.source("a")
			d.source("b")
		}, nil, "source topic \"a\" does not exist\nsource topic \"b\" does not exist"},
		{"a name too long", func(d *draft) {
			d.source("a")
			d.keyed(strings.Repeat("x", 240), "a", "", flow.KeyValue)
		}, map[string]int32{"a": 1}, `internal topic "app-xxx`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var d draft
			test.build(&d)
			top, err := d.g.Build()
			if err != nil {
				t.Fatal(err)
			}
			plans, err := top.Plan("app", test.have)
			var got []string
			for _, p := range plans {
				got = append(got, fmt.Sprintf("%s=%d", p.Name, p.Partitions))
			}
			text := strings.Join(got, " ")
			if err != nil {
				text = err.Error()
			}
			if !strings.HasPrefix(text, test.want) || err == nil && text != test.want {
				t.Errorf("got  %s\nwant %s", text, test.want)
			}
		})
	}
}

func TestARepartitionTopicThatCountsItself(t *testing.T) {
	var d draft
	loop := d.g.Topic(topology.Topic{Root: "loop", Name: "loop", Kind: topology.Repartition, At: "handles.go:1"})
	d.add("in", "source", "", func(n *topology.Node) { n.Source = loop })
	d.add("out", "repartition", "in", func(n *topology.Node) { n.Sinks = []*topology.Topic{loop} })
	top, err := d.g.Build()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := top.Plan("app", nil); err == nil || !strings.Contains(err.Error(), "handles.go:1") {
		t.Error(err)
	}
}

func TestSettingsOfInternalTopics(t *testing.T) {
	var d draft
	d.source("in")
	d.through("r", "in", 0)
	for _, kind := range []flow.StoreKind{flow.KeyValue, flow.Window, flow.Session, flow.Versioned, flow.Join} {
		d.keyed(string(kind), "r", "", kind)
	}
	own := &flow.StoreSpec{Name: "own", Kind: flow.KeyValue, Changelog: map[string]string{"cleanup.policy": "delete", "x": "y"}}
	d.add("p", "process", "r", func(n *topology.Node) { n.Stores = []*topology.Store{d.g.Store(own, n.At)} })
	d.add("q", "process", "r", func(n *topology.Node) {
		n.Stores = []*topology.Store{d.g.Store(&flow.StoreSpec{Name: "silent", Unlogged: true}, n.At)}
	})
	top, err := d.g.Build()
	if err != nil {
		t.Fatal(err)
	}
	plans, err := top.Plan("app", map[string]int32{"in": 1})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"app-r-repartition":         "map[cleanup.policy:delete message.timestamp.type:CreateTime retention.ms:-1 segment.bytes:52428800]",
		"app-key-value-changelog":   "map[cleanup.policy:compact message.timestamp.type:CreateTime]",
		"app-window-changelog":      "map[cleanup.policy:compact,delete message.timestamp.type:CreateTime retention.ms:86401000]",
		"app-session-changelog":     "map[cleanup.policy:compact,delete message.timestamp.type:CreateTime retention.ms:86401000]",
		"app-versioned-changelog":   "map[cleanup.policy:compact message.timestamp.type:CreateTime min.compaction.lag.ms:86401000]",
		"app-join-buffer-changelog": "map[cleanup.policy:delete message.timestamp.type:CreateTime retention.ms:86401000]",
		"app-own-changelog":         "map[cleanup.policy:delete message.timestamp.type:CreateTime x:y]",
	}
	for _, p := range plans {
		if got := fmt.Sprint(p.Config); got != want[p.Name] {
			t.Errorf("%s:\ngot  %s\nwant %s", p.Name, got, want[p.Name])
		}
		delete(want, p.Name)
	}
	if len(want) > 0 {
		t.Error("not planned:", want)
	}
}

func TestSubTopologies(t *testing.T) {
	var d draft
	d.source("a")
	d.source("b")
	d.source("c")
	d.through("r", "a", 0)
	d.keyed("sum", "b", "", flow.KeyValue)
	d.keyed("join", "c", "sum", flow.KeyValue) // shares a store with b's
	top, err := d.g.Build()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range top.Subs {
		one := fmt.Sprint(s.ID, ":")
		for _, t := range s.Sources {
			one += " " + t.Logical()
		}
		for _, st := range s.Stores {
			one += " +" + st.Spec.Name
		}
		got = append(got, one)
	}
	if text := strings.Join(got, "; "); text != "0: a; 1: b c +sum +join; 2: r-repartition" {
		t.Error(text)
	}
	if st, sub := top.Store("join"); st == nil || sub != top.Subs[1] || top.Sub(d.nodes["r"].Source) != top.Subs[2] {
		t.Error("lookups by name")
	}
}

func TestMistakes(t *testing.T) {
	var d draft
	d.source("in")
	d.rekey("turn", "in")
	d.keyed("sum", "turn", "", flow.KeyValue)                                                            // no repartition topic
	d.g.Topic(topology.Topic{Root: 1, Name: "in", Kind: topology.External, At: "handles.go:2"})          // another handle of that name
	d.g.Topic(topology.Topic{Root: 2, Name: "a/b", Kind: topology.External, At: "handles.go:3"})         // bad name
	d.g.Topic(topology.Topic{Root: "in", Name: "in", Kind: topology.External, Partitions: 3, At: "x:4"}) // other settings
	d.add("p", "process", "in", func(n *topology.Node) {                                                 // the store of another name
		n.Stores = []*topology.Store{d.g.Store(&flow.StoreSpec{Name: "sum", At: "handles.go:5"}, n.At)}
	})
	d.add("w", "process", "in", func(n *topology.Node) { // a window store without retention
		n.Stores = []*topology.Store{d.g.Store(&flow.StoreSpec{Name: "panes", Kind: flow.Window}, n.At)}
	})
	d.add("again", "aggregate", "in", func(n *topology.Node) { // two writers
		d.g.Own(d.nodes["sum"].Stores[0].Spec, n.At, n)
	})
	d.add("z", "process", "in", func(n *topology.Node) { d.g.Store(nil, n.At) }) // zero handle
	lost := d.g.Topic(topology.Topic{Root: 6, Name: "lost", Kind: topology.Repartition})
	d.add("reads", "source", "", func(n *topology.Node) { n.Source = lost })
	d.g.Global(d.nodes["in"].Source, &flow.StoreSpec{Name: "g"}, "app.go:99") // read as a stream as well
	_, err := d.g.Build()
	var all topology.Mistakes
	if !errors.As(err, &all) {
		t.Fatal(err)
	}
	for _, want := range []struct {
		kind error
		text string
	}{
		{topology.ErrNotPartitioned, "app.go:3: aggregate needs all records of a key in one task, but turn at app.go:2 changes the key"},
		{topology.ErrClash, `handles.go:2: topic "in" is declared twice`},
		{topology.ErrName, `handles.go:3: topic "a/b": the name holds '/'`},
		{topology.ErrConflict, `x:4: topic "in" is used with different settings`},
		{topology.ErrClash, `app.go:4: store "sum" is declared twice, at  and at handles.go:5`},
		{topology.ErrStore, `app.go:5: store "panes" is used by processors only and must say how long`},
		{topology.ErrStore, `app.go:6: store "sum" is written by two operators, here and at app.go:3`},
		{topology.ErrHandle, `app.go:7: a store is needed here, but the handle is the zero value`},
		{topology.ErrHandle, `app.go:8: repartition topic "lost" is read but never written`},
		{topology.ErrClash, `app.go:1: topic "in" is read here and as a global table at app.go:99`},
	} {
		if !errors.Is(err, want.kind) || !strings.Contains(err.Error(), want.text) {
			t.Errorf("not found: %s", want.text)
		}
	}
	if len(all) != 10 {
		t.Errorf("%d mistakes:\n%v", len(all), err)
	}
	var e draft
	e.source("a")
	e.through("r", "a", 3)
	e.through("s", "a", 4)
	e.add("both", "merge", "r s", nil)
	e.keyed("sum", "both", "", flow.KeyValue)
	e.add("bare", "process", "a", func(n *topology.Node) {
		n.Stores = []*topology.Store{e.g.Store(&flow.StoreSpec{Name: "bare", At: "handles.go:7", Mistake: errors.New("no serde")}, n.At)}
	})
	_, err = e.g.Build()
	for _, want := range []string{`app.go:7: aggregate needs co-partitioned inputs, but topic "r" has 3 partitions and topic "s" has 4`,
		`app.go:8: store "bare", declared at handles.go:7: no serde`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("not found: %s\n%v", want, err)
		}
	}
	if _, err := new(topology.Graph).Build(); !errors.Is(err, topology.ErrEmpty) {
		t.Error(err)
	}
}

func TestDescribe(t *testing.T) {
	var d draft
	d.source("in")
	d.rekey("turn", "in")
	d.through("r", "turn", 0)
	d.keyed("sum", "r", "", flow.Window)
	d.add("write", "sink", "sum", func(n *topology.Node) {
		n.Sinks = []*topology.Topic{d.g.Topic(topology.Topic{Root: "out", Name: "out", Kind: topology.External})}
	})
	d.g.Global(d.g.Topic(topology.Topic{Root: "g", Name: "airports", Kind: topology.External}), &flow.StoreSpec{Name: "airport"}, "")
	top, err := d.g.Build()
	if err != nil {
		t.Fatal(err)
	}
	desc := top.Describe()
	want := `Topologies:
   Sub-topology: 0
    Source: in (topics: [in])
      --> turn
    Processor: turn (stores: [])
      --> to-r
      <-- in
    Sink: to-r (topic: r-repartition)
      <-- turn

   Sub-topology: 1
    Source: r (topics: [r-repartition])
      --> sum
    Processor: sum (stores: [sum])
      --> write
      <-- r
    Sink: write (topic: out)
      <-- sum
    Store: sum (window, kept 1000 ms, changelog sum-changelog)

   Sub-topology: 2 for global store (will not generate tasks)
    Source: source of airport (topics: [airports])
      --> airport
    Processor: airport (stores: [airport])
      --> none
      <-- source of airport

`
	if got := desc.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if again, err := topology.ParseDescription(desc.JSON()); err != nil || !reflect.DeepEqual(again, desc) {
		t.Errorf("JSON does not come back: %v\n%v\n%v", err, again, desc)
	}
	for what, text := range map[string]string{"JSON": string(desc.JSON()), "Mermaid": desc.Mermaid(), "dot": desc.Dot()} {
		for _, word := range []string{"turn", "r-repartition", "sum", "out", "airport"} {
			if !strings.Contains(text, word) {
				t.Errorf("%s does not know %s:\n%s", what, word, text)
			}
		}
	}
}
