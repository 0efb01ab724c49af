package topology

import "github.com/moldau/moldau/internal/flow"

// Node is one operator. Front ends fill it and hand it to Graph.Add; after Build it does not change.
type Node struct {
	ID      int     // set by Graph.Add; parents have smaller ones
	Kind    string  // "source", "filter", "sink", ...
	Name    string  // the author's label, for metrics and describe; "" if none. Never an identity
	At      string  // the author's file:line
	Parents []*Node // whoever calls it
	With    []*Node // whose tables it looks up; they bring no edge, but must be co-partitioned
	Stores  []*Store
	Globals []*Global

	Source *Topic   // the topic that a source reads; nil for all others
	Sinks  []*Topic // the topics that it writes, as far as known before it runs

	// Keyed: records of one key must meet in one task. Its sources must be co-partitioned, and no step between may have
	// changed the key.
	Keyed bool
	// Rekeys: what comes out may have another key than what went in.
	Rekeys bool
	// Partitioned: the author vouches that what comes out is partitioned by its key.
	Partitioned bool
	// ReadsOnly: it looks into Stores and never changes them.
	ReadsOnly bool

	// NeedOld: somebody below wants updates with the old value. For front ends; set before tasks are wired.
	NeedOld bool

	// Wire makes the node's function for one task from its children's, in the order in which they were added. Both
	// sides are boxed funcs of types that only the front end knows; boxing happens once per task, never per record.
	Wire func(env flow.Env, children []any) (any, error)
	// Feed turns a source's function into one that takes bytes; sources only.
	Feed func(fn any) flow.Source
	// Extract reads a record's timestamp; nil: the record's own. last is the greatest timestamp so far of that
	// partition, -1 before the first. A negative result drops the record.
	Extract func(c *flow.Ctx, key, value []byte, last int64) (int64, error)
}

// Label is how errors, metrics and describe call a node: the author's label, or its kind and number.
func (n *Node) Label() string {
	if n.Name != "" {
		return n.Name
	}
	return n.Kind + "-" + itoa(n.ID)
}

// Store is a store as the topology settled it: the handle's settings, and what its operators need.
type Store struct {
	Spec  *flow.StoreSpec // a copy; its Root is the author's handle
	Topic *Topic          // its changelog; nil: none
	// Replay makes, for one task, the function that turns a record of Topic into one for the store; false: the table had no use for
	// it. Set where Topic is the source topic of the store's table, which the store writes nothing to; nil: Topic is the store's own.
	Replay func() flow.Replay
	Owner  *Node // the operator that writes it; nil: processors only
	Users  []*Node
}

// Global is a global table: all partitions of its topic in one store per process, shared by all tasks.
type Global struct {
	Computed bool // its contents are computed from the records of its topic
	Topic    *Topic
	Store    *Store // its topic is its changelog
	At       string
}
