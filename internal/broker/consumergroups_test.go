package broker

import (
	"crypto/rand"
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
	// Of a classic group only consumers can be joined by members of the other protocol.
	connect := joinRequest("connect", "", "", 10*time.Second)
	connect.ProtocolType = "connect"
	wantCode(t, "a classic member", ask[*kmsg.JoinGroupResponse](r, 3, connect).ErrorCode, nil)
	q := join("a")
	q.Group = "connect"
	wantCode(t, "member of a group of no consumers", ask[*kmsg.ConsumerGroupHeartbeatResponse](r, 1, q).ErrorCode, kerr.GroupIDNotFound)
	wantCode(t, "no consumer", ask[*kmsg.JoinGroupResponse](r, 9, &kmsg.JoinGroupRequest{Group: "g", SessionTimeoutMillis: 10_000, ProtocolType: "connect",
		Protocols: []kmsg.JoinGroupRequestProtocol{{Name: "range"}}}).ErrorCode, kerr.InconsistentGroupProtocol)

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

// A group has settings of its own, before it exists and after a restart.
func TestGroupConfigs(t *testing.T) {
	fs := vfs.NewMem()
	b := start(t, onFS(fs))
	alter := func(b *Broker, op kmsg.IncrementalAlterConfigOp, name, value string) int16 {
		return ask[*kmsg.IncrementalAlterConfigsResponse](dialRaw(t, b), 1, &kmsg.IncrementalAlterConfigsRequest{Resources: []kmsg.IncrementalAlterConfigsRequestResource{{
			ResourceType: kmsg.ConfigResourceTypeGroupConfig, ResourceName: "g", Configs: []kmsg.IncrementalAlterConfigsRequestResourceConfig{{Name: name, Op: op, Value: &value}},
		}}}).Resources[0].ErrorCode
	}
	join := func(b *Broker) int32 {
		r := ask[*kmsg.ConsumerGroupHeartbeatResponse](dialRaw(t, b), 1, &kmsg.ConsumerGroupHeartbeatRequest{Group: "g", MemberID: rand.Text(), RebalanceTimeoutMillis: 1000,
			SubscribedTopicNames: []string{"t"}, Topics: []kmsg.ConsumerGroupHeartbeatRequestTopic{}})
		wantCode(t, "a join", r.ErrorCode, nil)
		return r.HeartbeatIntervalMillis
	}
	wantCode(t, "an interval", alter(b, kmsg.IncrementalAlterConfigOpSet, groupHeartbeat, "1500"), nil)
	wantCode(t, "one above the session", alter(b, kmsg.IncrementalAlterConfigOpSet, groupHeartbeat, "45000"), kerr.InvalidConfig)
	wantCode(t, "a setting not known", alter(b, kmsg.IncrementalAlterConfigOpSet, "retention.ms", "1"), kerr.InvalidConfig)
	if ms := join(b); ms != 1500 {
		t.Errorf("heartbeats every %d ms", ms)
	}
	b.Close()
	b = start(t, onFS(fs))
	if ms := join(b); ms != 1500 {
		t.Errorf("after a restart heartbeats every %d ms", ms)
	}
	listed := ask[*kmsg.ListConfigResourcesResponse](dialRaw(t, b), 1, &kmsg.ListConfigResourcesRequest{ResourceTypes: []int8{int8(kmsg.ConfigResourceTypeGroupConfig)}})
	if len(listed.ConfigResources) != 1 || listed.ConfigResources[0].Name != "g" {
		t.Errorf("listed: %+v", listed.ConfigResources)
	}
	described := ask[*kmsg.DescribeConfigsResponse](dialRaw(t, b), 4, &kmsg.DescribeConfigsRequest{Resources: []kmsg.DescribeConfigsRequestResource{{ResourceType: kmsg.ConfigResourceTypeGroupConfig, ResourceName: "g"}}})
	if c := described.Resources[0].Configs; len(c) != 7 || *c[0].Value != "1500" || c[0].Source != kmsg.ConfigSourceGroupConfig || *c[1].Value != "45000" {
		t.Errorf("described: %+v", c)
	}
	wantCode(t, "the default again", alter(b, kmsg.IncrementalAlterConfigOpDelete, groupHeartbeat, ""), nil)
	if ms := join(b); ms != 5000 {
		t.Errorf("heartbeats every %d ms by default", ms)
	}
}
