package broker

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/moldau/moldau/internal/broker/group"
	"github.com/moldau/moldau/internal/broker/log"
)

// The settings of one group, for members of the consumer protocol (KIP-848) and of the streams protocol (KIP-1071). A group
// need not exist to have some.
const (
	groupHeartbeat   = "consumer.heartbeat.interval.ms"
	groupSession     = "consumer.session.timeout.ms"
	streamsHeartbeat = "streams.heartbeat.interval.ms"
	streamsSession   = "streams.session.timeout.ms"
	streamsDelay     = "streams.initial.rebalance.delay.ms"
	streamsInterval  = "streams.assignment.interval.ms"
	streamsStandbys  = "streams.num.standby.replicas"
)

// maxStandbys bounds streams.num.standby.replicas (group.streams.max.standby.replicas).
const maxStandbys = 2

// modernLimits are what members of the newer protocols are held to.
type modernLimits struct {
	consumer group.ConsumerLimits
	streams  group.StreamsLimits
}

// settingsOfGroups are the settings that groups may have, with the broker's as defaults.
func (b *Broker) settingsOfGroups() []setting {
	ms := func(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
	return []setting{
		{groupHeartbeat, kmsg.ConfigTypeInt, ms(b.cfg.ConsumerHeartbeatInterval), integer(1, math.MaxInt32)},
		{groupSession, kmsg.ConfigTypeInt, ms(b.cfg.ConsumerSessionTimeout), integer(1, math.MaxInt32)},
		{streamsInterval, kmsg.ConfigTypeInt, "0", integer(0, math.MaxInt32)},
		{streamsHeartbeat, kmsg.ConfigTypeInt, ms(b.cfg.StreamsHeartbeatInterval), integer(1, math.MaxInt32)},
		{streamsDelay, kmsg.ConfigTypeInt, ms(b.cfg.InitialRebalanceDelay), integer(0, math.MaxInt32)},
		{streamsStandbys, kmsg.ConfigTypeInt, "0", integer(0, maxStandbys)},
		{streamsSession, kmsg.ConfigTypeInt, ms(b.cfg.StreamsSessionTimeout), integer(1, math.MaxInt32)},
	}
}

// limitsOf returns what a group's members of the newer protocols are held to. With c.mu held.
func (c *groups) limitsOf(id string) modernLimits {
	l := c.modern
	given := func(name string) (int64, bool) {
		v, ok := c.settings[id][name]
		n, _ := strconv.ParseInt(strings.TrimSpace(v), 10, 64)
		return n, ok
	}
	for name, d := range map[string]*time.Duration{
		groupHeartbeat: &l.consumer.Heartbeat, groupSession: &l.consumer.Session, streamsHeartbeat: &l.streams.Heartbeat,
		streamsSession: &l.streams.Session, streamsDelay: &l.streams.InitialDelay, streamsInterval: &l.streams.Interval,
	} {
		if n, ok := given(name); ok {
			*d = time.Duration(n) * time.Millisecond
		}
	}
	if n, ok := given(streamsStandbys); ok {
		l.streams.Standbys = int(n)
	}
	return l
}

// limitsFor is limitsOf for those who do not hold c.mu.
func (c *groups) limitsFor(id string) modernLimits {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.limitsOf(id)
}

// restoreSettings takes the stored settings of groups back in.
func (c *groups) restoreSettings() error {
	for id, value := range c.b.log.Records(kindGroupConfig) {
		set, err := decode[map[string]string]("a group's settings", value)
		if err != nil {
			return err
		}
		c.settings[strings.Clone(id)] = set
	}
	return nil
}

func (b *Broker) describeGroupConfigs(q *kmsg.DescribeConfigsRequest, rr *kmsg.DescribeConfigsResponseResource, wanted func(string) bool) {
	if rr.ResourceName == "" {
		rr.ErrorCode, rr.ErrorMessage = kerr.InvalidRequest.Code, ptr("the name of the group is empty")
		return
	}
	b.groups.mu.Lock()
	set := b.groups.settings[rr.ResourceName]
	b.groups.mu.Unlock()
	describeSettings(q, rr, b.settingsOfGroups(), kmsg.ConfigSourceDefaultConfig, wanted, given{set, kmsg.ConfigSourceGroupConfig})
}

func (b *Broker) alterGroupConfigs(id string, alter []alteration, replace, validateOnly bool) *refusal {
	if id == "" {
		return refuse(kerr.InvalidRequest, "the name of the group is empty")
	}
	b.groups.altering.Lock()
	defer b.groups.altering.Unlock()
	b.groups.mu.Lock()
	set := maps.Clone(b.groups.settings[id])
	b.groups.mu.Unlock()
	if set == nil || replace {
		set = map[string]string{}
	}
	known := b.settingsOfGroups()
	if no := applyAll(alter, set, known); no != nil {
		return no
	}
	numbers := map[string]int64{}
	for _, s := range known {
		value, ok := set[s.name]
		if !ok {
			value = s.value
		}
		if err := s.check(value); err != nil {
			return refuse(kerr.InvalidConfig, "invalid value %q for configuration %s: %v", value, s.name, err)
		}
		numbers[s.name], _ = strconv.ParseInt(strings.TrimSpace(value), 10, 64)
	}
	for heartbeat, session := range map[string]string{groupHeartbeat: groupSession, streamsHeartbeat: streamsSession} {
		if numbers[heartbeat] >= numbers[session] {
			return refuse(kerr.InvalidConfig, "%s %d is not below %s %d", heartbeat, numbers[heartbeat], session, numbers[session])
		}
	}
	if validateOnly {
		return nil
	}
	put := log.Put{Kind: kindGroupConfig, Key: id}
	if len(set) > 0 {
		put.Value = encode(set)
	}
	if no := b.security.store([]log.Put{put}); no != nil {
		return no
	}
	b.groups.mu.Lock()
	if b.groups.settings[id] = set; len(set) == 0 {
		delete(b.groups.settings, id)
	}
	limits := b.groups.limitsOf(id)
	b.groups.mu.Unlock()
	if g := b.groups.lock(id, false); g != nil {
		if modern := g.consumer(); modern != nil {
			modern.SetLimits(limits.consumer)
		}
		if modern := g.streams(); modern != nil {
			modern.SetLimits(limits.streams)
		}
		g.mu.Unlock()
	}
	return nil
}

// listConfigResources lists what has settings.
func (b *Broker) listConfigResources(r *request, q *kmsg.ListConfigResourcesRequest) reply {
	resp := response[*kmsg.ListConfigResourcesResponse](q)
	if !r.mayCluster(kmsg.ACLOperationDescribeConfigs) {
		resp.ErrorCode = kerr.ClusterAuthorizationFailed.Code
		return answer(resp)
	}
	add := func(typ kmsg.ConfigResourceType, names ...string) {
		if q.Version >= 1 && len(q.ResourceTypes) > 0 && !slices.Contains(q.ResourceTypes, int8(typ)) || q.Version == 0 {
			return // version 0 asks for metrics subscriptions of clients: there are none
		}
		for _, name := range names {
			cr := kmsg.NewListConfigResourcesResponseConfigResource()
			cr.Name, cr.Type = name, int8(typ)
			resp.ConfigResources = append(resp.ConfigResources, cr)
		}
	}
	for _, t := range b.catalog.all() {
		add(kmsg.ConfigResourceTypeTopic, t.name)
	}
	node := fmt.Sprint(nodeID)
	add(kmsg.ConfigResourceTypeBroker, node)
	add(kmsg.ConfigResourceTypeBrokerLogger, node)
	b.groups.mu.Lock()
	ids := slices.Sorted(maps.Keys(b.groups.settings))
	b.groups.mu.Unlock()
	add(kmsg.ConfigResourceTypeGroupConfig, ids...)
	return answer(resp)
}
