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

// streamsSide is one of two brokers with a group of the streams protocol.
type streamsSide struct {
	*side
	members map[string]*streamsMember
}

// streamsMember is what a member knows.
type streamsMember struct {
	epoch int32
	told  []kmsg.TaskIDs
	in    bool
}

// TestDifferentialStreams does the same with a group of the streams protocol: errors, epochs, the group's state and what is
// wrong with it and, of two members, how many tasks each has. Internal topics are there from the start, because a cluster
// makes them in its own time. Not compared is whether a member is told again what it was told: we do if it says that it has
// something else. Nor how many partitions internal topics are described with: a cluster says 0 until the second heartbeat of a
// group. It is a tenth as many as MOLDAU_SEQUENCES says, because each makes topics.
func TestDifferentialStreams(t *testing.T) {
	differential(t, (number("MOLDAU_SEQUENCES", 300)+9)/10, 3, newStreamsSide, func(r *rand.Rand, _ *streamsSide) iter.Seq[step[*streamsSide]] {
		return func(yield func(step[*streamsSide]) bool) {
			for range 8 + r.IntN(20) {
				if !yield(streamsStep(r)) {
					return
				}
			}
		}
	})
}

func newStreamsSide(t *testing.T, addr, prefix string) *streamsSide {
	s := &streamsSide{side: newSide(t, addr, prefix), members: map[string]*streamsMember{"A": {}, "B": {}, "C": {}}}
	for _, topic := range []string{"words", "by", "log"} {
		if got := s.createTopics(7, topic, groupParts, "", "", false); got != fmt.Sprint("ok ", groupParts, " 1") {
			t.Fatal(got)
		}
	}
	// A coordinator learns of the topics later than those who ask for metadata.
	s.until("the coordinator does not know the topics", func() bool {
		q := s.entering("w", 1, "words")
		q.Group = prefix + "w"
		return countTasks(patiently(s.side, 0, q, func(r *kmsg.StreamsGroupHeartbeatResponse) int16 { return r.ErrorCode }).ActiveTasks) > 0
	})
	return s
}

// entering is how a member joins with a topology that reads a source.
func (s *streamsSide) entering(who string, epoch int32, source string) *kmsg.StreamsGroupHeartbeatRequest {
	q := streamsJoin(s.prefix+"g", s.prefix+who)
	q.Topology.Epoch = epoch
	first, second := &q.Topology.Subtopologies[0], &q.Topology.Subtopologies[1]
	first.SourceTopics, first.RepartitionSinkTopics = []string{s.prefix + source}, []string{s.prefix + "by"}
	second.RepartitionSourceTopics[0].Topic, second.StateChangelogTopics[0].Topic = s.prefix+"by", s.prefix+"log"
	return q
}

// streamsStep draws what is done next. Tasks divide among three members.
func streamsStep(r *rand.Rand) step[*streamsSide] {
	who := pick(r, "A", "A", "B", "B", "C")
	off := pick[int32](r, 0, 0, 0, 0, 0, 0, 1, -1)
	switch k := r.IntN(24); {
	case k < 5:
		epoch := pick[int32](r, 1, 1, 1, 1, 1, 0, 2)
		source := pick(r, "words", "words", "words", "words", "words", "words", "none", "by")
		return step[*streamsSide]{fmt.Sprintf("join %s, topology %d of %s", who, epoch, source), func(s *streamsSide) string {
			q := s.entering(who, epoch, source)
			return s.exchange(who, q)
		}}
	case k < 14:
		owned := pick(r, "told", "told", "told", "null", "wrong")
		return step[*streamsSide]{fmt.Sprintf("heartbeat %s epoch%+d, owned: %s", who, off, owned), func(s *streamsSide) string { return s.beat(who, off, owned) }}
	case k < 16:
		return step[*streamsSide]{"leave " + who, func(s *streamsSide) string {
			defer func() { *s.members[who] = streamsMember{} }()
			return s.exchange(who, streamsBeat(s.prefix+"g", s.prefix+who, -1))
		}}
	case k < 18:
		version, topic := int16(pick(r, 8, 9, 9, 9)), pick(r, "words", "by", "log")
		return step[*streamsSide]{fmt.Sprintf("commit v%d %s of %s epoch%+d", version, who, topic, off), func(s *streamsSide) string {
			q := kmsg.NewPtrOffsetCommitRequest()
			q.Group, q.MemberID, q.Generation = s.prefix+"g", s.prefix+who, s.members[who].epoch+off
			q.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: s.prefix + topic, Partitions: []kmsg.OffsetCommitRequestTopicPartition{{Offset: 1, LeaderEpoch: -1}}}}
			return name(ask[*kmsg.OffsetCommitResponse](s.raw, version, q).Topics[0].Partitions[0].ErrorCode)
		}}
	case k == 18:
		return step[*streamsSide]{fmt.Sprintf("offsets %s epoch%+d", who, off), func(s *streamsSide) string {
			q := kmsg.NewPtrOffsetFetchRequest()
			g := kmsg.NewOffsetFetchRequestGroup()
			g.Group, g.MemberID, g.MemberEpoch = s.prefix+"g", ptr(s.prefix+who), s.members[who].epoch+off
			q.Groups = append(q.Groups, g)
			return name(ask[*kmsg.OffsetFetchResponse](s.raw, 9, q).Groups[0].ErrorCode)
		}}
	case k == 19:
		return step[*streamsSide]{"a classic member joins and leaves", func(s *streamsSide) string {
			q := joinRequest(s.prefix+"g", "", "", 30*time.Second)
			j := ask[*kmsg.JoinGroupResponse](s.raw, 3, q)
			l := &kmsg.LeaveGroupRequest{Group: q.Group, Members: []kmsg.LeaveGroupRequestMember{{MemberID: j.MemberID}}}
			left := ask[*kmsg.LeaveGroupResponse](s.raw, 5, l)
			return fmt.Sprint(name(j.ErrorCode), " ", j.Generation, ", ", name(left.ErrorCode), " ", name(left.Members[0].ErrorCode))
		}}
	case k == 20:
		return step[*streamsSide]{"a consumer joins and leaves", func(s *streamsSide) string {
			q := kmsg.NewPtrConsumerGroupHeartbeatRequest()
			q.Group, q.MemberID, q.RebalanceTimeoutMillis = s.prefix+"g", "consumer", 60_000
			q.SubscribedTopicNames, q.Topics = []string{s.prefix + "words"}, []kmsg.ConsumerGroupHeartbeatRequestTopic{}
			in := ask[*kmsg.ConsumerGroupHeartbeatResponse](s.raw, 1, q)
			q.MemberEpoch = -1
			return fmt.Sprint(name(in.ErrorCode), ", ", name(ask[*kmsg.ConsumerGroupHeartbeatResponse](s.raw, 1, q).ErrorCode))
		}}
	case k == 21:
		return step[*streamsSide]{"delete", func(s *streamsSide) string {
			return name(ask[*kmsg.DeleteGroupsResponse](s.raw, 2, &kmsg.DeleteGroupsRequest{Groups: []string{s.prefix + "g"}}).Groups[0].ErrorCode)
		}}
	}
	return step[*streamsSide]{"describe", (*streamsSide).describe}
}

// exchange sends a heartbeat; the member does at once what it is told.
func (s *streamsSide) exchange(who string, q *kmsg.StreamsGroupHeartbeatRequest) string {
	m := s.members[who]
	resp := ask[*kmsg.StreamsGroupHeartbeatResponse](s.raw, 0, q)
	out := fmt.Sprint(name(resp.ErrorCode), " epoch ", resp.MemberEpoch)
	if resp.ErrorCode != 0 {
		if e := kerr.ErrorForCode(resp.ErrorCode); e == kerr.FencedMemberEpoch || e == kerr.UnknownMemberID {
			*m = streamsMember{}
		}
		return out
	}
	m.in, m.epoch = true, resp.MemberEpoch
	if resp.ActiveTasks != nil {
		m.told = resp.ActiveTasks
	}
	for _, st := range resp.Status {
		out += fmt.Sprint(" status ", st.StatusCode)
	}
	return out + s.tasks(countTasks(m.told))
}

// tasks tells of a number of tasks, if there are no more than two members.
func (s *streamsSide) tasks(n int) string {
	in := 0
	for _, m := range s.members {
		if m.in {
			in++
		}
	}
	if in > 2 {
		return ""
	}
	return fmt.Sprint(" ", n, " tasks")
}

func (s *streamsSide) beat(who string, off int32, owned string) string {
	m := s.members[who]
	q := streamsBeat(s.prefix+"g", s.prefix+who, max(m.epoch+off, 1))
	if owned != "null" {
		q.ActiveTasks, q.StandbyTasks, q.WarmupTasks = slices.Clone(m.told), []kmsg.TaskIDs{}, []kmsg.TaskIDs{}
		if q.ActiveTasks == nil {
			q.ActiveTasks = []kmsg.TaskIDs{}
		}
	}
	if owned == "wrong" {
		q.ActiveTasks = append(q.ActiveTasks, kmsg.TaskIDs{SubtopologyID: "9", Partitions: []int32{0}})
	}
	return s.exchange(who, q)
}

func (s *streamsSide) describe() string {
	out := ""
	for _, g := range ask[*kmsg.ListGroupsResponse](s.raw, 5, kmsg.NewPtrListGroupsRequest()).Groups {
		if g.Group == s.prefix+"g" {
			out = fmt.Sprint(g.GroupType, " ", g.GroupState, " ", g.ProtocolType)
		}
	}
	q := kmsg.NewPtrStreamsGroupDescribeRequest()
	q.Groups = []string{s.prefix + "g"}
	d := ask[*kmsg.StreamsGroupDescribeResponse](s.raw, 0, q).Groups[0]
	out += fmt.Sprint("; ", name(d.ErrorCode), " ", d.State, " ", d.Epoch, "/", d.AssignmentEpoch)
	if d.Topology != nil {
		out += fmt.Sprint(" topology ", d.Topology.Epoch)
		for _, sub := range d.Topology.Subtopologies {
			out += fmt.Sprint(" ", sub.SubtopologyID, " ", len(sub.SourceTopics), len(sub.RepartitionSinkTopics))
			for _, in := range slices.Concat(sub.RepartitionSourceTopics, sub.StateChangelogTopics) {
				out += fmt.Sprint(" ", strings.TrimPrefix(in.Topic, s.prefix), " configs ", len(in.Configs))
			}
		}
	}
	var members []string
	for _, m := range d.Members {
		members = append(members, fmt.Sprint(" ", strings.TrimPrefix(m.MemberID, s.prefix), " epoch ", m.MemberEpoch, "/", m.TopologyEpoch, " has",
			s.tasks(countTasks(m.Assignment.ActiveTasks)), " of", s.tasks(countTasks(m.TargetAssignment.ActiveTasks))))
	}
	slices.Sort(members)
	return out + strings.Join(members, ",")
}
