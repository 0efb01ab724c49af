package streamtest

import (
	"slices"

	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/internal/task"
	"github.com/moldau/moldau/internal/tier"
	"github.com/moldau/moldau/topology"
)

// running is one task at work.
type running struct {
	task    *task.Task
	caller  *caller
	sub     *topology.Sub
	sources []string // topics that have its partition
	stores  map[string]flow.Store
	out     []flow.Out // of the current epoch
	since   int        // records since the last commit
}

// startTasks makes every store and task, and restores what was committed.
func (d *Driver) startTasks() {
	d.tb.Helper()
	d.globals = map[string]flow.Store{}
	for _, g := range d.topology.Globals {
		s := d.open(g.Store, nil, 0, tier.NewMem())
		for _, log := range d.topics[g.Topic.Name].logs {
			keyed := slices.DeleteFunc(slices.Clone(log), func(in flow.In) bool { return in.Key == nil })
			d.must(s.Restore(keyed, int64(len(log))))
		}
		d.globals[g.Store.Spec.Name] = s
	}
	d.tasks = nil
	for _, sub := range d.topology.Subs {
		d.startSub(sub)
	}
}

// startSub makes the tasks of a sub-topology.
func (d *Driver) startSub(sub *topology.Sub) {
	d.tb.Helper()
	var most int32
	for _, t := range sub.Sources {
		if topic := d.topics[t.Full(d.config.app)]; topic != nil { // nil: nobody who writes it has anything to read
			most = max(most, topic.topic.Partitions)
		}
	}
	for p := range most {
		if r := d.startTask(sub, p); r != nil {
			d.tasks = append(d.tasks, r)
		}
	}
}

func (d *Driver) startTask(sub *topology.Sub, partition int32) *running {
	d.tb.Helper()
	r := &running{sub: sub, stores: map[string]flow.Store{}, caller: &caller{}}
	id := task.ID{Sub: sub.ID, Partition: partition}
	db := d.disk(id)
	for _, s := range sub.Stores {
		var changelog *memTopic
		if s.Topic != nil && s.Replay == nil {
			changelog = d.topics[s.Topic.Full(d.config.app)]
		}
		st := d.open(s, changelog, partition, db)
		if changelog != nil {
			log := changelog.logs[partition]
			if from := max(st.Position(), 0); from < int64(len(log)) {
				d.must(st.Restore(log[from:], int64(len(log))))
			}
		}
		if s.Replay != nil {
			d.replay(s, st, partition)
		}
		r.stores[s.Spec.Name] = st
	}
	c := task.Config{App: d.config.app, Sub: sub, Partition: partition, Stores: r.stores, Globals: d.globals,
		Topics: func(name string) (*flow.Topic, error) { return d.lookup(name), nil }, Errors: d.config.errors, Caller: r.caller, MaxIdle: d.config.maxIdle, Now: d.now,
		Start: map[string]int64{}, Committed: map[string]string{}}
	for _, t := range sub.Sources {
		name := t.Full(d.config.app)
		topic := d.topics[name]
		if topic == nil {
			continue
		}
		if partition >= topic.topic.Partitions {
			continue
		}
		r.sources = append(r.sources, name)
		c.Start[name] = topic.committed[partition].Next
		c.Committed[name] = topic.committed[partition].Metadata
	}
	c.Sources = r.sources
	t, err := task.New(c)
	if err != nil {
		if !d.config.keepErrors {
			d.tb.Fatal(err)
		}
		if d.err == nil {
			d.err = err
		}
		return nil
	}
	r.task = t
	return r
}

// replay restores a store from its table's topic, up to the committed position.
func (d *Driver) replay(s *topology.Store, st flow.Store, partition int32) {
	d.tb.Helper()
	topic := d.topics[s.Topic.Name]
	if partition >= topic.topic.Partitions {
		return
	}
	var kept []flow.In
	replay, end := s.Replay(), topic.committed[partition].Next
	for _, r := range topic.logs[partition][max(st.Position(), 0):end] {
		_, ok, err := replay(nil, &r)
		if d.must(err); ok {
			kept = append(kept, r)
		}
	}
	d.must(st.Restore(kept, end))
}

// disk is the local state of a task.
func (d *Driver) disk(id task.ID) *tier.Mem {
	if d.disks[id] == nil {
		d.disks[id] = tier.NewMem()
	}
	return d.disks[id]
}

func (d *Driver) open(s *topology.Store, changelog *memTopic, partition int32, db *tier.Mem) flow.Store {
	d.tb.Helper()
	env := flow.StoreEnv{Spec: s.Spec, Partition: partition}
	var err error
	env.Tier, err = db.Store(s.Spec.Name, tier.Expect{})
	d.must(err)
	if changelog != nil {
		env.Changelog = &changelog.topic
	}
	st, err := s.Spec.New(env)
	d.must(err)
	return st
}

func (d *Driver) closeTask(r *running) {
	d.tb.Helper()
	d.must(r.task.Close())
	for _, s := range r.sub.Stores {
		d.must(r.stores[s.Spec.Name].Close())
	}
}

func (d *Driver) stopTasks() {
	for _, r := range d.tasks {
		d.closeTask(r)
	}
	for _, g := range d.topology.Globals {
		d.must(d.globals[g.Store.Spec.Name].Close())
	}
	d.tasks = nil
	for id, db := range d.disks {
		if d.config.warm {
			d.must(db.Flush(d.now))
			d.disks[id] = db.Crash()
		} else {
			delete(d.disks, id)
		}
	}
}

func (d *Driver) must(err error) {
	d.tb.Helper()
	if err != nil {
		d.tb.Fatal(err)
	}
}

// Stores are the untyped stores of that name: one per task, by partition, or the one of a global table. There is none while
// the task's patterns match no topic.
func (d *Driver) Stores(name string) []flow.Store {
	d.tb.Helper()
	var found []flow.Store
	for _, r := range d.tasks {
		if s := r.stores[name]; s != nil {
			found = append(found, s)
		}
	}
	if s := d.globals[name]; s != nil {
		found = append(found, s)
	}
	if len(found) == 0 && !d.declares(name) {
		d.tb.Fatalf("the topology has no store %q", name)
	}
	return found
}

// declares says whether the topology has a store of that name.
func (d *Driver) declares(name string) bool {
	for _, sub := range d.declared.Subs {
		if slices.ContainsFunc(sub.Stores, func(s *topology.Store) bool { return s.Spec.Name == name }) {
			return true
		}
	}
	return slices.ContainsFunc(d.declared.Globals, func(g *topology.Global) bool { return g.Store.Spec.Name == name })
}
