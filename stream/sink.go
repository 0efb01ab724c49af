package stream

import (
	"errors"
	"fmt"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/topology"
)

// errNoTopic is a topic that a sink should write and that does not exist.
var errNoTopic = errors.New("the topic does not exist on the cluster and sinks create none")

// errTooLarge is a record that the cluster would refuse.
var errTooLarge = errors.New("the record is too large")

// writer encodes records into the effects of a task.
type writer[K, V any] struct {
	key   serde.Serde[K]
	value serde.Serde[V]
	tail  int
	by    func(k K, v V, n int32) int32
	multi func(k K, v V, n int32) []int32
	env   flow.Env
	node  int
	sink  int16  // the same, for records
	name  string // of the topic
}

func (w writer[K, V]) open(env flow.Env, node int) *writer[K, V] {
	w.env, w.node, w.sink = env, node, flow.Small(node)
	return &w
}

func (w *writer[K, V]) write(c *flow.Ctx, to *flow.Topic, k K, v V) {
	if to == nil {
		c.Fail(w.node, &flow.WriteError{Topic: w.name, Err: errNoTopic})
		return
	}
	if c.Time < 0 {
		w.fail(c, to, "the record's time is %d ms, before the epoch", c.Time)
		return
	}
	c.Node = w.node
	o := flow.Out{Topic: to, Partition: -1, Sink: w.sink, Input: c.Input, InHand: c.InHand, Time: c.Time, Headers: keep(c)}
	slab := c.Out.Slab()
	from := len(slab)
	var err error
	if !c.KeyNull {
		if slab, err = w.key.Encode(slab, k); err != nil {
			w.fail(c, to, "encoding the key: %w", err)
			return
		}
		o.Partition = flow.Partition(slab[from:len(slab)-w.tail], to.Partitions)
	}
	mid := len(slab)
	if !c.Null {
		if slab, err = w.value.Encode(slab, v); err != nil {
			w.fail(c, to, "encoding the value: %w", err)
			return
		}
	}
	if w.by != nil {
		if o.Partition = w.by(k, v, to.Partitions); o.Partition < 0 {
			w.env.Dropped(w.node, "partitioner")
			return
		}
		if o.Partition >= to.Partitions {
			w.fail(c, to, "the partitioner chose partition %d of %d", o.Partition, to.Partitions)
			return
		}
	}
	if size := len(slab) - from; to.MaxRecord > 0 && size+headerSize(o.Headers) > to.MaxRecord {
		w.fail(c, to, "%w: %d bytes without headers, %d with them are possible", errTooLarge, size, to.MaxRecord)
		return
	}
	if w.multi != nil {
		w.each(c, to, w.multi(k, v, to.Partitions), slab, from, mid, o)
		return
	}
	c.Out.Emit(slab, from, mid, c.KeyNull, c.Null, o)
}

// each writes one record to several partitions; its bytes are shared.
func (w *writer[K, V]) each(c *flow.Ctx, to *flow.Topic, partitions []int32, slab []byte, from, mid int, o flow.Out) {
	for _, p := range partitions {
		if p < 0 || p >= to.Partitions {
			w.fail(c, to, "the partitioner chose partition %d of %d", p, to.Partitions)
			return
		}
	}
	if len(partitions) == 0 {
		w.env.Dropped(w.node, "partitioner")
		return
	}
	o.Partition = partitions[0]
	c.Out.Emit(slab, from, mid, c.KeyNull, c.Null, o)
	written := c.Out.Records[len(c.Out.Records)-1]
	for _, p := range partitions[1:] {
		written.Partition = p
		c.Out.Records = append(c.Out.Records, written)
	}
}

func (w *writer[K, V]) fail(c *flow.Ctx, to *flow.Topic, format string, args ...any) {
	c.Fail(w.node, &flow.WriteError{Topic: to.Name, Err: fmt.Errorf(format, args...)})
}

// headerSize is at most what headers add to a record.
func headerSize(headers []Header) (n int) {
	for _, h := range headers {
		n += len(h.Key) + len(h.Value) + 10
	}
	return n
}

// keep copies the record's headers to where effects live: the input's memory is used again.
func keep(c *flow.Ctx) []Header {
	if len(c.Headers) == 0 {
		return nil
	}
	kept := make([]Header, len(c.Headers))
	slab := c.Out.Slab()
	for i, h := range c.Headers {
		kept[i].Key = h.Key
		if h.Value != nil {
			from := len(slab)
			slab = append(slab, h.Value...)
			kept[i].Value = slab[from:len(slab):len(slab)]
		}
	}
	c.Out.Keep(slab)
	return kept
}

// To writes the stream to a topic, which must exist or is created with the application where that creates topics.
func (s *KStream[K, V]) To(t Topic[K, V]) { sink(s.b, s.n, t) }

func sink[K, V any](b *Builder, from *topology.Node, t Topic[K, V]) {
	at := where()
	topic := b.topic(at, "topic", t.root, t.spec, t.key, t.value)
	n := &topology.Node{Kind: "sink", Parents: []*topology.Node{from}, Sinks: []*topology.Topic{topic}, At: at}
	out := writer[K, V]{key: t.key, value: t.value, tail: t.tail, by: t.by, multi: t.multi}
	add(b, n, func(env flow.Env, _ fn[K, V]) (fn[K, V], error) {
		w, to := out.open(env, n.ID), env.Topic(topic.Logical())
		w.name = topic.Name
		return func(c *flow.Ctx, k K, v V) { w.write(c, to, k, v) }, nil
	})
}

// ToFunc writes each record to the topic that f chooses; the zero handle drops it (TopicNameExtractor). Such a topic must exist on a
// cluster, or writing the record fails; on the bundled broker it is created when it is first written.
func (s *KStream[K, V]) ToFunc(f func(Record[K, V]) Topic[K, V]) {
	s.b.given(f != nil)
	n := &topology.Node{Kind: "sink", Parents: []*topology.Node{s.n}}
	add(s.b, n, func(env flow.Env, _ fn[K, V]) (fn[K, V], error) {
		w := (writer[K, V]{}).open(env, n.ID)
		return func(c *flow.Ctx, k K, v V) {
			c.Node = n.ID
			t := f(record(c, k, v))
			if t.root == nil {
				env.Dropped(n.ID, "no-topic")
				return
			}
			w.key, w.value, w.tail, w.by, w.multi, w.name = t.key, t.value, t.tail, t.by, t.multi, t.name
			to, err := env.Lookup(t.name)
			if err != nil {
				c.Break(n.ID, err)
				return
			}
			w.write(c, to, k, v)
		}, nil
	})
}
