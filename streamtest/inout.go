package streamtest

import (
	"maps"
	"slices"
	"time"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/stream"
)

// Input writes to a topic.
type Input[K, V any] struct {
	d     *Driver
	topic stream.Topic[K, V]
}

// In is the input topic of a handle.
func In[K, V any](d *Driver, topic stream.Topic[K, V]) *Input[K, V] {
	d.tb.Helper()
	d.topic(topic.Name(), d.external(topic.Name(), 0))
	return &Input[K, V]{d, topic}
}

// Send writes a record and works off all that follows. Its time is at, or the driver's clock. A nil key or value is Kafka's null.
func (in *Input[K, V]) Send(key K, value V, at ...time.Time) {
	in.d.tb.Helper()
	in.SendRecord(stream.Record[K, V]{Key: key, Value: value, Time: in.d.time(at)})
}

// SendNull writes a record whose value is Kafka's null.
func (in *Input[K, V]) SendNull(key K, at ...time.Time) {
	in.d.tb.Helper()
	in.SendRecord(stream.Record[K, V]{Key: key, Null: true, Time: in.d.time(at)})
}

func (d *Driver) time(at []time.Time) time.Time {
	if len(at) > 0 {
		return at[0]
	}
	return d.Now()
}

// SendRecord writes a record as it is, to the partition that its key belongs to; null keys go to partition 0.
func (in *Input[K, V]) SendRecord(r stream.Record[K, V]) {
	in.d.tb.Helper()
	in.Put(-1, r)
	in.d.run()
}

// Put writes a record to a partition (-1: its key's) without working anything off; Driver.Run does.
func (in *Input[K, V]) Put(partition int32, r stream.Record[K, V]) {
	d := in.d
	d.tb.Helper()
	t := d.topics[in.topic.Name()]
	p, key, value, err := stream.Encode(in.topic, r, t.topic.Partitions)
	d.must(err)
	if partition < 0 {
		partition = max(p, 0)
	}
	d.write(t, partition, flow.Out{Time: r.Time.UnixMilli(), Key: key, Value: value, Headers: r.Headers})
}

// SendBytes writes a record as bytes, such as no serde would.
func (in *Input[K, V]) SendBytes(partition int32, key, value []byte, at ...time.Time) {
	d := in.d
	d.tb.Helper()
	d.write(d.topics[in.topic.Name()], partition, flow.Out{Time: d.time(at).UnixMilli(), Key: key, Value: value})
	d.run()
}

// write appends to a topic from outside; a global table takes it in at once.
func (d *Driver) write(t *memTopic, partition int32, o flow.Out) {
	d.tb.Helper()
	next := t.append(partition, o)
	d.java.arrived = append(d.java.arrived, t.topic.Name)
	switch {
	case t.global == nil:
	case o.Key == nil:
		if !t.global.Computed {
			d.nullKeys++
		}
	default:
		d.must(d.globals[t.global.Store.Spec.Name].Restore(t.logs[partition][next-1:], next))
	}
}

// Run works off what Put wrote.
func (d *Driver) Run() {
	d.tb.Helper()
	d.run()
}

// Output reads a topic, in the order in which its records appeared.
type Output[K, V any] struct {
	d     *Driver
	topic stream.Topic[K, V]
	at    int
}

// Out is the output topic of a handle, from its beginning.
func Out[K, V any](d *Driver, topic stream.Topic[K, V]) *Output[K, V] {
	return &Output[K, V]{d: d, topic: topic}
}

// Next reads one record; ok=false: there is none.
func (o *Output[K, V]) Next() (r stream.Record[K, V], ok bool) {
	o.d.tb.Helper()
	t := o.d.topics[o.topic.Name()]
	if t == nil || o.at == len(t.order) {
		return r, false
	}
	at := t.order[o.at]
	o.at++
	in := t.logs[at.partition][at.offset]
	r, err := stream.Decode(o.topic, in.Key, in.Value)
	if err != nil {
		o.d.tb.Fatalf("topic %s[%d]@%d: %v", o.topic.Name(), at.partition, at.offset, err)
	}
	r.Time, r.Headers = time.UnixMilli(in.Time).UTC(), slices.Clone(in.Headers)
	return r, true
}

// All reads everything that has appeared since the last call.
func (o *Output[K, V]) All() []stream.Record[K, V] {
	o.d.tb.Helper()
	var all []stream.Record[K, V]
	for r, ok := o.Next(); ok; r, ok = o.Next() {
		all = append(all, r)
	}
	return all
}

// Raw is a record as it lies in a topic.
type Raw struct {
	Partition int32
	Offset    int64
	Time      time.Time
	Key       []byte // nil: null
	Value     []byte // nil: null
	Headers   []stream.Header
}

// Raw is all of a topic, undecoded, in the order in which it appeared. Internal topics and changelogs have their full names.
func (d *Driver) Raw(topic string) []Raw {
	t := d.topics[topic]
	if t == nil {
		return nil
	}
	var all []Raw
	for _, at := range t.order {
		in := t.logs[at.partition][at.offset]
		all = append(all, Raw{at.partition, at.offset, time.UnixMilli(in.Time).UTC(), in.Key, in.Value, in.Headers})
	}
	return all
}

// Topics are the names of all topics there are, sorted.
func (d *Driver) Topics() []string { return slices.Sorted(maps.Keys(d.topics)) }
