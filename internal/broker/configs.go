package broker

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

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
	describeSettings(q, rr, topicSettings[:], kmsg.ConfigSourceDefaultConfig, wanted,
		append([]given{{t.settings, kmsg.ConfigSourceDynamicTopicConfig}}, b.givenToTopics()...)...)
}

// given are settings that somebody has set, and how.
type given struct {
	set    map[string]string
	source kmsg.ConfigSource
}

// describeSettings shows settings: as the first has it that has been given it, else as it is without.
func describeSettings(q *kmsg.DescribeConfigsRequest, rr *kmsg.DescribeConfigsResponseResource, all []setting, without kmsg.ConfigSource, wanted func(string) bool, by ...given) {
	for _, s := range all {
		if !wanted(s.name) {
			continue
		}
		c := kmsg.NewDescribeConfigsResponseResourceConfig()
		c.Name, c.ConfigType, c.ReadOnly = s.name, s.typ, s.check == nil
		for _, g := range append(by, given{map[string]string{s.name: s.value}, without}) {
			value, ok := g.set[s.name]
			if !ok {
				continue
			}
			if c.Value == nil {
				c.Value, c.Source, c.IsDefault = &value, g.source, g.source == kmsg.ConfigSourceDefaultConfig
			}
			if q.IncludeSynonyms {
				c.ConfigSynonyms = append(c.ConfigSynonyms, kmsg.DescribeConfigsResponseResourceConfigConfigSynonym{Name: s.name, Value: &value, Source: g.source})
			}
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
		return b.alterBrokerConfigs(name, alter, replace, validateOnly)
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
		return refuse(kerr.InvalidRequest, "null value not supported: %s", a.name)
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
