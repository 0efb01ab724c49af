package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/moldau/moldau/internal/cluster"
	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/internal/restore"
	"github.com/moldau/moldau/internal/tier"
	"github.com/moldau/moldau/topology"
)

// global is a global table: one store for all tasks of the process.
type global struct {
	name  string
	store flow.Store
	tier  tier.Store
	db    tier.DB
}

// startGlobals opens the global tables and returns when they hold what their topics held at the start.
func (n *Node) startGlobals(ctx context.Context, reader cluster.Reader) (*restore.Follower, error) {
	follower := restore.New(reader)
	var tps []cluster.TP
	for _, g := range n.topology().Globals {
		info, _ := n.topics.info(g.Topic.Name)
		for p := range info.Partitions {
			tps = append(tps, cluster.TP{Topic: g.Topic.Name, Partition: p})
		}
	}
	var starts, ends map[cluster.TP]int64
	err := n.reach(ctx, func(ctx context.Context) (err error) {
		if starts, err = n.admin.Starts(ctx, tps...); err != nil {
			return fmt.Errorf("asking for the starts of global tables: %w", err)
		}
		if ends, err = n.admin.Ends(ctx, true, tps...); err != nil {
			return fmt.Errorf("asking for the ends of global tables: %w", err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	behind := map[cluster.TP]bool{}
	for _, g := range n.topology().Globals {
		targets, err := n.openGlobal(g, starts, ends)
		if err != nil {
			return nil, fmt.Errorf("global table %q: %w", g.Store.Spec.Name, err)
		}
		for _, t := range targets {
			behind[t.TP] = true
		}
		follower.Add(targets...)
	}
	failures := 0
	for len(behind) > 0 {
		done, err := follower.Poll(ctx)
		if err == nil {
			err = errors.Join(ctx.Err(), n.keepGlobalBudget(bytes(done)))
		}
		if err != nil && ctx.Err() == nil && transient(err) && !errors.Is(err, restore.ErrApply) {
			if failures++; failures == 1 || failures%100 == 0 {
				n.log.Warn("reading global tables fails, trying again", "error", err, "times", failures)
			}
			sleep(ctx, min(time.Duration(failures)*20*time.Millisecond, time.Second))
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading global tables: %w", err)
		}
		failures = 0
		for _, p := range done {
			if p.Reached {
				delete(behind, p.TP)
			}
		}
	}
	for _, g := range n.globals {
		if err := g.tier.Settle(); err != nil {
			return nil, fmt.Errorf("global table %q: %w", g.name, err)
		}
	}
	return follower, nil
}

func (n *Node) openGlobal(g *topology.Global, starts, ends map[cluster.TP]int64) ([]*restore.Target, error) {
	info, _ := n.topics.info(g.Topic.Name)
	spec := g.Store.Spec
	gl := &global{name: "global-" + spec.Name}
	n.globals = append(n.globals, gl)
	db, err := n.openState(gl.name)
	if err != nil {
		return nil, err
	}
	gl.db = db
	expect := tier.Expect{Now: n.millis(), TopicID: info.ID, DeleteRetention: deleteRetention(info)}
	tp := cluster.TP{Topic: g.Topic.Name}
	one := info.Partitions == 1 // whose position is the store's own
	if one {
		expect.LogStart, expect.LogEnd, expect.Asked = starts[tp], ends[tp], true
	} else {
		for tp.Partition = range info.Partitions {
			expect.Parts = append(expect.Parts, tier.Part{Start: starts[tp], End: ends[tp]})
		}
	}
	t, err := db.Store(spec.Name, expect)
	if err != nil {
		return nil, err
	}
	if why := t.Stale(); why != "" {
		n.log.Warn("global table is read anew", "store", spec.Name, "reason", why)
		if t, err = t.Rebuild(); err != nil {
			return nil, err
		}
	}
	gl.tier = t
	if gl.store, err = spec.New(flow.StoreEnv{Spec: spec, Tier: t}); err != nil {
		return nil, err
	}
	n.globalByName[spec.Name] = gl.store
	var targets []*restore.Target
	positions := t.Positions()
	for tp.Partition = range info.Partitions {
		target := &restore.Target{TP: tp, Store: gl.store, Positioned: one, From: starts[tp], End: ends[tp], Follow: true, Lock: &n.globalLock}
		if one {
			target.From = max(target.From, gl.store.Position())
		} else {
			target.Advance = func(next int64) { t.Advance(target.Partition, next) }
			if int(tp.Partition) < len(positions) {
				target.From = max(target.From, positions[tp.Partition])
			}
		}
		n.log.Info("reading global table", "store", spec.Name, "partition", tp.Partition, "from", target.From, "to", target.End)
		targets = append(targets, target)
	}
	return targets, nil
}

// followGlobals keeps global tables up to date until ctx ends.
func (n *Node) followGlobals(ctx context.Context, f *restore.Follower) {
	failures := 0
	for ctx.Err() == nil {
		done, err := f.Poll(ctx)
		if err == nil {
			err = errors.Join(n.flushGlobals(false), n.keepGlobalBudget(bytes(done)))
		}
		switch {
		case err == nil || ctx.Err() != nil && !errors.Is(err, restore.ErrApply):
			failures = 0
		case !transient(err) || errors.Is(err, restore.ErrApply):
			n.fail(fmt.Errorf("following global tables: %w", err))
			return
		default:
			if failures++; failures == 1 || failures%100 == 0 {
				n.log.Warn("following global tables fails", "error", err, "times", failures)
			}
			sleep(ctx, min(time.Duration(failures)*20*time.Millisecond, time.Second))
		}
	}
}

// flushGlobals makes global tables durable if much has gathered, or in any case.
func (n *Node) flushGlobals(all bool) error {
	n.globalLock.Lock()
	defer n.globalLock.Unlock()
	for _, g := range n.globals {
		flush := g.db.MaybeFlush
		if all {
			flush = g.db.Flush
		}
		if err := flush(n.millis()); err != nil {
			return permanent{fmt.Errorf("global table %q: %w", g.name, err)}
		}
	}
	return nil
}

func (n *Node) closeGlobals() {
	if n.work.Err() == nil { // else the stop was cut short
		if err := n.flushGlobals(true); err != nil {
			n.log.Error("closing global tables", "error", err)
		}
	}
	n.globalLock.Lock()
	defer n.globalLock.Unlock()
	clear(n.globalByName) // queries may still come
	for _, g := range n.globals {
		if g.store != nil {
			g.store.Close()
		}
		if g.db != nil {
			g.db.Close()
		}
	}
}

// globalStores are the stores of all global tables.
func (n *Node) globalStores() map[string]flow.Store { return n.globalByName }
