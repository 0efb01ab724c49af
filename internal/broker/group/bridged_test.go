package group

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

var bridgeLimits = Limits{MinSession: time.Second, MaxSession: time.Hour}

// subscribe is what a classic consumer says of itself; one that assigns eagerly owns nothing when it joins.
func subscribe(topics []string, owned ...Part) []byte {
	m := kmsg.NewConsumerMemberMetadata()
	m.Version, m.Topics, m.UserData = 1, topics, nil
	byTopic := map[string][]int32{}
	for _, p := range owned {
		name := string(bytes.TrimRight(p.Topic[:], "\x00"))
		byTopic[name] = append(byTopic[name], p.Partition)
	}
	for _, name := range topics {
		if ps := byTopic[name]; ps != nil {
			m.OwnedPartitions = append(m.OwnedPartitions, kmsg.ConsumerMemberMetadataOwnedPartition{Topic: name, Partitions: ps})
		}
	}
	return m.AppendTo(nil)
}

// bridged is a group of either protocol, with what package broker does around it.
type bridged struct {
	t       *testing.T
	now     time.Time
	topics  *fakeTopics
	classic *Classic
	modern  *Consumer
	ids     int
}

func newBridged(t *testing.T, partitions map[string]int32) *bridged {
	b := &bridged{t: t, now: time.Unix(1000, 0), topics: &fakeTopics{version: 1, partitions: partitions}}
	b.classic = NewClassic("g", bridgeLimits, b.now)
	return b
}

func (b *bridged) apply(e Effects) {
	if b.modern != nil && b.modern.OnlyClassic() {
		c, more := b.modern.Downgrade(b.now, bridgeLimits, b.topics)
		b.classic, b.modern = c, nil
		e.Answers = append(e.Answers, more.Answers...)
	}
	if e.Persist {
		b.classic.Marshal()
	}
	for _, answer := range e.Answers {
		answer(nil)
	}
}

func (b *bridged) join(r JoinRequest) {
	b.ids++
	r.NewMemberID = fmt.Sprintf("classic-%d", b.ids)
	r.SessionTimeout, r.RebalanceTimeout, r.ProtocolType, r.RequireKnownID = 10*time.Second, time.Minute, consumerType, true
	if b.modern != nil {
		if empty, _ := b.modern.Empty(); !empty {
			b.apply(b.modern.Join(b.now, r, bridgeLimits, b.topics))
			return
		}
		b.classic, b.modern = NewClassic("g", bridgeLimits, b.now), nil
	}
	b.apply(b.classic.Join(b.now, r))
}

func (b *bridged) sync(r SyncRequest) {
	if b.modern != nil {
		b.apply(b.modern.Sync(b.now, r, b.topics))
	} else {
		b.apply(b.classic.Sync(b.now, r))
	}
}

func (b *bridged) heartbeat(id string, generation int32) error {
	if b.modern != nil {
		return b.modern.ClassicHeartbeat(b.now, id, "", generation)
	}
	return b.classic.Heartbeat(b.now, id, "", generation)
}

func (b *bridged) leave(ls ...Leaving) (errs []error) {
	var e Effects
	if b.modern != nil {
		errs = b.modern.Leave(b.now, ls)
	} else {
		errs, e = b.classic.Leave(b.now, ls)
	}
	b.apply(e)
	return errs
}

func (b *bridged) beat(r HeartbeatRequest) (HeartbeatResult, error) {
	var e Effects
	if r.Epoch == joinEpoch && b.modern == nil {
		if state, _ := b.classic.State(); state == Empty {
			b.modern = NewConsumer("g", limits848, b.now)
		} else {
			m, up, err := b.classic.Upgrade(b.now, limits848, b.topics)
			if err != nil {
				return HeartbeatResult{}, err
			}
			b.modern, e = m, up
		}
	}
	if b.modern == nil {
		return HeartbeatResult{}, kerr.GroupIDNotFound
	}
	res, err := b.modern.Heartbeat(b.now, r, b.topics)
	b.apply(e)
	return res, err
}

// restart is a crash of the broker: the group comes back from its record.
func (b *bridged) restart() {
	var err error
	if b.modern != nil {
		b.modern.unsaved = true
		rec, _ := b.modern.Unsaved()
		if b.modern, err = RestoreConsumer("g", limits848, b.now, rec); err != nil {
			b.t.Fatal(err)
		}
		b.apply(Effects{})
		return
	}
	b.classic.unsaved = true
	rec, ok := b.classic.Unsaved()
	if !ok {
		return
	}
	if b.classic, err = RestoreClassic("g", bridgeLimits, b.now, rec); err != nil {
		b.t.Fatal(err)
	}
}

// consumerClassic is a client of the classic protocol, eager or cooperative.
type consumerClassic struct {
	b           *bridged
	cooperative bool
	names       []string
	id          string
	generation  int32
	owned       []Part
	joining     bool // waits for an answer
	syncing     bool
	joined      bool
	gone        bool
}

func (c *consumerClassic) protocol() string {
	if c.cooperative {
		return "cooperative-sticky"
	}
	return "range"
}

// failed takes an error as clients do.
func (c *consumerClassic) failed(err error) {
	c.joined = false
	switch err {
	case kerr.RebalanceInProgress:
	case kerr.UnknownMemberID:
		c.id, c.owned = "", nil
	case kerr.IllegalGeneration:
		c.owned = nil
	default:
		c.b.t.Fatalf("classic member %q: %v", c.id, err)
	}
}

// step does the next thing the client has to do, if it does not wait for an answer.
func (c *consumerClassic) step() {
	switch {
	case c.joining || c.syncing:
	case !c.joined:
		if !c.cooperative {
			c.owned = nil
		}
		c.joining = true
		c.b.join(JoinRequest{MemberID: c.id, Protocols: []Protocol{{c.protocol(), subscribe(c.names, c.owned...)}}, Reply: func(res JoinResult) {
			c.joining = false
			switch {
			case c.gone:
			case res.Err == kerr.MemberIDRequired:
				c.id = res.MemberID
			case res.Err != nil:
				c.failed(res.Err)
			default:
				c.id, c.generation, c.syncing = res.MemberID, res.Generation, true
				q := SyncRequest{MemberID: c.id, Generation: c.generation, ProtocolType: consumerType, Protocol: c.protocol(), Reply: c.synced}
				if res.Leader == c.id {
					q.Assignments = c.lead(res.Members)
				}
				c.b.sync(q)
			}
		}})
	default:
		if err := c.b.heartbeat(c.id, c.generation); err != nil {
			c.failed(err)
		}
	}
}

func (c *consumerClassic) synced(res SyncResult) {
	c.syncing = false
	if c.gone {
		return
	}
	if res.Err != nil {
		c.failed(res.Err)
		return
	}
	tps, _, err := readAssignment(res.Assignment)
	if err != nil {
		c.b.t.Fatal(err)
	}
	had := c.owned
	c.owned, c.joined = partsOf(tps, c.b.topics), true
	if c.cooperative && slices.ContainsFunc(had, func(p Part) bool { return !slices.Contains(c.owned, p) }) {
		c.joined = false // it gave something up, for others to get
	}
}

// lead assigns for a classic group. Cooperative members keep what another is to have until that one knows that they gave it up.
func (c *consumerClassic) lead(members []JoinedMember) map[string][]byte {
	var subs []subscription
	owner := map[Part]string{}
	for _, m := range members {
		s, err := readSubscription(m.Metadata)
		if err != nil {
			c.b.t.Fatal(err)
		}
		sub := subscription{m.ID, map[[16]byte]int32{}, partsOf(s.owned, c.b.topics)}
		for _, name := range s.topics {
			sub.topics[topicID(name)] = c.b.topics.partitions[name]
		}
		for _, p := range sub.had {
			owner[p] = m.ID
		}
		subs = append(subs, sub)
	}
	out := map[string][]byte{}
	for id, ps := range uniform(subs) {
		ps = slices.DeleteFunc(ps, func(p Part) bool { o, ok := owner[p]; return c.cooperative && ok && o != id })
		out[id] = embed(subscribe(c.names), ps, c.b.topics)
	}
	return out
}

// joinNow joins and wants the answer at once.
func (b *bridged) joinNow(r JoinRequest) (res JoinResult) {
	b.t.Helper()
	answered := false
	r.Reply = func(a JoinResult) { res, answered = a, true }
	if b.join(r); !answered {
		b.t.Fatal("no answer to a JoinGroup")
	}
	return res
}

func (b *bridged) syncNow(id string, generation int32, a map[string][]byte) (res SyncResult) {
	b.sync(SyncRequest{MemberID: id, Generation: generation, Assignments: a, Reply: func(r SyncResult) { res = r }})
	return res
}

// alone makes a classic group of one member that has all of topic t.
func (b *bridged) alone(instance string) (id string, generation int32) {
	q := JoinRequest{InstanceID: instance, Protocols: []Protocol{{"range", subscribe([]string{"t"})}}}
	j := b.joinNow(q)
	if j.Err == kerr.MemberIDRequired {
		q.MemberID = j.MemberID
		j = b.joinNow(q)
	}
	c := consumerClassic{b: b, names: []string{"t"}}
	if res := b.syncNow(j.MemberID, j.Generation, c.lead(j.Members)); res.Err != nil {
		b.t.Fatal(res.Err)
	}
	return j.MemberID, j.Generation
}
