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
		d.appeared = true
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

// makeTopics makes all topics that the topology names or needs, and matches patterns with what there is.
func (d *Driver) makeTopics() {
	d.tb.Helper()
	for _, t := range d.declared.Topics {
		if t.Kind == topology.External {
			d.topic(t.Name, d.external(t.Name, t.Partitions))
		}
	}
	for name, n := range d.config.perTopic {
		d.topic(name, n)
	}
	top, err := d.declared.Resolve(d.config.app, d.Topics())
	d.must(err)
	counts := map[string]int32{}
	for _, t := range top.Topics {
		if t.Kind == topology.External {
			counts[t.Name] = d.topics[t.Name].topic.Partitions
		}
	}
	plans, err := top.Plan(d.config.app, counts)
	d.must(err)
	for _, p := range plans {
		if t := d.topic(p.Name, p.Partitions); t.topic.Partitions != p.Partitions {
			d.tb.Fatalf("internal topic %q has %d partitions, and now needs %d: a topic was found that has more than those before", p.Name, t.topic.Partitions, p.Partitions)
		}
	}
	for _, g := range top.Globals {
		d.topics[g.Topic.Name].global = g
	}
	d.topology, d.appeared = top, false
}

// inputs is how many source topics of a sub-topology there are.
func (d *Driver) inputs(s *topology.Sub) (n int) {
	for _, t := range s.Sources {
		if d.topics[t.Full(d.config.app)] != nil {
			n++
		}
	}
	return n
}

// match has tasks read topics that have appeared and that patterns match; false: there are none. Such tasks commit and start again.
func (d *Driver) match() bool {
	d.tb.Helper()
	if !d.declared.Patterns() {
		d.appeared = false
	}
	if !d.appeared || d.err != nil {
		return false
	}
	was := d.topology
	inputs := make([]int, len(was.Subs))
	for i, sub := range was.Subs {
		inputs[i] = d.inputs(sub)
	}
	d.makeTopics()
	found := false
	for i, sub := range d.topology.Subs {
		if d.inputs(sub) == inputs[i] {
			continue
		}
		found = true
		var rest []*running
		for _, r := range d.tasks {
			if r.sub != was.Subs[i] {
				rest = append(rest, r)
				continue
			}
			d.commit(r)
			d.closeTask(r)
			d.past.Skipped += r.task.Stats().Skipped
			for drop, n := range r.task.Stats().Dropped {
				if d.past.Dropped == nil {
					d.past.Dropped = map[task.Drop]int64{}
				}
				d.past.Dropped[drop] += n
			}
			if id := r.task.ID(); d.config.warm {
				d.must(d.disks[id].Flush(d.now))
			} else {
				delete(d.disks, id)
			}
		}
		d.tasks = rest
		d.startSub(sub)
	}
	if found {
		slices.SortStableFunc(d.tasks, func(a, b *running) int { return a.task.ID().Sub - b.task.ID().Sub })
		d.java.queues, d.java.waiting, d.java.arrived = nil, nil, d.Topics()
	}
	for i, sub := range d.topology.Subs {
		for _, r := range d.tasks {
			if r.sub == was.Subs[i] {
				r.sub = sub
			}
		}
	}
	return found
}

// lookup resolves what tasks write to. A topic that a sink chooses per record appears when it is first written.
func (d *Driver) lookup(name string) *flow.Topic {
	return &d.topic(name, d.external(name, 0)).topic
}
