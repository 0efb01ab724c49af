package broker

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// await waits until a topic has its partitions and they have leaders: a cluster answers before.
func (s *side) await(topic string, partitions int32) {
	s.until("no partitions of "+topic, func() bool {
		q := kmsg.NewPtrMetadataRequest()
		mt := kmsg.NewMetadataRequestTopic()
		mt.Topic = ptr(s.prefix + topic)
		q.Topics = append(q.Topics, mt)
		t := ask[*kmsg.MetadataResponse](s.raw, 9, q).Topics[0]
		ready := t.ErrorCode == 0 && len(t.Partitions) == int(partitions)
		for _, p := range t.Partitions {
			ready = ready && p.ErrorCode == 0 && p.Leader >= 0
		}
		return ready
	})
}

func (s *side) createTopics(version int16, topic string, n int32, config, value string, only bool) string {
	q := kmsg.NewPtrCreateTopicsRequest()
	q.TimeoutMillis, q.ValidateOnly = 5000, only
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = s.prefix+topic, n, 1
	if topic == "" {
		t.Topic = ""
	}
	if config != "" {
		t.Configs = append(t.Configs, kmsg.CreateTopicsRequestTopicConfig{Name: config, Value: &value})
	}
	q.Topics = append(q.Topics, t)
	resp := ask[*kmsg.CreateTopicsResponse](s.raw, version, q).Topics[0]
	if resp.ErrorCode == 0 && !only {
		s.await(topic, max(n, 1)) // one by default
	}
	out := name(resp.ErrorCode)
	if version >= 5 {
		out += fmt.Sprint(" ", resp.NumPartitions, " ", resp.ReplicationFactor)
	}
	return out
}

func (s *side) metadataOf(version int16, topic string) string {
	q := kmsg.NewPtrMetadataRequest()
	mt := kmsg.NewMetadataRequestTopic()
	mt.Topic = ptr(s.prefix + topic)
	q.Topics = append(q.Topics, mt)
	resp := ask[*kmsg.MetadataResponse](s.raw, version, q)
	t := resp.Topics[0]
	return fmt.Sprint(len(resp.Brokers), " ", name(t.ErrorCode), " ", len(t.Partitions), " internal ", t.IsInternal)
}

func (s *side) initProducerID(version int16, id *string, timeout int32, again bool, delta int16) string {
	q := kmsg.NewPtrInitProducerIDRequest()
	who := "~"
	if id != nil {
		who = *id
		q.TransactionalID = ptr(s.prefix + *id)
		if *id == "" {
			q.TransactionalID = id
		}
	}
	q.TransactionTimeoutMillis, q.ProducerID, q.ProducerEpoch = timeout, -1, -1
	if p, ok := s.pids[who]; again && ok {
		q.ProducerID, q.ProducerEpoch = p.id, p.epoch+delta
	}
	resp := patiently(s, version, q, func(r *kmsg.InitProducerIDResponse) int16 { return r.ErrorCode })
	if resp.ErrorCode == 0 {
		old := s.pids[who]
		s.pids[who] = producerOf{resp.ProducerID, resp.ProducerEpoch}
		if old.id != resp.ProducerID || old.epoch != resp.ProducerEpoch {
			s.forget(who)
		}
		return fmt.Sprint("ok epoch ", resp.ProducerEpoch)
	}
	return name(resp.ErrorCode)
}

// producer returns what a transactional id was given. One that was given nothing gets an id that nobody has: a cluster's
// partitions say of others' ids that their epoch is old, if they have seen a later one.
func (s *side) producer(txnID string) producerOf {
	if p, ok := s.pids[txnID]; ok {
		return p
	}
	return producerOf{id: 1 << 40}
}

// forget begins the sequences of a producer anew.
func (s *side) forget(who string) {
	for key := range s.next {
		if len(key) >= len(who) && key[:len(who)] == who {
			delete(s.next, key)
		}
	}
}

func (s *side) end(version int16, txnID string, commit bool, delta int16) string {
	p := s.producer(txnID)
	q := kmsg.NewPtrEndTxnRequest()
	q.TransactionalID, q.ProducerID, q.ProducerEpoch, q.Commit = s.prefix+txnID, p.id, p.epoch+delta, commit
	resp := patiently(s, version, q, func(r *kmsg.EndTxnResponse) int16 { return r.ErrorCode })
	if resp.ErrorCode == 0 {
		s.awaitEnd(txnID)
	}
	if resp.ErrorCode == 0 && version >= 5 {
		s.pids[txnID] = producerOf{resp.ProducerID, resp.ProducerEpoch}
		if resp.ProducerEpoch != p.epoch {
			s.forget(txnID)
		}
		return fmt.Sprint("ok epoch ", resp.ProducerEpoch)
	}
	return name(resp.ErrorCode)
}

func (s *side) fetchOffsets(version int16, groupID, topic string, partition int32, all, stable bool) string {
	q := kmsg.NewPtrOffsetFetchRequest()
	q.RequireStable = stable
	if version < 8 {
		q.Group = s.prefix + groupID
		if !all {
			q.Topics = []kmsg.OffsetFetchRequestTopic{{Topic: s.prefix + topic, Partitions: []int32{partition}}}
		}
		resp := patiently(s, version, q, func(r *kmsg.OffsetFetchResponse) int16 { return r.ErrorCode })
		out := name(resp.ErrorCode)
		for _, t := range resp.Topics {
			for _, p := range t.Partitions {
				out += fmt.Sprint(" ", t.Topic[len(s.prefix):], "/", p.Partition, " ", name(p.ErrorCode), " ", p.Offset, " ", deref(p.Metadata))
			}
		}
		return out
	}
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group = s.prefix + groupID
	if !all {
		g.Topics = []kmsg.OffsetFetchRequestGroupTopic{{Topic: s.prefix + topic, Partitions: []int32{partition}}}
	}
	q.Groups = append(q.Groups, g)
	resp := patiently(s, version, q, func(r *kmsg.OffsetFetchResponse) int16 { return r.Groups[0].ErrorCode })
	out := name(resp.Groups[0].ErrorCode)
	for _, t := range resp.Groups[0].Topics {
		for _, p := range t.Partitions {
			out += fmt.Sprint(" ", t.Topic[len(s.prefix):], "/", p.Partition, " ", name(p.ErrorCode), " ", p.Offset, " ", deref(p.Metadata))
		}
	}
	return out
}

func (s *side) fetchAt(version int16, topic string, partition int32, at int64, isolation int8) string {
	q := kmsg.NewPtrFetchRequest()
	q.MaxBytes, q.IsolationLevel, q.SessionEpoch, q.MinBytes = 1<<20, isolation, -1, 0
	p := kmsg.NewFetchRequestTopicPartition()
	p.Partition, p.FetchOffset, p.PartitionMaxBytes = partition, at, 1<<20
	q.Topics = []kmsg.FetchRequestTopic{{Topic: s.prefix + topic, Partitions: []kmsg.FetchRequestTopicPartition{p}}}
	resp := patiently(s, version, q, func(r *kmsg.FetchResponse) int16 {
		if len(r.Topics) == 0 {
			return r.ErrorCode
		}
		return r.Topics[0].Partitions[0].ErrorCode
	})
	if len(resp.Topics) == 0 {
		return name(resp.ErrorCode)
	}
	rp := resp.Topics[0].Partitions[0]
	out := fmt.Sprint(name(rp.ErrorCode), " high ", rp.HighWatermark, " stable ", rp.LastStableOffset, " ", extent(rp.RecordBatches), " aborted ", len(rp.AbortedTransactions))
	if version >= 5 {
		out += fmt.Sprint(" start ", rp.LogStartOffset)
	}
	return out
}

// extent says how much there is: bytes, and records of batches that the broker has compressed, which no two do alike.
func extent(batches []byte) string {
	size, compressed := 0, int32(0)
	for len(batches) > 0 {
		var b kmsg.RecordBatch
		if err := b.ReadFrom(batches); err != nil {
			return err.Error()
		}
		n := 12 + int(b.Length) // what comes before the length, and it
		if batches = batches[n:]; b.Attributes&7 != 0 {
			compressed += b.NumRecords
		} else {
			size += n
		}
	}
	return fmt.Sprint("bytes ", size, " compressed ", compressed)
}

func (s *side) asMember(what, groupID, member string) string {
	switch what {
	case "Heartbeat":
		q := &kmsg.HeartbeatRequest{Group: s.prefix + groupID, MemberID: member, Generation: 1}
		return name(patiently(s, 3, q, func(r *kmsg.HeartbeatResponse) int16 { return r.ErrorCode }).ErrorCode)
	case "LeaveGroup":
		q := &kmsg.LeaveGroupRequest{Group: s.prefix + groupID, Members: []kmsg.LeaveGroupRequestMember{{MemberID: member}}}
		resp := patiently(s, 3, q, func(r *kmsg.LeaveGroupResponse) int16 { return r.ErrorCode })
		out := name(resp.ErrorCode)
		for _, m := range resp.Members {
			out += " " + name(m.ErrorCode)
		}
		return out
	default:
		q := &kmsg.SyncGroupRequest{Group: s.prefix + groupID, MemberID: member, Generation: 1}
		return name(patiently(s, 3, q, func(r *kmsg.SyncGroupResponse) int16 { return r.ErrorCode }).ErrorCode)
	}
}

// alterConfig changes a setting and returns what the topic has then.
func (s *side) alterConfig(topic, key, value string, op kmsg.IncrementalAlterConfigOp) string {
	q := &kmsg.IncrementalAlterConfigsRequest{Resources: []kmsg.IncrementalAlterConfigsRequestResource{{
		ResourceType: kmsg.ConfigResourceTypeTopic, ResourceName: s.prefix + topic, Configs: []kmsg.IncrementalAlterConfigsRequestResourceConfig{{Name: key, Op: op, Value: &value}},
	}}}
	if op == kmsg.IncrementalAlterConfigOpDelete {
		q.Resources[0].Configs[0].Value = nil
	}
	got := name(ask[*kmsg.IncrementalAlterConfigsResponse](s.raw, 1, q).Resources[0].ErrorCode)
	if got == "ok" {
		s.awaitConfig(topic)
	}
	return got
}

// awaitConfig waits until a topic's logs have the settings that were altered before. A cluster answers earlier, and shows
// them before its logs have them; but it applies its changes one after another. So two more of a setting that means nothing
// to the answers: once the second is shown, those before the first are applied.
func (s *side) awaitConfig(topic string) {
	const key = "flush.ms"
	for range 2 {
		s.altered++
		value := strconv.Itoa(1_000_000 + s.altered)
		q := &kmsg.IncrementalAlterConfigsRequest{Resources: []kmsg.IncrementalAlterConfigsRequestResource{{
			ResourceType: kmsg.ConfigResourceTypeTopic, ResourceName: s.prefix + topic, Configs: []kmsg.IncrementalAlterConfigsRequestResourceConfig{{Name: key, Value: &value}},
		}}}
		if got := name(ask[*kmsg.IncrementalAlterConfigsResponse](s.raw, 1, q).Resources[0].ErrorCode); got != "ok" {
			s.t.Fatalf("altering %s of %s: %s", key, topic, got)
		}
		s.until("the setting of "+topic+" is not shown", func() bool {
			d := &kmsg.DescribeConfigsRequest{Resources: []kmsg.DescribeConfigsRequestResource{{ResourceType: kmsg.ConfigResourceTypeTopic, ResourceName: s.prefix + topic, ConfigNames: []string{key}}}}
			configs := ask[*kmsg.DescribeConfigsResponse](s.raw, 4, d).Resources[0].Configs
			return len(configs) == 1 && deref(configs[0].Value) == value
		})
	}
}

// awaitEnd waits until a transaction is ended everywhere: a cluster answers when it is decided how, and writes it to the
// partitions then.
func (s *side) awaitEnd(txnID string) {
	s.until("the transaction of "+txnID+" does not end", func() bool {
		q := &kmsg.DescribeTransactionsRequest{TransactionalIDs: []string{s.prefix + txnID}}
		return !strings.HasPrefix(ask[*kmsg.DescribeTransactionsResponse](s.raw, 0, q).TransactionStates[0].State, "Prepare")
	})
}

func (s *side) until(not string, is func() bool) {
	for deadline := time.Now().Add(10 * time.Second); !is(); {
		if time.Now().After(deadline) {
			s.t.Fatal(not)
		}
		time.Sleep(2 * time.Millisecond) // a limit is set, and nothing to wait on
	}
}
