package streamtest

import (
	"slices"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/internal/task"
	"github.com/moldau/moldau/topology"
)

// memTopic is a topic in memory.
type memTopic struct {
	topic     flow.Topic
	logs      [][]flow.In
	committed []task.Position // of the application, per partition
	order     []place         // of production, over all partitions
	global    *topology.Global
}

type place struct {
	partition int32
	offset    int64
}

// append adds a record and returns the offset after it.
func (t *memTopic) append(partition int32, o flow.Out) int64 {
	log := &t.logs[partition]
	at := int64(len(*log))
	*log = append(*log, flow.In{Offset: at, Time: o.Time, Key: o.Key, Value: o.Value, Headers: slices.Clone(o.Headers)})
	t.order = append(t.order, place{partition, at})
	return at + 1
}

func (d *Driver) topic(name string, partitions int32) *memTopic {
	t := d.topics[name]
	if t == nil {
		t = &memTopic{topic: flow.Topic{Name: name, Partitions: partitions}, logs: make([][]flow.In, partitions), committed: make([]task.Position, partitions)}
		d.topics[name] = t
	}
	return t
}

// external is how many partitions a topic from outside has.
func (d *Driver) external(name string, asked int32) int32 {
	if n := d.config.perTopic[name]; n > 0 {
		return n
	}
	if asked > 0 {
		return asked
	}
	return d.config.partitions
}

func (d *Driver) makeTopics() {
	counts := map[string]int32{}
	for _, t := range d.topology.Topics {
		if t.Kind == topology.External {
			counts[t.Name] = d.external(t.Name, t.Partitions)
			d.topic(t.Name, counts[t.Name])
		}
	}
	plans, err := d.topology.Plan(d.config.app, counts)
	if err != nil {
		d.tb.Fatal(err)
	}
	for _, p := range plans {
		d.topic(p.Name, p.Partitions)
	}
	for _, g := range d.topology.Globals {
		d.topics[g.Topic.Name].global = g
	}
}

// lookup resolves what tasks write to. A topic that a sink chooses per record appears when it is first written.
func (d *Driver) lookup(name string) *flow.Topic {
	return &d.topic(name, d.external(name, 0)).topic
}
