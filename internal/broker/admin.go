package broker

import (
	"context"
	"slices"
	"sync"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func (b *Broker) createTopics(r *request, q *kmsg.CreateTopicsRequest) reply {
	resp := response[*kmsg.CreateTopicsResponse](q)
	times := map[string]int{}
	for _, qt := range q.Topics {
		times[qt.Topic]++
	}
	fail := func(name string, no *refusal) {
		rt := kmsg.NewCreateTopicsResponseTopic()
		rt.Topic, rt.ErrorCode, rt.ErrorMessage = name, no.err.Code, &no.msg
		rt.NumPartitions, rt.ReplicationFactor = -1, -1
		resp.Topics = append(resp.Topics, rt)
	}
	var news []newTopic
	for _, qt := range q.Topics {
		if times[qt.Topic] > 1 {
			fail(qt.Topic, refuse(kerr.InvalidRequest, "topic %q appears more than once in the request", qt.Topic))
			times[qt.Topic] = -len(q.Topics) // and is answered once
			continue
		}
		if times[qt.Topic] < 0 {
			continue
		}
		n, no := b.newTopic(qt)
		if !r.mayCreate(qt.Topic) {
			no = refuse(kerr.TopicAuthorizationFailed, "%s may not create topic %s", r.principal, qt.Topic)
		}
		if no != nil {
			fail(qt.Topic, no)
			continue
		}
		news = append(news, n)
	}
	quota := r.mutations(q.Version >= 6)
	ts, no := b.catalog.create(news, q.ValidateOnly, quota.take)
	quota.tell(resp)
	for i, t := range ts {
		if no[i] != nil {
			fail(news[i].name, no[i])
			continue
		}
		rt := kmsg.NewCreateTopicsResponseTopic()
		rt.Topic, rt.NumPartitions, rt.ReplicationFactor = t.name, news[i].partitions, 1
		if !q.ValidateOnly {
			rt.TopicID = t.id
		}
		rt.Configs = []kmsg.CreateTopicsResponseTopicConfig{}
		if !r.mayTopic(kmsg.ACLOperationDescribeConfigs, t.name) {
			rt.ConfigErrorCode, rt.NumPartitions, rt.ReplicationFactor = kerr.TopicAuthorizationFailed.Code, -1, -1
			resp.Topics = append(resp.Topics, rt)
			continue
		}
		levels := append([]given{{t.settings, kmsg.ConfigSourceDynamicTopicConfig}}, b.givenToTopics()...)
		for _, s := range topicSettings {
			c := kmsg.NewCreateTopicsResponseTopicConfig()
			c.Name, c.Value, c.Source = s.name, &s.value, int8(kmsg.ConfigSourceDefaultConfig)
			for _, g := range levels {
				if value, ok := g.set[s.name]; ok {
					c.Value, c.Source = &value, int8(g.source)
					break
				}
			}
			rt.Configs = append(rt.Configs, c)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return answer(resp)
}

// partitionsOf returns how many partitions a request asks for.
func (b *Broker) partitionsOf(qt kmsg.CreateTopicsRequestTopic) int32 {
	switch {
	case len(qt.ReplicaAssignment) > 0:
		return int32(len(qt.ReplicaAssignment))
	case qt.NumPartitions == -1:
		return b.cfg.DefaultPartitions
	}
	return qt.NumPartitions
}

// newTopic checks what a request says of a topic.
func (b *Broker) newTopic(qt kmsg.CreateTopicsRequestTopic) (newTopic, *refusal) {
	n := newTopic{name: qt.Topic, partitions: b.partitionsOf(qt), settings: map[string]string{}}
	if len(qt.ReplicaAssignment) > 0 {
		if qt.NumPartitions != -1 || qt.ReplicationFactor != -1 {
			return n, refuse(kerr.InvalidRequest, "a replica assignment excludes a number of partitions and a replication factor")
		}
		seen := map[int32]bool{}
		for _, a := range qt.ReplicaAssignment {
			if a.Partition < 0 || int(a.Partition) >= len(qt.ReplicaAssignment) || seen[a.Partition] {
				return n, refuse(kerr.InvalidReplicaAssignment, "partitions must be numbered from 0 without a gap")
			}
			seen[a.Partition] = true
			if !slices.Equal(a.Replicas, []int32{nodeID}) {
				return n, refuse(kerr.InvalidReplicaAssignment, "partition %d: the only replica possible is broker %d", a.Partition, nodeID)
			}
		}
	} else if qt.ReplicationFactor == 0 || qt.ReplicationFactor < -1 {
		// A factor above one is taken for one: what is written for clusters must run here too.
		return n, refuse(kerr.InvalidReplicationFactor, "replication factor must be larger than 0, or -1 for the default")
	}
	for _, c := range qt.Configs {
		if c.Value == nil {
			return n, refuse(kerr.InvalidConfig, "null value not supported for topic configs: %s", c.Name)
		}
		n.settings[c.Name] = *c.Value
	}
	return n, nil
}

func (b *Broker) deleteTopics(r *request, q *kmsg.DeleteTopicsRequest) reply {
	resp := response[*kmsg.DeleteTopicsResponse](q)
	fail := func(rt *kmsg.DeleteTopicsResponseTopic, no *refusal) {
		rt.ErrorCode, rt.ErrorMessage = no.err.Code, &no.msg
	}
	var ids [][16]byte
	quota := r.mutations(q.Version >= 5)
	look := func(name *string, id [16]byte) {
		rt := kmsg.NewDeleteTopicsResponseTopic()
		rt.Topic, rt.TopicID = name, id
		t, unknown := b.catalog.topicByID(id), kerr.UnknownTopicID
		if name != nil {
			t, unknown = b.catalog.topic(*name), kerr.UnknownTopicOrPartition
		}
		switch {
		case t == nil && name != nil && !r.mayTopic(kmsg.ACLOperationDescribe, *name), t != nil && !r.mayTopic(kmsg.ACLOperationDelete, t.name):
			fail(&rt, refuse(kerr.TopicAuthorizationFailed, "%s may not delete topic %s", r.principal, topicText(name, id)))
		case t == nil:
			fail(&rt, refuse(unknown, "topic %s does not exist", topicText(name, id)))
		case t.internal():
			fail(&rt, refuse(kerr.InvalidRequest, "topic %s is internal and cannot be deleted", t.name))
		default:
			rt.Topic, rt.TopicID = &t.name, t.id
			if no := quota.take(int32(len(t.partitions))); no != nil {
				fail(&rt, no)
			} else {
				ids = append(ids, t.id)
			}
		}
		resp.Topics = append(resp.Topics, rt)
	}
	for _, name := range q.TopicNames {
		look(&name, [16]byte{})
	}
	for _, t := range q.Topics {
		look(t.Topic, t.TopicID)
	}
	quota.tell(resp)
	gone, no := b.catalog.remove(ids)
	if no != nil {
		for i := range resp.Topics {
			if resp.Topics[i].ErrorCode == 0 {
				fail(&resp.Topics[i], no)
			}
		}
		return answer(resp)
	}
	// The offsets that groups have committed in them go with them.
	return after(b.groups.topicsDeleted(gone), resp)
}

func topicText(name *string, id [16]byte) string {
	if name != nil {
		return *name
	}
	return idText(id)
}

func (b *Broker) createPartitions(r *request, q *kmsg.CreatePartitionsRequest) reply {
	resp := response[*kmsg.CreatePartitionsResponse](q)
	quota := r.mutations(q.Version >= 3)
	for _, qt := range q.Topics {
		rt := kmsg.NewCreatePartitionsResponseTopic()
		rt.Topic = qt.Topic
		no := refuse(kerr.TopicAuthorizationFailed, "%s may not alter topic %s", r.principal, qt.Topic)
		if r.mayTopic(kmsg.ACLOperationAlter, qt.Topic) {
			no = b.growTopic(qt, q.ValidateOnly, quota)
		}
		if no != nil {
			rt.ErrorCode, rt.ErrorMessage = no.err.Code, &no.msg
		}
		resp.Topics = append(resp.Topics, rt)
	}
	quota.tell(resp)
	return answer(resp)
}

func (b *Broker) growTopic(qt kmsg.CreatePartitionsRequestTopic, validateOnly bool, quota *mutations) *refusal {
	t := b.catalog.topic(qt.Topic)
	if t == nil {
		return refuse(kerr.UnknownTopicOrPartition, "topic %q does not exist", qt.Topic)
	}
	have := int32(len(t.partitions))
	switch {
	case qt.Count <= have:
		return refuse(kerr.InvalidPartitions, "topic has %d partitions, which is not fewer than the requested %d", have, qt.Count)
	case qt.Count > maxPartitions:
		return refuse(kerr.InvalidPartitions, "%d partitions: at most %d are possible", qt.Count, maxPartitions)
	case len(qt.Assignment) > 0 && len(qt.Assignment) != int(qt.Count-have):
		return refuse(kerr.InvalidReplicaAssignment, "%d partitions are added but %d assignments given", qt.Count-have, len(qt.Assignment))
	}
	for _, a := range qt.Assignment {
		if !slices.Equal(a.Replicas, []int32{nodeID}) {
			return refuse(kerr.InvalidReplicaAssignment, "the only replica possible is broker %d", nodeID)
		}
	}
	if no := quota.take(qt.Count - have); no != nil || validateOnly {
		return no
	}
	return b.catalog.grow(t.id, qt.Count)
}

// deleteRecords waits for a disk for every partition, so it does them at once.
func (b *Broker) deleteRecords(r *request, q *kmsg.DeleteRecordsRequest) reply {
	return reply{wait: func(context.Context) kmsg.Response {
		resp := response[*kmsg.DeleteRecordsResponse](q)
		var wg sync.WaitGroup
		for _, qt := range q.Topics {
			rt := kmsg.NewDeleteRecordsResponseTopic()
			rt.Topic = qt.Topic
			rt.Partitions = make([]kmsg.DeleteRecordsResponseTopicPartition, len(qt.Partitions))
			t := b.catalog.topic(qt.Topic)
			for i, qp := range qt.Partitions {
				rp := &rt.Partitions[i]
				rp.Partition, rp.LowWatermark = qp.Partition, -1
				switch p := t.partition(qp.Partition); {
				case !r.mayTopic(kmsg.ACLOperationDelete, qt.Topic):
					rp.ErrorCode = kerr.TopicAuthorizationFailed.Code
				case p == nil:
					rp.ErrorCode = kerr.UnknownTopicOrPartition.Code
				case !logConfig(b.catalog.settingsOf(t)).Delete:
					rp.ErrorCode = kerr.PolicyViolation.Code
				default:
					wg.Go(func() {
						low, err := p.DeleteRecords(qp.Offset)
						if rp.ErrorCode = code(err); err == nil {
							rp.LowWatermark = low
						}
					})
				}
			}
			resp.Topics = append(resp.Topics, rt)
		}
		wg.Wait()
		return resp
	}}
}
