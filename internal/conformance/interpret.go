package conformance

import (
	"fmt"
	"slices"
	"time"

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

// topic is the handle of a topic: there is one per name.
func (in *interpreter) topic(name string, step Step) topic {
	t, ok := in.topics[name]
	if !ok {
		t = stream.NewTopic(name, nullable, nullable)
		if f := timestamps(step); f != nil {
			t = t.Timestamps(f)
		}
		in.topics[name] = t
	}
	return t
}

// pattern is the handle of a pattern: there is one for each.
func (in *interpreter) pattern(step Step) stream.TopicPattern[text, text] {
	name := step.text("pattern")
	p, ok := in.patterns[name]
	if !ok {
		p = stream.NewTopicPattern(name, nullable, nullable)
		if f := timestamps(step); f != nil {
			p = p.Timestamps(f)
		}
		in.patterns[name] = p
	}
	return p
}

// timestamps is where a source takes the time of its records from; nil: Kafka's.
func timestamps(step Step) func(record, time.Time) time.Time {
	switch step.text("timestamps") {
	case "value":
		return func(r record, _ time.Time) time.Time { return time.UnixMilli(embedded(r.Value)) }
	case "valueOrPartitionTime":
		return func(r record, last time.Time) time.Time {
			if at := embedded(r.Value); at >= 0 {
				return time.UnixMilli(at)
			}
			return last
		}
	}
	return nil
}

func (in *interpreter) source(step Step) streamOf {
	if step.has("pattern") {
		return in.b.StreamPattern(in.pattern(step))
	}
	var topics []topic
	for _, name := range step.texts("topics") {
		topics = append(topics, in.topic(name, step))
	}
	return in.b.Stream(topics[0], topics[1:]...)
}

func (in *interpreter) to(step Step) {
	from := in.stream(step, 0)
	if !step.has("topicFn") {
		from.To(in.topic(step.text("topic"), step))
		return
	}
	name, to := topicOf(step.text("topicFn")), in.topic("dynamic", step)
	from.ToFunc(func(r record) topic { return to.Named(name(r.Value)) })
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

func (in *interpreter) through(name string) stream.Repartition[text, text] {
	return stream.NewRepartition(name, nullable, nullable)
}

// partitioned is an input that lies in partitions by its key: through a topic of that name if need be, as Java does.
func (in *interpreter) partitioned(step Step, i int, name string) streamOf {
	from := in.stream(step, i)
	if c := (crossing{step.text("id"), name, i}); in.rekeyed[step.in(i)] && slices.Contains(in.crossed, c) {
		from = from.AssumePartitioned() // a processor came between, which keeps keys
	} else if in.rekeyed[step.in(i)] {
		in.crossings = append(in.crossings, c)
		from = from.Repartition(in.through(name))
	}
	in.rekeyed[step.text("id")] = false
	return from
}

// keeps says whether Java keeps a table without being asked to: some step looks it, or what is made of it, up.
func (in *interpreter) keeps(id string) bool {
	for _, step := range in.vector.Spec.Steps {
		if !step.has("in") || !slices.Contains(step.texts("in"), id) {
			continue
		}
		switch step.text("op") {
		case "toStream":
		case "tableFilter", "tableFilterNot", "tableMapValues", "tableTransformValues":
			if !step.has("store") && in.keeps(step.text("id")) {
				return true
			}
		default:
			return true
		}
	}
	return false
}

// each says whether results go on with every update, as Java's do without its record cache.
func (in *interpreter) each() bool { return !in.vector.cached() && !in.vector.perCommit }

func storeName(step Step) string {
	if step.has("store") {
		return step.text("store")
	}
	return "unnamed-" + step.text("id")
}

func (in *interpreter) keyValue(step Step) state.Table[text, text] {
	if step.has("historyMs") {
		return versioned[text](step, nullable)
	}
	h := state.NewKeyValue(storeName(step), nullable, nullable)
	if in.each() {
		h = h.EveryUpdate()
	}
	return h
}

func (in *interpreter) counts(step Step) state.Table[text, int64] {
	if step.has("historyMs") {
		return versioned[int64](step, serde.Int64)
	}
	h := state.NewKeyValue(storeName(step), nullable, serde.Int64)
	if in.each() {
		h = h.EveryUpdate()
	}
	return h
}

func windows[V any](in *interpreter, step Step, v serde.Serde[V]) state.Window[text, V] {
	h := state.NewWindow(storeName(step), nullable, v)
	if in.each() {
		h = h.EveryUpdate()
	}
	sliding := in.step(step.in(0)).sub("window").text("type") == "sliding"
	if !in.vector.cached() || sliding {
		h = h.ExpireFirst() // else Java's record cache still has what the store below it has let go of
	}
	if step.has("retentionMs") {
		h = h.Retention(step.duration("retentionMs"))
	}
	if in.vector.cached() && !sliding {
		h = h.Retention(forCaches)
	}
	if in.persistent() {
		h = h.ExpireBySegment()
	}
	if by := in.step(step.in(0)); by.text("emit") == "close" && in.persistent() {
		// Java's persistent stores for emission on close keep a window one millisecond longer.
		w := by.sub("window")
		h = h.Retention(max(step.duration("retentionMs"), w.duration("sizeMs")+2*w.duration("diffMs")+w.duration("graceMs")) + time.Millisecond)
	}
	return h
}

// persistent says whether Java's windowed stores of this vector expire by segment.
func (in *interpreter) persistent() bool { return in.vector.Spec.Config.Stores == "rocksDB" }

// step is the step that made an object.
func (in *interpreter) step(id string) Step { return in.vector.step(id) }

func (in *interpreter) windowedBy(step Step) any {
	w := step.sub("window")
	grace := w.duration("graceMs")
	var tw window.TimeWindows
	switch w.text("type") {
	case "tumbling":
		tw = window.Tumbling(w.duration("sizeMs")).Grace(grace)
	case "hopping":
		tw = window.Hopping(w.duration("sizeMs"), w.duration("advanceMs")).Grace(grace)
	case "unlimited":
		tw = window.Unlimited(time.UnixMilli(w.number("startMs")))
	case "sliding":
		sw := window.Sliding(w.duration("diffMs")).Grace(grace)
		if c, ok := in.objects[step.in(0)].(cogroup); ok {
			return c.SlidingBy(sw)
		}
		g := get[group](in, step.in(0)).SlidingBy(sw)
		if step.text("emit") == "close" {
			g = g.OnClose()
		}
		return g
	case "session":
		return in.sessionsBy(step, window.Session(w.duration("gapMs")).Grace(grace))
	default:
		panic(unsupported(w.text("type") + " windows"))
	}
	if c, ok := in.objects[step.in(0)].(cogroup); ok {
		return c.WindowedBy(tw)
	}
	g := get[group](in, step.in(0)).WindowedBy(tw)
	if step.text("emit") == "close" {
		g = g.OnClose()
	}
	return g
}

// cogroup makes a co-grouping; what it starts from is said by the step that aggregates it.
func (in *interpreter) cogroup(step Step) any {
	var start text
	for id := step.text("id"); ; {
		next := in.user(id)
		if next.has("init") {
			start = s(next.text("init"))
			break
		}
		id = next.text("id")
	}
	var all cogroup
	for i, name := range step.texts("fns") {
		f := aggregator(name)
		fold := stream.Fold[text, text, text]{Init: func() text { return start }, Add: func(a text, r record) (text, bool, error) {
			next := f(r.Key, r.Value, a)
			return next, next != nil, nil
		}}
		if g := get[group](in, step.in(i)); all == nil {
			all = g.CogroupFold(fold)
		} else {
			all = all.AndFold(g, fold)
		}
	}
	return all
}

// user is a step that uses an object.
func (in *interpreter) user(id string) Step {
	for _, step := range in.vector.Spec.Steps {
		if step.has("in") && slices.Contains(step.texts("in"), id) {
			return step
		}
	}
	panic(unsupported("nobody uses " + id))
}

func decimals(n int64) text { return dec(n) }

func (in *interpreter) count(step Step) any {
	switch g := in.objects[step.in(0)].(type) {
	case group:
		return g.Count(in.counts(step)).MapValues(decimals)
	case panes:
		return stream.FlattenTable(g.Count(windows(in, step, serde.Int64)).MapValues(decimals))
	case runs:
		return stream.FlattenTable(g.Count(sessions(in, step, serde.Int64)).MapValues(decimals))
	case grouped:
		return g.Count(in.counts(step)).MapValues(decimals)
	}
	panic(unsupported(fmt.Sprintf("count of %T", in.objects[step.in(0)])))
}

func (in *interpreter) reduce(step Step) any {
	f := reducer(step.text("fn"))
	switch g := in.objects[step.in(0)].(type) {
	case group:
		return g.Reduce(in.keyValue(step), f)
	case panes:
		return stream.FlattenTable(g.Reduce(windows[text](in, step, nullable), f))
	case runs:
		return stream.FlattenTable(g.Reduce(sessions[text](in, step, nullable), f))
	case grouped:
		return g.Reduce(in.keyValue(step), f, reducer(step.text("subtract")))
	}
	panic(unsupported(fmt.Sprintf("reduce of %T", in.objects[step.in(0)])))
}

func (in *interpreter) aggregate(step Step) any {
	fold := stream.Fold[text, text, text]{Init: func() text { return s(step.text("init")) }}
	if step.has("fn") {
		f := aggregator(step.text("fn"))
		fold.Add = func(a text, r record) (text, bool, error) {
			next := f(r.Key, r.Value, a)
			return next, next != nil, nil
		}
	}
	switch g := in.objects[step.in(0)].(type) {
	case group:
		return g.Fold(in.keyValue(step), fold)
	case panes:
		return stream.FlattenTable(g.Fold(windows[text](in, step, nullable), fold))
	case runs:
		merge := merger(step.text("merge"))
		return stream.FlattenTable(g.Fold(sessions[text](in, step, nullable), fold, func(_, a, b text) (text, error) { return merge(a, b), nil }))
	case coruns:
		return stream.FlattenTable(g.Aggregate(sessions[text](in, step, nullable), merger(step.text("merge"))))
	case cogroup:
		return g.Aggregate(in.keyValue(step))
	case copanes:
		return stream.FlattenTable(g.Aggregate(windows[text](in, step, nullable)))
	case grouped:
		f := aggregator(step.text("subtract"))
		return g.Fold(in.keyValue(step), fold, stream.Fold[text, text, text]{Add: func(a text, r record) (text, bool, error) {
			next := f(r.Key, r.Value, a)
			return next, next != nil, nil
		}})
	}
	panic(unsupported(fmt.Sprintf("aggregate of %T", in.objects[step.in(0)])))
}

// render is a windowed key as a string.
func render(k wkey) text {
	return s(fmt.Sprintf("%s@%d/%d", str(k.Key), k.Start.UnixMilli(), k.End.UnixMilli()))
}

func (in *interpreter) toStream(step Step) any {
	if t, ok := in.objects[step.in(0)].(wtable); ok {
		in.rekeyed[step.text("id")] = true
		return t.ToStream().SelectKey(func(k wkey, _ text) text { return render(k) })
	}
	in.rekeyed[step.text("id")] = false
	return get[ktable](in, step.in(0)).ToStream()
}

func (in *interpreter) derive(step Step) any {
	t := get[ktable](in, step.in(0))
	if isFilter(step.text("op")) && in.tellsAll(step) {
		return in.filterAll(t, step)
	}
	switch step.text("op") {
	case "tableFilter":
		t = t.Filter(predicate(step.text("fn")))
	case "tableFilterNot":
		t = t.FilterNot(predicate(step.text("fn")))
	case "tableTransformValues":
		f := mapper(step.text("fn"))
		t = t.TransformValues(func(r record) (text, error) { return f(r.Key, r.Value) })
	default:
		f := mapper(step.text("fn"))
		t = t.TryMapValues(func(r record) (text, error) { return f(r.Key, r.Value) })
	}
	if step.has("store") {
		t = t.Stored(in.keyValue(step))
	}
	return t
}

func (in *interpreter) tableGroupBy(step Step) any {
	key, value := selector(step.text("key")), mapper(step.text("fn"))
	f := func(k, v text) (text, text, error) {
		v2, err := value(k, v)
		return key(k, v), v2, err
	}
	to := in.through(step.text("name"))
	if t, ok := in.objects[step.in(0)].(wtable); ok {
		return t.TryGroupBy(to, func(r stream.Record[wkey, text]) (text, text, error) { return f(render(r.Key), r.Value) })
	}
	return get[ktable](in, step.in(0)).TryGroupBy(to, func(r record) (text, text, error) { return f(r.Key, r.Value) })
}

func (in *interpreter) tableJoin(step Step) any {
	f := joiner(step.text("fn"))
	left, right := get[ktable](in, step.in(0)), get[ktable](in, step.in(1))
	var t ktable
	switch step.text("kind") {
	case "inner":
		t = left.Join(right, func(l, r text) text { return f(nil, l, r) })
	case "left":
		t = left.LeftJoin(right, func(l text, r *text) text { return f(nil, l, missing(r)) })
	default:
		t = left.OuterJoin(right, func(l, r *text) text { return f(nil, missing(l), missing(r)) })
	}
	if step.has("store") {
		t = t.Stored(in.keyValue(step))
	}
	return t
}

// missing is a side of a join that may not be there.
func missing(v *text) text {
	if v == nil {
		return nil
	}
	return *v
}

func windowedTable(t wtable, step Step) any {
	switch step.text("op") {
	case "tableFilter", "tableFilterNot":
		f := predicate(step.text("fn"))
		test := func(k wkey, v text) bool { return f(render(k), v) }
		if step.text("op") == "tableFilterNot" {
			return t.FilterNot(test)
		}
		return t.Filter(test)
	}
	f := mapper(step.text("fn"))
	return t.TryMapValues(func(r stream.Record[wkey, text]) (text, error) { return f(render(r.Key), r.Value) })
}

func (in *interpreter) streamTableJoin(step Step) any {
	var wait []state.Buffer[text, text]
	if step.has("graceMs") {
		wait = append(wait, state.NewBuffer(step.text("name")+"-Buffer", nullable, nullable).Grace(step.duration("graceMs")))
	}
	f := joiner(step.text("fn"))
	left, t := in.partitioned(step, 0, step.text("name")), get[ktable](in, step.in(1))
	if step.text("kind") == "inner" {
		return left.TryJoinTable(t, func(r record, v text) (text, error) { return f(r.Key, r.Value, v), nil }, wait...)
	}
	return left.TryLeftJoinTable(t, func(r record, v *text) (text, error) {
		return f(r.Key, r.Value, missing(v)), nil
	}, wait...)
}

func (in *interpreter) streamGlobalJoin(step Step) any {
	f, key := joiner(step.text("fn")), selector(step.text("key"))
	left, g := in.stream(step, 0), get[global](in, step.in(1))
	if step.text("kind") == "inner" {
		return left.TryJoinGlobal(g, key, func(r record, v text) (text, error) { return f(r.Key, r.Value, v), nil })
	}
	return left.TryLeftJoinGlobal(g, key, func(r record, v *text) (text, error) {
		return f(r.Key, r.Value, missing(v)), nil
	})
}
