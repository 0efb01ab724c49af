package worker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/moldau/moldau/internal/cluster"
	"github.com/moldau/moldau/internal/commit"
	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/internal/restore"
	"github.com/moldau/moldau/internal/task"
	"github.com/moldau/moldau/internal/tier"
	"github.com/moldau/moldau/topology"
)

// keeper is the goroutine that opens tasks and restores them, and that keeps global tables up to date. All its fields but
// the box belong to it.
type keeper struct {
	n        *Node
	box      *mailbox[func()]
	reader   cluster.Reader
	follower *restore.Follower
	asked    []*slot // to be opened
	opening  map[*slot]*opening
	byTarget map[cluster.TP]func(restore.Progress) error
	retries  int
	failed   bool // the node stops: nothing more is opened or restored

	memory   int64 // what opening tasks hold, as last counted
	weighed  int   // opening tasks when it was counted
	restored int64 // bytes since
}

// opening is a task of which stores are being restored.
type opening struct {
	h         *hosted
	committed map[string]string // metadata by topic
	missing   int               // stores that are not up to date
}

func newKeeper(n *Node, reader cluster.Reader) *keeper {
	return &keeper{n: n, box: newMailbox[func()](), reader: reader, follower: restore.New(reader), opening: map[*slot]*opening{},
		byTarget: map[cluster.TP]func(restore.Progress) error{}}
}

// open asks for tasks to be opened, drop for them to be let go of again.
func (k *keeper) open(slots []*slot) { k.box.put(func() { k.asked = append(k.asked, slots...) }) }

func (k *keeper) drop(slots []*slot) {
	k.box.put(func() {
		for _, s := range slots {
			if k.let(s) {
				k.n.poller.box.put(func() { k.n.poller.closed(s) })
			}
		}
	})
}

// let closes what the keeper has of a task; false: it has handed the task over already.
func (k *keeper) let(s *slot) bool {
	if i := slices.Index(k.asked, s); i >= 0 {
		k.asked = slices.Delete(k.asked, i, i+1)
		return true
	}
	o := k.opening[s]
	if o == nil {
		return false
	}
	delete(k.opening, s)
	for _, st := range o.h.stores {
		if st.changelog.Topic != "" {
			k.follower.Remove(st.changelog)
			delete(k.byTarget, st.changelog)
		}
	}
	k.n.closeTask(o.h, k.n.work.Err() == nil)
	return true
}

func (k *keeper) run(ctx context.Context) {
	for ctx.Err() == nil {
		for _, f := range k.box.take() {
			f()
		}
		if len(k.asked) > 0 && !k.failed {
			slots := k.asked
			k.asked = nil
			k.openAll(ctx, slots)
			continue
		}
		if err := k.keepBudget(); err != nil && !k.failed {
			k.fail(err)
		}
		if k.follower.Len() == 0 || k.failed {
			select {
			case <-ctx.Done():
			case <-k.box.signal:
			}
			continue
		}
		wait, cancel := k.box.waiting(ctx)
		done, err := k.follower.Poll(wait)
		cancel()
		if err == nil {
			err = k.note(done)
		}
		if err != nil && (ctx.Err() == nil || errors.Is(err, restore.ErrApply)) {
			k.trouble(ctx, err)
		}
	}
	for _, f := range k.box.take() {
		f()
	}
	for s := range k.opening {
		k.let(s)
	}
	k.n.share(&k.memory, 0)
}

// trouble: restoring does not go on. Trying again does no harm, a Follower continues where it was; but not after a store
// has refused a record, or what it made of the rest would become durable.
func (k *keeper) trouble(ctx context.Context, err error) {
	if errors.Is(err, cluster.ErrOutOfRange) && !errors.Is(err, restore.ErrApply) {
		k.n.log.Warn("a changelog lost records while it was read; tasks that were being restored are opened anew", "error", err)
		k.reopen()
		err = errReopened
	}
	if !transient(err) || errors.Is(err, restore.ErrApply) {
		k.fail(fmt.Errorf("restoring: %w", err))
		return
	}
	if k.retries++; k.retries == 1 || k.retries%20 == 0 {
		k.n.log.Warn("restoring fails, trying again", "error", err, "times", k.retries)
	}
	sleep(ctx, min(time.Duration(k.retries)*20*time.Millisecond, time.Second))
}

var errReopened = errors.New("tasks are opened anew")

// reopen begins again with all tasks that are being restored: a store that is behind the start of its changelog by now
// is rebuilt.
func (k *keeper) reopen() {
	slots := slices.SortedFunc(maps.Keys(k.opening), func(a, b *slot) int { return compareIDs(a.id, b.id) })
	for _, s := range slots {
		k.let(s)
	}
	k.asked = append(k.asked, slots...)
}

// fail stops the node, and the keeper but for what it has to close.
func (k *keeper) fail(err error) {
	k.failed = true
	k.n.failAs(err, k.n.respond(err))
}

func (k *keeper) note(done []restore.Progress) error {
	for _, p := range done {
		if f := k.byTarget[p.TP]; f != nil {
			if err := f(p); err != nil {
				return err
			}
		}
	}
	k.retries = 0
	k.restored += bytes(done)
	return nil
}

// openAll opens tasks together, so that the cluster is asked once for all of them. What may pass is tried again: that are
// the questions to the cluster, which come before anything is opened.
func (k *keeper) openAll(ctx context.Context, slots []*slot) {
	err := k.tryOpen(ctx, slots)
	switch {
	case err == nil || ctx.Err() != nil:
	case k.n.passes(err):
		if k.retries++; k.retries == 1 || k.retries%20 == 0 {
			k.n.log.Warn("opening tasks fails, trying again", "error", err, "times", k.retries)
		}
		sleep(ctx, min(time.Duration(k.retries)*20*time.Millisecond, time.Second))
		k.asked = append(k.asked, slots...)
	default:
		k.fail(err)
	}
}

func (k *keeper) tryOpen(ctx context.Context, slots []*slot) error {
	n := k.n
	var inputs, changelogs []cluster.TP
	for _, s := range slots {
		inputs = append(inputs, s.tps...)
		changelogs = append(changelogs, n.changelogs(s.id)...)
	}
	if n.cfg.Transactional {
		// It may have to wait for a transaction; what is asked of the keeper meanwhile comes first, or the group would wait too.
		wait, cancel := k.box.waiting(ctx)
		err := k.clear(wait, changelogs)
		interrupted := wait.Err() != nil
		cancel()
		if err != nil && interrupted {
			k.asked = append(k.asked, slots...)
			return nil
		}
		if err != nil {
			return fmt.Errorf("ending the transactions of dead owners: %w", err)
		}
	}
	committed, err := n.admin.Committed(ctx, n.cfg.App, inputs...)
	if err != nil {
		return fmt.Errorf("reading the committed positions: %w", err)
	}
	all := append(slices.Clone(inputs), changelogs...)
	starts, err := n.admin.Starts(ctx, all...)
	if err != nil {
		return fmt.Errorf("asking for the starts of partitions: %w", err)
	}
	ends, err := n.admin.Ends(ctx, false, all...)
	if err != nil {
		return fmt.Errorf("asking for the ends of partitions: %w", err)
	}
	dbs, err := n.openStates(slots)
	if err != nil {
		return err
	}
	var opened []*opening
	for i, s := range slots {
		h := &hosted{db: dbs[i], slot: s, name: s.name, sub: s.sub, start: map[cluster.TP]int64{}, seeks: map[cluster.TP]int{},
			paused: map[cluster.TP]int64{}, committed: map[cluster.TP]int64{}}
		opened = append(opened, &opening{h: h, committed: map[string]string{}})
		k.opening[s] = opened[i] // all of them before anything can fail, so that all are closed
	}
	for _, o := range opened {
		if err := k.positions(o, committed, starts, ends); err != nil {
			return err
		}
		if err := k.stores(o, starts, ends); err != nil {
			return err
		}
		if o.missing == 0 {
			if err := k.finish(o); err != nil {
				return err
			}
		}
	}
	k.retries = 0
	return nil
}

// clear ends the transactions of dead owners. They would hold up the committed positions, the restore and our own writes
// until they time out.
func (k *keeper) clear(ctx context.Context, changelogs []cluster.TP) error {
	ours := func(id string) bool {
		_, ok := owner(k.n.cfg.App, id)
		return ok
	}
	if alive := k.n.alive(); len(alive) > 0 {
		dead := func(id string) bool {
			instance, ok := owner(k.n.cfg.App, id)
			return ok && !slices.Contains(alive, instance)
		}
		if err := k.n.admin.EndTransactions(ctx, dead); err != nil {
			return err
		}
	}
	// A process that was taken for dead and is back in the group may still have one on what is ours now.
	if len(changelogs) == 0 {
		return nil
	}
	return k.n.admin.ClearWriters(ctx, ours, changelogs...)
}

// positions finds where a task's reading begins.
func (k *keeper) positions(o *opening, committed map[cluster.TP]cluster.Offset, starts, ends map[cluster.TP]int64) error {
	h := o.h
	for _, tp := range h.slot.tps {
		c, ok := committed[tp]
		if !ok {
			at, err := k.n.reset(tp, starts[tp], ends[tp])
			if err != nil {
				return err
			}
			h.start[tp] = at
			continue
		}
		if c.At < starts[tp] {
			return fmt.Errorf("%w: %s[%d]: the committed position is %d, but the log starts at %d: records %d to %d were deleted before they were processed (retention?); to go on without them, stop the application and commit the new position: kafka-consumer-groups --bootstrap-server HOST:PORT --group %s --topic %s:%d --reset-offsets --to-earliest --execute",
				ErrOffsets, tp.Topic, tp.Partition, c.At, starts[tp], c.At, starts[tp]-1, k.n.cfg.App, tp.Topic, tp.Partition)
		}
		if c.At > ends[tp] {
			return fmt.Errorf("%w: %s[%d]: the committed position is %d, but the log ends at %d: the topic was created again, or the cluster has lost records; to read what is there, stop the application and commit the new position: kafka-consumer-groups --bootstrap-server HOST:PORT --group %s --topic %s:%d --reset-offsets --to-earliest --execute",
				ErrOffsets, tp.Topic, tp.Partition, c.At, ends[tp], k.n.cfg.App, tp.Topic, tp.Partition)
		}
		s, err := commit.ReadSequence(c.Metadata)
		if err != nil {
			return permanent{fmt.Errorf("metadata committed for %s[%d] by group %s: %w", tp.Topic, tp.Partition, k.n.cfg.App, err)}
		}
		h.start[tp], h.committed[tp] = c.At, c.At
		h.sequence = max(h.sequence, s.Number)
		o.committed[tp.Topic] = c.Metadata
	}
	return nil
}

// stores opens a task's stores and has those restored that are behind.
func (k *keeper) stores(o *opening, starts, ends map[cluster.TP]int64) error {
	h, n := o.h, k.n
	if len(h.sub.Stores) == 0 {
		return nil
	}
	var targets []*restore.Target
	for _, s := range h.sub.Stores {
		st := &opened{name: s.Spec.Name, end: -1}
		env := flow.StoreEnv{Spec: s.Spec, Partition: h.slot.id.Partition}
		expect := tier.Expect{Now: n.millis()}
		if s.Topic != nil {
			st.changelog = cluster.TP{Topic: s.Topic.Full(n.cfg.App), Partition: h.slot.id.Partition}
		}
		if s.Replay != nil && !slices.Contains(h.slot.tps, st.changelog) {
			st.changelog = cluster.TP{} // the topic has fewer partitions than there are tasks
		}
		if st.changelog.Topic != "" {
			if s.Replay != nil {
				st.replay, st.end = s.Replay(), h.committed[st.changelog] // what comes after is input; without a position, all of it
			} else {
				st.end, env.Changelog = ends[st.changelog], n.topics.known(st.changelog.Topic)
			}
			info, _ := n.topics.info(st.changelog.Topic)
			expect.TopicID, expect.LogStart, expect.LogEnd, expect.Asked = info.ID, starts[st.changelog], st.end, true
			expect.DeleteRetention = deleteRetention(info)
		}
		var err error
		if st.tier, err = h.db.Store(st.name, expect); err != nil {
			return permanent{fmt.Errorf("task %s: opening store %q: %w", h.name, st.name, err)}
		}
		if why := st.tier.Stale(); why != "" {
			n.log.Warn("store is rebuilt from its changelog", "task", h.name, "store", st.name, "reason", why)
			n.emit(Event{Kind: StoreRebuilt, Task: h.name, Store: st.name, Reason: why})
			if st.tier, err = st.tier.Rebuild(); err != nil {
				return permanent{fmt.Errorf("task %s: rebuilding store %q: %w", h.name, st.name, err)}
			}
		}
		env.Tier = st.tier
		if st.store, err = s.Spec.New(env); err != nil {
			return permanent{fmt.Errorf("task %s: opening store %q (%s): %w", h.name, st.name, s.Spec.At, err)}
		}
		h.stores = append(h.stores, st)
		if st.changelog.Topic == "" {
			continue
		}
		if st.from = st.store.Position(); st.from < 0 {
			st.from = starts[st.changelog]
		}
		if st.from < st.end {
			o.missing++
			targets = append(targets, k.target(o, st))
		}
	}
	k.follower.Add(targets...)
	return nil
}

// target makes the changelog of a store be followed to its end.
func (k *keeper) target(o *opening, st *opened) *restore.Target {
	e := Event{Task: o.h.name, Store: st.name, Topic: st.changelog.Topic, Partition: st.changelog.Partition, From: st.from, To: st.end}
	e.Kind = RestoreStarted
	k.n.emit(e)
	k.n.log.Info("restoring store", "task", o.h.name, "store", st.name, "from", st.from, "to", st.end)
	began := k.n.cfg.Now()
	k.byTarget[st.changelog] = func(p restore.Progress) error {
		e.Kind, e.At, e.Records = RestoreProgress, p.Position(), p.Total
		k.n.metrics.restored(p.Records)
		if !p.Reached {
			k.n.emit(e)
			return nil
		}
		e.Kind = RestoreEnded
		k.n.emit(e)
		k.n.log.Info("restored store", "task", o.h.name, "store", st.name, "records", p.Total, "took", k.n.cfg.Now().Sub(began))
		delete(k.byTarget, st.changelog)
		if o.missing--; o.missing > 0 {
			return nil
		}
		return k.finish(o)
	}
	return &restore.Target{TP: st.changelog, Store: st.store, Positioned: true, From: st.from, End: st.end, Replay: st.replay}
}

// finish makes the task and hands it over.
func (k *keeper) finish(o *opening) error {
	h, n := o.h, k.n
	config := task.Config{App: n.cfg.App, Sub: h.sub, Partition: h.slot.id.Partition, Stores: map[string]flow.Store{}, Globals: n.globalStores(),
		Topics: n.topics.flow, Errors: n.cfg.Errors, MaxIdle: n.cfg.MaxIdle, Now: n.millis(),
		Start: map[string]int64{}, Committed: o.committed}
	for _, s := range h.stores {
		config.Stores[s.name] = s.store
		if err := s.tier.Settle(); err != nil {
			return permanent{fmt.Errorf("task %s: store %q: %w", h.name, s.name, err)}
		}
	}
	for _, tp := range h.slot.tps {
		config.Sources = append(config.Sources, tp.Topic)
		config.Start[tp.Topic] = h.start[tp]
	}
	h.caller = &caller{n: n, task: h.name}
	config.Caller = h.caller
	t, err := task.New(config)
	if err != nil {
		return permanent{err}
	}
	h.task = t
	delete(k.opening, h.slot)
	n.poller.box.put(func() { n.poller.ready(h.slot, h) })
	return nil
}

// reset is where reading starts without a committed position. In a repartition topic that is the log start whatever the
// application says: all that lies there has been committed by the tasks before it, and nobody has read it.
func (n *Node) reset(tp cluster.TP, start, end int64) (int64, error) {
	topic := n.source(tp.Topic)
	if topic == nil || topic.Kind == topology.Repartition { // nil: deleted by now, and soon noticed
		return start, nil
	}
	how := topic.Reset
	if how == topology.ResetDefault {
		how = n.cfg.Reset
	}
	switch how {
	case topology.ResetLatest:
		return end, nil
	case topology.ResetNone:
		return 0, fmt.Errorf("%w: group %s has no committed position for %s[%d], and its handle (FromCommitted) or Config.Reset says to start from none but a committed one", ErrOffsets, n.cfg.App, tp.Topic, tp.Partition)
	}
	return start, nil
}

// deleteRetention is how long a changelog keeps tombstones, ms; Kafka's default is a day.
func deleteRetention(info cluster.TopicInfo) int64 {
	if ms, err := strconv.ParseInt(info.Config["delete.retention.ms"], 10, 64); err == nil {
		return ms
	}
	return (24 * time.Hour).Milliseconds()
}
