package mem

import (
	"fmt"
	"slices"

	"github.com/moldau/moldau/internal/assign"
	"github.com/moldau/moldau/internal/cluster"
)

// group is a consumer group: who is in it, and what is committed.
type group struct {
	id         string
	generation int32
	members    []*membership // in order of joining; the first leads
	offsets    map[cluster.TP]cluster.Offset
	pending    map[cluster.TP]int // transactions that hold an offset of the partition
	again      bool               // a rebalance is due once every revocation is answered
}

// membership is one member as the group sees it.
type membership struct {
	id     string // changes when a static member comes back
	cfg    cluster.MemberConfig
	owned  map[cluster.TP]bool
	taken  []cluster.TP // being revoked
	member *member
}

// name is the member's in the plan.
func (s *membership) name() string {
	if s.cfg.Instance != "" {
		return s.cfg.Instance
	}
	return s.id
}

func (l *Log) group(id string) *group {
	g := l.groups[id]
	if g == nil {
		g = &group{id: id, offsets: map[cluster.TP]cluster.Offset{}, pending: map[cluster.TP]int{}}
		l.groups[id] = g
	}
	return g
}

// check accepts a commit in the name of a member in the present generation, or of nobody for a group without members.
func (g *group) check(meta cluster.GroupMetadata) error {
	if meta.Generation < 0 && len(g.members) == 0 {
		return nil
	}
	for _, s := range g.members {
		switch {
		case meta.Instance != "" && s.cfg.Instance == meta.Instance && s.id != meta.Member:
			return fmt.Errorf("group %q: instance %q has come back as another process: %w", g.id, meta.Instance, cluster.ErrFenced)
		case s.id == meta.Member && meta.Generation == g.generation:
			return nil
		}
	}
	return fmt.Errorf("group %q: member %q in generation %d, the group is at %d: %w", g.id, meta.Member, meta.Generation, g.generation, cluster.ErrGeneration)
}

// join adds a member, or puts it in the place of one with its instance id, without a rebalance.
func (l *Log) join(m *member) {
	g := l.group(m.cfg.Group)
	id := fmt.Sprintf("member-%d", l.newID())
	if m.cfg.Instance != "" {
		id = m.cfg.Instance + "-" + id
		for _, s := range g.members {
			if s.cfg.Instance == m.cfg.Instance {
				l.replace(g, s, m, id)
				return
			}
		}
	}
	s := &membership{id: id, cfg: m.cfg, owned: map[cluster.TP]bool{}, member: m}
	m.in = s
	g.members = append(g.members, s)
	l.rebalance(g)
}

// replace hands a static member's place to its successor; the predecessor is told if it still asks.
func (l *Log) replace(g *group, s *membership, m *member, id string) {
	s.member.fenced = true
	s.member.out()
	s.id, s.cfg, s.member, m.in = id, m.cfg, m, s
	s.taken = nil
	plan, _ := l.plan(g)
	m.events = append(m.events, cluster.Event{Kind: cluster.Assigned, Partitions: sortedTPs(s.owned), UserData: assign.AppendPlan(nil, plan)})
	if g.again {
		l.rebalance(g)
	}
}

// remove takes a member out and shares its partitions out among the rest.
func (l *Log) remove(s *membership) {
	g := l.group(s.cfg.Group)
	s.member.out()
	g.members = slices.DeleteFunc(g.members, func(o *membership) bool { return o == s })
	if len(g.members) > 0 {
		l.rebalance(g)
	} else {
		g.generation++
	}
}

// rebalance is one round of the cooperative protocol: whoever loses partitions is asked for them; once all have answered
// the next round gives them away.
func (l *Log) rebalance(g *group) {
	if len(g.members) == 0 {
		return
	}
	if slices.ContainsFunc(g.members, func(s *membership) bool { return len(s.taken) > 0 }) {
		g.again = true
		return
	}
	g.again = false
	g.generation++
	plan, subs := l.plan(g)
	data := assign.AppendPlan(nil, plan)
	for _, s := range g.members {
		l.give(g, s, l.partitionsOf(subs, plan.Share(s.name()).Active), data)
	}
}

// plan balances the group as its leader would, and says of what.
func (l *Log) plan(g *group) (assign.Plan, []assign.Subtopology) {
	subs := g.members[0].cfg.Subtopologies
	in := assign.Input{Standbys: g.members[0].cfg.Standbys, Stateful: map[int32]bool{}}
	subOf := map[string]int32{}
	for i, sub := range subs {
		in.Stateful[int32(i)] = sub.Stateful
		for _, t := range sub.Reads() {
			subOf[t] = int32(i)
		}
	}
	for _, s := range g.members {
		m := assign.Member{ID: s.name(), Endpoint: s.cfg.Endpoint, Generation: g.generation}
		for _, sub := range s.cfg.Subtopologies {
			m.Topics, m.Patterns = append(m.Topics, sub.Reads()...), append(m.Patterns, sub.Patterns...)
		}
		for _, tp := range sortedTPs(s.owned) {
			sub, ok := subOf[tp.Topic]
			if t := (assign.Task{Sub: sub, Partition: tp.Partition}); ok && !slices.Contains(m.Owned, t) {
				m.Owned = append(m.Owned, t)
			}
		}
		if s.cfg.Local != nil {
			m.Local = s.cfg.Local()
		}
		in.Members = append(in.Members, m)
	}
	subs = assign.Fit(subs, in.Members)
	in.Tasks = assign.Tasks(subs, l.widths())
	return assign.Cooperative(assign.Balance(in), in.Members), subs
}

func (l *Log) widths() map[string]int32 {
	w := map[string]int32{}
	for name, t := range l.topics {
		w[name] = int32(len(t.partitions))
	}
	return w
}

func (l *Log) partitionsOf(subs []assign.Subtopology, tasks []assign.Task) map[cluster.TP]bool {
	widths := l.widths()
	tps := map[cluster.TP]bool{}
	for _, t := range tasks {
		for _, topic := range subs[t.Sub].Reads() {
			if t.Partition < widths[topic] {
				tps[cluster.TP{Topic: topic, Partition: t.Partition}] = true
			}
		}
	}
	return tps
}

// give tells a member what it has from now on.
func (l *Log) give(g *group, s *membership, want map[cluster.TP]bool, plan []byte) {
	var added, lost []cluster.TP
	for _, tp := range sortedTPs(want) {
		if !s.owned[tp] {
			added = append(added, tp)
			s.owned[tp] = true
		}
	}
	for _, tp := range sortedTPs(s.owned) {
		if !want[tp] {
			lost = append(lost, tp)
		}
	}
	if len(lost) > 0 {
		s.taken = lost
		g.again = true
		s.member.events = append(s.member.events, cluster.Event{Kind: cluster.Revoke, Partitions: lost})
	}
	s.member.events = append(s.member.events, cluster.Event{Kind: cluster.Assigned, Partitions: added, UserData: plan})
}

// released is a member's answer to a revocation.
func (l *Log) released(s *membership) {
	for _, tp := range s.taken {
		delete(s.owned, tp)
	}
	s.taken = nil
	if g := l.group(s.cfg.Group); g.again {
		l.rebalance(g)
	}
}

// noticeTopics rebalances a group whose topics have come into being or changed.
func (l *Log) noticeTopics(g *group) {
	if len(g.members) == 0 {
		return
	}
	have := 0
	for _, s := range g.members {
		have += len(s.owned)
	}
	want := 0
	for _, sub := range g.members[0].cfg.Subtopologies {
		for _, t := range sub.Reads() {
			want += int(l.widths()[t])
		}
	}
	if have != want {
		l.rebalance(g)
	}
}

// Rebalance makes a group share its partitions out anew.
func (l *Log) Rebalance(groupID string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rebalance(l.group(groupID))
}

// Evict lets the session of a member (its instance id, or the id it was given) time out. If it still lives it finds
// that all is lost, and joins again once it has let go of it.
func (l *Log) Evict(groupID, name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.group(groupID).members {
		if s.name() != name {
			continue
		}
		m := s.member
		l.remove(s)
		switch {
		case m.closed || m.conn.dead:
		case len(s.owned) > 0:
			m.events = append(m.events, cluster.Event{Kind: cluster.Lost, Partitions: sortedTPs(s.owned)})
		default:
			l.join(m)
		}
		return
	}
}
