package broker

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// brokerSetting is a setting of the broker as tools see it. They are set when the broker is started.
type brokerSetting struct {
	name  string
	typ   kmsg.ConfigType
	value string
}

func (b *Broker) brokerSettings() []brokerSetting {
	ms := func(name string, v int64) brokerSetting {
		return brokerSetting{name, kmsg.ConfigTypeLong, strconv.FormatInt(v, 10)}
	}
	num := func(name string, v int64) brokerSetting {
		return brokerSetting{name, kmsg.ConfigTypeInt, strconv.FormatInt(v, 10)}
	}
	return []brokerSetting{
		{"auto.create.topics.enable", kmsg.ConfigTypeBoolean, strconv.FormatBool(!b.cfg.NoAutoCreate)},
		{"broker.id", kmsg.ConfigTypeInt, strconv.Itoa(nodeID)},
		ms("connections.max.reauth.ms", b.cfg.MaxReauth.Milliseconds()),
		num("default.replication.factor", 1),
		{"delete.topic.enable", kmsg.ConfigTypeBoolean, "true"},
		num("fetch.max.bytes", maxFetchBytes),
		num("group.consumer.heartbeat.interval.ms", b.cfg.ConsumerHeartbeatInterval.Milliseconds()),
		num("group.consumer.session.timeout.ms", b.cfg.ConsumerSessionTimeout.Milliseconds()),
		num("group.initial.rebalance.delay.ms", b.cfg.InitialRebalanceDelay.Milliseconds()),
		num("group.max.session.timeout.ms", b.cfg.MaxSessionTimeout.Milliseconds()),
		num("group.min.session.timeout.ms", b.cfg.MinSessionTimeout.Milliseconds()),
		num("group.streams.heartbeat.interval.ms", b.cfg.StreamsHeartbeatInterval.Milliseconds()),
		num("group.streams.initial.rebalance.delay.ms", b.cfg.InitialRebalanceDelay.Milliseconds()),
		num("group.streams.session.timeout.ms", b.cfg.StreamsSessionTimeout.Milliseconds()),
		{"log.cleanup.policy", kmsg.ConfigTypeList, "delete"},
		{"log.dirs", kmsg.ConfigTypeString, b.cfg.Dir},
		ms("log.retention.ms", 604800000),
		num("max.connection.creation.rate", int64(rateOf(b.cfg.MaxConnectionCreationRate))),
		num("max.connections", int64(b.cfg.MaxConnections)),
		num("max.connections.per.ip", int64(rateOf(b.cfg.MaxConnectionsPerIP))),
		num("message.max.bytes", 1048588),
		num("num.partitions", int64(b.cfg.DefaultPartitions)),
		num("offset.metadata.max.bytes", maxOffsetMetadata),
		num("offsets.retention.minutes", int64(b.cfg.OffsetsRetention.Minutes())),
		num("transaction.max.timeout.ms", b.cfg.MaxTransactionTimeout.Milliseconds()),
		num("transactional.id.expiration.ms", transactionalIDExpiry.Milliseconds()),
	}
}

func (b *Broker) describeConfigs(r *request, q *kmsg.DescribeConfigsRequest) reply {
	resp := response[*kmsg.DescribeConfigsResponse](q)
	for _, qr := range q.Resources {
		rr := kmsg.NewDescribeConfigsResponseResource()
		rr.ResourceType, rr.ResourceName = qr.ResourceType, qr.ResourceName
		wanted := func(name string) bool { return qr.ConfigNames == nil || slices.Contains(qr.ConfigNames, name) }
		if no := r.mayConfigs(kmsg.ACLOperationDescribeConfigs, qr.ResourceType, qr.ResourceName); no != nil {
			rr.ErrorCode, rr.ErrorMessage = no.err.Code, &no.msg
			resp.Resources = append(resp.Resources, rr)
			continue
		}
		switch qr.ResourceType {
		case kmsg.ConfigResourceTypeTopic:
			b.describeTopicConfigs(q, &rr, wanted)
		case kmsg.ConfigResourceTypeBroker:
			b.describeBrokerConfigs(q, &rr, wanted)
		case kmsg.ConfigResourceTypeGroupConfig:
			b.describeGroupConfigs(q, &rr, wanted)
		case kmsg.ConfigResourceTypeBrokerLogger:
			// There are no loggers with levels of their own.
		default:
			rr.ErrorCode, rr.ErrorMessage = kerr.InvalidRequest.Code, ptr(fmt.Sprintf("unsupported resource type %d", qr.ResourceType))
		}
		resp.Resources = append(resp.Resources, rr)
	}
	return answer(resp)
}

func (b *Broker) describeTopicConfigs(q *kmsg.DescribeConfigsRequest, rr *kmsg.DescribeConfigsResponseResource, wanted func(string) bool) {
	if err := checkName(rr.ResourceName); err != nil {
		rr.ErrorCode, rr.ErrorMessage = kerr.InvalidTopicException.Code, ptr(err.Error())
		return
	}
	t := b.catalog.topic(rr.ResourceName)
	if t == nil {
		rr.ErrorCode, rr.ErrorMessage = kerr.UnknownTopicOrPartition.Code, ptr("topic "+rr.ResourceName+" does not exist")
		return
	}
	describeSettings(q, rr, topicSettings[:], t.settings, kmsg.ConfigSourceDynamicTopicConfig, wanted)
}

// describeSettings shows settings: those in set come from source, the others are defaults.
func describeSettings(q *kmsg.DescribeConfigsRequest, rr *kmsg.DescribeConfigsResponseResource, all []setting, set map[string]string, source kmsg.ConfigSource, wanted func(string) bool) {
	for _, s := range all {
		if !wanted(s.name) {
			continue
		}
		c := kmsg.NewDescribeConfigsResponseResourceConfig()
		c.Name, c.ConfigType, c.Value = s.name, s.typ, ptr(s.value)
		c.Source, c.IsDefault = kmsg.ConfigSourceDefaultConfig, true
		value, given := set[s.name]
		if given {
			c.Value, c.Source, c.IsDefault = &value, source, false
		}
		if q.IncludeSynonyms {
			if given {
				c.ConfigSynonyms = append(c.ConfigSynonyms, kmsg.DescribeConfigsResponseResourceConfigConfigSynonym{Name: s.name, Value: &value, Source: source})
			}
			c.ConfigSynonyms = append(c.ConfigSynonyms, kmsg.DescribeConfigsResponseResourceConfigConfigSynonym{Name: s.name, Value: ptr(s.value), Source: kmsg.ConfigSourceDefaultConfig})
		}
		rr.Configs = append(rr.Configs, c)
	}
}

func (b *Broker) describeBrokerConfigs(q *kmsg.DescribeConfigsRequest, rr *kmsg.DescribeConfigsResponseResource, wanted func(string) bool) {
	if rr.ResourceName != "" && rr.ResourceName != strconv.Itoa(nodeID) {
		rr.ErrorCode, rr.ErrorMessage = kerr.InvalidRequest.Code, ptr(fmt.Sprintf("unknown broker %q: the only one is %d", rr.ResourceName, nodeID))
		return
	}
	if rr.ResourceName == "" {
		return // defaults of all brokers: none are set
	}
	for _, s := range b.brokerSettings() {
		if !wanted(s.name) {
			continue
		}
		c := kmsg.NewDescribeConfigsResponseResourceConfig()
		c.Name, c.ConfigType, c.Value, c.Source, c.ReadOnly = s.name, s.typ, &s.value, kmsg.ConfigSourceStaticBrokerConfig, true
		if q.IncludeSynonyms {
			c.ConfigSynonyms = append(c.ConfigSynonyms, kmsg.DescribeConfigsResponseResourceConfigConfigSynonym{Name: s.name, Value: &s.value, Source: kmsg.ConfigSourceStaticBrokerConfig})
		}
		rr.Configs = append(rr.Configs, c)
	}
}

// mayConfigs says why a client may not do something with the settings of a resource.
func (r *request) mayConfigs(op kmsg.ACLOperation, typ kmsg.ConfigResourceType, name string) *refusal {
	if typ == kmsg.ConfigResourceTypeTopic {
		if !r.mayTopic(op, name) {
			return refuse(kerr.TopicAuthorizationFailed, "the settings of topic %s are not for %s", name, r.principal)
		}
	} else if typ == kmsg.ConfigResourceTypeGroupConfig {
		if !r.mayGroup(op, name) {
			return refuse(kerr.GroupAuthorizationFailed, "the settings of group %s are not for %s", name, r.principal)
		}
	} else if !r.mayCluster(op) {
		return refuse(kerr.ClusterAuthorizationFailed, "the settings of the cluster are not for %s", r.principal)
	}
	return nil
}

// alteration is one change of a setting.
type alteration struct {
	name  string
	op    kmsg.IncrementalAlterConfigOp
	value *string
}

func (b *Broker) incrementalAlterConfigs(r *request, q *kmsg.IncrementalAlterConfigsRequest) reply {
	resp := response[*kmsg.IncrementalAlterConfigsResponse](q)
	for _, qr := range q.Resources {
		alter := make([]alteration, len(qr.Configs))
		for i, c := range qr.Configs {
			alter[i] = alteration{c.Name, c.Op, c.Value}
		}
		rr := kmsg.NewIncrementalAlterConfigsResponseResource()
		rr.ResourceType, rr.ResourceName = qr.ResourceType, qr.ResourceName
		rr.ErrorCode, rr.ErrorMessage = b.alterConfigsOf(r, qr.ResourceType, qr.ResourceName, alter, false, q.ValidateOnly).answer()
		resp.Resources = append(resp.Resources, rr)
	}
	return answer(resp)
}

func (b *Broker) alterConfigs(r *request, q *kmsg.AlterConfigsRequest) reply {
	resp := response[*kmsg.AlterConfigsResponse](q)
	for _, qr := range q.Resources {
		alter := make([]alteration, len(qr.Configs))
		for i, c := range qr.Configs {
			alter[i] = alteration{c.Name, kmsg.IncrementalAlterConfigOpSet, c.Value}
		}
		rr := kmsg.NewAlterConfigsResponseResource()
		rr.ResourceType, rr.ResourceName = qr.ResourceType, qr.ResourceName
		rr.ErrorCode, rr.ErrorMessage = b.alterConfigsOf(r, qr.ResourceType, qr.ResourceName, alter, true, q.ValidateOnly).answer()
		resp.Resources = append(resp.Resources, rr)
	}
	return answer(resp)
}

// alterConfigsOf changes the settings of one resource; with replace those not named go back to their defaults.
func (b *Broker) alterConfigsOf(r *request, typ kmsg.ConfigResourceType, name string, alter []alteration, replace, validateOnly bool) *refusal {
	if no := r.mayConfigs(kmsg.ACLOperationAlterConfigs, typ, name); no != nil {
		return no
	}
	switch typ {
	case kmsg.ConfigResourceTypeTopic:
	case kmsg.ConfigResourceTypeGroupConfig:
		return b.alterGroupConfigs(name, alter, replace, validateOnly)
	case kmsg.ConfigResourceTypeBroker:
		return refuse(kerr.InvalidRequest, "settings of the broker are given when it is started")
	default:
		return refuse(kerr.InvalidRequest, "unsupported resource type %d", typ)
	}
	edit := func(t *topic) *refusal {
		if replace {
			clear(t.settings)
		}
		if no := applyAll(alter, t.settings, topicSettings[:]); no != nil {
			return no
		}
		if err := checkSettings(t.settings); err != nil {
			return refuse(kerr.InvalidConfig, "%v", err)
		}
		return nil
	}
	t := b.catalog.topic(name)
	if t == nil || validateOnly {
		trial := &topic{settings: map[string]string{}}
		if t != nil {
			maps.Copy(trial.settings, t.settings)
		}
		// Settings that make no sense are told of before topics that do not exist.
		if no := edit(trial); no != nil {
			return no
		}
		if t == nil {
			return refuse(kerr.UnknownTopicOrPartition, "topic %q does not exist", name)
		}
		return nil
	}
	return b.catalog.update(t.id, edit)
}

// applyAll changes settings of a kind.
func applyAll(alter []alteration, settings map[string]string, kind []setting) *refusal {
	seen := map[string]bool{}
	for _, a := range alter {
		if seen[a.name] {
			return refuse(kerr.InvalidRequest, "setting %s appears more than once", a.name)
		}
		seen[a.name] = true
		if no := a.apply(settings, kind); no != nil {
			return no
		}
	}
	return nil
}

func (a alteration) apply(settings map[string]string, kind []setting) *refusal {
	if a.op == kmsg.IncrementalAlterConfigOpDelete {
		delete(settings, a.name) // also one that is not known, as in Kafka
		return nil
	}
	i := slices.IndexFunc(kind, func(s setting) bool { return s.name == a.name })
	if i < 0 {
		return refuse(kerr.InvalidConfig, "unknown config name: %s", a.name)
	}
	s := kind[i]
	if a.value == nil {
		return refuse(kerr.InvalidConfig, "null value not supported: %s", a.name)
	}
	switch a.op {
	case kmsg.IncrementalAlterConfigOpSet:
		settings[a.name] = *a.value
	case kmsg.IncrementalAlterConfigOpAppend, kmsg.IncrementalAlterConfigOpSubtract:
		if s.typ != kmsg.ConfigTypeList {
			return refuse(kerr.InvalidConfig, "%s is no list: it cannot be appended to or subtracted from", a.name)
		}
		value, given := settings[a.name]
		if !given {
			value = s.value
		}
		have := splitList(value)
		for _, v := range splitList(*a.value) {
			i := slices.Index(have, v)
			switch {
			case a.op == kmsg.IncrementalAlterConfigOpAppend && i < 0:
				have = append(have, v)
			case a.op == kmsg.IncrementalAlterConfigOpSubtract && i >= 0:
				have = slices.Delete(have, i, i+1)
			}
		}
		settings[a.name] = strings.Join(have, ",")
	default:
		return refuse(kerr.InvalidRequest, "unknown operation %d for setting %s", a.op, a.name)
	}
	return nil
}
