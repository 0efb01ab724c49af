package franz

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/moldau/moldau/internal/assign"
	"github.com/moldau/moldau/internal/cluster"
)

// member implements cluster.Member. kgo's group client calls back from its own goroutines; the callbacks become events,
// and one that takes partitions away waits for Released: neither a rebalance nor a rejoin goes on before.
type member struct {
	cfg      cluster.MemberConfig
	group    *kgo.Client
	identify func(*kgo.Client) (id string, generation int32) // GroupMetadata, as kgo sees it now
	f        *fetcher
	balancer *balancer
	gone     chan struct{} // closed once the member no longer answers

	// The callbacks', of which one runs at a time.
	id   string              // in the last session; "": none
	held map[cluster.TP]bool // what kgo believes is ours
	anew []cluster.TP        // lost and given back in the same rebalance

	strange time.Time // since when the group refuses us because of other members; zero: it does not

	mu       sync.Mutex
	events   []queued
	meta     cluster.GroupMetadata // as of the last callback
	owned    map[cluster.TP]bool   // as of the events delivered
	released chan struct{}         // closed by Released; nil: nobody waits
	wake     context.CancelFunc    // ends a waiting poll
	leaving  bool
	closed   bool
	err      error
}

// queued is an event that Poll has not delivered yet; released is what its callback waits on.
type queued struct {
	cluster.Event
	released chan struct{}
}

// Member joins a group. What goes wrong later comes from Poll.
func (c *Cluster) Member(cfg cluster.MemberConfig) (cluster.Member, error) {
	if err := check(cfg); err != nil {
		return nil, err
	}
	if cfg.SessionTimeout == 0 {
		cfg.SessionTimeout = 10 * time.Second
	}
	if cfg.RebalanceTimeout == 0 {
		cfg.RebalanceTimeout = time.Minute
	}
	m := newMember(cfg)
	var err error
	if m.f, err = newFetcher(c); err != nil {
		return nil, err
	}
	opts := []kgo.Opt{
		kgo.ConsumerGroup(cfg.Group),
		kgo.ConsumeTopics(sortedKeys(m.balancer.topics())...),
		kgo.Balancers(m.balancer),
		kgo.DisableAutoCommit(),
		kgo.SessionTimeout(cfg.SessionTimeout),
		kgo.HeartbeatInterval(min(cfg.SessionTimeout/10, 3*time.Second)),
		kgo.RebalanceTimeout(cfg.RebalanceTimeout),
		// This client is for membership; the fetcher reads, from where the runtime says.
		kgo.AdjustFetchOffsetsFn(func(context.Context, map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
			return nil, nil
		}),
		kgo.OnPartitionsAssigned(m.onAssigned),
		kgo.OnPartitionsRevoked(m.onRevoked),
		kgo.OnPartitionsLost(m.onLost),
		kgo.WithHooks((*manageHook)(m)),
	}
	if cfg.Instance != "" {
		opts = append(opts, kgo.InstanceID(cfg.Instance))
	}
	if m.group, err = c.client(opts...); err != nil {
		m.f.close()
		return nil, err
	}
	return m, nil
}

func newMember(cfg cluster.MemberConfig) *member {
	return &member{cfg: cfg, identify: (*kgo.Client).GroupMetadata, balancer: newBalancer(cfg), gone: make(chan struct{}),
		held: make(map[cluster.TP]bool), owned: make(map[cluster.TP]bool),
		meta: cluster.GroupMetadata{Group: cfg.Group, Instance: cfg.Instance, Generation: -1}}
}

func check(cfg cluster.MemberConfig) error {
	var errs []error
	if cfg.Group == "" {
		errs = append(errs, errors.New("member: no group given"))
	}
	seen := map[string]int{}
	for i, s := range cfg.Subtopologies {
		for _, t := range s.Reads() {
			if j, ok := seen[t]; ok {
				errs = append(errs, fmt.Errorf("member of group %q: topic %q is in sub-topologies %d and %d", cfg.Group, t, j, i))
			}
			seen[t] = i
		}
	}
	if len(seen) == 0 && cfg.Anchor == "" {
		errs = append(errs, fmt.Errorf("member of group %q: no topics to read", cfg.Group))
	}
	return errors.Join(errs...)
}

// onAssigned ends a rebalance. What was lost before it and is ours again comes as if it were new.
func (m *member) onAssigned(_ context.Context, cl *kgo.Client, added map[string][]int32) {
	m.strange = time.Time{}
	first := m.id == ""
	m.evicted(cl, nil)
	tps := append(tpsOf(added), m.anew...)
	m.anew = nil
	slices.SortFunc(tps, compareTPs)
	tps = slices.Compact(tps)
	for _, tp := range tps {
		m.held[tp] = true
	}
	data := m.balancer.userData()
	m.push(cl, queued{Event: cluster.Event{Kind: cluster.Assigned, Partitions: tps, UserData: data}})
	if !first || m.cfg.Instance == "" {
		return
	}
	if plan, err := assign.DecodePlan(data); err == nil && slices.Contains(plan.Releasing, m.cfg.Instance) {
		// Our predecessor was to let go of tasks and to join again, and died before it had. The group waits for that.
		cl.ForceRebalance()
	}
}

// onRevoked holds the rebalance up until the tasks are committed or undone.
func (m *member) onRevoked(_ context.Context, cl *kgo.Client, taken map[string][]int32) {
	if len(taken) == 0 || m.evicted(cl, taken) {
		return
	}
	m.take(cl, cluster.Revoke, tpsOf(taken))
}

// onLost holds the rejoin up until the tasks are undone: with the generation that it brings they could still be committed.
func (m *member) onLost(_ context.Context, cl *kgo.Client, _ map[string][]int32) {
	m.id = ""
	if len(m.held) > 0 {
		m.take(cl, cluster.Lost, slices.SortedFunc(maps.Keys(m.held), compareTPs))
	}
}

// evicted says whether the group has let this member's session end and taken it on again as a new one. kgo does not say
// so if it finds out while it joins; but a member's id changes for no other reason. All that was held may have been
// another's meanwhile, so it is lost, and what is not taken now is assigned anew.
func (m *member) evicted(cl *kgo.Client, taken map[string][]int32) bool {
	id, _ := m.identify(cl)
	was := m.id
	m.id = id
	if was == "" || was == id || len(m.held) == 0 {
		return false
	}
	lost := slices.SortedFunc(maps.Keys(m.held), compareTPs)
	m.take(cl, cluster.Lost, lost)
	gone := tpsOf(taken)
	m.anew = slices.DeleteFunc(slices.Clone(lost), func(tp cluster.TP) bool { return slices.Contains(gone, tp) })
	return true
}

// take takes partitions away and waits until they have been let go of.
func (m *member) take(cl *kgo.Client, kind cluster.EventKind, tps []cluster.TP) {
	for _, tp := range tps {
		delete(m.held, tp)
	}
	released := make(chan struct{})
	if !m.push(cl, queued{cluster.Event{Kind: kind, Partitions: tps}, released}) {
		return
	}
	select {
	case <-released:
	case <-m.gone:
	}
}

// push queues an event; it says no if nobody is going to answer.
func (m *member) push(cl *kgo.Client, e queued) bool {
	id, generation := m.identify(cl)
	m.mu.Lock()
	defer m.mu.Unlock()
	if e.Kind != cluster.Lost {
		m.meta.Member, m.meta.Generation = id, generation
	}
	if m.leaving {
		return false
	}
	m.events = append(m.events, e)
	if m.wake != nil {
		m.wake()
	}
	return true
}

// patience is how long a group may be held by members that assign in another way. Processes of Kafka Streams leave no group when they
// are closed, and their sessions last 45 s by default.
const patience = time.Minute

// manageHook hears when kgo cannot keep up its membership. It tries again by itself; what no trying helps is passed on.
type manageHook member

func (h *manageHook) OnGroupManageError(err error) {
	m := (*member)(h)
	// kgo also leaves a note for a poll; nobody polls this client, so the notes must not pile up.
	m.group.PollRecords(nil, 0) //lint:ignore SA1012 without a context kgo does not wait
	if w := meaning(err); w != cluster.ErrFenced && w != cluster.ErrUnauthorized && !errors.Is(err, kerr.InconsistentGroupProtocol) &&
		!errors.Is(err, kerr.InvalidSessionTimeout) {
		return
	}
	if !errors.Is(err, kerr.InconsistentGroupProtocol) {
		m.strange = time.Time{}
	} else if m.strange.IsZero() {
		m.strange = time.Now()
	}
	if !m.strange.IsZero() && time.Since(m.strange) < patience {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err = wrap(err, "member %q of group %q", m.cfg.Instance, m.cfg.Group)
	if m.wake != nil {
		m.wake()
	}
}

func (m *member) Poll(ctx context.Context) (cluster.Fetched, error) {
	wait, cancel := context.WithCancel(ctx)
	defer cancel()
	m.mu.Lock()
	m.wake = cancel
	events, err := m.due()
	m.mu.Unlock()
	if len(events) > 0 || err != nil {
		return cluster.Fetched{Events: events}, err
	}
	batches, err := m.f.poll(wait)
	return cluster.Fetched{Batches: batches}, err
}

// due hands out the queued events, up to one that must be answered. Called with mu held.
func (m *member) due() ([]cluster.Event, error) {
	if m.closed {
		return nil, fmt.Errorf("member of group %q: %w", m.cfg.Group, cluster.ErrClosed)
	}
	if err := m.err; err != nil {
		m.err = nil
		return nil, err
	}
	var events []cluster.Event
	for len(m.events) > 0 && m.released == nil {
		e := m.events[0]
		m.events = m.events[1:]
		events = append(events, e.Event)
		if e.Kind == cluster.Assigned {
			for _, tp := range e.Partitions {
				m.owned[tp] = true
			}
			continue
		}
		for _, tp := range e.Partitions {
			delete(m.owned, tp)
		}
		m.f.remove(e.Partitions)
		m.released = e.released
	}
	return events, nil
}

func (m *member) Released() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.released != nil {
		close(m.released)
		m.released = nil
		if m.wake != nil && len(m.events) > 0 {
			m.wake()
		}
	}
}

func (m *member) Seek(offsets map[cluster.TP]int64) {
	m.mu.Lock()
	mine := maps.Clone(offsets)
	maps.DeleteFunc(mine, func(tp cluster.TP, _ int64) bool { return !m.owned[tp] })
	m.mu.Unlock()
	m.f.seek(mine)
}

func (m *member) Pause(tps ...cluster.TP)              { m.f.pause(tps) }
func (m *member) Resume(tps ...cluster.TP)             { m.f.resume(tps) }
func (m *member) Position(tp cluster.TP) (int64, bool) { return m.f.position(tp) }

// Subscribe has kgo join again; it hears of new topics with the metadata, which it asks for at once.
func (m *member) Subscribe(subs []assign.Subtopology) {
	m.balancer.subscribe(subs)
	want := m.balancer.topics()
	var gone, added []string
	for _, t := range m.group.GetConsumeTopics() {
		if !want[t] {
			gone = append(gone, t)
		}
		delete(want, t)
	}
	added = sortedKeys(want)
	m.group.AddConsumeTopics(added...)
	m.group.PurgeTopicsFromConsuming(gone...)
	if len(added) == 0 {
		m.group.ForceMetadataRefresh() // a topic of the application's own may have been created meanwhile
	}
}

// Group is as of the last callback. kgo may be in a later generation: but what has been lost and not been let go of must
// not be committed in a generation in which it is somebody else's.
func (m *member) Group() cluster.GroupMetadata {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.meta
}

func (m *member) Commit(ctx context.Context, offsets map[cluster.TP]cluster.Offset) error {
	if len(offsets) == 0 {
		return nil
	}
	g := m.Group()
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group, req.Generation, req.MemberID, req.InstanceID = g.Group, g.Generation, g.Member, instance(g)
	for topic, partitions := range byTopic(slices.Collect(maps.Keys(offsets))) {
		t := kmsg.NewOffsetCommitRequestTopic()
		t.Topic = topic
		for _, n := range partitions {
			o := offsets[cluster.TP{Topic: topic, Partition: n}]
			p := kmsg.NewOffsetCommitRequestTopicPartition()
			p.Partition, p.Offset, p.Metadata = n, o.At, kmsg.StringPtr(o.Metadata)
			t.Partitions = append(t.Partitions, p)
		}
		req.Topics = append(req.Topics, t)
	}
	// From version 10 on topics go by id.
	resp, err := coordinate(ctx, m.group, groupCoordinator, g.Group, req, 9, func(r kmsg.Response) (codes []int16) {
		for _, t := range r.(*kmsg.OffsetCommitResponse).Topics {
			for _, p := range t.Partitions {
				codes = append(codes, p.ErrorCode)
			}
		}
		return codes
	})
	if err != nil {
		return wrap(err, "committing offsets of group %q", g.Group)
	}
	for _, t := range resp.(*kmsg.OffsetCommitResponse).Topics {
		for _, p := range t.Partitions {
			if p.ErrorCode != 0 {
				return code(p.ErrorCode, "committing the offset of %s-%d for group %q in generation %d", t.Topic, p.Partition, g.Group, g.Generation)
			}
		}
	}
	return nil
}

func instance(g cluster.GroupMetadata) *string {
	if g.Instance == "" {
		return nil
	}
	return &g.Instance
}

func (m *member) Leave(ctx context.Context) error {
	id, _ := m.group.GroupMetadata()
	m.mu.Lock()
	first := !m.leaving
	m.leaving, m.events = true, nil
	m.mu.Unlock()
	if !first {
		return nil
	}
	close(m.gone)
	err := m.group.LeaveGroupContext(ctx)
	if m.cfg.Instance == "" || id == "" {
		return wrap(err, "leaving group %q", m.cfg.Group)
	}
	// kgo keeps static members in the group on purpose; a clean goodbye is ours to say.
	req := kmsg.NewPtrLeaveGroupRequest()
	req.Group, req.MemberID = m.cfg.Group, id
	lm := kmsg.NewLeaveGroupRequestMember()
	lm.MemberID, lm.InstanceID, lm.Reason = id, &m.cfg.Instance, kmsg.StringPtr("stopped")
	req.Members = []kmsg.LeaveGroupRequestMember{lm}
	resp, err := req.RequestWith(ctx, m.group)
	if err == nil {
		err = kerr.ErrorForCode(resp.ErrorCode)
		for _, l := range resp.Members {
			err = cmp.Or(err, kerr.ErrorForCode(l.ErrorCode))
		}
	}
	if errors.Is(err, kerr.UnknownMemberID) {
		return nil // gone already
	}
	return wrap(err, "leaving group %q", m.cfg.Group)
}

func (m *member) Close() {
	m.mu.Lock()
	first, silent := !m.closed, m.leaving
	m.closed, m.leaving = true, true
	if m.wake != nil {
		m.wake()
	}
	m.mu.Unlock()
	if !first {
		return
	}
	if !silent {
		close(m.gone)
	}
	m.group.Close()
	m.f.close()
}

func compareTPs(a, b cluster.TP) int {
	return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
}

func tpsOf(m map[string][]int32) []cluster.TP {
	var tps []cluster.TP
	for _, topic := range sortedKeys(m) {
		for _, p := range slices.Sorted(slices.Values(m[topic])) {
			tps = append(tps, cluster.TP{Topic: topic, Partition: p})
		}
	}
	return tps
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
