package franz

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/moldau/moldau/internal/cluster"
)

type admin struct{ *Cluster }

// Requests of this package give up on a single broker's work after this many ms; contexts may end earlier.
const brokerTimeout = 30_000

func (a admin) List(ctx context.Context) ([]string, error) {
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = nil // all
	resp, err := req.RequestWith(ctx, a.cl)
	if err != nil {
		return nil, wrap(err, "listing topics")
	}
	var names []string
	for _, t := range resp.Topics {
		if !t.IsInternal && t.Topic != nil {
			names = append(names, *t.Topic)
		}
	}
	slices.Sort(names)
	return names, nil
}

func (a admin) Describe(ctx context.Context, topics ...string) (map[string]cluster.TopicInfo, error) {
	infos := make(map[string]cluster.TopicInfo, len(topics))
	if len(topics) == 0 {
		return infos, nil
	}
	req := kmsg.NewPtrMetadataRequest()
	for _, t := range topics {
		rt := kmsg.NewMetadataRequestTopic()
		rt.Topic = kmsg.StringPtr(t)
		req.Topics = append(req.Topics, rt)
	}
	resp, err := req.RequestWith(ctx, a.cl)
	if err != nil {
		return nil, wrap(err, "describing topics")
	}
	conf := kmsg.NewPtrDescribeConfigsRequest()
	for _, t := range resp.Topics {
		if t.ErrorCode == kerr.UnknownTopicOrPartition.Code {
			continue
		}
		// A topic that was created a moment ago may have no leader yet; it exists all the same.
		if t.ErrorCode != 0 && t.ErrorCode != kerr.LeaderNotAvailable.Code {
			return nil, code(t.ErrorCode, "describing topic %q", *t.Topic)
		}
		infos[*t.Topic] = cluster.TopicInfo{ID: t.TopicID, Partitions: int32(len(t.Partitions))}
		r := kmsg.NewDescribeConfigsRequestResource()
		r.ResourceType, r.ResourceName = kmsg.ConfigResourceTypeTopic, *t.Topic
		conf.Resources = append(conf.Resources, r)
	}
	if len(conf.Resources) == 0 {
		return infos, nil
	}
	confs, err := conf.RequestWith(ctx, a.cl)
	if err != nil {
		return nil, wrap(err, "describing the settings of topics")
	}
	for _, r := range confs.Resources {
		info, ok := infos[r.ResourceName]
		if !ok || r.ErrorCode != 0 {
			continue
		}
		info.Config = make(map[string]string, len(r.Configs))
		for _, c := range r.Configs {
			if c.Value != nil {
				info.Config[c.Name] = *c.Value
			}
		}
		info.MaxRecord = a.maxRecord(info.Config["max.message.bytes"])
		a.limits.Store(r.ResourceName, int32(info.MaxRecord+batchCost))
		infos[r.ResourceName] = info
	}
	return infos, nil
}

// batchCost is more than what a batch of one record costs besides its key, value and headers.
const batchCost = 150

// batchLimit is how large a batch for a topic may be.
func (c *Cluster) batchLimit(topic string) int32 {
	most, _ := c.cl.OptValue(kgo.ProducerBatchMaxBytes).(int32)
	if n, ok := c.limits.Load(topic); ok {
		most = min(most, max(n.(int32), 512)) // kgo takes no less
	}
	return most
}

// maxRecord is the largest record that both the topic and our producers take.
func (a admin) maxRecord(topic string) int {
	most := 0
	if n, ok := a.cl.OptValue(kgo.ProducerBatchMaxBytes).(int32); ok {
		most = int(n)
	}
	if n, err := strconv.Atoi(topic); err == nil && (most == 0 || n < most) {
		most = n
	}
	return max(most-batchCost, 0)
}

func (a admin) Create(ctx context.Context, topics ...cluster.TopicSpec) error {
	if len(topics) == 0 {
		return nil
	}
	req := kmsg.NewPtrCreateTopicsRequest()
	req.TimeoutMillis = brokerTimeout
	names := make([]string, 0, len(topics))
	for _, t := range topics {
		names = append(names, t.Name)
		rt := kmsg.NewCreateTopicsRequestTopic()
		rt.Topic, rt.NumPartitions, rt.ReplicationFactor = t.Name, t.Partitions, t.Replication
		if t.Replication == 0 {
			rt.ReplicationFactor = -1
		}
		for _, k := range slices.Sorted(maps.Keys(t.Config)) {
			c := kmsg.NewCreateTopicsRequestTopicConfig()
			c.Name, c.Value = k, kmsg.StringPtr(t.Config[k])
			rt.Configs = append(rt.Configs, c)
		}
		req.Topics = append(req.Topics, rt)
	}
	resp, err := req.RequestWith(ctx, a.cl)
	if err != nil {
		return wrap(err, "creating topics")
	}
	var errs []error
	for _, t := range resp.Topics {
		if t.ErrorCode == 0 || t.ErrorCode == kerr.TopicAlreadyExists.Code {
			continue
		}
		err := code(t.ErrorCode, "creating topic %q", t.Topic)
		if t.ErrorMessage != nil {
			err = wrap(kerr.ErrorForCode(t.ErrorCode), "creating topic %q (%s)", t.Topic, *t.ErrorMessage)
		}
		errs = append(errs, err)
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	return a.awaitTopics(ctx, names)
}

// awaitTopics waits until brokers know topics that the controller has created, so that whoever comes next finds them.
func (a admin) awaitTopics(ctx context.Context, names []string) error {
	for {
		req := kmsg.NewPtrMetadataRequest()
		for _, n := range names {
			t := kmsg.NewMetadataRequestTopic()
			t.Topic = kmsg.StringPtr(n)
			req.Topics = append(req.Topics, t)
		}
		resp, err := req.RequestWith(ctx, a.cl)
		if err != nil {
			return wrap(err, "waiting for new topics")
		}
		ready := true
		for _, t := range resp.Topics {
			ready = ready && t.ErrorCode == 0
			for _, p := range t.Partitions {
				ready = ready && p.Leader >= 0
			}
		}
		if ready {
			return nil
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return wrap(ctx.Err(), "waiting for new topics %v", names)
		}
	}
}

func byTopic(tps []cluster.TP) map[string][]int32 {
	m := make(map[string][]int32)
	for _, tp := range tps {
		m[tp.Topic] = append(m[tp.Topic], tp.Partition)
	}
	return m
}
