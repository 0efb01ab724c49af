package task

import (
	"slices"
	"strconv"
	"time"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/topology"
)

// env is what the nodes of a task see of it. node is the one being wired; nil: all are.
type env struct {
	t      *Task
	kept   map[string]int64
	node   *topology.Node
	puncts int
}

// cell is a number of an operator.
type cell struct {
	name  string
	keep  bool
	value int64
}

func (e *env) Store(name string) flow.Store {
	if s := e.t.config.Stores[name]; s != nil {
		return s
	}
	return e.t.config.Globals[name]
}

func (e *env) Partition() int32 { return e.t.config.Partition }

func (e *env) Topic(name string) *flow.Topic {
	topic, _ := e.Lookup(name)
	return topic
}

func (e *env) Lookup(name string) (*flow.Topic, error) {
	t := e.t
	topic, ok := t.topics[name]
	if !ok {
		full, internal := t.names[name]
		if !internal {
			full = name
		}
		var err error
		if topic, err = t.config.Topics(full); err != nil {
			return nil, err
		}
		if topic != nil {
			t.topics[name] = topic
		}
	}
	return topic, nil
}

func (e *env) Cell(name string, keep bool) *int64 {
	for _, c := range e.t.cells {
		if c.name == name {
			return &c.value
		}
	}
	c := &cell{name: name, keep: keep, value: -1}
	if v, ok := e.kept[name]; ok && keep {
		c.value = v
	}
	e.t.cells = append(e.t.cells, c)
	return &c.value
}

func (e *env) Flush(node int, f flow.Flusher) {
	e.t.flushers = append(e.t.flushers, flusher{node, f})
}

// sortFlushers puts parents before children: their IDs are in that order.
func sortFlushers(f []flusher) {
	slices.SortStableFunc(f, func(a, b flusher) int { return a.node - b.node })
}

func (e *env) Every(node int, interval int64, streamTime bool, f func(c *flow.Ctx, at int64)) (stop func()) {
	if e.node == nil {
		return e.t.later(e.t.node(node), interval, streamTime, f)
	}
	name := "@punctuator." + strconv.Itoa(node) + "." + strconv.Itoa(e.puncts)
	e.puncts++
	return e.t.every(name, e.node, interval, streamTime, f)
}

func (e *env) Calls(node int, limit int, timeout time.Duration) func(*flow.Ctx, flow.Call) {
	return e.t.calls.operator(node, limit, timeout)
}

func (e *env) Idle(node int, due func() (int64, bool, error), move func(c *flow.Ctx)) {
	e.t.idlers = append(e.t.idlers, idler{e.t.node(node), due, move})
}

func (e *env) RequestCommit() { e.t.asked = true }

func (e *env) Close(f func() error) { e.t.closers = append(e.t.closers, f) }

func (e *env) Dropped(node int, reason string) {
	e.t.stats.Dropped[Drop{e.t.label(node), reason}]++
}

func (t *Task) label(node int) string {
	if n := t.node(node); n != nil {
		return n.Label()
	}
	return ""
}

func (t *Task) node(id int) *topology.Node {
	for _, n := range t.config.Sub.Nodes {
		if n.ID == id {
			return n
		}
	}
	return nil
}
