package broker

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// counted counts what the members of a group see of each record.
type counted struct {
	mu   sync.Mutex
	seen map[string]int
}

func (c *counted) add(v string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen[v]++
}

func (c *counted) len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.seen)
}

// Members that come and go share the partitions; each record is seen, and the committed offsets reach the end.
func TestGroupRebalances(t *testing.T) {
	b := start(t, partitions(6))
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	p := client(t, b, kgo.DefaultProduceTopic("t"))
	const n = 300
	for i := range n {
		if i%100 == 0 {
			if err := p.Flush(ctx); err != nil {
				t.Fatal(err)
			}
		}
		p.Produce(ctx, &kgo.Record{Key: fmt.Append(nil, i), Value: fmt.Append(nil, i)}, nil)
	}
	if err := p.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	seen := counted{seen: map[string]int{}}
	var members sync.WaitGroup
	member := func(balancer kgo.GroupBalancer, records int) {
		members.Go(func() {
			cl := client(t, b, kgo.ConsumerGroup("g"), kgo.ConsumeTopics("t"), kgo.Balancers(balancer), kgo.HeartbeatInterval(20*time.Millisecond),
				kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.AutoCommitMarks(), kgo.BlockRebalanceOnPoll(), kgo.FetchMaxWait(20*time.Millisecond))
			defer cl.Close()
			for got := 0; got < records && ctx.Err() == nil; {
				fs := cl.PollRecords(ctx, 10)
				fs.EachRecord(func(r *kgo.Record) {
					seen.add(string(r.Value))
					cl.MarkCommitRecords(r)
					got++
				})
				cl.CommitMarkedOffsets(ctx)
				cl.AllowRebalance()
			}
			cl.LeaveGroup()
		})
	}
	for range 3 {
		member(kgo.CooperativeStickyBalancer(), 40)
	}
	member(kgo.CooperativeStickyBalancer(), n)
	deadline := time.Now().Add(20 * time.Second)
	for seen.len() < n && time.Now().Before(deadline) {
		time.Sleep(5 * time.Millisecond)
	}
	cancel()
	members.Wait()
	if seen.len() != n {
		t.Errorf("%d of %d records seen", seen.len(), n)
	}
	r := dialRaw(t, b)
	for part := range int32(6) {
		if o, end := fetchOffset(r, "g", "t", part, true), endOffset(t, b, "t", part, true); o.Offset > end {
			t.Errorf("partition %d: committed %d of %d", part, o.Offset, end)
		}
	}
}

func joinRequest(group, member, instance string, session time.Duration) *kmsg.JoinGroupRequest {
	q := kmsg.NewPtrJoinGroupRequest()
	q.Group, q.MemberID, q.InstanceID = group, member, nullable(instance)
	q.SessionTimeoutMillis, q.RebalanceTimeoutMillis = int32(session.Milliseconds()), int32(session.Milliseconds())
	q.ProtocolType = "consumer"
	q.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: "range", Metadata: []byte("m")}}
	return q
}

// joinAlone makes a member the only one of its group, with an assignment.
func joinAlone(r *raw, group, instance string, session time.Duration) (member string, generation int32) {
	r.t.Helper()
	q := joinRequest(group, "", instance, session)
	j := ask[*kmsg.JoinGroupResponse](r, 9, q)
	if j.ErrorCode == kerr.MemberIDRequired.Code {
		q.MemberID = j.MemberID
		j = ask[*kmsg.JoinGroupResponse](r, 9, q)
	}
	wantCode(r.t, "join", j.ErrorCode, nil)
	s := kmsg.NewPtrSyncGroupRequest()
	s.Group, s.MemberID, s.Generation, s.InstanceID = group, j.MemberID, j.Generation, nullable(instance)
	s.ProtocolType, s.Protocol = ptr("consumer"), ptr("range")
	s.GroupAssignment = []kmsg.SyncGroupRequestGroupAssignment{{MemberID: j.MemberID, MemberAssignment: []byte("all")}}
	sync := ask[*kmsg.SyncGroupResponse](r, 5, s)
	wantCode(r.t, "sync", sync.ErrorCode, nil)
	if string(sync.MemberAssignment) != "all" {
		r.t.Errorf("assignment %q", sync.MemberAssignment)
	}
	return j.MemberID, j.Generation
}

func heartbeat(r *raw, group, member, instance string, generation int32) int16 {
	r.t.Helper()
	q := kmsg.NewPtrHeartbeatRequest()
	q.Group, q.MemberID, q.InstanceID, q.Generation = group, member, nullable(instance), generation
	return ask[*kmsg.HeartbeatResponse](r, 4, q).ErrorCode
}

// dialTCP is dialRaw from outside the process.
func dialTCP(t testing.TB, b *Broker) *raw {
	t.Helper()
	var d netDialer
	nc, err := d.dial(context.Background(), "tcp", b.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(30 * time.Second))
	return &raw{t: t, nc: nc, format: kmsg.NewRequestFormatter()}
}

// Members over TCP go on in their generation after a restart, without a rebalance. Members in the broker's own process
// died with it.
func TestGroupSurvivesCrash(t *testing.T) {
	fs := vfs.NewCrashableMem()
	b := start(t, onFS(fs), sameBoot, listening)
	outer, inner := dialTCP(t, b), dialRaw(t, b)
	member, generation := joinAlone(outer, "outer", "", 10*time.Second)
	static, staticGeneration := joinAlone(outer, "static", "instance", 10*time.Second)
	local, localGeneration := joinAlone(inner, "inner", "", 10*time.Second)
	outer.createTopic("t", 1)
	c := kmsg.NewPtrOffsetCommitRequest()
	c.Group, c.MemberID, c.Generation = "outer", member, generation
	c.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: "t", Partitions: []kmsg.OffsetCommitRequestTopicPartition{{Offset: 3, LeaderEpoch: 2, Metadata: ptr("meta")}}}}
	wantCode(t, "commit", ask[*kmsg.OffsetCommitResponse](outer, 8, c).Topics[0].Partitions[0].ErrorCode, nil)

	b = start(t, onFS(crash(fs, 100, 1)), sameBoot, listening)
	outer, inner = dialTCP(t, b), dialRaw(t, b)
	wantCode(t, "heartbeat", heartbeat(outer, "outer", member, "", generation), nil)
	wantCode(t, "static member's heartbeat", heartbeat(outer, "static", static, "instance", staticGeneration), nil)
	wantCode(t, "heartbeat of a member that lived here", heartbeat(inner, "inner", local, "", localGeneration), kerr.UnknownMemberID)
	if o := fetchOffset(outer, "outer", "t", 0, true); o.Offset != 3 || o.LeaderEpoch != 2 || deref(o.Metadata) != "meta" {
		t.Errorf("offset %+v", o)
	}
	s := kmsg.NewPtrSyncGroupRequest()
	s.Group, s.MemberID, s.Generation = "outer", member, generation
	if resp := ask[*kmsg.SyncGroupResponse](outer, 4, s); resp.ErrorCode != 0 || string(resp.MemberAssignment) != "all" {
		t.Errorf("assignment %q, %v", resp.MemberAssignment, kerr.ErrorForCode(resp.ErrorCode))
	}
	d := kmsg.NewPtrDescribeGroupsRequest()
	d.Groups = []string{"outer", "inner"}
	for i, want := range []string{"Stable", "Empty"} {
		if g := ask[*kmsg.DescribeGroupsResponse](outer, 5, d).Groups[i]; g.State != want {
			t.Errorf("group %s is %s, want %s", g.Group, g.State, want)
		}
	}
}

// A member whose rebalance was cut short by a crash finds it still under way.
func TestRebalanceSurvivesCrash(t *testing.T) {
	fs := vfs.NewCrashableMem()
	b := start(t, onFS(fs), sameBoot, listening)
	r := dialTCP(t, b)
	first, generation := joinAlone(r, "g", "", 10*time.Second)
	// A second member: invited before the crash, and not yet part of anything.
	second := ask[*kmsg.JoinGroupResponse](dialTCP(t, b), 9, joinRequest("g", "", "", 10*time.Second)).MemberID
	// The first member begins a generation that nobody syncs.
	waiting := dialTCP(t, b)
	q := joinRequest("g", second, "", 10*time.Second)
	q.Version = 9
	waiting.send(q)
	for heartbeat(r, "g", first, "", generation) != kerr.RebalanceInProgress.Code {
		time.Sleep(time.Millisecond)
	}
	if j := ask[*kmsg.JoinGroupResponse](r, 9, joinRequest("g", first, "", 10*time.Second)); j.Generation != generation+1 {
		t.Fatalf("generation %d", j.Generation)
	}

	b = start(t, onFS(crash(fs, 100, 1)), sameBoot, listening)
	r, waiting = dialTCP(t, b), dialTCP(t, b)
	for _, m := range []string{first, second} {
		s := kmsg.NewPtrSyncGroupRequest()
		s.Group, s.MemberID, s.Generation = "g", m, generation+1
		wantCode(t, "sync of a generation cut short", ask[*kmsg.SyncGroupResponse](r, 5, s).ErrorCode, kerr.RebalanceInProgress)
	}
	waiting.send(q)
	j := ask[*kmsg.JoinGroupResponse](r, 9, joinRequest("g", first, "", 10*time.Second))
	wantCode(t, "join again", j.ErrorCode, nil)
	if len(j.Members) != 2 || j.Generation != generation+2 {
		t.Errorf("generation %d with %d members", j.Generation, len(j.Members))
	}
}

func TestGroupAdmin(t *testing.T) {
	b := start(t)
	r := dialRaw(t, b)
	member, generation := joinAlone(r, "g", "i", 10*time.Second)
	del := kmsg.NewPtrDeleteGroupsRequest()
	del.Groups = []string{"g", "none"}
	resp := ask[*kmsg.DeleteGroupsResponse](r, 2, del)
	wantCode(t, "delete a group with members", resp.Groups[0].ErrorCode, kerr.NonEmptyGroup)
	wantCode(t, "delete no group", resp.Groups[1].ErrorCode, kerr.GroupIDNotFound)
	l := kmsg.NewPtrLeaveGroupRequest()
	l.Group = "g"
	l.Members = []kmsg.LeaveGroupRequestMember{{InstanceID: ptr("i")}, {InstanceID: ptr("other")}}
	left := ask[*kmsg.LeaveGroupResponse](r, 5, l)
	wantCode(t, "remove a static member", left.Members[0].ErrorCode, nil)
	wantCode(t, "remove another", left.Members[1].ErrorCode, kerr.UnknownMemberID)
	wantCode(t, "heartbeat of one removed", heartbeat(r, "g", member, "i", generation), kerr.UnknownMemberID)
	ls := kmsg.NewPtrListGroupsRequest()
	ls.StatesFilter = []string{"empty"}
	if got := ask[*kmsg.ListGroupsResponse](r, 5, ls).Groups; len(got) != 1 || got[0].Group != "g" || got[0].GroupType != "classic" {
		t.Errorf("groups %+v", got)
	}
	del.Groups = []string{"g"}
	wantCode(t, "delete", ask[*kmsg.DeleteGroupsResponse](r, 2, del).Groups[0].ErrorCode, nil)
	// A session that no group allows makes none, nor is it asked whether there is one.
	for _, member := range []string{"", "who"} {
		wantCode(t, "a short session of "+member, ask[*kmsg.JoinGroupResponse](r, 9, joinRequest("h", member, "", time.Millisecond)).ErrorCode, kerr.InvalidSessionTimeout)
	}
	if got := ask[*kmsg.ListGroupsResponse](r, 5, kmsg.NewPtrListGroupsRequest()).Groups; len(got) != 0 {
		t.Errorf("groups %+v", got)
	}
}

func TestOffsetsExpire(t *testing.T) {
	var now clock
	b := start(t, now.use)
	r := dialRaw(t, b)
	r.createTopic("t", 1)
	commit := func(group string) {
		q := kmsg.NewPtrOffsetCommitRequest()
		q.Group, q.Generation = group, -1
		q.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: "t", Partitions: []kmsg.OffsetCommitRequestTopicPartition{{Offset: 3}}}}
		wantCode(t, "commit", ask[*kmsg.OffsetCommitResponse](r, 8, q).Topics[0].Partitions[0].ErrorCode, nil)
	}
	commit("old")
	now.advance(4 * 24 * time.Hour)
	commit("new")
	now.advance(4 * 24 * time.Hour)
	b.groups.expireOffsets(now.now())
	if o := fetchOffset(r, "old", "t", 0, false); o.Offset != -1 {
		t.Errorf("an offset of eight days: %+v", o)
	}
	if o := fetchOffset(r, "new", "t", 0, false); o.Offset != 3 {
		t.Errorf("an offset of four days: %+v", o)
	}
	if gs := ask[*kmsg.ListGroupsResponse](r, 5, kmsg.NewPtrListGroupsRequest()).Groups; len(gs) != 1 {
		t.Errorf("groups %+v", gs)
	}
	// A topic takes the offsets committed in it along.
	d := kmsg.NewPtrDeleteTopicsRequest()
	d.TopicNames = []string{"t"}
	wantCode(t, "delete", ask[*kmsg.DeleteTopicsResponse](r, 5, d).Topics[0].ErrorCode, nil)
	r.createTopic("t", 1)
	if o := fetchOffset(r, "new", "t", 0, false); o.Offset != -1 {
		t.Errorf("an offset of a topic deleted: %+v", o)
	}
}
