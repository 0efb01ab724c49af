package group

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// StreamsLimits are the coordinator's settings for groups of the streams protocol.
type StreamsLimits struct {
	Session      time.Duration // group.streams.session.timeout.ms
	Heartbeat    time.Duration // group.streams.heartbeat.interval.ms
	InitialDelay time.Duration // group.streams.initial.rebalance.delay.ms: an empty group waits so long for more members
	Interval     time.Duration // group.streams.assignment.interval.ms: between two targets
	Standbys     int           // group.streams.num.standby.replicas
}

// Endpoint is where a member answers queries.
type Endpoint struct {
	Host string `json:"host"`
	Port uint16 `json:"port"`
}

// runner is a member of a Streams group: a thread of a process that runs tasks.
type runner struct {
	id, rack, process string
	clientID, host    string
	local             bool
	rebalance         time.Duration
	topology          int32 // epoch of the one it runs
	tags              []Setting
	endpoint          *Endpoint

	epoch, previous int32
	state           reconciliation
	assigned        Tasks
	revoking        Tasks

	deadline       time.Time // of its session
	revokeDeadline time.Time // until when it must have given up tasks; zero: none to give up
	unproven       int
}

// Streams is a group of the streams protocol (KIP-1071): members bring the topology they run, and the group decides who gets
// which of its tasks and leads each member there heartbeat by heartbeat.
type Streams struct {
	id     string
	limits StreamsLimits

	epoch       int32 // of members and topics
	targetEpoch int32 // of the group epoch the target was made for
	targetTime  time.Time
	members     map[string]*runner
	target      map[string]Tasks
	topology    *Topology
	validated   int32 // epoch of the topology that the topics allow; -1: none
	standbys    int   // as of the last group epoch
	// What of the topology there is, as of a version of the topics.
	version  int64
	required string
	wiring   *wiring // nil after a restart, until a member heartbeats
	// delayed is until when the first members wait for more; zero: they do not.
	delayed time.Time
	// endpoints counts changes of what members with an endpoint have.
	endpoints int32
	shutdown  string // the member that has asked all to stop
	since     time.Time
	unsaved   bool
	dead      bool
}

// NewStreams returns an empty group, in epoch 1.
func NewStreams(id string, l StreamsLimits, now time.Time) *Streams {
	return &Streams{
		id: id, limits: l, epoch: 1, targetEpoch: 1, validated: -1, version: -1, since: now, unsaved: true,
		members: map[string]*runner{}, target: map[string]Tasks{},
	}
}

// StreamsRequest is a StreamsGroupHeartbeat request. Nil fields are unchanged since the last one.
type StreamsRequest struct {
	MemberID         string
	Epoch            int32
	Rack, Process    *string
	ClientID, Host   string
	Local            bool
	RebalanceTimeout time.Duration // negative: unchanged
	Topology         *Topology
	Tags             []Setting
	Endpoint         *Endpoint
	EndpointEpoch    int32
	Owned            Tasks // nil: unchanged
	Shutdown         bool
}

// StreamsResult answers it.
type StreamsResult struct {
	MemberID string
	Epoch    int32
	Interval time.Duration
	Assigned Tasks // nil: unchanged
	Status   []Status
	Missing  []InternalTopic // topics to be made for the group
	// Endpoints are all members' that have one, if EndpointsGiven; EndpointEpoch is their version.
	EndpointEpoch  int32
	Endpoints      []EndpointParts
	EndpointsGiven bool
}

// EndpointParts are the partitions that an endpoint can answer for.
type EndpointParts struct {
	Endpoint        Endpoint
	Active, Standby []TopicParts
}

// TopicParts are partitions of a topic.
type TopicParts struct {
	Topic      string
	Partitions []int32
}

// Check says what is wrong with a request in itself.
func (r *StreamsRequest) Check() *kerr.Error {
	joining := r.Epoch == joinEpoch
	switch {
	case r.Rack != nil && *r.Rack == "", r.Epoch < leaveEpoch, joining != (r.Topology != nil),
		joining && (r.RebalanceTimeout < 0 || r.Owned == nil || len(r.Owned) > 0):
		return kerr.InvalidRequest
	}
	if r.Topology == nil {
		return nil
	}
	if len(r.Topology.Subtopologies) > maxSubtopologies {
		return kerr.StreamsInvalidTopology
	}
	ids := map[string]bool{}
	for _, s := range r.Topology.Subtopologies {
		if ids[s.ID] || slices.ContainsFunc(s.Changelogs, func(c InternalTopic) bool { return c.Partitions != 0 }) {
			return kerr.StreamsInvalidTopology
		}
		ids[s.ID] = true
	}
	return nil
}

// Heartbeat is one step of a member: it joins, says what it has, and is told what to have, or leaves.
func (g *Streams) Heartbeat(now time.Time, r StreamsRequest, topics Topics) (StreamsResult, error) {
	if g.dead {
		return StreamsResult{}, kerr.GroupIDNotFound
	}
	if r.Epoch == leaveEpoch {
		return g.leave(now, r)
	}
	m, err := g.find(r)
	if err != nil {
		return StreamsResult{}, err
	}
	changed, err := g.follow(r, topics)
	if err != nil {
		return StreamsResult{}, err
	}
	if m == nil {
		m = g.add(now, r.MemberID)
		changed = true
	}
	changed = m.update(r) || changed
	if changed || g.standbys != g.limits.Standbys {
		g.standbys = g.limits.Standbys
		g.bump()
	}
	res := StreamsResult{MemberID: m.id, Interval: g.limits.Heartbeat}
	tell := func(code int8, format string, args ...any) {
		res.Status = append(res.Status, Status{code, fmt.Sprintf(format, args...)})
	}
	if m.topology < g.topology.Epoch {
		tell(StaleTopology, "The member's topology epoch %d is behind the group's topology epoch %d.", m.topology, g.topology.Epoch)
	}
	target, delay := g.aim(now, m)
	if delay != "" {
		tell(AssignmentDelayed, "Assignment delayed due to the configured %s.", delay)
	}
	before := maps.Clone(m.assigned)
	g.reconcile(now, m, r, target)
	g.alive(now, m)
	res.Epoch = m.epoch
	changed = r.Epoch == joinEpoch || !sameTasks(before, m.assigned)
	if changed && m.endpoint != nil {
		g.endpoints++
	}
	// One that says that it has something else may have missed the answer that told it.
	if changed || r.Owned != nil && !sameTasks(r.Owned, m.assigned) {
		res.Assigned = maps.Clone(m.assigned)
	}
	if res.EndpointEpoch = g.endpoints; g.endpoints != r.EndpointEpoch {
		res.Endpoints, res.EndpointsGiven = g.queryable(topics), true
	}
	if p := g.wiring.problem; p != nil {
		res.Status, res.Missing = append(res.Status, *p), g.wiring.missing
	}
	if r.Shutdown && g.shutdown == "" {
		g.shutdown = m.id
	}
	if g.shutdown != "" {
		tell(ShutDownApplication, "Streams group member %s encountered a fatal error and requested a shutdown for the entire application.", g.shutdown)
	}
	return res, nil
}

func sameTasks(a, b Tasks) bool {
	return maps.EqualFunc(a, b, func(x, y Held) bool { return x.Standby == y.Standby })
}

func (g *Streams) bump() {
	g.epoch++
	g.unsaved = true
}

// find returns the member a request comes from; nil if it is to be made.
func (g *Streams) find(r StreamsRequest) (*runner, error) {
	m := g.members[r.MemberID]
	switch {
	case r.Epoch == joinEpoch:
		return m, nil
	case m == nil:
		return nil, kerr.UnknownMemberID
	case r.Epoch == m.epoch:
		return m, nil
	case r.Epoch > m.epoch, r.Epoch != m.previous, r.Owned == nil:
		return nil, kerr.FencedMemberEpoch
	}
	// It may have missed only the answer that told it of its epoch.
	for t, h := range r.Owned { //lint:ordered any of them
		if !m.assigned.has(t, h.Standby) {
			return nil, kerr.FencedMemberEpoch
		}
	}
	return m, nil
}

// follow takes over the topology and the topics it is about, and reports whether they have changed. It changes nothing if there
// is an error.
func (g *Streams) follow(r StreamsRequest, topics Topics) (changed bool, err error) {
	topology := g.topology
	if r.Topology != nil {
		asked := r.Topology.sorted()
		switch {
		case topology == nil:
			topology = asked
		case topology.Epoch > asked.Epoch: // it is told that its own is stale
		case !topology.equal(asked):
			return false, kerr.InvalidRequest // as in Kafka 4.3 a topology cannot be changed
		}
	}
	w, required := g.wiring, g.required
	if w == nil || g.version != topics.Version() || g.topology == nil {
		if required = fingerprint(topology, topics); w == nil || required != g.required {
			if w, err = wire(topology, topics); err != nil {
				return false, err
			}
		}
	}
	validated := int32(-1)
	if w.problem == nil {
		validated = topology.Epoch
		for t := range r.Owned { //lint:ordered any of them
			if n, ok := w.tasks[t.Subtopology]; !ok || t.Partition < 0 || t.Partition >= n {
				return false, kerr.InvalidRequest
			}
		}
	}
	changed = g.topology == nil || required != g.required || validated != g.validated
	g.topology, g.wiring, g.required, g.validated, g.version = topology, w, required, validated, topics.Version()
	return changed, nil
}

// fingerprint differs where the topics that a topology needs do.
func fingerprint(t *Topology, topics Topics) string {
	var b strings.Builder
	for _, name := range t.required() {
		if id, n, ok := topics.Lookup(name); ok {
			b.Write(id[:])
			b.WriteString(strconv.Itoa(int(n)))
		}
	}
	return b.String()
}

func (g *Streams) add(now time.Time, id string) *runner {
	m := &runner{id: id, rebalance: -1, topology: -1, assigned: Tasks{}, revoking: Tasks{}}
	if len(g.members) == 0 {
		g.since = now
		if g.limits.InitialDelay > 0 && g.delayed.IsZero() {
			g.delayed = now.Add(g.limits.InitialDelay)
		}
	}
	g.members[id] = m
	return m
}

// update takes over what a member says of itself, and reports whether that is new.
func (m *runner) update(r StreamsRequest) bool {
	before := *m
	if r.Rack != nil {
		m.rack = *r.Rack
	}
	if r.Process != nil {
		m.process = *r.Process
	}
	if r.RebalanceTimeout >= 0 {
		m.rebalance = r.RebalanceTimeout
	}
	if r.Topology != nil {
		m.topology = r.Topology.Epoch
	}
	if r.Tags != nil {
		m.tags = slices.SortedFunc(slices.Values(r.Tags), bySetting)
	}
	if r.Endpoint != nil {
		m.endpoint = r.Endpoint
	}
	m.clientID, m.host, m.local = r.ClientID, r.Host, r.Local
	sameEndpoint := before.endpoint == m.endpoint || before.endpoint != nil && m.endpoint != nil && *before.endpoint == *m.endpoint
	return before.rack != m.rack || before.process != m.process || before.rebalance != m.rebalance || before.topology != m.topology ||
		before.clientID != m.clientID || before.host != m.host || !slices.Equal(before.tags, m.tags) || !sameEndpoint
}

func (g *Streams) memberIDs() []string { return slices.Sorted(maps.Keys(g.members)) }

// aim returns what a member is to have, of which it is told in the epoch of the target, and what keeps it from more.
func (g *Streams) aim(now time.Time, m *runner) (target Tasks, delay string) {
	if g.waiting(now) {
		return nil, "initial rebalance delay"
	}
	if g.epoch > g.targetEpoch {
		if now.Before(g.targetTime.Add(g.limits.Interval)) {
			delay = "assignment interval"
		} else {
			g.retarget(now)
		}
	}
	return g.target[m.id], delay
}

// waiting says whether the first members still wait for more.
func (g *Streams) waiting(now time.Time) bool {
	if !g.delayed.IsZero() && !g.delayed.After(now) {
		g.delayed = time.Time{}
	}
	return !g.delayed.IsZero()
}

// retarget decides who is to get what: nobody anything while the topology cannot run.
func (g *Streams) retarget(now time.Time) {
	var workers []*worker
	for _, id := range g.memberIDs() {
		workers = append(workers, &worker{member: id, process: g.members[id].process, had: g.target[id]})
	}
	var active, stateful []Task
	if g.wiring.problem == nil {
		for i := range g.topology.Subtopologies {
			s := &g.topology.Subtopologies[i]
			for p := range g.wiring.tasks[s.ID] {
				active = append(active, Task{s.ID, p})
				if len(s.Changelogs) > 0 {
					stateful = append(stateful, Task{s.ID, p})
				}
			}
		}
	}
	dealTasks(workers, active, stateful, g.standbys)
	g.target = map[string]Tasks{}
	for _, w := range workers {
		g.target[w.member] = w.tasks
	}
	g.targetEpoch, g.targetTime, g.unsaved = g.epoch, now, true
}

// queryable returns what members with an endpoint can be asked for.
func (g *Streams) queryable(topics Topics) []EndpointParts {
	var out []EndpointParts
	for _, id := range g.memberIDs() {
		if m := g.members[id]; m.endpoint != nil {
			out = append(out, EndpointParts{*m.endpoint, g.parts(m.assigned, false, topics), g.parts(m.assigned, true, topics)})
		}
	}
	return out
}

// parts returns the partitions that tasks of a role read.
func (g *Streams) parts(tasks Tasks, standby bool, topics Topics) []TopicParts {
	var out []TopicParts
	for i := range g.topology.Subtopologies {
		s := &g.topology.Subtopologies[i]
		for _, name := range s.reads() {
			_, n, _ := topics.Lookup(name)
			parts := TopicParts{Topic: name}
			for p := range n {
				if tasks.has(Task{s.ID, p}, standby) {
					parts.Partitions = append(parts.Partitions, p)
				}
			}
			if len(parts.Partitions) > 0 {
				out = append(out, parts)
			}
		}
	}
	slices.SortFunc(out, func(a, b TopicParts) int { return cmp.Compare(a.Topic, b.Topic) })
	return out
}

// leave removes a member.
func (g *Streams) leave(now time.Time, r StreamsRequest) (StreamsResult, error) {
	m := g.members[r.MemberID]
	if m == nil {
		return StreamsResult{}, kerr.UnknownMemberID
	}
	if r.Shutdown && g.shutdown == "" {
		g.shutdown = m.id
	}
	g.remove(now, m)
	return StreamsResult{MemberID: r.MemberID, Epoch: r.Epoch}, nil
}

func (g *Streams) remove(now time.Time, m *runner) {
	delete(g.members, m.id)
	delete(g.target, m.id)
	if len(g.members) == 0 {
		g.since, g.shutdown = now, ""
	}
	g.bump()
}

// alive starts a member's session anew.
func (g *Streams) alive(now time.Time, m *runner) {
	m.deadline = now.Add(g.limits.Session)
	if m.unproven > 0 {
		m.unproven, g.unsaved = 0, true
	}
}

// Deadline returns when Tick has something to do; zero: not by time alone.
func (g *Streams) Deadline() time.Time {
	d := g.delayed
	for _, m := range g.members { //lint:ordered the earliest of all
		for _, t := range []time.Time{m.deadline, m.revokeDeadline} {
			if !t.IsZero() && (d.IsZero() || t.Before(d)) {
				d = t
			}
		}
	}
	return d
}

// Tick removes members that have let a deadline pass, and decides once the first members have waited long enough.
func (g *Streams) Tick(now time.Time) {
	passed := func(t time.Time) bool { return !t.IsZero() && !t.After(now) }
	for _, id := range g.memberIDs() {
		if m := g.members[id]; passed(m.deadline) || passed(m.revokeDeadline) {
			g.remove(now, m)
		}
	}
	if passed(g.delayed) && !g.waiting(now) && len(g.members) > 0 && g.wiring != nil && g.epoch > g.targetEpoch {
		g.retarget(now)
	}
}

// Kill makes the group refuse everything: it is deleted, or becomes one of the classic protocol. Only an empty group may.
func (g *Streams) Kill() error {
	if len(g.members) > 0 {
		return kerr.NonEmptyGroup
	}
	g.dead, g.unsaved = true, false
	return nil
}

// Empty reports whether the group has no members, and since when.
func (g *Streams) Empty() (bool, time.Time) { return len(g.members) == 0, g.since }

// SetLimits changes what members are held to, from their next heartbeat on.
func (g *Streams) SetLimits(l StreamsLimits) { g.limits = l }
