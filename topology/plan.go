package topology

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
)

// TopicPlan is an internal topic as it must be on the cluster.
type TopicPlan struct {
	Name       string // in full
	Kind       TopicKind
	Partitions int32
	Config     map[string]string
	Store      string // changelogs: the store
}

// Tasks is the number of tasks of a sub-topology: the partitions of its largest source.
func (s *Sub) Tasks(partitions func(t *Topic) int32) int32 {
	var n int32
	for _, t := range s.Sources {
		n = max(n, partitions(t))
	}
	return n
}

// Plan says which internal topics the application needs. partitions holds the number of partitions of every external
// topic that is read, by name.
//
// A repartition topic has the partitions its author asked for, else as many as the largest source of whoever writes it;
// within a co-partitioned group all have the same number, that of the external ones if there are any. A changelog has
// one partition per task. Where patterns have matched nothing there is nothing to size topics by, and none is planned.
func (t *Topology) Plan(app string, partitions map[string]int32) ([]TopicPlan, error) {
	count, err := t.counts(partitions)
	if err != nil {
		return nil, err
	}
	var plans []TopicPlan
	for _, topic := range t.Topics {
		if topic.Kind == Repartition && count[topic] > 0 {
			plans = append(plans, TopicPlan{Name: topic.Full(app), Kind: Repartition, Partitions: count[topic], Config: config(topic, nil)})
		}
	}
	for _, sub := range t.Subs {
		for _, s := range sub.Stores {
			if tasks := sub.Tasks(func(t *Topic) int32 { return count[t] }); s.Topic != nil && s.Replay == nil && tasks > 0 {
				plans = append(plans, TopicPlan{Name: s.Topic.Full(app), Kind: Changelog, Store: s.Spec.Name, Partitions: tasks, Config: config(s.Topic, s)})
			}
		}
	}
	for _, p := range plans {
		if err := CheckName(p.Name); err != nil {
			return nil, fmt.Errorf("internal topic %q: %w", p.Name, err)
		}
	}
	return plans, nil
}

// counts settles the number of partitions of every topic that is read.
func (t *Topology) counts(partitions map[string]int32) (map[*Topic]int32, error) {
	count := map[*Topic]int32{}
	var open []*Topic
	var errs []error
	for _, s := range t.Subs {
		for _, topic := range s.Sources {
			switch n := partitions[topic.Name]; {
			case topic.Kind == Pattern: // not resolved: nothing is known of it
			case topic.Kind == Repartition && topic.Partitions > 0:
				count[topic] = topic.Partitions
			case topic.Kind == Repartition:
				open = append(open, topic)
			case n > 0:
				count[topic] = n
			default:
				errs = append(errs, fmt.Errorf("source topic %q does not exist", topic.Name))
			}
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	for patient := true; len(open) > 0; {
		left := open[:0:0]
		for _, topic := range open {
			if n, known := t.writers(topic, count); n > 0 && (known || !patient) {
				count[topic] = n
			} else {
				left = append(left, topic)
			}
		}
		switch {
		case len(left) < len(open):
			patient = true
		case patient:
			patient = false // topics that wait for each other: what is known must do
		case slices.ContainsFunc(t.Subs, func(s *Sub) bool { return len(s.Sources) == 0 }): // patterns have matched nothing
			return count, t.coerce(count)
		default:
			return nil, fmt.Errorf("repartition topic %q takes its number of partitions from itself; say Partitions(n) on its handle, at %s", left[0].Name, left[0].At)
		}
		open = left
	}
	return count, t.coerce(count)
}

// coerce gives the topics of each co-partitioned group one number of partitions.
func (t *Topology) coerce(count map[*Topic]int32) error {
	var errs []error
	for _, group := range t.copartitioned() {
		if err := coerce(group, count); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// writers is the largest number of partitions that the sub-topologies which write a topic read; known: none is open.
func (t *Topology) writers(topic *Topic, count map[*Topic]int32) (n int32, known bool) {
	known = true
	for _, s := range t.Subs {
		if !slices.Contains(s.Sinks, topic) {
			continue
		}
		for _, source := range s.Sources {
			c, ok := count[source]
			n, known = max(n, c), known && (ok || source == topic)
		}
	}
	return n, known
}

// coerce gives the topics of a group one number of partitions, or says why not.
func coerce(group copartition, count map[*Topic]int32) error {
	var fixed *Topic // external, or asked for by its author
	var most int32
	for _, t := range group.topics {
		most = max(most, count[t])
		if t.Kind == Repartition && t.Partitions == 0 {
			continue
		}
		if fixed != nil && count[fixed] != count[t] {
			return &Mistake{At: group.at, Kind: ErrNotCopart, Text: fmt.Sprintf(
				"%s needs co-partitioned inputs, but topic %q has %d partitions and topic %q has %d; repartition one of them",
				group.kind, fixed.Name, count[fixed], t.Name, count[t])}
		}
		if fixed == nil || t.Kind == External {
			fixed = t
		}
	}
	if fixed != nil {
		most = count[fixed]
	}
	for _, t := range group.topics {
		count[t] = most
	}
	return nil
}

// disagreements are the co-partitioned inputs whose authors ask for different numbers of partitions. What the cluster has is known
// to Plan only.
func (t *Topology) disagreements() (found Mistakes) {
	for _, group := range t.copartitioned() {
		count := map[*Topic]int32{}
		asked := group
		asked.topics = nil
		for _, topic := range group.topics {
			if topic.Partitions > 0 {
				asked.topics = append(asked.topics, topic)
				count[topic] = topic.Partitions
			}
		}
		if m, ok := errors.AsType[*Mistake](coerce(asked, count)); ok {
			found = append(found, m)
		}
	}
	return found
}

type copartition struct {
	topics []*Topic
	kind   string // of the first node that asks for it
	at     string
}

// copartitioned are the groups of source topics whose partitions must match, merged where they overlap.
func (t *Topology) copartitioned() []copartition {
	var groups []copartition
	for _, n := range t.Nodes {
		if !n.Keyed {
			continue
		}
		var topics []*Topic
		seen := map[*Node]bool{}
		for _, from := range append(append([]*Node(nil), n.Parents...), n.With...) {
			topics = t.sources(topics, from, seen)
		}
		if len(topics) < 2 {
			continue
		}
		merged := copartition{topics: topics, kind: n.Kind, at: n.At}
		rest := groups[:0:0]
		for _, g := range groups {
			if slices.ContainsFunc(g.topics, func(t *Topic) bool { return slices.Contains(merged.topics, t) }) {
				topics := g.topics
				for _, t := range merged.topics {
					topics = appendNew(topics, t)
				}
				merged = copartition{topics: topics, kind: g.kind, at: g.at}
			} else {
				rest = append(rest, g)
			}
		}
		groups = append(rest, merged)
	}
	return groups
}

// sources collects the source topics above n.
func (t *Topology) sources(topics []*Topic, n *Node, seen map[*Node]bool) []*Topic {
	if seen[n] {
		return topics
	}
	seen[n] = true
	if n.Source != nil && n.Source.Kind == Pattern {
		for _, found := range t.found[n.Source] {
			topics = appendNew(topics, found)
		}
		return topics
	}
	if n.Source != nil {
		return appendNew(topics, n.Source)
	}
	for _, p := range n.Parents {
		topics = t.sources(topics, p, seen)
	}
	return topics
}

// additional is kept on top of a windowed changelog's retention, so that a consumer that is late or a clock that is off
// loses nothing; windowstore.changelog.additional.retention.ms.
const additional = 24 * 60 * 60 * 1000

// config is what an internal topic is created with; the author's settings win.
func config(t *Topic, s *Store) map[string]string {
	c := map[string]string{"message.timestamp.type": "CreateTime"}
	switch {
	case s == nil:
		c["cleanup.policy"] = "delete"
		c["segment.bytes"] = "52428800"
		c["retention.ms"] = "-1" // records are deleted once they have been read and committed
	default:
		c["cleanup.policy"] = "compact"
		retention := strconv.FormatInt(s.Spec.Retention+additional, 10)
		switch s.Spec.Kind {
		case "window", "session", "unmatched":
			c["cleanup.policy"] = "compact,delete"
			c["retention.ms"] = retention
		case "join-buffer":
			c["cleanup.policy"] = "delete"
			c["retention.ms"] = retention
		case "versioned":
			c["min.compaction.lag.ms"] = retention
		}
	}
	maps.Copy(c, t.Config)
	return c
}
