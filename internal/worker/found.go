package worker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/moldau/moldau/internal/cluster"
	"github.com/moldau/moldau/topology"
)

// resolve asks which topics there are and puts those in place that patterns match.
func (t *topics) resolve(ctx context.Context) (*topology.Topology, error) {
	top := t.n.cfg.Topology
	if !top.Patterns() {
		return top, nil
	}
	names, err := t.n.admin.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("looking for topics that match: %w", err)
	}
	if top, err = top.Resolve(t.n.cfg.App, names, DeployedTopic(t.n.cfg.App)); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTopics, err)
	}
	return top, nil
}

// errVanished: a topic that a pattern has matched is there no more.
var errVanished = errors.New("a topic that matched has been deleted")

// matched are the topics that patterns take in, as of the last look.
func (n *Node) matched() []string {
	var names []string
	for _, s := range n.topology().Subs {
		for _, t := range s.Sources {
			if t.Of != nil {
				names = append(names, t.Name)
			}
		}
	}
	return names
}

// find looks for topics that match, new ones and such as are gone, and has the group share them out. A topic that does not go with
// the others stops the application, before anything of it is read.
func (d *warden) find(ctx context.Context) error {
	n := d.n
	if !n.cfg.Topology.Patterns() {
		return nil
	}
	was := n.matched()
	if err := n.topics.prepare(ctx); err != nil {
		return err
	}
	is := n.matched()
	if slices.Equal(was, is) {
		return nil
	}
	gone := slices.DeleteFunc(was, func(name string) bool { return slices.Contains(is, name) })
	n.log.Info("topics that match have come or gone", "topics", strings.Join(is, " "), "gone", strings.Join(gone, " "))
	n.topics.forget(gone)
	n.poller.member.Subscribe(n.subtopologies())
	if len(gone) > 0 {
		n.poller.box.put(func() { n.poller.vanished(gone) })
	}
	return nil
}

// forget drops what is known of topics.
func (t *topics) forget(names []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, name := range names {
		delete(t.infos, name)
		delete(t.flows, name)
	}
}

// lookNow has the warden look for topics soon.
func (d *warden) lookNow() {
	select {
	case d.look <- struct{}{}:
	default:
	}
}

// passes is transient, but that a topic may be missing because a pattern matched it and it has been deleted: once that is noticed nobody
// asks for it any more. That one which the author has named is missing is found out by the warden.
func (n *Node) passes(err error) bool {
	if n.cfg.Topology.Patterns() && errors.Is(err, cluster.ErrMissingTopic) && !errors.Is(err, ErrTopics) {
		n.warden.lookNow()
		return true
	}
	return transient(err)
}

// inputs are the partitions that a task reads: those of the topics that the author has named, and of the others what the group has
// given us. whole: nothing is missing.
func (p *poller) inputs(s *slot) (tps []cluster.TP, whole bool) {
	for _, t := range s.sub.Sources {
		tp := cluster.TP{Topic: t.Full(p.n.cfg.App), Partition: s.id.Partition}
		switch info, _ := p.n.topics.info(tp.Topic); {
		case p.owned[tp]:
			tps = append(tps, tp)
		case t.Of == nil && s.id.Partition < info.Partitions:
			return nil, false
		}
	}
	return tps, len(tps) > 0
}

// reopen closes a task and opens it again, since its inputs have changed. lost: what it has not committed is taken back.
func (p *poller) reopen(s *slot, lost bool) {
	switch {
	case s.going || s.changing && !lost:
	case s.worker != nil:
		s.changing = true
		s.worker.giveUp([]*slot{s}, lost)
	default:
		s.changing = true
		p.n.keeper.drop([]*slot{s})
	}
}

// vanished takes topics that have been deleted out of the tasks that read them: their positions can no longer be committed, so what
// is open is taken back, and done again without them.
func (p *poller) vanished(topics []string) {
	tasks := map[string]*slot{}
	for tp := range p.owned {
		if !slices.Contains(topics, tp.Topic) {
			continue
		}
		delete(p.owned, tp)
		if src := p.sources[tp]; src != nil {
			tasks[src.slot.name] = src.slot
		}
	}
	for _, name := range slices.Sorted(maps.Keys(tasks)) {
		p.reopen(tasks[name], true)
	}
}
