package broker

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestCreateTopics(t *testing.T) {
	b := start(t, partitions(4))
	r := dialRaw(t, b)
	r.createTopic("exists", 1)
	config := func(k string, v *string) []kmsg.CreateTopicsRequestTopicConfig {
		return []kmsg.CreateTopicsRequestTopicConfig{{Name: k, Value: v}}
	}
	assign := func(replicas ...int32) []kmsg.CreateTopicsRequestTopicReplicaAssignment {
		return []kmsg.CreateTopicsRequestTopicReplicaAssignment{{Partition: 0, Replicas: replicas}}
	}
	for _, c := range []struct {
		what       string
		topic      kmsg.CreateTopicsRequestTopic
		want       *kerr.Error
		partitions int32
	}{
		{"defaults", kmsg.CreateTopicsRequestTopic{Topic: "defaults", NumPartitions: -1, ReplicationFactor: -1}, nil, 4},
		{"three replicas, as for a cluster", kmsg.CreateTopicsRequestTopic{Topic: "rf3", NumPartitions: 2, ReplicationFactor: 3}, nil, 2},
		{"assigned", kmsg.CreateTopicsRequestTopic{Topic: "assigned", NumPartitions: -1, ReplicationFactor: -1, ReplicaAssignment: assign(nodeID)}, nil, 1},
		{"assigned elsewhere", kmsg.CreateTopicsRequestTopic{Topic: "x", NumPartitions: -1, ReplicationFactor: -1, ReplicaAssignment: assign(7)}, kerr.InvalidReplicaAssignment, 0},
		{"exists", kmsg.CreateTopicsRequestTopic{Topic: "exists", NumPartitions: 1, ReplicationFactor: 1}, kerr.TopicAlreadyExists, 0},
		{"no partitions", kmsg.CreateTopicsRequestTopic{Topic: "x", ReplicationFactor: 1}, kerr.InvalidPartitions, 0},
		{"too many", kmsg.CreateTopicsRequestTopic{Topic: "x", NumPartitions: maxPartitions + 1, ReplicationFactor: 1}, kerr.InvalidPartitions, 0},
		{"no replicas", kmsg.CreateTopicsRequestTopic{Topic: "x", NumPartitions: 1}, kerr.InvalidReplicationFactor, 0},
		{"bad name", kmsg.CreateTopicsRequestTopic{Topic: "no/slash", NumPartitions: 1, ReplicationFactor: 1}, kerr.InvalidTopicException, 0},
		{"dots", kmsg.CreateTopicsRequestTopic{Topic: "..", NumPartitions: 1, ReplicationFactor: 1}, kerr.InvalidTopicException, 0},
		{"long name", kmsg.CreateTopicsRequestTopic{Topic: strings.Repeat("x", 250), NumPartitions: 1, ReplicationFactor: 1}, kerr.InvalidTopicException, 0},
		{"colliding name", kmsg.CreateTopicsRequestTopic{Topic: "a.b_c", NumPartitions: 1, ReplicationFactor: 1}, nil, 1},
		{"collision", kmsg.CreateTopicsRequestTopic{Topic: "a_b.c", NumPartitions: 1, ReplicationFactor: 1}, kerr.InvalidTopicException, 0},
		{"unknown setting", kmsg.CreateTopicsRequestTopic{Topic: "x", NumPartitions: 1, ReplicationFactor: 1, Configs: config("retention.weeks", ptr("1"))}, kerr.InvalidConfig, 0},
		{"bad value", kmsg.CreateTopicsRequestTopic{Topic: "x", NumPartitions: 1, ReplicationFactor: 1, Configs: config("retention.ms", ptr("week"))}, kerr.InvalidConfig, 0},
		{"null value", kmsg.CreateTopicsRequestTopic{Topic: "x", NumPartitions: 1, ReplicationFactor: 1, Configs: config("retention.ms", nil)}, kerr.InvalidConfig, 0},
	} {
		q := kmsg.NewPtrCreateTopicsRequest()
		q.Topics = append(q.Topics, c.topic)
		got := ask[*kmsg.CreateTopicsResponse](r, 7, q).Topics[0]
		wantCode(t, c.what, got.ErrorCode, c.want)
		if c.want == nil && (got.NumPartitions != c.partitions || got.ReplicationFactor != 1 || len(got.Configs) == 0) {
			t.Errorf("%s: %d partitions, %d replicas, %d settings", c.what, got.NumPartitions, got.ReplicationFactor, len(got.Configs))
		}
		if c.want != nil && got.ErrorMessage == nil {
			t.Errorf("%s: no message", c.what)
		}
	}
	q := kmsg.NewPtrCreateTopicsRequest()
	twice := kmsg.CreateTopicsRequestTopic{Topic: "twice", NumPartitions: 1, ReplicationFactor: 1}
	q.Topics = []kmsg.CreateTopicsRequestTopic{twice, twice, {Topic: "trial", NumPartitions: 3, ReplicationFactor: 1}}
	q.ValidateOnly = true
	resp := ask[*kmsg.CreateTopicsResponse](r, 7, q)
	if len(resp.Topics) != 2 {
		t.Fatalf("%d answers for two names", len(resp.Topics))
	}
	wantCode(t, "twice", resp.Topics[0].ErrorCode, kerr.InvalidRequest)
	wantCode(t, "trial", resp.Topics[1].ErrorCode, nil)
	if b.catalog.topic("trial") != nil {
		t.Error("a trial makes a topic")
	}
}

func TestTopicsSurvive(t *testing.T) {
	fs := vfs.NewMem()
	b := start(t, onFS(fs))
	r := dialRaw(t, b)
	id := r.createTopic("t", 2, "cleanup.policy", "compact", "retention.ms", "5")
	r.createTopic("gone", 1)
	r.produce(9, "", "gone", 0, plain)
	d := kmsg.NewPtrDeleteTopicsRequest()
	d.TopicNames = []string{"gone", "never"}
	resp := ask[*kmsg.DeleteTopicsResponse](r, 5, d)
	wantCode(t, "delete", resp.Topics[0].ErrorCode, nil)
	wantCode(t, "delete none", resp.Topics[1].ErrorCode, kerr.UnknownTopicOrPartition)
	cp := kmsg.NewPtrCreatePartitionsRequest()
	cp.Topics = []kmsg.CreatePartitionsRequestTopic{{Topic: "t", Count: 3}, {Topic: "t", Count: 1}, {Topic: "never", Count: 2}}
	grown := ask[*kmsg.CreatePartitionsResponse](r, 3, cp).Topics
	wantCode(t, "grow", grown[0].ErrorCode, nil)
	wantCode(t, "shrink", grown[1].ErrorCode, kerr.InvalidPartitions)
	wantCode(t, "grow none", grown[2].ErrorCode, kerr.UnknownTopicOrPartition)
	cluster := b.clusterID
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b = start(t, onFS(fs))
	topic := b.catalog.topic("t")
	if topic == nil || topic.id != id || len(topic.partitions) != 3 || topic.settings["retention.ms"] != "5" {
		t.Errorf("after a restart: %+v", topic)
	}
	if b.catalog.topic("gone") != nil {
		t.Error("a deleted topic is back")
	}
	if b.clusterID != cluster {
		t.Errorf("cluster id %s, was %s", b.clusterID, cluster)
	}
	if again := dialRaw(t, b).createTopic("gone", 1); again == id {
		t.Error("a new topic has an old id")
	}
	if end := endOffset(t, b, "gone", 0, false); end != 0 {
		t.Errorf("a topic made again starts at %d", end)
	}
}

func TestConfigs(t *testing.T) {
	b := start(t)
	r := dialRaw(t, b)
	r.createTopic("t", 1, "retention.ms", "1000")
	describe := func() map[string]kmsg.DescribeConfigsResponseResourceConfig {
		q := kmsg.NewPtrDescribeConfigsRequest()
		q.IncludeSynonyms = true
		q.Resources = []kmsg.DescribeConfigsRequestResource{{ResourceType: kmsg.ConfigResourceTypeTopic, ResourceName: "t"}}
		got := map[string]kmsg.DescribeConfigsResponseResourceConfig{}
		for _, c := range ask[*kmsg.DescribeConfigsResponse](r, 4, q).Resources[0].Configs {
			got[c.Name] = c
		}
		return got
	}
	got := describe()
	if c := got["retention.ms"]; deref(c.Value) != "1000" || c.Source != kmsg.ConfigSourceDynamicTopicConfig || len(c.ConfigSynonyms) != 2 {
		t.Errorf("retention.ms %+v", c)
	}
	if c := got["cleanup.policy"]; deref(c.Value) != "delete" || c.Source != kmsg.ConfigSourceDefaultConfig || c.ConfigType != kmsg.ConfigTypeList {
		t.Errorf("cleanup.policy %+v", c)
	}
	alter := func(name string, op kmsg.IncrementalAlterConfigOp, value *string) int16 {
		q := kmsg.NewPtrIncrementalAlterConfigsRequest()
		q.Resources = []kmsg.IncrementalAlterConfigsRequestResource{{ResourceType: kmsg.ConfigResourceTypeTopic, ResourceName: "t",
			Configs: []kmsg.IncrementalAlterConfigsRequestResourceConfig{{Name: name, Op: op, Value: value}}}}
		return ask[*kmsg.IncrementalAlterConfigsResponse](r, 1, q).Resources[0].ErrorCode
	}
	for _, c := range []struct {
		name  string
		op    kmsg.IncrementalAlterConfigOp
		value *string
		want  *kerr.Error
		now   string
	}{
		{"cleanup.policy", kmsg.IncrementalAlterConfigOpAppend, ptr("compact"), nil, "delete,compact"},
		{"cleanup.policy", kmsg.IncrementalAlterConfigOpSubtract, ptr("delete"), nil, "compact"},
		{"cleanup.policy", kmsg.IncrementalAlterConfigOpSet, ptr("shrink"), kerr.InvalidConfig, "compact"},
		{"retention.ms", kmsg.IncrementalAlterConfigOpAppend, ptr("1"), kerr.InvalidConfig, "1000"},
		{"retention.ms", kmsg.IncrementalAlterConfigOpDelete, nil, nil, "604800000"},
		{"min.compaction.lag.ms", kmsg.IncrementalAlterConfigOpSet, ptr("9"), nil, "9"},
		{"max.compaction.lag.ms", kmsg.IncrementalAlterConfigOpSet, ptr("8"), kerr.InvalidConfig, "9223372036854775807"},
		{"no.such", kmsg.IncrementalAlterConfigOpSet, ptr("8"), kerr.InvalidConfig, ""},
	} {
		wantCode(t, c.name, alter(c.name, c.op, c.value), c.want)
		if v := describe()[c.name].Value; deref(v) != c.now {
			t.Errorf("%s is %q, want %q", c.name, deref(v), c.now)
		}
	}
	// The older request replaces everything.
	q := kmsg.NewPtrAlterConfigsRequest()
	q.Resources = []kmsg.AlterConfigsRequestResource{{ResourceType: kmsg.ConfigResourceTypeTopic, ResourceName: "t",
		Configs: []kmsg.AlterConfigsRequestResourceConfig{{Name: "max.message.bytes", Value: ptr("200")}}}}
	wantCode(t, "replace", ask[*kmsg.AlterConfigsResponse](r, 2, q).Resources[0].ErrorCode, nil)
	if got := describe(); deref(got["cleanup.policy"].Value) != "delete" || deref(got["max.message.bytes"].Value) != "200" {
		t.Error("settings not named stay")
	}
	// And is in force at once.
	wantCode(t, "a large batch", r.produce(9, "", "t", 0, batch{pid: -1, epoch: -1, sequence: -1, values: []string{strings.Repeat("x", 300)}}).ErrorCode, kerr.MessageTooLarge)
}

func TestDeleteRecordsAndListOffsets(t *testing.T) {
	b := start(t)
	r := dialRaw(t, b)
	r.createTopic("t", 1)
	r.createTopic("compacted", 1, "cleanup.policy", "compact")
	list := func(ts int64, isolation int8) kmsg.ListOffsetsResponseTopicPartition {
		q := kmsg.NewPtrListOffsetsRequest()
		q.IsolationLevel = isolation
		q.Topics = []kmsg.ListOffsetsRequestTopic{{Topic: "t", Partitions: []kmsg.ListOffsetsRequestTopicPartition{{Timestamp: ts, CurrentLeaderEpoch: -1}}}}
		return ask[*kmsg.ListOffsetsResponse](r, 8, q).Topics[0].Partitions[0]
	}
	before := time.Now().UnixMilli()
	for range 5 {
		r.produce(9, "", "t", 0, plain)
	}
	pid, e := r.initProducer("id", time.Minute)
	r.produce(12, "id", "t", 0, batch{pid, e, 0, true, []string{"open"}})
	for _, c := range []struct {
		what      string
		ts        int64
		isolation int8
		want      int64
	}{
		{"latest", -1, 0, 6}, {"latest committed", -1, 1, 5}, {"earliest", -2, 0, 0}, {"earliest here", -4, 0, 0},
		{"in another tier", -5, 0, -1}, {"before", before, 0, 0}, {"in the future", before + 1e9, 0, -1},
	} {
		if got := list(c.ts, c.isolation); got.Offset != c.want || got.ErrorCode != 0 {
			t.Errorf("%s: %d, want %d", c.what, got.Offset, c.want)
		}
	}
	del := func(topic string, offset int64) kmsg.DeleteRecordsResponseTopicPartition {
		q := kmsg.NewPtrDeleteRecordsRequest()
		q.Topics = []kmsg.DeleteRecordsRequestTopic{{Topic: topic, Partitions: []kmsg.DeleteRecordsRequestTopicPartition{{Offset: offset}}}}
		return ask[*kmsg.DeleteRecordsResponse](r, 2, q).Topics[0].Partitions[0]
	}
	wantCode(t, "behind the end", del("t", 7).ErrorCode, kerr.OffsetOutOfRange)
	wantCode(t, "compacted", del("compacted", 0).ErrorCode, kerr.PolicyViolation)
	wantCode(t, "no topic", del("none", 0).ErrorCode, kerr.UnknownTopicOrPartition)
	if got := del("t", 3); got.ErrorCode != 0 || got.LowWatermark != 3 {
		t.Errorf("deleted up to %d, %v", got.LowWatermark, kerr.ErrorForCode(got.ErrorCode))
	}
	if got := list(-2, 0); got.Offset != 3 {
		t.Errorf("the first offset is %d", got.Offset)
	}
	f := fetchRequest(b.catalog.topic("t").id, 2)
	wantCode(t, "fetch below", ask[*kmsg.FetchResponse](r, 13, f).Topics[0].Partitions[0].ErrorCode, kerr.OffsetOutOfRange)
}

func TestDescribe(t *testing.T) {
	b := start(t, listening)
	r := dialTCP(t, b)
	r.createTopic("b", 3)
	r.createTopic("a", 2)
	md := ask[*kmsg.MetadataResponse](r, 12, kmsg.NewPtrMetadataRequest())
	if len(md.Topics) != 2 || len(md.Brokers) != 1 || md.ControllerID != md.Brokers[0].NodeID || md.ClusterID == nil {
		t.Errorf("metadata %+v", md)
	}
	if host, port, _ := splitHostPort(b.Addr()); md.Brokers[0].Host != host || md.Brokers[0].Port != port {
		t.Errorf("clients over TCP are sent to %s:%d", md.Brokers[0].Host, md.Brokers[0].Port)
	}
	if inner := ask[*kmsg.MetadataResponse](dialRaw(t, b), 12, kmsg.NewPtrMetadataRequest()); inner.Brokers[0].Host != localHost {
		t.Errorf("clients in the process are sent to %s", inner.Brokers[0].Host)
	}
	q := kmsg.NewPtrMetadataRequest()
	q.Topics = []kmsg.MetadataRequestTopic{{Topic: ptr("auto")}, {Topic: ptr("bad name")}, {TopicID: [16]byte{7}}}
	q.AllowAutoTopicCreation = true
	got := ask[*kmsg.MetadataResponse](r, 12, q).Topics
	wantCode(t, "made by naming it", got[0].ErrorCode, nil)
	wantCode(t, "bad name", got[1].ErrorCode, kerr.InvalidTopicException)
	wantCode(t, "unknown id", got[2].ErrorCode, kerr.UnknownTopicID)
	q.Topics = []kmsg.MetadataRequestTopic{{Topic: ptr("none")}}
	q.AllowAutoTopicCreation = false
	wantCode(t, "only looked for", ask[*kmsg.MetadataResponse](r, 12, q).Topics[0].ErrorCode, kerr.UnknownTopicOrPartition)

	// Pages of topics, partition by partition.
	var seen []string
	d := kmsg.NewPtrDescribeTopicPartitionsRequest()
	d.ResponsePartitionLimit = 2
	for range 10 {
		resp := ask[*kmsg.DescribeTopicPartitionsResponse](r, 0, d)
		for _, rt := range resp.Topics {
			for _, p := range rt.Partitions {
				seen = append(seen, *rt.Topic+string(rune('0'+p.Partition)))
			}
		}
		if resp.NextCursor == nil {
			break
		}
		d.Cursor = &kmsg.DescribeTopicPartitionsRequestCursor{Topic: resp.NextCursor.Topic, Partition: resp.NextCursor.Partition}
	}
	if want := []string{"a0", "a1", "auto0", "b0", "b1", "b2"}; !slices.Equal(seen, want) {
		t.Errorf("pages: %q", seen)
	}
	c := ask[*kmsg.DescribeClusterResponse](r, 1, kmsg.NewPtrDescribeClusterRequest())
	if c.ClusterID != b.clusterID || len(c.Brokers) != 1 {
		t.Errorf("cluster %+v", c)
	}
	if dirs := ask[*kmsg.DescribeLogDirsResponse](r, 4, kmsg.NewPtrDescribeLogDirsRequest()).Dirs; len(dirs) != 1 || len(dirs[0].Topics) != 3 {
		t.Errorf("log dirs %+v", dirs)
	}
}

// What is nothing to Kafka is not no limit.
func TestSettingsOfNothing(t *testing.T) {
	var later clock
	later.advance(time.Second)
	b := start(t, later.use)
	r := dialRaw(t, b)
	for setting, want := range map[string]*kerr.Error{"max.message.bytes": kerr.MessageTooLarge, "message.timestamp.before.max.ms": kerr.InvalidTimestamp, "retention.bytes": nil} {
		r.createTopic(setting, 1, setting, "0")
		wantCode(t, setting+"=0", r.produce(9, "", setting, 0, batch{pid: -1, epoch: -1, sequence: -1, values: []string{"a"}}).ErrorCode, want)
	}
}
