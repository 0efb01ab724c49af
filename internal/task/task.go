// Package task runs one task of a sub-topology as a step machine: input queues, choice of records by time, operators,
// punctuators, epochs. It has no goroutine, no clock and no client: records and time come in, effects come out, and
// whoever drives it produces them and commits. It imports neither the typed language nor the stores.
//
// One goroutine at a time uses a task.
package task

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/topology"
)

// ID names a task as Kafka Streams does: <sub-topology>_<partition>.
type ID struct {
	Sub       int
	Partition int32
}

func (id ID) String() string { return strconv.Itoa(id.Sub) + "_" + strconv.Itoa(int(id.Partition)) }

// Config is what a task is made of. Topics are named in full, as on the cluster.
type Config struct {
	App       string
	Sub       *topology.Sub
	Partition int32
	// Stores are the task's own, opened and restored; Globals those of global tables. Both by the store's name. The
	// task does not close them.
	Stores  map[string]flow.Store
	Globals map[string]flow.Store
	// Sources are the source topics that have this partition; nil: all of the sub-topology's.
	Sources []string
	// Topics resolves a topic that is written, by its full name; nil: no such topic. An error wraps flow.ErrLater.
	Topics func(name string) (*flow.Topic, error)
	// Errors says what becomes of records that fail.
	Errors Errors
	// Caller makes the calls of operators that make theirs beside the task; nil: there are none.
	Caller Caller
	// MaxIdle is how long to wait for a source that is empty though the broker has no more, in whole ms; max.task.idle.ms.
	// 0: not at all, but for what the broker has; below 0: for nothing.
	MaxIdle time.Duration
	// Now is the wall clock, ms: the start of wall-clock punctuation.
	Now int64
	// Start is the position of each source topic, Committed the metadata that was committed with it; either may be absent.
	Start     map[string]int64
	Committed map[string]string
}

// Task is one task at work.
type Task struct {
	id     ID
	config Config
	stores []namedStore
	aging  []flow.Store // those whose entries have a TTL
	queues []*queue
	byName map[string]*queue

	ctx     flow.Ctx
	effects flow.Effects

	streamTime int64
	cells      []*cell
	puncts     []*punctuator // those of wiring first
	wired      int           // how many these are
	streamNext int64         // the earliest stream-time punctuator
	wallNext   int64
	flushers   []flusher
	idlers     []idler
	rest       rest
	closers    []func() error
	names      map[string]string // logical names of internal topics -> full ones
	topics     map[string]*flow.Topic

	calls   calls
	sealing bool // Seal has begun and waits for calls
	flushed int  // flushers that Seal has called

	epoch    uint32 // being computed
	sequence int64  // of the last sealed epoch
	starts   []snapshot
	dirty    bool
	whole    bool // inputs may come and go: each carries all that is committed, as any of them may be the last that is left
	passed   int  // records that were passed over in this step because of their time
	asked    bool // a commit was requested
	broken   error
	doing    string  // for errors
	verdict  verdict // of the policies, on the error in the context
	hand     *queue  // of the record in hand; nil: there is none
	record   *flow.In
	stats    Stats
}

type namedStore struct {
	name      string
	changelog string // full name; "": none
	sourced   bool   // it is a source topic, whose position is the store's
	flow.Store
}

type flusher struct {
	node int
	flow.Flusher
}

// New wires a task. The error names the operator and the author's line.
func New(config Config) (*Task, error) {
	t := &Task{
		id: ID{config.Sub.ID, config.Partition}, config: config,
		byName: map[string]*queue{}, names: map[string]string{}, topics: map[string]*flow.Topic{},
		streamTime: -1, epoch: 1, sequence: -1,
	}
	t.calls.task = t
	t.ctx.Out = &t.effects
	t.ctx.Pass = t.pass
	t.stats.Dropped = map[Drop]int64{}
	for _, s := range config.Sub.Stores {
		st := config.Stores[s.Spec.Name]
		if st == nil {
			return nil, fmt.Errorf("task %s: store %q is not open", t.id, s.Spec.Name)
		}
		named := namedStore{name: s.Spec.Name, Store: st}
		if s.Topic != nil {
			named.changelog, named.sourced = s.Topic.Full(config.App), s.Replay != nil
		}
		t.stores = append(t.stores, named)
		if s.Spec.TTL > 0 {
			t.aging = append(t.aging, st)
		}
	}
	for _, n := range config.Sub.Nodes {
		t.whole = t.whole || n.Source != nil && n.Source.Kind == topology.Pattern
	}
	for _, topic := range config.Sub.Sinks {
		if topic.Kind != topology.External {
			t.names[topic.Logical()] = topic.Full(config.App)
		}
	}
	kept, err := t.recall()
	if err != nil {
		return nil, err
	}
	if err := t.addQueues(); err != nil {
		return nil, err
	}
	t.age()
	if err := t.wire(kept); err != nil {
		return nil, err
	}
	t.starts = []snapshot{t.snapshot()}
	return t, nil
}

// recall reads what was committed along with the offsets: the numbers of the partition that was committed last.
func (t *Task) recall() (map[string]int64, error) {
	kept, foreign := map[string]int64{}, false
	for _, s := range t.config.Sub.Sources {
		name := s.Full(t.config.App)
		m, err := ReadMetadata(t.config.Committed[name])
		if err != nil {
			return nil, fmt.Errorf("task %s: offset metadata of %s[%d]: %w", t.id, name, t.config.Partition, err)
		}
		sequence, ours := m.Numbers[sequenceName]
		if !ours {
			if t.sequence < 0 { // written by Kafka Streams: every partition has every number
				greatest(kept, m.Numbers)
			}
			continue
		}
		if at, ok := m.Numbers[offsetName+name]; ok && at != t.config.Start[name] {
			foreign = true
		}
		if sequence > t.sequence {
			t.sequence, kept = sequence, m.Numbers
		} else if sequence == t.sequence {
			greatest(kept, m.Numbers)
		}
	}
	if foreign {
		// Kafka Streams has gone on from where we were: it hands our numbers on as they were, and they have become old.
		maps.DeleteFunc(kept, func(name string, _ int64) bool { return strings.Contains(name, "@") })
	}
	return kept, nil
}

// greatest adds numbers, of which the greatest of each name is the last.
func greatest(kept, more map[string]int64) {
	for k, v := range more { //lint:ordered it keeps the greatest of each name
		if have, ok := kept[k]; !ok || have < v {
			kept[k] = v
		}
	}
}

func (t *Task) addQueues() error {
	have := map[string]bool{}
	for _, name := range t.config.Sources {
		have[name] = true
	}
	for _, s := range t.config.Sub.Sources {
		name := s.Full(t.config.App)
		if t.config.Sources != nil && !have[name] {
			continue
		}
		m, err := ReadMetadata(t.config.Committed[name])
		if err != nil {
			return err
		}
		q := &queue{topic: name, source: s, index: len(t.queues), input: flow.Small(len(t.queues)), next: -1, added: -1, end: -1, partitionTime: m.PartitionTime}
		if at, ok := t.config.Start[name]; ok {
			q.next, q.added = at, at
		}
		q.committed = q.next
		t.streamTime = max(t.streamTime, q.partitionTime)
		t.queues = append(t.queues, q)
		t.byName[name] = q
	}
	if len(t.queues) == 0 {
		return fmt.Errorf("task %s reads nothing: none of its source topics has partition %d", t.id, t.config.Partition)
	}
	return nil
}

// wire makes the chain of functions of every source, children before parents. It runs again after Undo, so that whatever
// operators keep outside of stores and cells starts afresh, as after a crash.
func (t *Task) wire(kept map[string]int64) error {
	nodes := t.config.Sub.Nodes
	children := make(map[*topology.Node][]any, len(nodes))
	env := &env{t: t, kept: kept}
	t.flushers, t.closers, t.idlers = t.flushers[:0], t.closers[:0], t.idlers[:0]
	clear(t.puncts[t.wired:])
	t.puncts = t.puncts[:t.wired]
	for _, p := range t.puncts {
		p.f = nil
	}
	for i := len(nodes) - 1; i >= 0; i-- {
		n := nodes[i]
		env.node, env.puncts = n, 0
		// Children were collected last to first.
		kids := children[n]
		for l, r := 0, len(kids)-1; l < r; l, r = l+1, r-1 {
			kids[l], kids[r] = kids[r], kids[l]
		}
		fn, err := n.Wire(env, kids)
		if err != nil {
			return &Error{Task: t.id, Partition: t.config.Partition, Offset: -1, Node: n.Label(), At: n.At, Doing: "starting", Err: err}
		}
		for _, p := range n.Parents {
			children[p] = append(children[p], fn)
		}
		if n.Source == nil {
			continue
		}
		for _, q := range t.queues {
			if n.Source.Reads(q.source) {
				q.node, q.feed, q.extract, q.stores = n, n.Feed(fn), n.Extract, t.lookups(n)
			}
		}
	}
	env.node = nil
	sortFlushers(t.flushers)
	t.wireRest(env)
	t.schedule()
	return nil
}

// lookups are the stores of operators that get a source's records with the key that they have in the topic.
func (t *Task) lookups(source *topology.Node) (stores []flow.Prefetcher) {
	same := map[*topology.Node]bool{source: true} // what they give on has that key
	for _, n := range t.config.Sub.Nodes {
		if !slices.ContainsFunc(n.Parents, func(p *topology.Node) bool { return same[p] }) {
			continue
		}
		same[n] = !n.Rekeys
		for _, s := range n.Stores {
			if p, ok := t.config.Stores[s.Spec.Name].(flow.Prefetcher); ok && !slices.Contains(stores, p) {
				stores = append(stores, p)
			}
		}
	}
	return stores
}

// ID is the task's name.
func (t *Task) ID() ID { return t.id }

// StreamTime is the greatest record time that the task has taken up, ms; -1 before the first.
func (t *Task) StreamTime() int64 { return t.streamTime }

// CommitRequested says whether an operator asked for a commit since the last Seal.
func (t *Task) CommitRequested() bool { return t.asked }

// Sequence is the number of the last sealed epoch over the whole life of the task's state, as committed with the offsets.
func (t *Task) Sequence() int64 { return t.sequence }

// Stats are plain counters since New.
func (t *Task) Stats() *Stats { return &t.stats }

// Close lets go of queued input and closes what operators asked to have closed. Stores stay open.
func (t *Task) Close() error {
	var first error
	t.calls.drop()
	for i := len(t.closers) - 1; i >= 0; i-- {
		if err := t.closers[i](); err != nil && first == nil {
			first = err
		}
	}
	t.closers = nil
	for _, q := range t.queues {
		q.clear()
	}
	return first
}

// Stats counts what a task did.
type Stats struct {
	Records      int64 // taken up
	Skipped      int64 // left out by the error policy
	Punctuations int64
	Dropped      map[Drop]int64
}

// Drop says who left records out and why.
type Drop struct {
	Node   string
	Reason string
}
