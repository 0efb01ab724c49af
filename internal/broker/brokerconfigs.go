package broker

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/moldau/moldau/internal/broker/log"
)

// The settings of the broker that bound connections.
const (
	maxConnections         = "max.connections"
	maxConnectionRate      = "max.connection.creation.rate"
	maxConnectionsPerIP    = "max.connections.per.ip"
	maxConnectionOverrides = "max.connections.per.ip.overrides"
)

// dynamicConfigs are the settings of the broker that were changed while it ran (KIP-226). They are kept in the log.
type dynamicConfigs struct {
	altering sync.Mutex // held until a change is durable and counts
	// sets are those set, by the name of the resource: the id of this broker, or "", for all brokers, which counts less. Never changed.
	sets atomic.Pointer[map[string]map[string]string]
}

// counting returns the settings that count: this broker's before those of all.
func counting(sets map[string]map[string]string) map[string]string {
	set := map[string]string{}
	maps.Copy(set, sets[""])
	maps.Copy(set, sets[strconv.Itoa(nodeID)])
	return set
}

// givenToTopics are the defaults of topics that were set.
func (b *Broker) givenToTopics() []given {
	sets := *b.dynamic.sets.Load()
	return []given{{ofTopics(sets[strconv.Itoa(nodeID)]), kmsg.ConfigSourceDynamicBrokerConfig}, {ofTopics(sets[""]), kmsg.ConfigSourceDynamicDefaultBrokerConfig}}
}

// brokerSettings are the settings of the broker that tools see, in order of name, as they were when it was started. Those with a
// check may be changed: limits of connections, defaults of topics, and some that are only kept and shown, since what they are
// about is not here.
func (b *Broker) brokerSettings() []setting {
	fixed := func(name string, typ kmsg.ConfigType, value string) setting { return setting{name, typ, value, nil} }
	ms := func(name string, v int64) setting { return fixed(name, kmsg.ConfigTypeLong, strconv.FormatInt(v, 10)) }
	num := func(name string, v int64) setting { return fixed(name, kmsg.ConfigTypeInt, strconv.FormatInt(v, 10)) }
	perIP := int64(rateOf(b.cfg.MaxConnectionsPerIP))
	if b.cfg.MaxConnectionsPerIP < 0 {
		perIP = 0
	}
	all := []setting{
		fixed("auto.create.topics.enable", kmsg.ConfigTypeBoolean, strconv.FormatBool(!b.cfg.NoAutoCreate)),
		{"background.threads", kmsg.ConfigTypeInt, "10", integer(1, math.MaxInt32)},
		num("broker.id", nodeID),
		ms("connections.max.reauth.ms", b.cfg.MaxReauth.Milliseconds()),
		num("default.replication.factor", 1),
		fixed("delete.topic.enable", kmsg.ConfigTypeBoolean, "true"),
		num("fetch.max.bytes", maxFetchBytes),
		num("group.consumer.heartbeat.interval.ms", b.cfg.ConsumerHeartbeatInterval.Milliseconds()),
		num("group.consumer.session.timeout.ms", b.cfg.ConsumerSessionTimeout.Milliseconds()),
		num("group.initial.rebalance.delay.ms", b.cfg.InitialRebalanceDelay.Milliseconds()),
		num("group.max.session.timeout.ms", b.cfg.MaxSessionTimeout.Milliseconds()),
		num("group.min.session.timeout.ms", b.cfg.MinSessionTimeout.Milliseconds()),
		num("group.streams.heartbeat.interval.ms", b.cfg.StreamsHeartbeatInterval.Milliseconds()),
		num("group.streams.initial.rebalance.delay.ms", b.cfg.InitialRebalanceDelay.Milliseconds()),
		num("group.streams.session.timeout.ms", b.cfg.StreamsSessionTimeout.Milliseconds()),
		fixed("log.dirs", kmsg.ConfigTypeString, b.cfg.Dir),
		// Kafka takes 0 for these two, and is then alone for ever.
		{maxConnectionRate, kmsg.ConfigTypeInt, fmt.Sprint(int64(rateOf(b.cfg.MaxConnectionCreationRate))), integer(1, math.MaxInt32)},
		{maxConnections, kmsg.ConfigTypeInt, strconv.Itoa(b.cfg.MaxConnections), integer(1, math.MaxInt32)},
		{maxConnectionsPerIP, kmsg.ConfigTypeInt, strconv.FormatInt(perIP, 10), integer(0, math.MaxInt32)},
		{maxConnectionOverrides, kmsg.ConfigTypeString, b.cfg.MaxConnectionsPerIPOverrides, func(s string) error {
			_, err := parseOverrides(s)
			return err
		}},
		{"num.io.threads", kmsg.ConfigTypeInt, "8", integer(1, math.MaxInt32)},
		{"num.network.threads", kmsg.ConfigTypeInt, "3", integer(1, math.MaxInt32)},
		num("num.partitions", int64(b.cfg.DefaultPartitions)),
		num("offset.metadata.max.bytes", maxOffsetMetadata),
		num("offsets.retention.minutes", int64(b.cfg.OffsetsRetention.Minutes())),
		{"sasl.kerberos.min.time.before.relogin", kmsg.ConfigTypeLong, "60000", integer(0, math.MaxInt64)},
		num("transaction.max.timeout.ms", b.cfg.MaxTransactionTimeout.Milliseconds()),
		num("transactional.id.expiration.ms", transactionalIDExpiry.Milliseconds()),
	}
	for _, s := range topicSettings {
		if name := brokerName(s.name); name != "" {
			all = append(all, setting{name, s.typ, s.value, s.check})
		}
	}
	slices.SortFunc(all, func(a, b setting) int { return strings.Compare(a.name, b.name) })
	return all
}

// checkBroker says why a resource is not this broker, or all brokers.
func checkBroker(name string) *refusal {
	if name != "" && name != strconv.Itoa(nodeID) {
		return refuse(kerr.InvalidRequest, "unknown broker %q: the only one is %d", name, nodeID)
	}
	return nil
}

func (b *Broker) describeBrokerConfigs(q *kmsg.DescribeConfigsRequest, rr *kmsg.DescribeConfigsResponseResource, wanted func(string) bool) {
	if no := checkBroker(rr.ResourceName); no != nil {
		rr.ErrorCode, rr.ErrorMessage = no.answer()
		return
	}
	sets := *b.dynamic.sets.Load()
	all := given{sets[""], kmsg.ConfigSourceDynamicDefaultBrokerConfig}
	if rr.ResourceName == "" {
		describeSettings(q, rr, b.brokerSettings(), kmsg.ConfigSourceStaticBrokerConfig, func(name string) bool {
			_, set := all.set[name]
			return set && wanted(name)
		}, all)
		return
	}
	describeSettings(q, rr, b.brokerSettings(), kmsg.ConfigSourceStaticBrokerConfig, wanted, given{sets[rr.ResourceName], kmsg.ConfigSourceDynamicBrokerConfig}, all)
}

func (b *Broker) alterBrokerConfigs(name string, alter []alteration, replace, validateOnly bool) *refusal {
	if no := checkBroker(name); no != nil {
		return no
	}
	b.dynamic.altering.Lock()
	defer b.dynamic.altering.Unlock()
	sets := maps.Clone(*b.dynamic.sets.Load())
	set := maps.Clone(sets[name])
	if set == nil || replace {
		set = map[string]string{}
	}
	known := b.brokerSettings()
	for _, a := range alter {
		if i := slices.IndexFunc(known, func(s setting) bool { return s.name == a.name }); i >= 0 && known[i].check == nil && a.op != kmsg.IncrementalAlterConfigOpDelete {
			return refuse(kerr.InvalidRequest, "%s is given when the broker is started", a.name)
		}
	}
	if no := applyAll(alter, set, known); no != nil {
		return no
	}
	for _, s := range known {
		if value, ok := set[s.name]; ok {
			if err := s.check(value); err != nil {
				return refuse(kerr.InvalidRequest, "invalid value %q for configuration %s: %v", value, s.name, err)
			}
		}
	}
	sets[name] = set
	l, overrides, err := b.limitsOf(sets)
	if err != nil {
		return refuse(kerr.InvalidRequest, "%v", err)
	}
	if replace || slices.ContainsFunc(alter, func(a alteration) bool { return a.name == maxConnectionOverrides }) {
		if l.overrides, err = resolveOverrides(overrides); err != nil {
			return refuse(kerr.InvalidRequest, "%v", err)
		}
	} else {
		b.serving.Lock()
		l.overrides = b.seats.limits.overrides
		b.serving.Unlock()
	}
	if validateOnly {
		return nil
	}
	put := log.Put{Kind: kindBrokerConfig, Key: brokerConfigKey(name)}
	if len(set) > 0 {
		put.Value = encode(set)
	}
	if no := b.security.store([]log.Put{put}); no != nil {
		return no
	}
	b.dynamic.sets.Store(&sets)
	b.catalog.setDefaults(ofTopics(counting(sets)))
	b.serving.Lock()
	defer b.serving.Unlock()
	b.seats.limits = l
	b.seats.wake()
	return nil
}

// brokerConfigKey is the key of the record of a resource's settings.
func brokerConfigKey(name string) string { return "broker " + name }

// limitsOf returns the limits that settings make, those of hosts apart, as their addresses are to be found yet.
func (b *Broker) limitsOf(sets map[string]map[string]string) (limits, []override, error) {
	known, set := b.brokerSettings(), counting(sets)
	value := func(name string) string {
		if v, ok := set[name]; ok {
			return v
		}
		return known[slices.IndexFunc(known, func(s setting) bool { return s.name == name })].value
	}
	number := func(name string) int {
		n, _ := strconv.Atoi(strings.TrimSpace(value(name)))
		return n
	}
	l := limits{all: number(maxConnections), rate: float64(number(maxConnectionRate)), perIP: number(maxConnectionsPerIP)}
	overrides, err := parseOverrides(value(maxConnectionOverrides))
	if err == nil && l.perIP == 0 && len(overrides) == 0 {
		err = errors.New(maxConnectionsPerIP + " can be 0 only with " + maxConnectionOverrides + ": nobody could connect")
	}
	return l, overrides, err
}

// restoreConfigs takes the stored settings back in.
func (b *Broker) restoreConfigs() error {
	sets := map[string]map[string]string{}
	for key, value := range b.log.Records(kindBrokerConfig) {
		set, err := decode[map[string]string]("the broker's settings", value)
		if err != nil {
			return err
		}
		_, name, _ := strings.Cut(key, " ")
		sets[strings.Clone(name)] = set
	}
	b.dynamic.sets.Store(&sets)
	l, overrides, err := b.limitsOf(sets)
	if err == nil {
		l.overrides, err = resolveOverrides(overrides)
	}
	if err != nil && len(sets) == 0 {
		return fmt.Errorf("broker: MaxConnectionsPerIPOverrides: %w", err)
	}
	if b.seats.limits = l; err != nil {
		// What was right when it was set is no reason not to start.
		b.slog.Error("some limits of addresses do not count", "setting", maxConnectionOverrides, "err", err)
	}
	return nil
}
