package franz

import (
	"slices"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/moldau/moldau/internal/assign"
	"github.com/moldau/moldau/internal/cluster"
)

// protocol is the name of our way to share partitions out; a group speaks one.
const protocol = "moldau"

// balancer lets package assign share out the tasks, within the classic group protocol, cooperatively.
type balancer struct {
	cfg cluster.MemberConfig // but for Subtopologies

	mu   sync.Mutex
	subs []assign.Subtopology
	data []byte // the plan that came with the latest assignment
}

func newBalancer(cfg cluster.MemberConfig) *balancer {
	return &balancer{cfg: cfg, subs: cfg.Subtopologies}
}

func (b *balancer) subscribe(subs []assign.Subtopology) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.subs = subs
}

// subtopologies are as of now; nobody changes them.
func (b *balancer) subtopologies() []assign.Subtopology {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.subs
}

// topics are all that are subscribed to.
func (b *balancer) topics() map[string]bool {
	topics := map[string]bool{}
	for _, s := range b.subtopologies() {
		for _, t := range s.Reads() {
			topics[t] = true
		}
	}
	if b.cfg.Anchor != "" {
		topics[b.cfg.Anchor] = true
	}
	return topics
}

func (b *balancer) ProtocolName() string { return protocol }
func (b *balancer) IsCooperative() bool  { return true }

func (b *balancer) JoinGroupMetadata(topics []string, owned map[string][]int32, generation int32) []byte {
	hello := assign.Hello{Endpoint: b.cfg.Endpoint}
	for _, s := range b.subtopologies() {
		hello.Patterns = append(hello.Patterns, s.Patterns...)
	}
	if b.cfg.Local != nil {
		hello.Local = b.cfg.Local()
	}
	meta := kmsg.NewConsumerMemberMetadata()
	meta.Version, meta.Topics, meta.Generation = 3, topics, generation
	meta.UserData = assign.AppendHello(nil, hello)
	for _, topic := range sortedKeys(owned) { // those of topics that are no longer subscribed to as well: they are run all the same
		if len(owned[topic]) > 0 {
			o := kmsg.NewConsumerMemberMetadataOwnedPartition()
			o.Topic, o.Partitions = topic, owned[topic]
			meta.OwnedPartitions = append(meta.OwnedPartitions, o)
		}
	}
	return meta.AppendTo(nil)
}

func (b *balancer) ParseSyncAssignment(assignment []byte) (map[string][]int32, error) {
	var a kmsg.ConsumerMemberAssignment
	if err := a.ReadFrom(assignment); err != nil {
		return nil, wrap(err, "reading the assignment of group %q", b.cfg.Group)
	}
	b.mu.Lock()
	b.data = slices.Clone(a.UserData)
	b.mu.Unlock()
	m := make(map[string][]int32, len(a.Topics))
	for _, t := range a.Topics {
		m[t.Topic] = t.Partitions
	}
	return m, nil
}

// userData is what came with the assignment parsed last.
func (b *balancer) userData() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.data
}

func (b *balancer) MemberBalancer(members []kmsg.JoinGroupResponseMember) (kgo.GroupMemberBalancer, map[string]struct{}, error) {
	cb, err := kgo.NewConsumerBalancer(b, members)
	return cb, cb.MemberTopics(), err
}

// Balance runs in the leader.
func (b *balancer) Balance(cb *kgo.ConsumerBalancer, partitions map[string]int32) kgo.IntoSyncAssignment {
	subs := b.subtopologies()
	subOf := map[string]int32{}
	for i, s := range subs {
		for _, t := range s.Reads() {
			subOf[t] = int32(i)
		}
	}
	in := assign.Input{Standbys: b.cfg.Standbys, Stateful: map[int32]bool{}}
	memberIDs := make(map[string]string) // by name in the plan
	cb.EachMember(func(m *kmsg.JoinGroupResponseMember, meta *kmsg.ConsumerMemberMetadata) {
		member := describe(m, meta, subOf)
		memberIDs[member.ID] = m.MemberID
		in.Members = append(in.Members, member)
	})
	subs = assign.Fit(subs, in.Members)
	in.Tasks = assign.Tasks(subs, partitions)
	for i, s := range subs {
		in.Stateful[int32(i)] = s.Stateful
	}
	plan := assign.Cooperative(assign.Balance(in), in.Members)
	data := assign.AppendPlan(nil, plan)
	out := make(syncAssignment, 0, len(plan.Members))
	for _, share := range plan.Members {
		a := kmsg.NewConsumerMemberAssignment()
		a.UserData = data
		byTopic := map[string][]int32{}
		for _, t := range share.Active {
			for _, topic := range subs[t.Sub].Reads() {
				if t.Partition < partitions[topic] {
					byTopic[topic] = append(byTopic[topic], t.Partition)
				}
			}
		}
		for _, topic := range sortedKeys(byTopic) {
			at := kmsg.NewConsumerMemberAssignmentTopic()
			at.Topic, at.Partitions = topic, byTopic[topic]
			a.Topics = append(a.Topics, at)
		}
		s := kmsg.NewSyncGroupRequestGroupAssignment()
		s.MemberID, s.MemberAssignment = memberIDs[share.ID], a.AppendTo(nil)
		out = append(out, s)
	}
	return out
}

// describe reads a member's join. Its name in the plan is the instance id where there is one: a plan that is the same
// after a restart must be the same bytes, or the group would rebalance for nothing.
func describe(m *kmsg.JoinGroupResponseMember, meta *kmsg.ConsumerMemberMetadata, subOf map[string]int32) assign.Member {
	member := assign.Member{ID: m.MemberID, Generation: meta.Generation, Topics: meta.Topics}
	if m.InstanceID != nil {
		member.ID = *m.InstanceID
	}
	// What another version wrote says nothing to us; the member still gets its share.
	if hello, err := assign.DecodeHello(meta.UserData); err == nil {
		member.Endpoint, member.Local, member.Patterns = hello.Endpoint, hello.Local, hello.Patterns
	}
	for _, o := range meta.OwnedPartitions {
		sub, ok := subOf[o.Topic]
		if !ok {
			continue
		}
		for _, p := range o.Partitions {
			if t := (assign.Task{Sub: sub, Partition: p}); !slices.Contains(member.Owned, t) {
				member.Owned = append(member.Owned, t)
			}
		}
	}
	return member
}

type syncAssignment []kmsg.SyncGroupRequestGroupAssignment

func (s syncAssignment) IntoSyncAssignment() []kmsg.SyncGroupRequestGroupAssignment { return s }
