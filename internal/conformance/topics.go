package conformance

import (
	"slices"
	"time"

	"github.com/moldau/moldau/stream"
)

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

func (in *interpreter) to(step Step) {
	from := in.stream(step, 0)
	if !step.has("topicFn") {
		from.To(in.topic(step.text("topic"), step))
		return
	}
	name, to := topicOf(step.text("topicFn")), in.topic("dynamic", step)
	from.ToFunc(func(r record) topic { return to.Named(name(r.Value)) })
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
