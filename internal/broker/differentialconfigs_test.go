package broker

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestDifferentialBrokerConfigs changes settings of the broker and of all brokers here and on Apache Kafka, and looks at what is
// shown then.
func TestDifferentialBrokerConfigs(t *testing.T) {
	kafka := apacheKafka(t)
	b := start(t, listening)
	prefix := strconv.FormatInt(time.Now().UnixNano(), 36) + "-configs-"
	ours, theirs := newSide(t, b.Addr(), prefix), newSide(t, kafka, prefix)
	const set, remove, add, subtract = kmsg.IncrementalAlterConfigOpSet, kmsg.IncrementalAlterConfigOpDelete, kmsg.IncrementalAlterConfigOpAppend, kmsg.IncrementalAlterConfigOpSubtract
	type change struct {
		resource, name string
		op             kmsg.IncrementalAlterConfigOp
		value          string
	}
	alter := func(s *side, c change) string {
		rc := kmsg.IncrementalAlterConfigsRequestResourceConfig{Name: c.name, Op: c.op, Value: &c.value}
		if c.value == "null" {
			rc.Value = nil
		}
		q := kmsg.NewPtrIncrementalAlterConfigsRequest()
		q.Resources = []kmsg.IncrementalAlterConfigsRequestResource{{ResourceType: kmsg.ConfigResourceTypeBroker, ResourceName: c.resource, Configs: []kmsg.IncrementalAlterConfigsRequestResourceConfig{rc}}}
		if c.op == set && strings.HasPrefix(c.value, "twice ") {
			q.Resources[0].Configs = append(q.Resources[0].Configs, rc)
		}
		return name(ask[*kmsg.IncrementalAlterConfigsResponse](s.raw, 1, q).Resources[0].ErrorCode)
	}
	shown := func(s *side, resource string) string {
		q := kmsg.NewPtrDescribeConfigsRequest()
		q.Resources = []kmsg.DescribeConfigsRequestResource{{ResourceType: kmsg.ConfigResourceTypeBroker, ResourceName: resource}}
		var out []string
		for _, c := range ask[*kmsg.DescribeConfigsResponse](s.raw, 4, q).Resources[0].Configs {
			if c.Name == "min.insync.replicas" {
				continue // Kafka sets it for itself
			}
			if c.Source == kmsg.ConfigSourceDynamicBrokerConfig || c.Source == kmsg.ConfigSourceDynamicDefaultBrokerConfig {
				value := "null"
				if c.Value != nil {
					value = *c.Value
				}
				out = append(out, fmt.Sprintf("%s=%s %d %v", c.Name, value, c.Source, c.ReadOnly))
			}
		}
		return fmt.Sprint(len(out), " ", strings.Join(slices.Sorted(slices.Values(out)), ", "))
	}
	for _, c := range []change{
		{"1", maxConnections, set, "5000"}, {"", maxConnections, set, "6000"}, {"", maxConnectionsPerIP, set, "500"}, {"1", maxConnectionOverrides, set, "localhost:600,127.0.0.9:7"},
		{"1", maxConnectionsPerIP, set, "0"}, {"1", maxConnectionOverrides, set, "localhost"}, {"1", maxConnectionOverrides, set, "localhost:many"}, {"1", maxConnectionOverrides, remove, ""},
		{"1", maxConnectionsPerIP, remove, ""}, {"1", maxConnectionOverrides, remove, ""}, {"1", maxConnections, set, "many"}, {"1", maxConnections, set, "-1"}, {"1", maxConnections, set, "null"},
		{"1", maxConnections, set, "twice 1"}, {"1", maxConnections, add, "1"}, {"1", maxConnectionRate, set, "100000"}, {"2", maxConnections, set, "5000"}, {"x", maxConnections, set, "5000"},
		{"1", "num.partitions", set, "5"}, {"1", "background.threads", set, "9"}, {"1", "log.cleanup.policy", add, "compact"}, {"", "log.cleanup.policy", set, "compact"},
		{"1", "log.cleanup.policy", set, "none"}, {"1", "log.cleanup.policy", subtract, "delete"}, {"1", "log.retention.ms", set, "86400000"}, {"1", "log.retention.ms", set, "x"},
		{"1", "message.max.bytes", set, "2000000"}, {"1", "log.roll.ms", set, "3600000"}, {"1", "log.cleaner.min.cleanable.ratio", set, "0.7"}, {"1", "log.cleaner.min.cleanable.ratio", set, "7"},
		{"1", "log.flush.interval.messages", set, "0"}, {"1", "compression.type", set, "zip"}, {"1", "compression.type", set, "gzip"}, {"1", "no.such", remove, ""},
		{"1", "log.message.timestamp.type", set, "LogAppendTime"}, {"1", "sasl.kerberos.min.time.before.relogin", set, "58000"},
		{"1", maxConnections, remove, ""}, {"", maxConnections, remove, ""}, {"", maxConnectionsPerIP, remove, ""}, {"1", maxConnectionRate, remove, ""}, {"1", "background.threads", remove, ""},
		{"1", "log.cleanup.policy", remove, ""}, {"", "log.cleanup.policy", remove, ""}, {"1", "log.retention.ms", remove, ""}, {"1", "message.max.bytes", remove, ""}, {"1", "log.roll.ms", remove, ""},
		{"1", "log.cleaner.min.cleanable.ratio", remove, ""}, {"1", "compression.type", remove, ""}, {"1", "log.message.timestamp.type", remove, ""}, {"1", "sasl.kerberos.min.time.before.relogin", remove, ""},
	} {
		if got, want := alter(ours, c), alter(theirs, c); got != want {
			t.Errorf("%+v: here %s, there %s", c, got, want)
		}
		for _, resource := range []string{"", "1"} {
			// A cluster shows a change a little later.
			var got, want string
			for deadline := time.Now().Add(time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
				if got, want = shown(ours, resource), shown(theirs, resource); got == want {
					break
				}
			}
			if got != want {
				t.Errorf("after %+v %q shows here %s, there %s", c, resource, got, want)
			}
		}
	}
}
