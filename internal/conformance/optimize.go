package conformance

import (
	"encoding/json"
	"maps"
	"slices"

	"github.com/moldau/moldau/stream"
)

// crossing is where a step needs its input behind a repartition topic.
type crossing struct {
	step, name string
	input      int
}

// optimized is the vector as an author writes it here who wants what topology.optimization = all makes of it: behind a step that changes
// keys comes one repartition topic, for all below that need one, and as early as that step. It is Kafka Streams' own algorithm
// (InternalStreamsBuilder.mergeRepartitionTopics), on steps instead of nodes. crossed is where that topic is crossed already.
func (v *Vector) optimized() (_ *Vector, crossed []crossing, err error) {
	dry := v.interpret(stream.NewBuilder())
	if err := dry.build(); err != nil {
		return nil, nil, err
	}
	o := optimizer{v: v, rekeyed: dry.rekeyed, behind: map[string][]crossing{}}
	o.collect(dry.crossings)
	o.merges()
	all := *v
	all.Spec.Steps = nil
	moved := o.moves()
	for _, step := range v.Spec.Steps {
		id := step.text("id")
		if inputs := step.texts("in"); len(moved[id]) > 0 {
			for i := range inputs {
				if to, ok := moved[id][inputs[i]]; ok {
					inputs[i] = to
				}
			}
			step = maps.Clone(step)
			step["in"] = mustJSON(inputs)
		}
		all.Spec.Steps = append(all.Spec.Steps, step)
		if c := o.behind[id]; len(c) > 0 {
			all.Spec.Steps = append(all.Spec.Steps, Step{"id": mustJSON(merged(id)), "op": mustJSON("repartition"),
				"in": mustJSON([]string{id}), "name": mustJSON(c[0].name)})
			crossed = append(crossed, c...)
		}
	}
	return &all, crossed, nil
}

// merged is the one repartition topic behind a step.
func merged(id string) string { return id + "-merged" }

func mustJSON(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings and lists of strings
	}
	return b
}

type optimizer struct {
	v       *Vector
	rekeyed map[string]bool
	behind  map[string][]crossing // by the step that changes keys
}

// maker is the step that made an object, which may be a branch or a child of it.
func (o *optimizer) maker(id string) Step {
	for _, step := range o.v.Spec.Steps {
		if step.text("id") == id || step.text("default") == id || slices.Contains(step.texts("children"), id) ||
			slices.ContainsFunc(step.steps("branches"), func(s Step) bool { return s.text("id") == id }) {
			return step
		}
	}
	panic(unsupported("nobody makes " + id))
}

// inputs are those of a step that Kafka Streams' graph has as parents.
func inputs(step Step) []string {
	if op := step.text("op"); op == "streamTableJoin" || op == "streamGlobalJoin" {
		return step.texts("in")[:1]
	}
	return step.texts("in")
}

// above is the nearest step that is so, depth first: the one that made an object, or one above it.
func (o *optimizer) above(id string, is func(Step) bool) Step {
	step := o.maker(id)
	if is(step) {
		return step
	}
	for _, input := range inputs(step) {
		if found := o.above(input, is); found != nil {
			return found
		}
	}
	return nil
}

func (o *optimizer) changesKey(step Step) bool {
	op := step.text("op")
	return slices.Contains([]string{"map", "flatMap", "selectKey", "groupBy"}, op) || op == "toStream" && o.rekeyed[step.text("id")]
}

func (o *optimizer) changes(step Step) bool {
	return o.changesKey(step) || slices.Contains([]string{"mapValues", "mapValuesWithKey", "flatMapValues"}, step.text("op"))
}

// collect puts each crossing behind the step that changes its keys, if values do not change in between, in the order in which Kafka
// Streams makes them: that of a grouping with its first aggregate.
func (o *optimizer) collect(all []crossing) {
	at := map[string]int{}
	for i, step := range o.v.Spec.Steps {
		at[step.text("id")] = i
	}
	made := func(c crossing) int {
		if o.v.step(c.step).text("op") == "groupByKey" {
			return slices.IndexFunc(o.v.Spec.Steps, func(s Step) bool { return o.aggregates(s, c.step) })
		}
		return at[c.step]
	}
	all = slices.DeleteFunc(slices.Clone(all), func(c crossing) bool { return made(c) < 0 })
	slices.SortStableFunc(all, func(a, b crossing) int { return made(a) - made(b) })
	for _, c := range all {
		from := o.v.step(c.step).in(c.input)
		if changer := o.above(from, o.changes); changer != nil && o.changesKey(changer) {
			id := changer.text("id")
			o.behind[id] = append(o.behind[id], c)
		}
	}
}

// aggregates says whether a step aggregates a grouping.
func (o *optimizer) aggregates(step Step, group string) bool {
	if !slices.Contains([]string{"count", "reduce", "aggregate"}, step.text("op")) {
		return false
	}
	for from := step; ; {
		ids := from.texts("in")
		if slices.Contains(ids, group) {
			return true
		}
		if from = o.maker(ids[0]); from.text("op") != "windowedBy" && from.text("op") != "cogroup" {
			return false
		}
		if from.text("op") == "cogroup" {
			return slices.Contains(from.texts("in"), group)
		}
	}
}

// merges has merged streams cross behind the merge, where all that a step above has crosses below it.
func (o *optimizer) merges() {
	type place struct {
		merge    string
		changers []string
	}
	var places []place
	for _, step := range o.v.Spec.Steps {
		if step.text("op") != "merge" {
			continue
		}
		p := place{merge: step.text("id")}
		for _, changer := range o.v.Spec.Steps {
			id := changer.text("id")
			if len(o.behind[id]) > 0 && o.feeds(id, p.merge) && !slices.ContainsFunc(o.behind[id], func(c crossing) bool { return !o.below(c, p.merge) }) {
				p.changers = append(p.changers, id)
			}
		}
		places = append(places, p)
	}
	moved := map[string][]crossing{}
	for _, p := range places {
		for _, id := range p.changers {
			moved[p.merge] = append(moved[p.merge], o.behind[id]...)
		}
	}
	for _, p := range places {
		for _, id := range p.changers {
			delete(o.behind, id)
		}
	}
	maps.Copy(o.behind, moved)
}

// below says whether a crossing is somewhere below a step.
func (o *optimizer) below(c crossing, id string) bool {
	from := o.v.step(c.step).in(c.input)
	return from == id || o.feeds(id, from)
}

// feeds says whether a step is somewhere above an object.
func (o *optimizer) feeds(id, object string) bool {
	return o.above(object, func(s Step) bool { return slices.Contains(inputs(s), id) }) != nil
}

// moves are the steps that read from a merged topic what they read from the step before it: by step, and by what they read.
func (o *optimizer) moves() map[string]map[string]string {
	moved := map[string]map[string]string{}
	for id, all := range o.behind {
		for _, c := range all {
			step := o.v.step(c.step)
			if step.in(c.input) != id {
				step = o.above(step.in(c.input), func(s Step) bool { return slices.Contains(inputs(s), id) })
			}
			child := step.text("id")
			if moved[child] == nil {
				moved[child] = map[string]string{}
			}
			moved[child][id] = merged(id)
		}
	}
	return moved
}

// optimizes says whether Kafka Streams was to rewrite the topology.
func (v *Vector) optimizes() bool { return v.Spec.Config.Optimization == "all" }
