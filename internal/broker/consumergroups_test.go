package broker

import (
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A member of the consumer protocol goes on where it was after a crash, and its commits count.
func TestConsumerGroup(t *testing.T) {
	fs := vfs.NewCrashableMem()
	b := start(t, onFS(fs), sameBoot, listening)
	r := dialTCP(t, b)
	id := r.createTopic("t", 3)
	join := func(member string) *kmsg.ConsumerGroupHeartbeatRequest {
		q := kmsg.NewPtrConsumerGroupHeartbeatRequest()
		q.Group, q.MemberID, q.RebalanceTimeoutMillis = "g", member, 60_000
		q.SubscribedTopicNames, q.Topics = []string{"t"}, []kmsg.ConsumerGroupHeartbeatRequestTopic{}
		return q
	}
	a := ask[*kmsg.ConsumerGroupHeartbeatResponse](r, 1, join("a"))
	wantCode(t, "join", a.ErrorCode, nil)
	if a.Assignment == nil || len(a.Assignment.Topics) != 1 || a.Assignment.Topics[0].TopicID != id || len(a.Assignment.Topics[0].Partitions) != 3 {
		t.Fatalf("assignment %+v", a.Assignment)
	}
	// Members of one protocol cannot join a group of the other.
	wantCode(t, "classic member", ask[*kmsg.JoinGroupResponse](r, 9, joinRequest("g", "", "", 10*time.Second)).ErrorCode, kerr.InconsistentGroupProtocol)
	joinAlone(r, "classic", "", 10*time.Second)
	q := join("a")
	q.Group = "classic"
	wantCode(t, "member of a classic group", ask[*kmsg.ConsumerGroupHeartbeatResponse](r, 1, q).ErrorCode, kerr.GroupIDNotFound)

	b = start(t, onFS(crash(fs, 100, 1)), sameBoot, listening)
	r = dialTCP(t, b)
	beat := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	beat.Group, beat.MemberID, beat.MemberEpoch, beat.RebalanceTimeoutMillis = "g", "a", a.MemberEpoch, -1
	resp := ask[*kmsg.ConsumerGroupHeartbeatResponse](r, 1, beat)
	wantCode(t, "heartbeat after a crash", resp.ErrorCode, nil)
	if resp.MemberEpoch != a.MemberEpoch || resp.Assignment != nil {
		t.Errorf("epoch %d, was %d; assignment %v", resp.MemberEpoch, a.MemberEpoch, resp.Assignment)
	}
	commit := func(epoch int32, version int16) int16 {
		c := kmsg.NewPtrOffsetCommitRequest()
		c.Group, c.MemberID, c.Generation = "g", "a", epoch
		c.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: "t", TopicID: id, Partitions: []kmsg.OffsetCommitRequestTopicPartition{{Offset: 3, LeaderEpoch: -1}}}}
		return ask[*kmsg.OffsetCommitResponse](r, version, c).Topics[0].Partitions[0].ErrorCode
	}
	wantCode(t, "commit", commit(a.MemberEpoch, 10), nil)
	wantCode(t, "commit of an epoch to come", commit(a.MemberEpoch+1, 9), kerr.StaleMemberEpoch)
	wantCode(t, "commit in an old version", commit(a.MemberEpoch, 8), kerr.UnsupportedVersion)
	f := kmsg.NewPtrOffsetFetchRequest()
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group, g.MemberID, g.MemberEpoch = "g", ptr("a"), a.MemberEpoch-1
	f.Groups = append(f.Groups, g)
	wantCode(t, "offsets of an old epoch", ask[*kmsg.OffsetFetchResponse](r, 9, f).Groups[0].ErrorCode, kerr.StaleMemberEpoch)

	d := kmsg.NewPtrConsumerGroupDescribeRequest()
	d.Groups = []string{"g", "none"}
	described := ask[*kmsg.ConsumerGroupDescribeResponse](r, 1, d).Groups
	if got := described[0]; got.State != "Stable" || len(got.Members) != 1 || got.Members[0].Assignment.TopicPartitions[0].Topic != "t" {
		t.Errorf("described: %+v", got)
	}
	wantCode(t, "describe none", described[1].ErrorCode, kerr.GroupIDNotFound)
	ls := kmsg.NewPtrListGroupsRequest()
	ls.TypesFilter = []string{"Consumer"}
	if got := ask[*kmsg.ListGroupsResponse](r, 5, ls).Groups; len(got) != 1 || got[0].GroupState != "Stable" {
		t.Errorf("groups %+v", got)
	}
	// Once it is empty the group can change its protocol, and back; its offsets stay.
	beat.MemberEpoch = -1
	wantCode(t, "leave", ask[*kmsg.ConsumerGroupHeartbeatResponse](r, 1, beat).ErrorCode, nil)
	member, generation := joinAlone(r, "g", "", 10*time.Second)
	wantCode(t, "heartbeat of a classic member", heartbeat(r, "g", member, "", generation), nil)
	if o := fetchOffset(r, "g", "t", 0, true); o.Offset != 3 {
		t.Errorf("offset %+v", o)
	}
	l := kmsg.NewPtrLeaveGroupRequest()
	l.Group, l.Members = "g", []kmsg.LeaveGroupRequestMember{{MemberID: member}}
	ask[*kmsg.LeaveGroupResponse](r, 5, l)
	wantCode(t, "join again", ask[*kmsg.ConsumerGroupHeartbeatResponse](r, 1, join("b")).ErrorCode, nil)
}
