package topology

import (
	"cmp"
	"regexp"
)

// TopicKind tells who creates a topic and how it is named.
type TopicKind string

const (
	// External topics belong to the outside; they are named as their author wrote them.
	External TopicKind = "external"
	// Pattern stands for all topics from outside whose whole name the name matches, a regular expression; see Topology.Resolve.
	Pattern TopicKind = "pattern"
	// Repartition topics are <app>-<name>-repartition, those of foreign-key joins <app>-<name>-topic: written and read by this
	// application alone.
	Repartition TopicKind = "repartition"
	// Changelog topics are <app>-<store>-changelog.
	Changelog TopicKind = "changelog"
)

// internal says whether topics of a kind belong to the application alone.
func (k TopicKind) internal() bool { return k != External && k != Pattern }

// Reset says where reading a source topic starts when its group has no committed offset; auto.offset.reset.
type Reset string

const (
	ResetDefault  Reset = "" // as the application's configuration says
	ResetEarliest Reset = "earliest"
	ResetLatest   Reset = "latest"
	ResetNone     Reset = "none" // refuse to start
)

// Topic is one topic of a topology. There is one value per topic, whoever reads or writes it.
type Topic struct {
	Root       any // identity of the author's handle
	Name       string
	Kind       TopicKind
	Partitions int32             // asked for by its author; 0: not said
	Config     map[string]string // asked for by its author
	Reset      Reset             // sources only
	IdleAfter  int64             // sources only, ms; see stream.Topic.IdleAfter. 0: not said
	Suffix     string            // internal topics: what the name ends with; "": the kind
	At         string            // where the handle was made, file:line
	Key, Value string            // how they are written, in the words of serde.Format
	Of         *Topic            // the pattern that has matched it; nil: named by its author

	match *regexp.Regexp // patterns only
}

// Full is the topic's name on the cluster.
func (t *Topic) Full(app string) string {
	if !t.Kind.internal() {
		return t.Name
	}
	return app + "-" + t.Logical()
}

// Logical is the topic's name without the application's: what a node asks flow.Env.Topic for. It is unique in a topology.
func (t *Topic) Logical() string {
	if !t.Kind.internal() {
		return t.Name
	}
	return t.Name + "-" + cmp.Or(t.Suffix, string(t.Kind))
}
