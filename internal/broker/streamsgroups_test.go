package broker

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/moldau/moldau/internal/broker/auth"
)

// streamsJoin is how a member of a word count joins: words, a repartition topic, a changelog.
func streamsJoin(group, member string) *kmsg.StreamsGroupHeartbeatRequest {
	q := kmsg.NewPtrStreamsGroupHeartbeatRequest()
	q.Group, q.MemberID, q.ProcessID, q.RebalanceTimeoutMillis = group, member, ptr("process-of-"+member), 60_000
	q.ActiveTasks, q.StandbyTasks, q.WarmupTasks = []kmsg.TaskIDs{}, []kmsg.TaskIDs{}, []kmsg.TaskIDs{}
	q.Topology = &kmsg.StreamsGroupHeartbeatRequestTopology{Epoch: 1, Subtopologies: []kmsg.StreamsGroupHeartbeatRequestTopologySubtopology{
		{SubtopologyID: "0", SourceTopics: []string{"words"}, RepartitionSinkTopics: []string{group + "-by-repartition"}},
		{SubtopologyID: "1", RepartitionSourceTopics: []kmsg.TopicInfo{{Topic: group + "-by-repartition"}},
			StateChangelogTopics: []kmsg.TopicInfo{{Topic: group + "-count-changelog", Configs: []kmsg.TopicInfoConfig{{Key: "cleanup.policy", Value: "compact"}}}},
			CopartitionGroups:    []kmsg.StreamsGroupHeartbeatRequestTopologySubtopologyCopartitionGroup{{RepartitionSourceTopics: []int16{0}}}},
	}}
	return q
}

func streamsBeat(group, member string, epoch int32) *kmsg.StreamsGroupHeartbeatRequest {
	q := kmsg.NewPtrStreamsGroupHeartbeatRequest()
	q.Group, q.MemberID, q.MemberEpoch = group, member, epoch
	return q
}

func countTasks(ids []kmsg.TaskIDs) (n int) {
	for _, id := range ids {
		n += len(id.Partitions)
	}
	return n
}

// A changelog is deleted while the group runs. The heartbeat that has it made anew tells the member what to give up, or moves it on.
func TestStreamsGroupTopicDeleted(t *testing.T) {
	b := start(t, listening)
	r := dialTCP(t, b)
	r.createTopic("words", 1)
	step := func(q *kmsg.StreamsGroupHeartbeatRequest) *kmsg.StreamsGroupHeartbeatResponse {
		resp := ask[*kmsg.StreamsGroupHeartbeatResponse](r, 0, q)
		wantCode(t, q.MemberID, resp.ErrorCode, nil)
		return resp
	}
	remove := func() {
		q := kmsg.NewPtrDeleteTopicsRequest()
		q.Topics = []kmsg.DeleteTopicsRequestTopic{{Topic: ptr("app-count-changelog")}}
		wantCode(t, "delete", ask[*kmsg.DeleteTopicsResponse](r, 6, q).Topics[0].ErrorCode, nil)
	}
	a := step(streamsJoin("app", "a"))
	remove()
	if again := step(streamsBeat("app", "a", a.MemberEpoch)); countTasks(a.ActiveTasks) != 2 || again.ActiveTasks == nil || countTasks(again.ActiveTasks) != 0 {
		t.Errorf("told %+v, then %+v", a, again)
	}
	idle := step(streamsJoin("app", "b")) // a has all tasks
	remove()
	step(streamsBeat("app", "b", idle.MemberEpoch))
}

// The first member brings the topics of the group along; after a crash it goes on where it was, and its commits count.
func TestStreamsGroup(t *testing.T) {
	fs := vfs.NewCrashableMem()
	b := start(t, onFS(fs), sameBoot, listening)
	r := dialTCP(t, b)
	id := r.createTopic("words", 3)
	step := func(q *kmsg.StreamsGroupHeartbeatRequest) *kmsg.StreamsGroupHeartbeatResponse {
		return ask[*kmsg.StreamsGroupHeartbeatResponse](r, 0, q)
	}
	a := step(streamsJoin("app", "a"))
	wantCode(t, "join", a.ErrorCode, nil)
	if countTasks(a.ActiveTasks) != 6 || a.StandbyTasks == nil || a.Status != nil || a.HeartbeatIntervalMillis != 5000 {
		t.Fatalf("joined: %+v", a)
	}
	if c := b.catalog.topic("app-count-changelog"); c == nil || len(c.partitions) != 3 || c.settings["cleanup.policy"] != "compact" {
		t.Errorf("the changelog: %+v", c)
	}
	if p := b.catalog.topic("app-by-repartition"); p == nil || len(p.partitions) != 3 {
		t.Errorf("the repartition topic: %+v", p)
	}
	for what, edit := range map[string]func(q *kmsg.StreamsGroupHeartbeatRequest){
		"a static member": func(q *kmsg.StreamsGroupHeartbeatRequest) { q.InstanceID = ptr("i") },
		"warm-up tasks":   func(q *kmsg.StreamsGroupHeartbeatRequest) { q.WarmupTasks = []kmsg.TaskIDs{{SubtopologyID: "0"}} },
		"task offsets":    func(q *kmsg.StreamsGroupHeartbeatRequest) { q.TaskOffsets = []kmsg.TaskOffset{} },
		"no member":       func(q *kmsg.StreamsGroupHeartbeatRequest) { q.MemberID = "" },
		"half the tasks":  func(q *kmsg.StreamsGroupHeartbeatRequest) { q.StandbyTasks = nil },
		"no topology":     func(q *kmsg.StreamsGroupHeartbeatRequest) { q.Topology = nil },
		"an expression": func(q *kmsg.StreamsGroupHeartbeatRequest) {
			q.Topology.Subtopologies[0].SourceTopicRegex = []string{".*"}
		},
		"an index too large": func(q *kmsg.StreamsGroupHeartbeatRequest) {
			q.Topology.Subtopologies[1].CopartitionGroups[0].RepartitionSourceTopics[0] = 1
		},
		"another topology": func(q *kmsg.StreamsGroupHeartbeatRequest) { q.Topology.Subtopologies[0].SourceTopics[0] = "texts" },
	} {
		q := streamsJoin("app", "x")
		edit(q)
		wantCode(t, what, step(q).ErrorCode, kerr.InvalidRequest)
	}
	own := streamsJoin("other", "x")
	own.Topology.Subtopologies[0].SourceTopics[0] = offsetsTopic
	wantCode(t, "a topic of Kafka's own", step(own).ErrorCode, kerr.StreamsInvalidTopology)
	wantCode(t, "no group", step(streamsBeat("none", "a", 2)).ErrorCode, kerr.GroupIDNotFound)
	circle := streamsJoin("classic", "x")
	circle.Topology.Subtopologies[0].SourceTopics, circle.Topology.Subtopologies[0].RepartitionSourceTopics = nil, circle.Topology.Subtopologies[1].RepartitionSourceTopics
	wantCode(t, "a topology that feeds itself", step(circle).ErrorCode, kerr.StreamsInvalidTopology)
	nobody := kmsg.NewPtrStreamsGroupDescribeRequest()
	nobody.Groups = []string{"classic"}
	wantCode(t, "a group that nobody could join", ask[*kmsg.StreamsGroupDescribeResponse](r, 0, nobody).Groups[0].ErrorCode, kerr.GroupIDNotFound)

	crashed := crash(fs, 100, 1)
	b = start(t, onFS(crashed), sameBoot, listening)
	r = dialTCP(t, b)
	again := step(streamsBeat("app", "a", a.MemberEpoch))
	wantCode(t, "heartbeat after a crash", again.ErrorCode, nil)
	if again.MemberEpoch != a.MemberEpoch || again.ActiveTasks != nil {
		t.Errorf("after a crash: %+v, was %+v", again, a)
	}
	commit := func(epoch int32, version int16) int16 {
		c := kmsg.NewPtrOffsetCommitRequest()
		c.Group, c.MemberID, c.Generation = "app", "a", epoch
		c.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: "words", TopicID: id, Partitions: []kmsg.OffsetCommitRequestTopicPartition{{Offset: 3, LeaderEpoch: -1}}}}
		return ask[*kmsg.OffsetCommitResponse](r, version, c).Topics[0].Partitions[0].ErrorCode
	}
	wantCode(t, "commit", commit(a.MemberEpoch, 10), nil)
	wantCode(t, "commit of an epoch to come", commit(a.MemberEpoch+1, 9), kerr.StaleMemberEpoch)
	wantCode(t, "commit of an epoch before it had the task", commit(a.MemberEpoch-1, 9), kerr.StaleMemberEpoch)
	wantCode(t, "commit in an old version", commit(a.MemberEpoch, 8), kerr.UnsupportedVersion)
	wantCode(t, "commit of a stranger", commit(-1, 9), kerr.StaleMemberEpoch)

	// A second member is given a half, once the first has let go of it.
	second := step(streamsJoin("app", "b"))
	reduced := step(streamsBeat("app", "a", a.MemberEpoch))
	if countTasks(second.ActiveTasks) != 0 || countTasks(reduced.ActiveTasks) != 3 || reduced.MemberEpoch != a.MemberEpoch {
		t.Errorf("the second %+v, the first %+v", second, reduced)
	}
	released := streamsBeat("app", "a", a.MemberEpoch)
	released.ActiveTasks, released.StandbyTasks, released.WarmupTasks = reduced.ActiveTasks, []kmsg.TaskIDs{}, []kmsg.TaskIDs{}
	if a = step(released); a.MemberEpoch != second.MemberEpoch {
		t.Errorf("released: %+v", a)
	}
	if second = step(streamsBeat("app", "b", second.MemberEpoch)); countTasks(second.ActiveTasks) != 3 {
		t.Errorf("handed over: %+v", second)
	}

	d := kmsg.NewPtrStreamsGroupDescribeRequest()
	d.Groups = []string{"app", "none"}
	described := ask[*kmsg.StreamsGroupDescribeResponse](r, 0, d).Groups
	if got := described[0]; got.State != "Stable" || len(got.Members) != 2 || countTasks(got.Members[0].Assignment.ActiveTasks) != 3 ||
		got.Topology.Subtopologies[1].StateChangelogTopics[0].NumPartitions != 3 {
		t.Errorf("described: %+v", got)
	}
	wantCode(t, "describe none", described[1].ErrorCode, kerr.GroupIDNotFound)
	ls := kmsg.NewPtrListGroupsRequest()
	ls.TypesFilter = []string{"Streams"}
	if got := ask[*kmsg.ListGroupsResponse](r, 5, ls).Groups; len(got) != 1 || got[0].GroupState != "Stable" || got[0].ProtocolType != "streams" {
		t.Errorf("groups %+v", got)
	}
	del := &kmsg.DeleteGroupsRequest{Groups: []string{"app"}}
	wantCode(t, "delete with members", ask[*kmsg.DeleteGroupsResponse](r, 2, del).Groups[0].ErrorCode, kerr.NonEmptyGroup)
	for _, m := range []string{"a", "b"} {
		wantCode(t, "leave", step(streamsBeat("app", m, -1)).ErrorCode, nil)
	}
	wantCode(t, "delete", ask[*kmsg.DeleteGroupsResponse](r, 2, del).Groups[0].ErrorCode, nil)
	b.Close()
	b = start(t, onFS(crashed), sameBoot, listening)
	if g := b.groups.lock("app", false); g != nil {
		g.mu.Unlock()
		t.Errorf("a deleted group is back: %s", g.protocol())
	}
}

// Between the classic and the streams protocol a group changes while it has no members, with its offsets; not to or from
// the consumer protocol, nor while it has members.
func TestStreamsGroupChangesProtocol(t *testing.T) {
	fs := vfs.NewCrashableMem()
	b := start(t, onFS(fs), sameBoot, listening)
	r := dialTCP(t, b)
	r.createTopic("words", 1)
	step := func(q *kmsg.StreamsGroupHeartbeatRequest) int16 {
		return ask[*kmsg.StreamsGroupHeartbeatResponse](r, 0, q).ErrorCode
	}
	member, generation := joinAlone(r, "g", "", 10*time.Second)
	c := kmsg.NewPtrOffsetCommitRequest()
	c.Group, c.MemberID, c.Generation = "g", member, generation
	c.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: "words", Partitions: []kmsg.OffsetCommitRequestTopicPartition{{Offset: 3, LeaderEpoch: -1}}}}
	wantCode(t, "commit", ask[*kmsg.OffsetCommitResponse](r, 9, c).Topics[0].Partitions[0].ErrorCode, nil)
	wantCode(t, "join of a classic group with a member", step(streamsJoin("g", "a")), kerr.GroupIDNotFound)
	l := kmsg.NewPtrLeaveGroupRequest()
	l.Group, l.Members = "g", []kmsg.LeaveGroupRequestMember{{MemberID: member}}
	ask[*kmsg.LeaveGroupResponse](r, 5, l)
	wantCode(t, "join of an empty one", step(streamsJoin("g", "a")), nil)
	if o := fetchOffset(r, "g", "words", 0, true); o.Offset != 3 {
		t.Errorf("offset %+v", o)
	}
	wantCode(t, "a classic member beside one of streams", ask[*kmsg.JoinGroupResponse](r, 9, joinRequest("g", "", "", 10*time.Second)).ErrorCode, kerr.InconsistentGroupProtocol)
	wantCode(t, "a classic heartbeat", heartbeat(r, "g", member, "", generation), kerr.UnknownMemberID)
	left := ask[*kmsg.LeaveGroupResponse](r, 5, l)
	wantCode(t, "a classic member leaves", left.Members[0].ErrorCode, kerr.UnknownMemberID)
	consumer := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	consumer.Group, consumer.MemberID, consumer.RebalanceTimeoutMillis = "g", "c", 60_000
	consumer.SubscribedTopicNames, consumer.Topics = []string{"words"}, []kmsg.ConsumerGroupHeartbeatRequestTopic{}
	wantCode(t, "a consumer", ask[*kmsg.ConsumerGroupHeartbeatResponse](r, 1, consumer).ErrorCode, kerr.GroupIDNotFound)
	wantCode(t, "leave", step(streamsBeat("g", "a", -1)), nil)
	wantCode(t, "a consumer in an empty streams group", ask[*kmsg.ConsumerGroupHeartbeatResponse](r, 1, consumer).ErrorCode, kerr.GroupIDNotFound)
	joinAlone(r, "g", "", 10*time.Second)
	if o := fetchOffset(r, "g", "words", 0, true); o.Offset != 3 {
		t.Errorf("offset %+v", o)
	}
	consumer.Group = "consumers"
	wantCode(t, "a group of consumers", ask[*kmsg.ConsumerGroupHeartbeatResponse](r, 1, consumer).ErrorCode, nil)
	consumer.MemberEpoch = -1
	ask[*kmsg.ConsumerGroupHeartbeatResponse](r, 1, consumer)
	wantCode(t, "a streams member in an empty group of consumers", step(streamsJoin("consumers", "a")), kerr.GroupIDNotFound)
	wantCode(t, "a second streams group", step(streamsJoin("s", "a")), nil)

	b = start(t, onFS(crash(fs, 100, 3)), sameBoot, listening)
	got := map[string]string{}
	for _, g := range b.groups.all() {
		got[g.id] = g.protocol()
	}
	if want := map[string]string{"g": "classic", "consumers": "consumer", "s": "streams"}; !maps.Equal(got, want) {
		t.Errorf("after a crash %v, want %v", got, want)
	}
}

// What members are held to can be set for each group, before it exists.
func TestStreamsGroupConfigs(t *testing.T) {
	b := start(t)
	r := dialRaw(t, b)
	r.createTopic("words", 2)
	set := func(name, value string) int16 {
		return ask[*kmsg.IncrementalAlterConfigsResponse](r, 1, &kmsg.IncrementalAlterConfigsRequest{Resources: []kmsg.IncrementalAlterConfigsRequestResource{{
			ResourceType: kmsg.ConfigResourceTypeGroupConfig, ResourceName: "app", Configs: []kmsg.IncrementalAlterConfigsRequestResourceConfig{{Name: name, Value: &value}},
		}}}).Resources[0].ErrorCode
	}
	wantCode(t, "standbys", set(streamsStandbys, "1"), nil)
	wantCode(t, "too many standbys", set(streamsStandbys, "3"), kerr.InvalidConfig)
	wantCode(t, "an interval", set(streamsHeartbeat, "700"), nil)
	wantCode(t, "a session below it", set(streamsSession, "700"), kerr.InvalidConfig)
	ask[*kmsg.StreamsGroupHeartbeatResponse](r, 0, streamsJoin("app", "a"))
	second := ask[*kmsg.StreamsGroupHeartbeatResponse](r, 0, streamsJoin("app", "b"))
	if second.HeartbeatIntervalMillis != 700 || countTasks(second.StandbyTasks) != 1 {
		t.Errorf("%+v", second)
	}
}

// Internal topics are made only for who may; the member is told which it may not.
func TestStreamsGroupACLs(t *testing.T) {
	ctx := testContext(t)
	b := start(t, func(c *Config) {
		c.Listeners = []Listener{{Address: "127.0.0.1:0", SASL: []auth.Mechanism{auth.Plain}}}
		c.Users = map[string]string{"alice": "a"}
		c.ACLs, c.SuperUsers = true, []string{"User:root"}
	})
	root := kadm.NewClient(client(t, b))
	if _, err := root.CreateTopic(ctx, 1, 1, nil, "words"); err != nil {
		t.Fatal(err)
	}
	allow := func(rule *kadm.ACLBuilder) {
		if rs, err := root.CreateACLs(ctx, rule.Allow("User:alice").AllowHosts("*")); err != nil || rs[0].Err != nil {
			t.Fatal(err, rs)
		}
	}
	alice := tcp(t, b.Addr())
	ask[*kmsg.SASLHandshakeResponse](alice, 1, &kmsg.SASLHandshakeRequest{Mechanism: "PLAIN"})
	wantCode(t, "a password", ask[*kmsg.SASLAuthenticateResponse](alice, 2, &kmsg.SASLAuthenticateRequest{SASLAuthBytes: []byte("\x00alice\x00a")}).ErrorCode, nil)
	join := func() *kmsg.StreamsGroupHeartbeatResponse {
		return ask[*kmsg.StreamsGroupHeartbeatResponse](alice, 0, streamsJoin("app", "m"))
	}
	wantCode(t, "no rule for the group", join().ErrorCode, kerr.GroupAuthorizationFailed)
	allow(kadm.NewACLs().Groups("app").Operations(kadm.OpRead))
	wantCode(t, "no rule for the topics", join().ErrorCode, kerr.TopicAuthorizationFailed)
	allow(kadm.NewACLs().Topics("words").Operations(kadm.OpRead))
	allow(kadm.NewACLs().Topics("app-").ResourcePatternType(kadm.ACLPatternPrefixed).Operations(kadm.OpRead))
	resp := join()
	wantCode(t, "no rule to create", resp.ErrorCode, nil)
	if len(resp.Status) != 1 || resp.Status[0].StatusCode != 3 || !strings.Contains(resp.Status[0].StatusDetail, "Unauthorized to CREATE on topics app-by-repartition, app-count-changelog.") {
		t.Errorf("status %+v", resp.Status)
	}
	if b.catalog.topic("app-by-repartition") != nil {
		t.Error("the topic is made for one who may not")
	}
	allow(kadm.NewACLs().Topics("app-").ResourcePatternType(kadm.ACLPatternPrefixed).Operations(kadm.OpCreate))
	if resp = join(); resp.Status != nil || countTasks(resp.ActiveTasks) != 2 {
		t.Errorf("with all rules: %+v", resp)
	}
	names := slices.DeleteFunc(b.catalog.current.Load().Names(), func(name string) bool { return !strings.HasPrefix(name, "app-") })
	if len(names) != 2 {
		t.Errorf("topics %v", names)
	}
}
