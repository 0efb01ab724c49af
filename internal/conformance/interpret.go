package conformance

import (
	"fmt"

	"github.com/moldau/moldau/serde"
	"github.com/moldau/moldau/state"
	"github.com/moldau/moldau/stream"
	"github.com/moldau/moldau/window"
)

type (
	record   = stream.Record[text, text]
	streamOf = *stream.KStream[text, text]
	group    = *stream.KGroupedStream[text, text]
	panes    = *stream.TimeWindowedKStream[text, text]
	ktable   = *stream.KTable[text, text]
	wkey     = window.Key[text]
	wtable   = *stream.KTable[wkey, text]
	cogroup  = *stream.CogroupedKStream[text, text]
	copanes  = *stream.TimeWindowedCogroupedKStream[text, text]
	grouped  = *stream.KGroupedTable[text, text]
	global   = *stream.GlobalKTable[text, text]
	topic    = stream.Topic[text, text]
)

// strings that may be null
var nullable = serde.Null[string](serde.String)

// interpreter builds a topology from a spec.
type interpreter struct {
	b        *stream.Builder
	vector   *Vector
	objects  map[string]any
	rekeyed  map[string]bool // streams whose key has changed since they were last partitioned
	topics   map[string]topic
	patterns map[string]stream.TopicPattern[text, text]
	shared   map[string]state.Handle

	crossings []crossing // where streams went through repartition topics of their own
	crossed   []crossing // where they need none, since they come from one that was moved up
}

// build makes the vector's topology; what it cannot build is an error.
func (v *Vector) build(b *stream.Builder) error {
	if !v.optimizes() {
		return v.interpret(b).build()
	}
	moved, crossed, err := v.optimized()
	if err != nil {
		return err
	}
	in := moved.interpret(b)
	in.crossed = crossed
	return in.build()
}

func (v *Vector) interpret(b *stream.Builder) *interpreter {
	return &interpreter{b: b, vector: v, objects: map[string]any{}, rekeyed: map[string]bool{}, topics: map[string]topic{},
		patterns: map[string]stream.TopicPattern[text, text]{}, shared: map[string]state.Handle{}}
}

func (in *interpreter) build() (err error) {
	defer func() {
		if p := recover(); p != nil {
			u, ok := p.(unsupported)
			if !ok {
				panic(p)
			}
			err = u
		}
	}()
	for _, step := range in.vector.Spec.Steps {
		made := in.apply(step)
		if made == nil {
			continue
		}
		in.objects[step.text("id")] = made
	}
	return nil
}

func get[T any](in *interpreter, id string) T {
	o, ok := in.objects[id].(T)
	if !ok {
		panic(unsupported(fmt.Sprintf("%s is a %T", id, in.objects[id])))
	}
	return o
}

func (in *interpreter) stream(step Step, i int) streamOf { return get[streamOf](in, step.in(i)) }

// apply makes one step and notes whether its key has changed.
func (in *interpreter) apply(step Step) any {
	id, op := step.text("id"), step.text("op")
	if step.has("in") {
		in.rekeyed[id] = in.rekeyed[step.in(0)]
	}
	switch op {
	case "stream":
		return in.source(step)
	case "table":
		if !step.has("store") && !in.keeps(id) {
			return in.b.UnstoredTable(in.topic(step.text("topic"), step))
		}
		h := in.keyValue(step)
		if in.vector.optimizes() {
			switch own := h.(type) {
			case kv:
				h = own.ReuseSourceTopic()
			case state.Versioned[text, text]:
				h = own.ReuseSourceTopic()
			}
		}
		return in.b.Table(in.topic(step.text("topic"), step), h)
	case "globalTable":
		return in.b.GlobalTable(in.topic(step.text("topic"), step), in.keyValue(step).(kv))
	case "filter":
		return in.stream(step, 0).Filter(predicate(step.text("fn")))
	case "filterNot":
		return in.stream(step, 0).FilterNot(predicate(step.text("fn")))
	case "map":
		in.rekeyed[id] = true
		key, value := selector(step.text("key")), mapper(step.text("fn"))
		return in.stream(step, 0).TryMap(func(r record) (record, error) {
			v, err := value(r.Key, r.Value)
			return record{Key: key(r.Key, r.Value), Value: v, Time: r.Time, Headers: r.Headers}, err
		})
	case "mapValues":
		f := mapper(step.text("fn"))
		return in.stream(step, 0).TryMapValues(func(r record) (text, error) { return f(nil, r.Value) })
	case "mapValuesWithKey":
		f := mapper(step.text("fn"))
		return in.stream(step, 0).TryMapValues(func(r record) (text, error) { return f(r.Key, r.Value) })
	case "flatMap":
		in.rekeyed[id] = true
		key, f := selector(step.text("key")), flatMapper(step.text("fn"))
		return in.stream(step, 0).FlatMap(func(r record, yield func(text, text)) error {
			for _, part := range f(r.Key, r.Value) {
				yield(key(r.Key, part), part)
			}
			return nil
		})
	case "flatMapValues":
		f := flatMapper(step.text("fn"))
		return in.stream(step, 0).FlatMapValues(func(v text) []text { return f(nil, v) })
	case "selectKey":
		in.rekeyed[id] = true
		return in.stream(step, 0).SelectKey(selector(step.text("key")))
	case "peek":
		return in.stream(step, 0).Peek(func(text, text) {})
	case "merge":
		in.rekeyed[id] = in.rekeyed[step.in(0)] || in.rekeyed[step.in(1)]
		return in.stream(step, 0).Merge(in.stream(step, 1))
	case "split":
		in.split(step)
		return nil
	case "repartition":
		in.rekeyed[id] = false
		return in.stream(step, 0).Repartition(in.through(step.text("name")))
	case "to":
		in.to(step)
		return nil
	case "toTable":
		if !step.has("store") && !in.keeps(id) {
			return in.partitioned(step, 0, step.text("name")).ToUnstoredTable()
		}
		return in.partitioned(step, 0, step.text("name")).ToTable(in.keyValue(step))
	case "groupByKey":
		return in.partitioned(step, 0, step.text("name")).GroupByKey()
	case "groupBy":
		return in.stream(step, 0).GroupBy(in.through(step.text("name")), selector(step.text("key")))
	case "cogroup":
		return in.cogroup(step)
	case "windowedBy":
		return in.windowedBy(step)
	case "count":
		return in.count(step)
	case "reduce":
		return in.reduce(step)
	case "aggregate":
		return in.aggregate(step)
	case "toStream":
		return in.toStream(step)
	case "streamJoin":
		return in.streamJoin(step)
	case "suppress":
		return in.suppress(step)
	case "tableJoin":
		return in.tableJoin(step)
	case "foreignKeyJoin":
		return in.foreignKeyJoin(step)
	case "tableGroupBy":
		return in.tableGroupBy(step)
	case "tableFilter", "tableFilterNot", "tableMapValues", "tableTransformValues":
		if t, ok := in.objects[step.in(0)].(wtable); ok {
			return windowedTable(t, step)
		}
		return in.derive(step)
	case "streamTableJoin":
		return in.streamTableJoin(step)
	case "streamGlobalJoin":
		return in.streamGlobalJoin(step)
	case "process", "processValues":
		return in.process(step)
	case "globalStore":
		in.globalStore(step)
		return nil
	case "processRoute":
		return in.processRoute(step)
	case "stateStore":
		in.shared[step.text("store")] = in.processorStore(step)
		return nil
	}
	panic(unsupported(op))
}

func (in *interpreter) split(step Step) {
	branches := in.stream(step, 0).Split()
	for _, one := range step.steps("branches") {
		in.objects[one.text("id")] = branches.When(predicate(one.text("fn")))
		in.rekeyed[one.text("id")] = in.rekeyed[step.in(0)]
	}
	if step.has("default") {
		in.objects[step.text("default")] = branches.Rest()
		in.rekeyed[step.text("default")] = in.rekeyed[step.in(0)]
	}
}

// step is the step that made an object.
func (in *interpreter) step(id string) Step { return in.vector.step(id) }
