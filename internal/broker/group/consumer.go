package group

import (
	"maps"
	"regexp"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// Epochs with a meaning of their own in heartbeats.
const (
	joinEpoch        = 0
	leaveEpoch       = -1
	leaveStaticEpoch = -2 // a static member goes away and means to come back
)

// ConsumerLimits are the coordinator's settings for groups of the consumer protocol.
type ConsumerLimits struct {
	Session   time.Duration // group.consumer.session.timeout.ms
	Heartbeat time.Duration // group.consumer.heartbeat.interval.ms
	MaxSize   int           // group.consumer.max.size; 0: no limit
}

// reconciliation is how far a member has followed its target.
type reconciliation uint8

const (
	settled    reconciliation = iota // it has what the target says
	unrevoked                        // it still has to give up partitions
	unreleased                       // it waits for partitions that others still have
)

// consumer is a member of a Consumer group.
type consumer struct {
	id, instance, rack string
	clientID, host     string
	local              bool
	rebalance          time.Duration
	names              []string
	regex              string
	pattern            *regexp.Regexp // of regex; nil: none
	assignor           string

	epoch, previous int32
	state           reconciliation
	assigned        map[Part]int32 // since which epoch of the member
	revoking        map[Part]struct{}

	deadline       time.Time // of its session
	revokeDeadline time.Time // until when it must have given up partitions; zero: none to give up
	unproven       int
	classic        *classicSide // of a member of the classic protocol; nil: of the consumer protocol
}

// Consumer is a group of the consumer protocol (KIP-848): the group decides who gets what, and leads each member there
// heartbeat by heartbeat.
type Consumer struct {
	id     string
	limits ConsumerLimits

	epoch       int32 // of members and subscriptions
	targetEpoch int32 // of the group epoch the target was made for
	members     map[string]*consumer
	static      map[string]string
	target      map[string]map[Part]struct{}
	owner       map[Part]string // who has a partition, or has not given it up yet
	// What the members subscribe to, as of a version of the topics.
	version    int64
	subscribed string
	since      time.Time
	unsaved    bool
	dead       bool
}

// NewConsumer returns an empty group, in epoch 1.
func NewConsumer(id string, l ConsumerLimits, now time.Time) *Consumer {
	return &Consumer{
		id: id, limits: l, epoch: 1, targetEpoch: 1, members: map[string]*consumer{}, static: map[string]string{}, target: map[string]map[Part]struct{}{},
		owner: map[Part]string{}, version: -1, since: now, unsaved: true,
	}
}

// HeartbeatRequest is a ConsumerGroupHeartbeat request. Nil fields are unchanged since the last one.
type HeartbeatRequest struct {
	MemberID         string
	Epoch            int32
	InstanceID, Rack *string
	ClientID, Host   string
	Local            bool
	RebalanceTimeout time.Duration // negative: unchanged
	Names            []string
	Regex            *string
	Assignor         *string
	Owned            []Part // nil: unchanged; see OwnedGiven
	OwnedGiven       bool
}

// HeartbeatResult answers it.
type HeartbeatResult struct {
	MemberID string
	Epoch    int32
	Interval time.Duration
	// Assigned is what the member is to have; meaningful if AssignedGiven.
	Assigned      []Part
	AssignedGiven bool
}

// Check says what is wrong with a request in itself.
func (r *HeartbeatRequest) Check() error {
	if r.Assignor != nil {
		if _, ok := assignorByName(*r.Assignor); !ok {
			return kerr.UnsupportedAssignor
		}
	}
	empty := func(s *string) bool { return s != nil && *s == "" }
	switch {
	case empty(r.InstanceID), empty(r.Rack), r.Epoch < leaveStaticEpoch,
		r.Epoch == leaveStaticEpoch && r.InstanceID == nil,
		r.Epoch == joinEpoch && (r.RebalanceTimeout < 0 || !r.OwnedGiven || len(r.Owned) > 0 || r.Names == nil && r.Regex == nil):
		return kerr.InvalidRequest
	}
	if r.Regex != nil && *r.Regex != "" {
		if _, err := compile(*r.Regex); err != nil {
			return kerr.InvalidRegularExpression
		}
	}
	return nil
}

// Heartbeat is one step of a member: it joins, says what it has, and is told what to have, or leaves.
func (g *Consumer) Heartbeat(now time.Time, r HeartbeatRequest, topics Topics) (HeartbeatResult, error) {
	if r.Epoch == leaveEpoch || r.Epoch == leaveStaticEpoch {
		return g.leave(now, r)
	}
	epoch := g.epoch
	m, err := g.find(now, r)
	if err != nil {
		return HeartbeatResult{}, err
	}
	before := maps.Clone(m.assigned)
	if m.classic != nil {
		m.classic, g.unsaved = nil, true // it has changed over
	}
	if updated, changed := g.update(m, r), g.changed(topics); (updated || changed) && g.epoch == epoch {
		g.bump()
	}
	if g.epoch > g.targetEpoch {
		g.retarget(topics)
	}
	g.reconcile(now, m, r, topics)
	g.alive(now, m)
	res := HeartbeatResult{MemberID: m.id, Epoch: m.epoch, Interval: g.limits.Heartbeat}
	full := r.RebalanceTimeout >= 0 && (r.Names != nil || r.Regex != nil) && r.OwnedGiven
	if r.Epoch == joinEpoch || full || !sameParts(before, m.assigned) {
		res.AssignedGiven, res.Assigned = true, sortedParts(m.assigned)
	}
	return res, nil
}

func sameParts(a, b map[Part]int32) bool {
	return maps.EqualFunc(a, b, func(int32, int32) bool { return true })
}

func sortedParts[V any](m map[Part]V) []Part { return slices.SortedFunc(maps.Keys(m), Part.Compare) }

func (g *Consumer) bump() {
	g.epoch++
	g.unsaved = true
}

// find returns the member a request comes from, made if it joins.
func (g *Consumer) find(now time.Time, r HeartbeatRequest) (*consumer, error) {
	if g.dead {
		return nil, kerr.GroupIDNotFound
	}
	m := g.members[r.MemberID]
	if r.InstanceID != nil {
		return g.findStatic(now, r)
	}
	switch {
	case r.Epoch == joinEpoch:
		if m == nil {
			return g.add(now, r)
		}
		return m, nil
	case m == nil:
		return nil, kerr.UnknownMemberID
	}
	return m, m.checkEpoch(r)
}

func (g *Consumer) findStatic(now time.Time, r HeartbeatRequest) (*consumer, error) {
	if r.Epoch == joinEpoch {
		return g.returnStatic(now, r, false)
	}
	m, err := g.current(r.MemberID, *r.InstanceID)
	if err != nil {
		return nil, err
	}
	return m, m.checkEpoch(r)
}

// returnStatic returns the static member that joins, made or with the id it comes back with. One that is there must have gone
// away before, unless either speaks the classic protocol.
func (g *Consumer) returnStatic(now time.Time, r HeartbeatRequest, classic bool) (*consumer, error) {
	id, known := g.static[*r.InstanceID]
	if !known {
		return g.add(now, r)
	}
	old := g.members[id]
	switch {
	case id == r.MemberID && old.epoch != leaveStaticEpoch:
		return old, nil
	case old.epoch != leaveStaticEpoch && !classic && old.classic == nil:
		return nil, kerr.UnreleasedInstanceID
	}
	// It is back, with what it had.
	delete(g.members, id)
	old.id, old.epoch, old.previous = r.MemberID, joinEpoch, joinEpoch
	g.members[old.id] = old
	g.static[*r.InstanceID] = old.id
	if target, ok := g.target[id]; ok && id != old.id {
		g.target[old.id] = target
		delete(g.target, id)
	}
	for p, o := range g.owner { //lint:ordered each on its own
		if o == id {
			g.owner[p] = old.id
		}
	}
	g.unsaved = true
	return old, nil
}

// checkEpoch lets a member go on that has missed nothing, or only the answer that told it of its epoch.
func (m *consumer) checkEpoch(r HeartbeatRequest) error {
	switch {
	case r.Epoch == m.epoch:
		return nil
	case r.Epoch > m.epoch, r.Epoch != m.previous, !r.OwnedGiven:
		return kerr.FencedMemberEpoch
	}
	for _, p := range r.Owned {
		if _, ok := m.assigned[p]; !ok {
			return kerr.FencedMemberEpoch
		}
	}
	return nil
}

func (g *Consumer) add(now time.Time, r HeartbeatRequest) (*consumer, error) {
	if g.limits.MaxSize > 0 && len(g.members) >= g.limits.MaxSize {
		return nil, kerr.GroupMaxSizeReached
	}
	m := &consumer{id: r.MemberID, local: r.Local, assigned: map[Part]int32{}, revoking: map[Part]struct{}{}}
	if r.InstanceID != nil {
		m.instance = *r.InstanceID
		g.static[m.instance] = m.id
	}
	if len(g.members) == 0 {
		g.since = now
	}
	g.members[m.id] = m
	g.bump()
	return m, nil
}

// update takes over what a member says of itself, and reports whether its subscription changed.
func (g *Consumer) update(m *consumer, r HeartbeatRequest) bool {
	changed := false
	set := func(at *string, to *string) {
		if to != nil && *at != *to {
			*at, changed = *to, true
		}
	}
	set(&m.rack, r.Rack)
	set(&m.assignor, r.Assignor)
	if r.Names != nil {
		names := slices.Compact(slices.Sorted(slices.Values(r.Names)))
		if !slices.Equal(names, m.names) {
			m.names, changed = names, true
		}
	}
	if r.Regex != nil && *r.Regex != m.regex {
		m.regex, m.pattern, changed = *r.Regex, nil, true
		if m.regex != "" {
			m.pattern, _ = compile(m.regex) // Check has seen it
		}
	}
	if r.RebalanceTimeout >= 0 {
		m.rebalance = r.RebalanceTimeout
	}
	m.clientID, m.host, m.local = r.ClientID, r.Host, r.Local
	return changed
}

func (g *Consumer) memberIDs() []string { return slices.Sorted(maps.Keys(g.members)) }

// leave removes a member, or notes that a static one means to come back.
func (g *Consumer) leave(now time.Time, r HeartbeatRequest) (HeartbeatResult, error) {
	m := g.members[r.MemberID]
	if r.InstanceID != nil {
		id, known := g.static[*r.InstanceID]
		if known && id != r.MemberID {
			return HeartbeatResult{}, kerr.FencedInstanceID
		}
	}
	if m == nil || g.dead {
		return HeartbeatResult{}, kerr.UnknownMemberID
	}
	if r.Epoch == leaveStaticEpoch {
		m.epoch = leaveStaticEpoch
		m.revokeDeadline = time.Time{}
		m.deadline = now.Add(g.limits.Session)
		// What it was to give up it does not have any more.
		g.have(m, m.assigned, nil)
		m.state = settled
		g.unsaved = true
	} else {
		g.remove(now, m)
	}
	return HeartbeatResult{MemberID: r.MemberID, Epoch: r.Epoch}, nil
}

func (g *Consumer) remove(now time.Time, m *consumer) {
	g.have(m, nil, nil)
	delete(g.members, m.id)
	delete(g.target, m.id)
	if m.instance != "" {
		delete(g.static, m.instance)
	}
	if len(g.members) == 0 {
		g.since = now
	}
	g.bump()
}

// have sets what a member has and what it still has to give up.
func (g *Consumer) have(m *consumer, assigned map[Part]int32, revoking map[Part]struct{}) {
	for p := range m.assigned { //lint:ordered into sets
		delete(g.owner, p)
	}
	for p := range m.revoking { //lint:ordered into sets
		delete(g.owner, p)
	}
	if assigned == nil {
		assigned = map[Part]int32{}
	}
	if revoking == nil {
		revoking = map[Part]struct{}{}
	}
	m.assigned, m.revoking = assigned, revoking
	for p := range assigned { //lint:ordered into sets
		g.owner[p] = m.id
	}
	for p := range revoking { //lint:ordered into sets
		g.owner[p] = m.id
	}
}

// Deadline returns when Tick has something to do; zero: not by time alone.
func (g *Consumer) Deadline() time.Time {
	var d time.Time
	for _, m := range g.members { //lint:ordered the earliest of all
		for _, t := range m.deadlines() {
			if !t.IsZero() && (d.IsZero() || t.Before(d)) {
				d = t
			}
		}
	}
	return d
}

// deadlines are what ends a membership: the session, partitions not given up, no JoinGroup or SyncGroup. Zero ones do not count.
func (m *consumer) deadlines() []time.Time {
	d := []time.Time{m.deadline, m.revokeDeadline}
	if m.classic != nil {
		d = append(d, m.classic.joinDeadline, m.classic.syncDeadline)
	}
	return d
}

// Tick removes members that have let a deadline pass.
func (g *Consumer) Tick(now time.Time) {
	for _, id := range g.memberIDs() {
		m := g.members[id]
		if slices.ContainsFunc(m.deadlines(), func(t time.Time) bool { return !t.IsZero() && !t.After(now) }) {
			g.remove(now, m)
		}
	}
}

// Kill makes the group refuse everything: it is deleted, or becomes one of the classic protocol. Only an empty group may.
func (g *Consumer) Kill() error {
	if len(g.members) > 0 {
		return kerr.NonEmptyGroup
	}
	g.dead, g.unsaved = true, false
	return nil
}

// Empty reports whether the group has no members, and since when.
func (g *Consumer) Empty() (bool, time.Time) { return len(g.members) == 0, g.since }

// SetLimits changes what members are held to, from their next heartbeat on.
func (g *Consumer) SetLimits(l ConsumerLimits) { g.limits = l }
