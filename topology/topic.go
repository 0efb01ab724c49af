package topology

import "cmp"

// TopicKind tells who creates a topic and how it is named.
type TopicKind string

const (
	// External topics belong to the outside; they are named as their author wrote them.
	External TopicKind = "external"
	// Repartition topics are <app>-<name>-repartition, those of foreign-key joins <app>-<name>-topic: written and read by this
	// application alone.
	Repartition TopicKind = "repartition"
	// Changelog topics are <app>-<store>-changelog.
	Changelog TopicKind = "changelog"
)

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
	Suffix     string            // internal topics: what the name ends with; "": the kind
	At         string            // where the handle was made, file:line
	Key, Value string            // how they are written, in the words of serde.Format
}

// Full is the topic's name on the cluster.
func (t *Topic) Full(app string) string {
	if t.Kind == External {
		return t.Name
	}
	return app + "-" + t.Logical()
}

// Logical is the topic's name without the application's: what a node asks flow.Env.Topic for. It is unique in a topology.
func (t *Topic) Logical() string {
	if t.Kind == External {
		return t.Name
	}
	return t.Name + "-" + cmp.Or(t.Suffix, string(t.Kind))
}
