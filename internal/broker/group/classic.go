package group

import (
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// State is a state of a classic group.
type State uint8

const (
	Empty State = iota
	PreparingRebalance
	CompletingRebalance
	Stable
	Dead
)

// String returns the state's name in the protocol.
func (s State) String() string {
	return [...]string{"Empty", "PreparingRebalance", "CompletingRebalance", "Stable", "Dead"}[s]
}

// Limits are the coordinator's settings for classic groups.
type Limits struct {
	MinSession   time.Duration // group.min.session.timeout.ms
	MaxSession   time.Duration // group.max.session.timeout.ms
	InitialDelay time.Duration // group.initial.rebalance.delay.ms
	MaxSize      int           // group.max.size; 0: no limit
}

// newMemberTimeout is how long a new member may wait in its first JoinGroup; a vanished one must not stall the group for
// longer.
const newMemberTimeout = 5 * time.Minute

// Protocol is one assignment protocol a member offers, with the data it sends to the leader under it.
type Protocol struct {
	Name     string
	Metadata []byte
}

// Effects is what a step asks for.
type Effects struct {
	// Persist says that the group's record changed: it is to be stored before the answers go out.
	Persist bool
	// Answers send what waiting requests are owed. An error says that the record could not be stored: the members are
	// told to come again.
	Answers []func(error)
}

func (e *Effects) join(reply func(JoinResult), r JoinResult) {
	e.Answers = append(e.Answers, func(err error) {
		if err != nil {
			r = JoinResult{Err: kerr.CoordinatorNotAvailable, MemberID: r.MemberID, Generation: -1}
		}
		reply(r)
	})
}

func (e *Effects) sync(reply func(SyncResult), r SyncResult) {
	e.Answers = append(e.Answers, func(err error) {
		if err != nil {
			r = SyncResult{Err: kerr.CoordinatorNotAvailable}
		}
		reply(r)
	})
}

// member is one member of a group.
type member struct {
	id, instance   string
	clientID, host string
	local          bool
	session        time.Duration
	rebalance      time.Duration
	protocols      []Protocol
	assignment     []byte
	isNew          bool // has not been part of a generation yet
	// unproven counts the restarts since the member last showed that it lives.
	unproven int
	joining  func(JoinResult)
	syncing  func(SyncResult)
	deadline time.Time
}

// invitation is an id that was given to a client with MEMBER_ID_REQUIRED, or that had joined a generation which was not
// complete when the broker stopped.
type invitation struct {
	instance string
	local    bool
	session  time.Duration
	deadline time.Time
	unproven int
}

func (m *member) metadata(protocol string) []byte {
	for _, p := range m.protocols {
		if p.Name == protocol {
			return p.Metadata
		}
	}
	return nil
}

func (m *member) matches(ps []Protocol) bool {
	return slices.EqualFunc(m.protocols, ps, func(a, b Protocol) bool {
		return a.Name == b.Name && string(a.Metadata) == string(b.Metadata)
	})
}

// watched says whether the member's deadline counts. While it waits in JoinGroup or SyncGroup it cannot send heartbeats.
func (m *member) watched() bool { return m.isNew || m.joining == nil && m.syncing == nil }

// Classic is a group of the classic protocol.
type Classic struct {
	id     string
	limits Limits

	state, previous State
	since           time.Time
	generation      int32
	protocolType    string
	protocol        string
	leader          string
	members         []*member // in order of joining
	static          map[string]string
	// invited are the ids that were given out and may join.
	invited map[string]*invitation
	// unsynced are the members of this generation that have not asked for their assignment.
	unsynced map[string]bool

	joinDeadline time.Time // of PreparingRebalance; zero: none
	syncDeadline time.Time // for unsynced; zero: none
	// An initial rebalance is prolonged while members arrive, within what is left.
	initialDelay, initialLeft time.Duration
	newMemberAdded            bool
	// stored is the last generation that was stored; unsaved says that what has happened since is not.
	stored  *record
	unsaved bool
}

// NewClassic returns an empty group.
func NewClassic(id string, l Limits, now time.Time) *Classic {
	return &Classic{id: id, limits: l, since: now, static: map[string]string{}, invited: map[string]*invitation{}, unsynced: map[string]bool{}, stored: &record{Version: recordVersion}}
}

// State returns the group's state and since when it is in it.
func (g *Classic) State() (State, time.Time) { return g.state, g.since }

// Generation returns the number of the current generation; 0 before the first.
func (g *Classic) Generation() int32 { return g.generation }

// ProtocolType returns what kind of members the group has, "consumer" for consumers, "" for a group of offsets only.
func (g *Classic) ProtocolType() string { return g.protocolType }

func (g *Classic) member(id string) *member {
	for _, m := range g.members {
		if m.id == id {
			return m
		}
	}
	return nil
}

func (g *Classic) transition(now time.Time, to State) {
	g.previous, g.state, g.since = g.state, to, now
	g.unsaved = true
}

// validate checks that a request comes from a current member.
func (g *Classic) validate(id, instance string) error {
	if instance != "" {
		current, ok := g.static[instance]
		if !ok {
			return kerr.UnknownMemberID
		}
		if current != id {
			return kerr.FencedInstanceID
		}
	}
	if g.member(id) == nil {
		return kerr.UnknownMemberID
	}
	return nil
}

func (g *Classic) supports(protocolType string, ps []Protocol) bool {
	if g.state == Empty {
		return protocolType != "" && len(ps) > 0
	}
	if g.protocolType != protocolType {
		return false
	}
	return slices.ContainsFunc(ps, func(p Protocol) bool { return g.votes(p.Name) == len(g.members) })
}

// votes counts the members that support a protocol.
func (g *Classic) votes(protocol string) int {
	n := 0
	for _, m := range g.members {
		if slices.ContainsFunc(m.protocols, func(p Protocol) bool { return p.Name == protocol }) {
			n++
		}
	}
	return n
}

// selectProtocol returns the protocol with the most votes among those that every member supports. Each member votes for
// the first one in its own list; a tie goes to the one that got its first vote first.
func (g *Classic) selectProtocol() string {
	var best string
	tally := map[string]int{}
	for _, m := range g.members {
		for _, p := range m.protocols {
			if g.votes(p.Name) == len(g.members) {
				if tally[p.Name]++; tally[p.Name] > tally[best] {
					best = p.Name
				}
				break
			}
		}
	}
	return best
}

// alive notes a sign of life of a member and starts its session anew.
func (g *Classic) alive(now time.Time, m *member) {
	m.deadline = now.Add(m.session)
	g.proven(m)
}

func (g *Classic) proven(m *member) {
	if m.unproven > 0 {
		m.unproven = 0
		g.unsaved = true
	}
}

func (g *Classic) awaitingJoin() int {
	n := 0
	for _, m := range g.members {
		if m.joining != nil {
			n++
		}
	}
	return n
}

func (g *Classic) allJoined() bool { return g.awaitingJoin() == len(g.members) && len(g.invited) == 0 }

func (g *Classic) rebalanceTimeout() time.Duration {
	var d time.Duration
	for _, m := range g.members {
		d = max(d, m.rebalance)
	}
	return d
}

func (g *Classic) add(m *member) {
	if g.leader == "" {
		g.leader = m.id
	}
	g.members = append(g.members, m)
	if m.instance != "" {
		g.static[m.instance] = m.id
	}
	delete(g.invited, m.id)
	g.unsaved = true
}

// remove takes a member, or an invitation, out of the group.
func (g *Classic) remove(id string) {
	g.unsaved = true
	delete(g.invited, id)
	delete(g.unsynced, id)
	i := slices.IndexFunc(g.members, func(m *member) bool { return m.id == id })
	if i < 0 {
		return
	}
	if m := g.members[i]; m.instance != "" {
		delete(g.static, m.instance)
	}
	g.members = slices.Delete(g.members, i, i+1)
	if g.leader == id {
		g.leader = ""
		if len(g.members) > 0 {
			g.leader = g.members[0].id
		}
	}
}
