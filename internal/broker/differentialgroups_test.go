package broker

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// groupSide is one of two brokers with a group of members that have names of our own.
type groupSide struct {
	*side
	topic   [16]byte
	members map[string]*memberOf
	over    bool // a member of the consumer protocol has left
}

// memberOf is what a member knows.
type memberOf struct {
	id       string
	epoch    int32 // or generation
	assigned []kmsg.ConsumerGroupHeartbeatRequestTopic
	in       bool
}

// groupParts divides by as many members as there can be.
const groupParts = 12

// TestDifferentialGroups does the same with the members of a group, of the classic and of the consumer protocol, which changes
// over between them. Compared are errors, epochs, the group's state and, of two members, how many partitions each gets: of
// more it depends on which ones an assignor moves, where any will do. A classic group
// never has two members: on one connection a JoinGroup that waits for the other could not be answered. Left out is a static
// member of the consumer protocol that joins again as who it is: its answer was lost, so we let it in, while Kafka has it wait
// for the end of its session. And one that says the epoch before: we let it go on however often its answers are lost, Kafka
// once. And a static member that goes back to the classic protocol as the last one of the other: Kafka gives it at once what
// others may still work on, we have all of them join. It is a third as many as MOLDAU_SEQUENCES says: each makes a coordinator work.
func TestDifferentialGroups(t *testing.T) {
	differential(t, (number("MOLDAU_SEQUENCES", 300)+2)/3, 2, newGroupSide, func(r *rand.Rand, ours *groupSide) iter.Seq[step[*groupSide]] {
		return func(yield func(step[*groupSide]) bool) {
			for range 8 + r.IntN(16) {
				// When the last of the consumer protocol has left, what members work on counts here, there what they were to have.
				if ours.over || !yield(groupStep(r, ours)) {
					return
				}
			}
		}
	})
}

func newGroupSide(t *testing.T, addr, prefix string) *groupSide {
	s := &groupSide{side: newSide(t, addr, prefix), members: map[string]*memberOf{}}
	for _, m := range []string{"A", "B", "S", "X", "Z"} {
		s.members[m] = &memberOf{}
	}
	if got := s.createTopics(7, "t", groupParts, "", "", false); got != fmt.Sprint("ok ", groupParts, " 1") {
		t.Fatal(got)
	}
	q := kmsg.NewPtrMetadataRequest()
	mt := kmsg.NewMetadataRequestTopic()
	mt.Topic = ptr(prefix + "t")
	q.Topics = append(q.Topics, mt)
	s.topic = ask[*kmsg.MetadataResponse](s.raw, 12, q).Topics[0].TopicID
	// A coordinator learns of the topic later than those who ask for metadata.
	w := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	w.Group, w.MemberID, w.RebalanceTimeoutMillis = prefix+"w", "w", 60_000
	w.SubscribedTopicNames, w.Topics = []string{prefix + "t"}, []kmsg.ConsumerGroupHeartbeatRequestTopic{}
	s.until("the coordinator does not know the topic", func() bool {
		resp := patiently(s.side, 1, w, func(r *kmsg.ConsumerGroupHeartbeatResponse) int16 { return r.ErrorCode })
		return resp.Assignment != nil && len(resp.Assignment.Topics) == 1
	})
	return s
}

// groupStep draws what a member does next. A and B are classic members, S a static one, X is of the consumer protocol, and Z is S in it:
// never more than four, among whom the partitions divide.
func groupStep(r *rand.Rand, ours *groupSide) step[*groupSide] {
	classic, modern := pick(r, "A", "A", "B", "S"), pick(r, "X", "X", "X", "Z")
	in := func(names ...string) int {
		return len(slices.DeleteFunc(names, func(m string) bool { return !ours.members[m].in }))
	}
	off := pick[int32](r, 0, 0, 0, 0, 0, 1, -1)
	switch k := r.IntN(16); {
	case k < 4:
		// A classic group with others would have the join wait for them.
		others, static := in("A", "B", "S"), classic == "S" && in("Z") > 0
		if ours.members[classic].in {
			others--
		}
		if others > 0 && (in("X", "Z") == 0 || static && in("X") == 0) {
			break
		}
		return step[*groupSide]{"join " + classic, func(s *groupSide) string { return s.joinSync(classic) }}
	case k < 7 && !(modern == "Z" && in("Z") > 0):
		return step[*groupSide]{"join " + modern, func(s *groupSide) string { return s.beat(modern, true, 0) }}
	case k >= 7 && k < 11:
		off := max(off, 0)
		return step[*groupSide]{fmt.Sprintf("heartbeat %s epoch%+d", modern, off), func(s *groupSide) string { return s.beat(modern, false, off) }}
	case k == 11:
		return step[*groupSide]{fmt.Sprintf("heartbeat %s generation%+d", classic, off), func(s *groupSide) string {
			m := s.members[classic]
			q := &kmsg.HeartbeatRequest{Group: s.prefix + "g", MemberID: m.id, Generation: m.epoch + off, InstanceID: s.instance(classic)}
			return name(ask[*kmsg.HeartbeatResponse](s.raw, 4, q).ErrorCode)
		}}
	case k == 12:
		who := pick(r, classic, modern)
		return step[*groupSide]{"leave " + who, func(s *groupSide) string { return s.leaveGroup(who) }}
	case k == 13:
		who, version := pick(r, classic, modern), int16(pick(r, 8, 9, 9))
		return step[*groupSide]{fmt.Sprintf("commit v%d %s epoch%+d", version, who, off), func(s *groupSide) string {
			m := s.members[who]
			q := kmsg.NewPtrOffsetCommitRequest()
			q.Group, q.MemberID, q.Generation = s.prefix+"g", m.id, m.epoch+off
			q.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: s.prefix + "t", Partitions: []kmsg.OffsetCommitRequestTopicPartition{{Partition: 0, Offset: 1, LeaderEpoch: -1}}}}
			return name(ask[*kmsg.OffsetCommitResponse](s.raw, version, q).Topics[0].Partitions[0].ErrorCode)
		}}
	case k == 14:
		who := pick(r, classic, modern)
		return step[*groupSide]{fmt.Sprintf("offsets %s epoch%+d", who, off), func(s *groupSide) string {
			m := s.members[who]
			q := kmsg.NewPtrOffsetFetchRequest()
			g := kmsg.NewOffsetFetchRequestGroup()
			g.Group, g.MemberID, g.MemberEpoch = s.prefix+"g", &m.id, m.epoch+off
			q.Groups = append(q.Groups, g)
			return name(ask[*kmsg.OffsetFetchResponse](s.raw, 9, q).Groups[0].ErrorCode)
		}}
	}
	return step[*groupSide]{"describe", (*groupSide).describe}
}

// parts tells of a number of partitions, if there are no more than two members.
func (s *groupSide) parts(n int) string {
	in := 0
	for _, m := range s.members {
		if m.in {
			in++
		}
	}
	if in > 2 {
		return ""
	}
	return fmt.Sprint(" ", n, " partitions")
}

func (s *groupSide) instance(who string) *string {
	if who == "S" || who == "Z" {
		return ptr(s.prefix + "i")
	}
	return nil
}

// joinSync joins as a client does: with the id it is given, and as a leader it takes everything.
func (s *groupSide) joinSync(who string) string {
	m := s.members[who]
	meta := kmsg.NewConsumerMemberMetadata()
	meta.Version, meta.Topics = 1, []string{s.prefix + "t"}
	q := joinRequest(s.prefix+"g", m.id, "", 30*time.Second)
	q.InstanceID, q.Protocols[0].Metadata = s.instance(who), meta.AppendTo(nil)
	j := ask[*kmsg.JoinGroupResponse](s.raw, 9, q)
	if j.ErrorCode == kerr.MemberIDRequired.Code {
		q.MemberID = j.MemberID
		j = ask[*kmsg.JoinGroupResponse](s.raw, 9, q)
	}
	out := fmt.Sprint(name(j.ErrorCode), " generation ", j.Generation, " leads ", j.LeaderID == j.MemberID && j.MemberID != "", " members ", len(j.Members), " ", deref(j.Protocol), " ", deref(j.ProtocolType))
	if j.ErrorCode != 0 {
		if j.ErrorCode == kerr.UnknownMemberID.Code || j.ErrorCode == kerr.FencedInstanceID.Code {
			*m = memberOf{}
		}
		return out
	}
	*m = memberOf{id: j.MemberID, epoch: j.Generation, in: true}
	if s.instance(who) != nil {
		s.members["Z"].in = false
	}
	y := kmsg.NewPtrSyncGroupRequest()
	y.Group, y.MemberID, y.Generation, y.InstanceID, y.Protocol, y.ProtocolType = q.Group, m.id, m.epoch, q.InstanceID, j.Protocol, j.ProtocolType
	if len(j.Members) > 0 {
		a := kmsg.NewConsumerMemberAssignment()
		at := kmsg.NewConsumerMemberAssignmentTopic()
		at.Topic = s.prefix + "t"
		for p := range int32(groupParts) {
			at.Partitions = append(at.Partitions, p)
		}
		a.Topics = append(a.Topics, at)
		y.GroupAssignment = []kmsg.SyncGroupRequestGroupAssignment{{MemberID: m.id, MemberAssignment: a.AppendTo(nil)}}
	}
	resp := ask[*kmsg.SyncGroupResponse](s.raw, 5, y)
	out += ", " + name(resp.ErrorCode)
	if resp.ErrorCode == 0 {
		var a kmsg.ConsumerMemberAssignment
		if err := a.ReadFrom(resp.MemberAssignment); err != nil {
			return out + " " + err.Error()
		}
		n := 0
		for _, at := range a.Topics {
			n += len(at.Partitions)
		}
		out += fmt.Sprint(" version ", a.Version, s.parts(n))
	}
	return out
}

// beat is a heartbeat of the consumer protocol; the member has given up at once what it was told to.
func (s *groupSide) beat(who string, joins bool, off int32) string {
	m := s.members[who]
	q := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	q.Group, q.MemberID, q.MemberEpoch, q.RebalanceTimeoutMillis, q.InstanceID = s.prefix+"g", m.id, m.epoch+off, -1, s.instance(who)
	q.Topics = m.assigned
	if joins {
		if m.id == "" {
			m.id = who
		}
		q.MemberID, q.MemberEpoch, q.RebalanceTimeoutMillis = m.id, 0, 60_000
		q.SubscribedTopicNames, q.Topics = []string{s.prefix + "t"}, []kmsg.ConsumerGroupHeartbeatRequestTopic{}
	} else if q.MemberEpoch <= 0 || q.MemberID == "" {
		q.MemberID, q.MemberEpoch = "none", 1
	}
	if q.Topics == nil {
		q.Topics = []kmsg.ConsumerGroupHeartbeatRequestTopic{}
	}
	resp := ask[*kmsg.ConsumerGroupHeartbeatResponse](s.raw, 1, q)
	out := fmt.Sprint(name(resp.ErrorCode), " epoch ", resp.MemberEpoch)
	if resp.ErrorCode != 0 {
		return out
	}
	m.in, m.epoch = true, resp.MemberEpoch
	if joins && s.instance(who) != nil {
		s.members["S"].in = false
	}
	if resp.Assignment != nil {
		m.assigned = []kmsg.ConsumerGroupHeartbeatRequestTopic{}
		n := 0
		for _, t := range resp.Assignment.Topics {
			m.assigned = append(m.assigned, kmsg.ConsumerGroupHeartbeatRequestTopic{TopicID: t.TopicID, Partitions: t.Partitions})
			n += len(t.Partitions)
		}
		out += s.parts(n)
	}
	return out
}

func (s *groupSide) leaveGroup(who string) string {
	m := s.members[who]
	defer func() { *m = memberOf{} }()
	if strings.Contains("ABS", who) {
		q := &kmsg.LeaveGroupRequest{Group: s.prefix + "g", Members: []kmsg.LeaveGroupRequestMember{{MemberID: m.id, InstanceID: s.instance(who)}}}
		resp := ask[*kmsg.LeaveGroupResponse](s.raw, 5, q)
		out := name(resp.ErrorCode)
		for _, m := range resp.Members {
			out += " " + name(m.ErrorCode)
		}
		return out
	}
	q := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	q.Group, q.MemberID, q.MemberEpoch, q.RebalanceTimeoutMillis, q.InstanceID = s.prefix+"g", m.id, -1, -1, s.instance(who)
	if m.id == "" {
		q.MemberID = "none"
	}
	resp := ask[*kmsg.ConsumerGroupHeartbeatResponse](s.raw, 1, q)
	s.over = resp.ErrorCode == 0
	return fmt.Sprint(name(resp.ErrorCode), " epoch ", resp.MemberEpoch)
}

func (s *groupSide) describe() string {
	out := ""
	for _, g := range ask[*kmsg.ListGroupsResponse](s.raw, 5, kmsg.NewPtrListGroupsRequest()).Groups {
		if g.Group == s.prefix+"g" {
			out = fmt.Sprint(g.GroupType, " ", g.GroupState, " ", g.ProtocolType)
		}
	}
	c := kmsg.NewPtrConsumerGroupDescribeRequest()
	c.Groups = []string{s.prefix + "g"}
	d := ask[*kmsg.ConsumerGroupDescribeResponse](s.raw, 1, c).Groups[0]
	out += fmt.Sprint("; ", name(d.ErrorCode), " ", d.State, " ", d.Epoch, "/", d.AssignmentEpoch, " ", d.AssignorName)
	var members []string
	count := func(a kmsg.Assignment) (n int) {
		for _, t := range a.TopicPartitions {
			n += len(t.Partitions)
		}
		return n
	}
	for _, m := range d.Members {
		members = append(members, fmt.Sprint(" type ", m.MemberType, " epoch ", m.MemberEpoch, " has", s.parts(count(m.Assignment)), " of", s.parts(count(m.TargetAssignment)), " static ", m.InstanceID != nil))
	}
	slices.Sort(members)
	g := ask[*kmsg.DescribeGroupsResponse](s.raw, 6, &kmsg.DescribeGroupsRequest{Groups: []string{s.prefix + "g"}}).Groups[0]
	return out + strings.Join(members, ",") + fmt.Sprint("; ", name(g.ErrorCode), " ", g.State, " ", g.Protocol, " ", len(g.Members))
}
