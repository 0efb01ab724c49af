package broker

import (
	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/moldau/moldau/internal/broker/group"
)

// consumerGroupHeartbeat is the one request of members of the consumer protocol (KIP-848).
func (b *Broker) consumerGroupHeartbeat(r *request, q *kmsg.ConsumerGroupHeartbeatRequest) reply {
	resp := response[*kmsg.ConsumerGroupHeartbeatResponse](q)
	fail := func(err error) reply {
		resp.ErrorCode, resp.ErrorMessage = code(err), ptr(err.Error())
		return answer(resp)
	}
	if !r.mayGroup(kmsg.ACLOperationRead, q.Group) {
		return fail(kerr.GroupAuthorizationFailed)
	}
	for _, name := range q.SubscribedTopicNames {
		if !r.mayTopic(kmsg.ACLOperationDescribe, name) {
			return fail(kerr.TopicAuthorizationFailed)
		}
	}
	hr := group.HeartbeatRequest{
		MemberID: q.MemberID, Epoch: q.MemberEpoch, InstanceID: q.InstanceID, Rack: q.RackID,
		ClientID: r.ClientID, Host: r.conn.host, Local: r.conn.listener == nil, RebalanceTimeout: millis(q.RebalanceTimeoutMillis),
		Names: q.SubscribedTopicNames, Regex: q.SubscribedTopicRegex, Assignor: q.ServerAssignor, OwnedGiven: q.Topics != nil,
	}
	for _, t := range q.Topics {
		for _, p := range t.Partitions {
			hr.Owned = append(hr.Owned, group.Part{Topic: t.TopicID, Partition: p})
		}
	}
	if hr.MemberID == "" && q.Version == 0 && hr.Epoch == 0 {
		hr.MemberID = uuid.NewString()
	}
	if q.Group == "" || hr.MemberID == "" {
		return fail(kerr.InvalidRequest)
	}
	if err := hr.Check(); err != nil {
		return fail(err)
	}
	g := b.groups.lock(q.Group, hr.Epoch == 0)
	if g == nil {
		return fail(kerr.GroupIDNotFound)
	}
	defer g.mu.Unlock()
	now := b.cfg.Now()
	var e group.Effects
	if hr.Epoch == 0 {
		e = b.groups.toConsumer(g, now)
	}
	modern := g.consumer()
	if modern == nil {
		return fail(kerr.GroupIDNotFound)
	}
	res, err := modern.Heartbeat(now, hr, b.catalog.current.Load())
	b.groups.apply(g, e)
	if err != nil {
		return fail(err)
	}
	resp.MemberID, resp.MemberEpoch, resp.HeartbeatIntervalMillis = &res.MemberID, res.Epoch, int32(res.Interval.Milliseconds())
	if res.AssignedGiven {
		resp.Assignment = &kmsg.ConsumerGroupHeartbeatResponseAssignment{Topics: []kmsg.ConsumerGroupHeartbeatResponseAssignmentTopic{}}
		for _, p := range res.Assigned {
			if n := len(resp.Assignment.Topics); n == 0 || resp.Assignment.Topics[n-1].TopicID != p.Topic {
				resp.Assignment.Topics = append(resp.Assignment.Topics, kmsg.ConsumerGroupHeartbeatResponseAssignmentTopic{TopicID: p.Topic})
			}
			t := &resp.Assignment.Topics[len(resp.Assignment.Topics)-1]
			t.Partitions = append(t.Partitions, p.Partition)
		}
	}
	return after(g.last, resp)
}

func (b *Broker) consumerGroupDescribe(r *request, q *kmsg.ConsumerGroupDescribeRequest) reply {
	resp := response[*kmsg.ConsumerGroupDescribeResponse](q)
	for _, id := range q.Groups {
		rg := kmsg.NewConsumerGroupDescribeResponseGroup()
		rg.Group = id
		if !r.mayGroup(kmsg.ACLOperationDescribe, id) {
			rg.ErrorCode = kerr.GroupAuthorizationFailed.Code
			resp.Groups = append(resp.Groups, rg)
			continue
		}
		if q.IncludeAuthorizedOperations {
			rg.AuthorizedOperations = r.authorized(kmsg.ACLResourceTypeGroup, id)
		}
		g := b.groups.lock(id, false)
		if g == nil || g.consumer() == nil {
			if g != nil {
				g.mu.Unlock()
			}
			rg.ErrorCode, rg.ErrorMessage = kerr.GroupIDNotFound.Code, ptr("there is no consumer group "+id)
			resp.Groups = append(resp.Groups, rg)
			continue
		}
		d := g.consumer().Describe()
		g.mu.Unlock()
		rg.State, rg.Epoch, rg.AssignmentEpoch, rg.AssignorName = d.State, d.Epoch, d.TargetEpoch, d.Assignor
		for _, m := range d.Members {
			rm := kmsg.NewConsumerGroupDescribeResponseGroupMember()
			rm.MemberID, rm.InstanceID, rm.RackID, rm.MemberEpoch = m.ID, nullable(m.InstanceID), nullable(m.Rack), m.Epoch
			rm.ClientID, rm.ClientHost, rm.SubscribedTopics, rm.SubscribedTopicRegex = m.ClientID, m.Host, m.Names, nullable(m.Regex)
			rm.Assignment, rm.TargetAssignment = b.describeParts(m.Assigned), b.describeParts(m.Target)
			if rm.MemberType = 1; m.Classic {
				rm.MemberType = 0
			}
			rg.Members = append(rg.Members, rm)
		}
		resp.Groups = append(resp.Groups, rg)
	}
	return answer(resp)
}

func (b *Broker) describeParts(parts []group.Part) kmsg.Assignment {
	var a kmsg.Assignment
	for _, p := range parts {
		if n := len(a.TopicPartitions); n == 0 || a.TopicPartitions[n-1].TopicID != p.Topic {
			t := kmsg.AssignmentTopicPartition{TopicID: p.Topic}
			if topic := b.catalog.topicByID(p.Topic); topic != nil {
				t.Topic = topic.name
			}
			a.TopicPartitions = append(a.TopicPartitions, t)
		}
		t := &a.TopicPartitions[len(a.TopicPartitions)-1]
		t.Partitions = append(t.Partitions, p.Partition)
	}
	return a
}
