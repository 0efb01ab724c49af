package moldau

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/moldau/moldau/internal/worker"
	"github.com/moldau/moldau/topology"
)

// resetter asks the cluster what ResetApp needs to know, and has it do what there is to do.
type resetter struct {
	app  string
	cfg  ResetConfig
	opts []kgo.Opt
	cl   *kgo.Client
	ids  map[string][16]byte // of topics, which new versions of requests want
}

func (r *resetter) open(opts []kgo.Opt) (err error) {
	r.opts = opts
	r.cl, err = kgo.NewClient(opts...)
	return err
}

// idle sees to it that nobody is in the group.
func (r *resetter) idle(ctx context.Context) error {
	req := kmsg.NewPtrDescribeGroupsRequest()
	req.Groups = []string{r.app}
	resp, err := req.RequestWith(ctx, r.cl)
	if err != nil {
		return err
	}
	for _, g := range resp.Groups {
		if err := kerr.ErrorForCode(g.ErrorCode); err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
			return fmt.Errorf("describing the group: %w", err)
		}
		if len(g.Members) == 0 {
			continue
		}
		if r.cfg.Force && !r.cfg.DryRun {
			return r.remove(ctx, g.Members)
		}
		var members []string
		for _, m := range g.Members {
			members = append(members, m.ClientID+" at "+m.ClientHost)
		}
		if !r.cfg.Force {
			return fmt.Errorf("%w: %d in the group (%s); stop them, wait until the session of a process that was killed has ended, or throw them out with Force",
				ErrActive, len(members), strings.Join(members, ", "))
		}
	}
	return nil
}

func (r *resetter) remove(ctx context.Context, members []kmsg.DescribeGroupsResponseGroupMember) error {
	req := kmsg.NewPtrLeaveGroupRequest()
	req.Group = r.app
	for _, m := range members {
		one := kmsg.NewLeaveGroupRequestMember()
		if one.InstanceID = m.InstanceID; one.InstanceID == nil {
			one.MemberID = m.MemberID
		}
		req.Members = append(req.Members, one)
	}
	resp, err := req.RequestWith(ctx, r.cl)
	if err != nil {
		return err
	}
	errs := []error{kerr.ErrorForCode(resp.ErrorCode)}
	for _, m := range resp.Members {
		if err := kerr.ErrorForCode(m.ErrorCode); !errors.Is(err, kerr.UnknownMemberID) {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("throwing members out of the group: %w", err)
	}
	return nil
}

// topics are all there are, with their partitions.
func (r *resetter) topics(ctx context.Context) (map[string]int32, error) {
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = nil // all
	resp, err := req.RequestWith(ctx, r.cl)
	if err != nil {
		return nil, fmt.Errorf("listing topics: %w", err)
	}
	all := map[string]int32{}
	r.ids = map[string][16]byte{}
	for _, t := range resp.Topics {
		if t.Topic != nil && t.ErrorCode == 0 {
			all[*t.Topic], r.ids[*t.Topic] = int32(len(t.Partitions)), t.TopicID
		}
	}
	return all, nil
}

// recorded is the topology that ran last.
func (r *resetter) recorded(ctx context.Context, topic string) (d topology.Description, err error) {
	end, err := r.list(ctx, topic, 1, -1)
	if err != nil || end[0] == 0 {
		return d, err
	}
	cl, err := kgo.NewClient(append(slices.Clone(r.opts),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}))...)
	if err != nil {
		return d, err
	}
	defer cl.Close()
	for at := int64(0); at < end[0]; {
		fetches := cl.PollFetches(ctx)
		if err := errors.Join(fetches.Err(), ctx.Err()); err != nil {
			return d, err
		}
		fetches.EachRecord(func(rec *kgo.Record) {
			at = rec.Offset + 1
			if string(rec.Key) == worker.DeployedKey {
				var perr error
				d, perr = topology.ParseDescription(rec.Value)
				err = errors.Join(err, perr)
			}
		})
	}
	return d, err
}

// committed are the topics in which the group has positions.
func (r *resetter) committed(ctx context.Context) (topics []string, err error) {
	req := kmsg.NewPtrOffsetFetchRequest()
	group := kmsg.NewOffsetFetchRequestGroup()
	group.Group, group.Topics = r.app, nil
	req.Group, req.Topics, req.Groups = r.app, nil, []kmsg.OffsetFetchRequestGroup{group}
	resp, err := req.RequestWith(ctx, r.cl)
	if err == nil {
		err = kerr.ErrorForCode(resp.ErrorCode)
	}
	if err != nil {
		return nil, fmt.Errorf("reading committed positions: %w", err)
	}
	for _, t := range resp.Topics {
		topics = append(topics, t.Topic)
	}
	for _, g := range resp.Groups {
		if err := kerr.ErrorForCode(g.ErrorCode); err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
			return nil, fmt.Errorf("reading committed positions: %w", err)
		}
		for _, t := range g.Topics {
			if name := cmp.Or(t.Topic, r.named(t.TopicID)); name != "" && !slices.Contains(topics, name) {
				topics = append(topics, name)
			}
		}
	}
	return topics, nil
}

// named is the topic of an id; "": there is none any more.
func (r *resetter) named(id [16]byte) string {
	for name, have := range r.ids {
		if have == id {
			return name
		}
	}
	return ""
}

// offsets are where reading is to begin in a topic, per partition.
func (r *resetter) offsets(ctx context.Context, topic string, partitions int32) ([]int64, error) {
	const earliest, latest = -2, -1
	first, err := r.list(ctx, topic, partitions, earliest)
	if err != nil || r.cfg.To.kind == toEarliest {
		return first, err
	}
	last, err := r.list(ctx, topic, partitions, latest)
	if err != nil || r.cfg.To.kind == toLatest {
		return last, err
	}
	at := make([]int64, partitions)
	for p := range at {
		at[p] = r.cfg.To.at
	}
	if r.cfg.To.kind == toTime {
		if at, err = r.list(ctx, topic, partitions, r.cfg.To.at); err != nil {
			return nil, err
		}
		for p := range at {
			if at[p] < 0 {
				at[p] = last[p] // nothing is as young
			}
		}
	}
	for p := range at {
		at[p] = min(max(at[p], first[p]), last[p])
	}
	return at, nil
}

func (r *resetter) list(ctx context.Context, topic string, partitions int32, timestamp int64) ([]int64, error) {
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID, req.IsolationLevel = -1, 1
	t := kmsg.NewListOffsetsRequestTopic()
	t.Topic = topic
	for p := range partitions {
		one := kmsg.NewListOffsetsRequestTopicPartition()
		one.Partition, one.Timestamp = p, timestamp
		t.Partitions = append(t.Partitions, one)
	}
	req.Topics = append(req.Topics, t)
	resp, err := req.RequestWith(ctx, r.cl)
	if err != nil {
		return nil, fmt.Errorf("asking for offsets of topic %q: %w", topic, err)
	}
	at := make([]int64, partitions)
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return nil, fmt.Errorf("asking for offsets of topic %q, partition %d: %w", topic, p.Partition, err)
			}
			at[p.Partition] = p.Offset
		}
	}
	return at, nil
}

// carryOut forgets all positions, deletes topics and commits the new positions.
func (r *resetter) carryOut(ctx context.Context, report ResetReport) error {
	del := kmsg.NewPtrDeleteGroupsRequest()
	del.Groups = []string{r.app}
	resp, err := del.RequestWith(ctx, r.cl)
	if err != nil {
		return fmt.Errorf("forgetting positions: %w", err)
	}
	for _, g := range resp.Groups {
		switch err := kerr.ErrorForCode(g.ErrorCode); {
		case errors.Is(err, kerr.NonEmptyGroup):
			return fmt.Errorf("%w: somebody has joined the group just now", ErrActive)
		case err != nil && !errors.Is(err, kerr.GroupIDNotFound):
			return fmt.Errorf("forgetting positions: %w", err)
		}
	}
	if err := r.commit(ctx, report.Offsets); err != nil {
		return err
	}
	for _, name := range report.Deleted {
		if err := r.delete(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

func (r *resetter) commit(ctx context.Context, offsets []ResetOffset) error {
	if len(offsets) == 0 {
		return nil
	}
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group, req.Generation = r.app, -1
	for _, o := range offsets {
		if n := len(req.Topics); n == 0 || req.Topics[n-1].Topic != o.Topic {
			t := kmsg.NewOffsetCommitRequestTopic()
			t.Topic, t.TopicID = o.Topic, r.ids[o.Topic]
			req.Topics = append(req.Topics, t)
		}
		p := kmsg.NewOffsetCommitRequestTopicPartition()
		p.Partition, p.Offset = o.Partition, o.At
		last := &req.Topics[len(req.Topics)-1]
		last.Partitions = append(last.Partitions, p)
	}
	resp, err := req.RequestWith(ctx, r.cl)
	if err != nil {
		return fmt.Errorf("setting positions: %w", err)
	}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return fmt.Errorf("setting the position in topic %q, partition %d: %w", cmp.Or(t.Topic, r.named(t.TopicID)), p.Partition, err)
			}
		}
	}
	return nil
}

// deletePoll is the time between looks at whether a topic is gone.
const deletePoll = 20 * time.Millisecond

// delete deletes a topic and waits until the cluster does not know it any more.
func (r *resetter) delete(ctx context.Context, name string) error {
	req := kmsg.NewPtrDeleteTopicsRequest()
	req.TimeoutMillis = 30_000
	req.TopicNames = []string{name}
	one := kmsg.NewDeleteTopicsRequestTopic()
	one.Topic = kmsg.StringPtr(name)
	req.Topics = append(req.Topics, one)
	resp, err := req.RequestWith(ctx, r.cl)
	if err != nil {
		return fmt.Errorf("deleting topic %q: %w", name, err)
	}
	for _, t := range resp.Topics {
		if err := kerr.ErrorForCode(t.ErrorCode); err != nil && !errors.Is(err, kerr.UnknownTopicOrPartition) {
			return fmt.Errorf("deleting topic %q: %w", name, err)
		}
	}
	tick := time.NewTicker(deletePoll)
	defer tick.Stop()
	for {
		all, err := r.topics(ctx)
		if err != nil {
			return err
		}
		if _, there := all[name]; !there {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("waiting until topic %q is deleted: %w", name, ctx.Err())
		}
	}
}
