package broker

import (
	"context"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/moldau/moldau/internal/broker/group"
	"github.com/moldau/moldau/internal/broker/log"
)

func (b *Broker) offsetDelete(r *request, q *kmsg.OffsetDeleteRequest) reply {
	resp := response[*kmsg.OffsetDeleteResponse](q)
	if !r.mayGroup(kmsg.ACLOperationDelete, q.Group) {
		resp.ErrorCode = kerr.GroupAuthorizationFailed.Code
		return answer(resp)
	}
	g := b.groups.lock(q.Group, false)
	if g == nil {
		resp.ErrorCode = kerr.GroupIDNotFound.Code
		return answer(resp)
	}
	defer g.mu.Unlock()
	if g.modern == nil && !g.classic.OffsetsDeletable() {
		resp.ErrorCode = kerr.NonEmptyGroup.Code
		return answer(resp)
	}
	drop := map[group.TopicPartition]bool{}
	for _, qt := range q.Topics {
		rt := kmsg.NewOffsetDeleteResponseTopic()
		rt.Topic = qt.Topic
		for _, qp := range qt.Partitions {
			rp := kmsg.NewOffsetDeleteResponseTopicPartition()
			rp.Partition = qp.Partition
			tp := group.TopicPartition{Topic: qt.Topic, Partition: qp.Partition}
			switch {
			case !r.mayTopic(kmsg.ACLOperationRead, qt.Topic):
				rp.ErrorCode = kerr.TopicAuthorizationFailed.Code
			case b.catalog.topic(qt.Topic).partition(qp.Partition) == nil:
				rp.ErrorCode = kerr.UnknownTopicOrPartition.Code
			case g.subscribes(qt.Topic):
				rp.ErrorCode = kerr.GroupSubscribedToTopic.Code
			default:
				drop[tp] = true
			}
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	f := b.groups.deleteOffsets(g, func(tp group.TopicPartition) bool { return drop[tp] })
	return after(f, resp)
}

// subscribes says whether a member of the group subscribes to a topic.
func (g *consumers) subscribes(topic string) bool {
	if g.modern != nil {
		return g.modern.Subscribes(topic)
	}
	return g.classic.Subscribes(topic)
}

// validateCommit says whether offsets may be committed, and returns what says so of single partitions.
func (b *Broker) validateCommit(g *consumers, c group.Commit, version int16) (func(group.Part) error, error) {
	if g.modern != nil {
		return g.modern.ValidateCommit(c, version)
	}
	if err := g.classic.ValidateCommit(b.cfg.Now(), c); err != nil {
		return nil, err
	}
	return func(group.Part) error { return nil }, nil
}

// commitOffset is an offset committed now. Only clients of long ago set a retention; it is negative for the others.
func (b *Broker) commitOffset(off int64, epoch int32, metadata *string, retention int64) group.Offset {
	now := b.cfg.Now().UnixMilli()
	o := group.Offset{Offset: off, LeaderEpoch: epoch, Metadata: strings.Clone(deref(metadata)), CommitTime: now, ExpireTime: -1}
	if retention >= 0 {
		o.ExpireTime = now + retention
	}
	return o
}

// anyPartition says whether a commit names a partition that there is. One that does not makes no group.
func (b *Broker) anyPartition(q *kmsg.OffsetCommitRequest) bool {
	return slices.ContainsFunc(q.Topics, func(qt kmsg.OffsetCommitRequestTopic) bool {
		t, _ := b.catalog.asked(q.Version >= 10, qt.Topic, qt.TopicID)
		return slices.ContainsFunc(qt.Partitions, func(qp kmsg.OffsetCommitRequestTopicPartition) bool { return t.partition(qp.Partition) != nil })
	})
}

// maxOffsetMetadata bounds the metadata of a committed offset (offset.metadata.max.bytes).
const maxOffsetMetadata = 4096

// committing is what offsets must pass to be committed, plainly or in a transaction.
type committing struct {
	forbidden error                  // the client may do nothing with the group or the transactional id
	refused   error                  // the group or the transaction does not take any
	accept    func(group.Part) error // nor those of a partition;
	stale     *kerr.Error            // then this is answered
}

// code says why the offset of a partition of t, which is unknown if nil, is not committed; 0: it is.
func (c *committing) code(t *topic, unknown *kerr.Error, mayRead bool, partition int32, metadata *string) int16 {
	switch {
	case c.forbidden != nil:
		return code(c.forbidden)
	case !mayRead:
		return kerr.TopicAuthorizationFailed.Code
	case t.partition(partition) == nil:
		return unknown.Code
	case c.refused != nil:
		return code(c.refused)
	case len(deref(metadata)) > maxOffsetMetadata:
		return kerr.OffsetMetadataTooLarge.Code
	case c.accept(group.Part{Topic: t.id, Partition: partition}) != nil:
		return c.stale.Code
	}
	return 0
}

func (b *Broker) offsetCommit(r *request, q *kmsg.OffsetCommitRequest) reply {
	resp := response[*kmsg.OffsetCommitResponse](q)
	retention := int64(-1)
	if q.Version <= 4 {
		retention = q.RetentionTimeMillis
	}
	var g *consumers
	check := committing{stale: kerr.StaleMemberEpoch}
	if !r.mayGroup(kmsg.ACLOperationRead, q.Group) {
		check.forbidden = kerr.GroupAuthorizationFailed
	} else if g = b.groups.lock(q.Group, q.Generation < 0 && b.anyPartition(q)); g == nil {
		check.refused = kerr.IllegalGeneration
		if q.Version >= 9 {
			check.refused = kerr.GroupIDNotFound
		}
	} else {
		defer g.mu.Unlock()
		check.accept, check.refused = b.validateCommit(g, group.Commit{MemberID: q.MemberID, InstanceID: deref(q.InstanceID), Generation: q.Generation}, q.Version)
		b.groups.settle(g)
	}
	var puts []log.Put
	for _, qt := range q.Topics {
		rt := kmsg.NewOffsetCommitResponseTopic()
		rt.Topic, rt.TopicID = qt.Topic, qt.TopicID
		byID := q.Version >= 10
		t, unknown := b.catalog.asked(byID, qt.Topic, qt.TopicID)
		mayRead := r.mayRead(t, byID, qt.Topic)
		for _, qp := range qt.Partitions {
			rp := kmsg.NewOffsetCommitResponseTopicPartition()
			rp.Partition, rp.ErrorCode = qp.Partition, check.code(t, unknown, mayRead, qp.Partition, qp.Metadata)
			if rp.ErrorCode == 0 {
				tp := group.TopicPartition{Topic: t.name, Partition: qp.Partition}
				o := b.commitOffset(qp.Offset, qp.LeaderEpoch, qp.Metadata, retention)
				g.offsets.Commit(tp, o)
				puts = append(puts, g.offsetPut(kindOffset, 0, tp, o.Marshal()))
				// However those transactions end, this one has come later.
				for _, producer := range g.offsets.PendingFor(tp) {
					puts = append(puts, g.offsetPut(kindPending, producer, tp, nil))
				}
			}
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	if len(puts) == 0 {
		return answer(resp)
	}
	f := b.groups.submit(g, log.WaitSync, puts, nil)
	return reply{wait: func(ctx context.Context) kmsg.Response {
		if f.wait(ctx) {
			return resp
		}
		if ctx.Err() != nil {
			return nil
		}
		for i := range resp.Topics {
			for j := range resp.Topics[i].Partitions {
				if p := &resp.Topics[i].Partitions[j]; p.ErrorCode == 0 {
					p.ErrorCode = kerr.CoordinatorNotAvailable.Code
				}
			}
		}
		return resp
	}}
}

func (b *Broker) offsetFetch(r *request, q *kmsg.OffsetFetchRequest) reply {
	resp := response[*kmsg.OffsetFetchResponse](q)
	var waits []*future
	if q.Version >= 8 {
		for _, qg := range q.Groups {
			rg := kmsg.NewOffsetFetchResponseGroup()
			rg.Group = qg.Group
			topics, f, err := b.fetchOffsets(r, q, qg)
			rg.Topics, rg.ErrorCode = topics, code(err)
			waits = append(waits, f)
			resp.Groups = append(resp.Groups, rg)
		}
	} else {
		qg := kmsg.NewOffsetFetchRequestGroup()
		qg.Group = q.Group
		if q.Topics != nil {
			qg.Topics = []kmsg.OffsetFetchRequestGroupTopic{}
		}
		for _, qt := range q.Topics {
			t := kmsg.NewOffsetFetchRequestGroupTopic()
			t.Topic, t.Partitions = qt.Topic, qt.Partitions
			qg.Topics = append(qg.Topics, t)
		}
		topics, f, err := b.fetchOffsets(r, q, qg)
		resp.ErrorCode = code(err)
		waits = append(waits, f)
		for _, rt := range topics {
			t := kmsg.NewOffsetFetchResponseTopic()
			t.Topic = rt.Topic
			for _, rp := range rt.Partitions {
				p := kmsg.NewOffsetFetchResponseTopicPartition()
				p.Partition, p.Offset, p.LeaderEpoch, p.Metadata, p.ErrorCode = rp.Partition, rp.Offset, rp.LeaderEpoch, rp.Metadata, rp.ErrorCode
				t.Partitions = append(t.Partitions, p)
			}
			resp.Topics = append(resp.Topics, t)
		}
	}
	return reply{wait: func(ctx context.Context) kmsg.Response {
		for _, f := range waits {
			if !f.wait(ctx) {
				return nil
			}
		}
		return resp
	}}
}

// fetchOffsets returns the offsets of a group, and the write that makes them durable. A group that is not known has
// none.
func (b *Broker) fetchOffsets(r *request, q *kmsg.OffsetFetchRequest, qg kmsg.OffsetFetchRequestGroup) ([]kmsg.OffsetFetchResponseGroupTopic, *future, error) {
	if !r.mayGroup(kmsg.ACLOperationDescribe, qg.Group) {
		return nil, nil, kerr.GroupAuthorizationFailed
	}
	g := b.groups.lock(qg.Group, false)
	offsets := group.NewOffsets()
	var last *future
	if g != nil {
		defer g.mu.Unlock()
		if q.Version >= 9 && g.modern != nil {
			if err := g.modern.ValidateFetch(qg.MemberID, qg.MemberEpoch); err != nil {
				return nil, nil, err
			}
		}
		offsets, last = g.offsets, g.last
	}
	get := func(tp group.TopicPartition) kmsg.OffsetFetchResponseGroupTopicPartition {
		rp := kmsg.NewOffsetFetchResponseGroupTopicPartition()
		rp.Partition, rp.Offset, rp.LeaderEpoch, rp.Metadata = tp.Partition, -1, -1, new(string)
		if q.RequireStable && offsets.Unstable(tp) {
			rp.ErrorCode = kerr.UnstableOffsetCommit.Code
			return rp
		}
		if o, ok := offsets.Get(tp); ok {
			rp.Offset, rp.LeaderEpoch, rp.Metadata = o.Offset, o.LeaderEpoch, &o.Metadata
		}
		return rp
	}
	var topics []kmsg.OffsetFetchResponseGroupTopic
	if qg.Topics == nil {
		for _, e := range offsets.All() {
			t := b.catalog.topic(e.Topic)
			if t == nil && q.Version >= 10 || !r.mayTopic(kmsg.ACLOperationDescribe, e.Topic) {
				continue
			}
			if n := len(topics); n == 0 || topics[n-1].Topic != e.Topic {
				rt := kmsg.NewOffsetFetchResponseGroupTopic()
				rt.Topic = e.Topic
				if t != nil {
					rt.TopicID = t.id
				}
				topics = append(topics, rt)
			}
			rt := &topics[len(topics)-1]
			rt.Partitions = append(rt.Partitions, get(e.TopicPartition))
		}
		return topics, last, nil
	}
	for _, qt := range qg.Topics {
		rt := kmsg.NewOffsetFetchResponseGroupTopic()
		rt.Topic, rt.TopicID = qt.Topic, qt.TopicID
		name, unknown := qt.Topic, false
		if q.Version >= 10 {
			t := b.catalog.topicByID(qt.TopicID)
			if unknown = t == nil; !unknown {
				name = t.name
			}
		}
		may := unknown || r.mayTopic(kmsg.ACLOperationDescribe, name)
		for _, p := range qt.Partitions {
			if !may {
				rp := kmsg.NewOffsetFetchResponseGroupTopicPartition()
				rp.Partition, rp.Offset, rp.LeaderEpoch, rp.Metadata, rp.ErrorCode = p, -1, -1, new(string), kerr.TopicAuthorizationFailed.Code
				rt.Partitions = append(rt.Partitions, rp)
				continue
			}
			rp := get(group.TopicPartition{Topic: name, Partition: p})
			if unknown {
				rp.ErrorCode = kerr.UnknownTopicID.Code
			}
			rt.Partitions = append(rt.Partitions, rp)
		}
		topics = append(topics, rt)
	}
	return topics, last, nil
}
