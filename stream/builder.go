// Package stream is the typed language: KStream, KTable, groups, windows, joins and processors over topics and stores
// that are named by handles. It builds an untyped graph (package topology) and imports no runtime: nothing here runs
// before a task wires it.
//
// Functions come in two forms. The plain ones see values. The Try ones see the whole Record (key, time, headers, null)
// and may fail; what happens then is up to the error policy. None may be nil, which Build reports, unless its doc says what nil
// stands for.
//
// Null is Kafka's null, a bit of the record. For a type whose nil is a value (pointers, slices, maps, interfaces) nil is
// null, in and out, and functions see it. For any other type a null value passes functions on values by and keeps its
// place in the stream; functions that choose a key are called with the zero value, and null keys are zero to all functions.
//
// Headers of the record in hand travel through every operator.
package stream

import (
	"time"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/topology"
)

// Builder gathers a topology. Mistakes are noted and reported by Build, all at once, with the author's file and line.
// One goroutine uses a Builder.
type Builder struct {
	graph   topology.Graph
	sources []*topology.Node
	written []*crossing
	around  func(Call, func() error) error
	trials  []func() // of processors, which Build makes
}

// crossing is a repartition topic with its two ends.
type crossing struct {
	topic    *topology.Topic
	from     *topology.Node
	nullKeys bool // they go through as well
}

// NewBuilder starts an empty topology.
func NewBuilder() *Builder { return &Builder{} }

// Build checks everything and cuts the graph into sub-topologies. The error is a topology.Mistakes. It calls the Init of each
// processor, on a value of its own, to learn which stores that opens.
func (b *Builder) Build() (*topology.Topology, error) {
	for _, try := range b.trials {
		try()
	}
	b.trials = nil
	return b.graph.Build()
}

// Stream reads topics of one type. Between topics there is no order but that of time.
func (b *Builder) Stream[K, V any](t Topic[K, V], more ...Topic[K, V]) *KStream[K, V] {
	s := &KStream[K, V]{b, b.source(t)}
	for _, other := range more {
		s = s.Merge(&KStream[K, V]{b, b.source(other)})
	}
	return s
}

// Call is one call of a processor.
type Call struct {
	Operator  string // its label
	Timer     bool   // a call of a timer, not of Process
	Topic     string // of the record in hand; "" in a timer
	Partition int32
	Offset    int64     // -1 in a timer
	Time      time.Time // of the record, or of the timer's call
}

// Around has f called around every call of a processor or of its timers; next is the call, and f returns its error or another
// one. It is the place for traces, measures and limits (processor.wrapper.class, KIP-1112). The one added last is outermost.
func (b *Builder) Around(f func(call Call, next func() error) error) {
	b.given(f != nil)
	inner := b.around
	if inner == nil {
		b.around = f
		return
	}
	b.around = func(call Call, next func() error) error {
		return f(call, func() error { return inner(call, next) })
	}
}

// call calls a processor.
func (b *Builder) call(n *topology.Node, c *flow.Ctx, timer bool, next func() error) error {
	return b.around(Call{Operator: n.Label(), Timer: timer, Topic: c.Topic, Partition: c.Partition, Offset: c.Offset, Time: utc(c.Time)}, next)
}

// topic is the graph's value for a handle, which may be the zero value.
func (b *Builder) topic(at, kind string, root *topicRoot, spec func() topology.Topic, serdes ...any) *topology.Topic {
	if root == nil {
		b.graph.Fail(topology.ErrHandle, at, "the %s is the zero value of its handle; declare it with package stream", kind)
		return &topology.Topic{Name: "?"}
	}
	t := spec()
	if len(serdes) == 2 {
		t.Key, t.Value = serde.Format(serdes[0]), serde.Format(serdes[1])
	}
	for i, s := range serdes {
		if s == nil {
			b.graph.Fail(topology.ErrHandle, at, "%s %q has no serde for its %s", kind, t.Name, [...]string{"keys", "values"}[i%2])
		} else if v, ok := s.(serde.Validator); ok {
			if err := v.Validate(); err != nil {
				b.graph.Fail(topology.ErrHandle, at, "%s %q: %v", kind, t.Name, err)
			}
		}
	}
	return b.graph.Topic(t)
}

// source is the one node that reads a topic.
func (b *Builder) source[K, V any](t Topic[K, V]) *topology.Node {
	at := where()
	topic := b.topic(at, "topic", t.root, t.spec, t.key, t.value)
	for _, n := range b.sources {
		if n.Source == topic {
			if t.timestamps != nil && n.Extract == nil {
				b.graph.Fail(topology.ErrConflict, at, "topic %q is read with Timestamps here and without at %s; use the same copy of its handle", t.name, n.At)
			}
			return n
		}
	}
	n := &topology.Node{Kind: "source", Source: topic, At: at}
	add(b, n, func(_ flow.Env, down fn[K, V]) (fn[K, V], error) { return down, nil })
	n.Feed, n.Extract = feed(n.ID, t.key, t.value), t.extract()
	b.sources = append(b.sources, n)
	return n
}

// through sends what from gives into a repartition topic and reads it again. Null keys are left out, since they have no place;
// unless somebody below joins them with nothing.
func (b *Builder) through[K, V any](from *topology.Node, t Repartition[K, V]) *topology.Node {
	at := where()
	x := b.cross(at, from, b.topic(at, "repartition topic", t.root, t.spec, t.key, t.value))
	sink := &topology.Node{Kind: "repartition", Parents: []*topology.Node{from}, Sinks: []*topology.Topic{x.topic}, At: at}
	out := writer[K, V]{key: t.key, value: t.value, by: t.by, multi: t.multi}
	add(b, sink, func(env flow.Env, _ fn[K, V]) (fn[K, V], error) {
		w := out.open(env, sink.ID)
		to := env.Topic(x.topic.Logical())
		return func(c *flow.Ctx, k K, v V) {
			if !c.KeyNull || x.nullKeys {
				w.write(c, to, k, v)
			}
		}, nil
	})
	source := &topology.Node{Kind: "source", Source: x.topic, At: at}
	add(b, source, func(_ flow.Env, down fn[K, V]) (fn[K, V], error) { return down, nil })
	source.Feed = feed(source.ID, t.key, t.value)
	return source
}

// cross notes that a repartition topic is written; only one operator may.
func (b *Builder) cross(at string, from *topology.Node, topic *topology.Topic) *crossing {
	for _, x := range b.written {
		if x.topic == topic {
			b.graph.Fail(topology.ErrClash, at, "repartition topic %q is written by two operators; Merge the streams before, or give each a topic of its own", topic.Name)
		}
	}
	x := &crossing{topic: topic, from: from}
	b.written = append(b.written, x)
	return x
}

// keepNullKeys lets null keys through the repartition topics above a left or outer join.
func (b *Builder) keepNullKeys(n *topology.Node) {
	for _, p := range n.Parents {
		b.keepNullKeys(p)
	}
	for _, x := range b.written {
		if n.Source == x.topic && !x.nullKeys {
			x.nullKeys = true
			b.keepNullKeys(x.from)
		}
	}
}
