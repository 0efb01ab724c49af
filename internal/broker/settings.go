package broker

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/moldau/moldau/internal/broker/log"
)

// setting is a configuration entry of a topic, a group or the broker: Kafka's name, type and default, and the values it takes.
type setting struct {
	name  string
	typ   kmsg.ConfigType
	value string             // the default
	check func(string) error // nil: it cannot be changed
}

func integer(lo, hi int64) func(string) error {
	return func(s string) error {
		v, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
		if err != nil {
			return fmt.Errorf("not a number")
		}
		if v < lo || v > hi {
			if v < lo {
				return fmt.Errorf("value must be at least %d", lo)
			}
			return fmt.Errorf("value must be no more than %d", hi)
		}
		return nil
	}
}

func ratio(s string) error {
	v, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
	if err != nil || v < 0 || v > 1 {
		return fmt.Errorf("value must be between 0 and 1")
	}
	return nil
}

func oneOf(values ...string) func(string) error {
	return func(s string) error {
		if !slices.Contains(values, s) {
			return fmt.Errorf("value must be one of %s", strings.Join(values, ", "))
		}
		return nil
	}
}

func boolean(s string) error {
	if l := strings.ToLower(strings.TrimSpace(s)); l != "true" && l != "false" {
		return fmt.Errorf("value must be true or false")
	}
	return nil
}

func cleanupPolicy(s string) error {
	for _, p := range splitList(s) {
		if p != "compact" && p != "delete" {
			return fmt.Errorf("value must be a list of compact, delete")
		}
	}
	return nil
}

func throttledReplicas(s string) error {
	for _, r := range splitList(s) {
		if r == "*" {
			continue
		}
		var p, b int
		if n, err := fmt.Sscanf(r, "%d:%d", &p, &b); err != nil || n != 2 {
			return fmt.Errorf("value must be * or a list of partition:broker")
		}
	}
	return nil
}

func splitList(s string) []string {
	var out []string
	for _, p := range strings.Split(s, ",") {
		if p = strings.TrimSpace(p); p != "" {
			out = append(out, p)
		}
	}
	return out
}

// topicSettings are the settings of topics that Kafka 4 knows, in order of name. Those about replication and tiering
// are kept and shown; on one node there is nothing for them to do.
var topicSettings = [...]setting{
	{"cleanup.policy", kmsg.ConfigTypeList, "delete", cleanupPolicy},
	{"compression.gzip.level", kmsg.ConfigTypeInt, "-1", integer(-1, 9)},
	{"compression.lz4.level", kmsg.ConfigTypeInt, "9", integer(1, 17)},
	{"compression.type", kmsg.ConfigTypeString, "producer", oneOf("uncompressed", "zstd", "lz4", "snappy", "gzip", "producer")},
	{"compression.zstd.level", kmsg.ConfigTypeInt, "3", integer(-131072, 22)},
	{"delete.retention.ms", kmsg.ConfigTypeLong, "86400000", integer(0, math.MaxInt64)},
	{"file.delete.delay.ms", kmsg.ConfigTypeLong, "60000", integer(0, math.MaxInt64)},
	{"flush.messages", kmsg.ConfigTypeLong, "9223372036854775807", integer(1, math.MaxInt64)},
	{"flush.ms", kmsg.ConfigTypeLong, "9223372036854775807", integer(0, math.MaxInt64)},
	{"follower.replication.throttled.replicas", kmsg.ConfigTypeList, "", throttledReplicas},
	{"index.interval.bytes", kmsg.ConfigTypeInt, "4096", integer(0, math.MaxInt32)},
	{"leader.replication.throttled.replicas", kmsg.ConfigTypeList, "", throttledReplicas},
	{"local.retention.bytes", kmsg.ConfigTypeLong, "-2", integer(-2, math.MaxInt64)},
	{"local.retention.ms", kmsg.ConfigTypeLong, "-2", integer(-2, math.MaxInt64)},
	{"max.compaction.lag.ms", kmsg.ConfigTypeLong, "9223372036854775807", integer(1, math.MaxInt64)},
	{"max.message.bytes", kmsg.ConfigTypeInt, "1048588", integer(0, math.MaxInt32)},
	{"message.timestamp.after.max.ms", kmsg.ConfigTypeLong, "3600000", integer(0, math.MaxInt64)},
	{"message.timestamp.before.max.ms", kmsg.ConfigTypeLong, "9223372036854775807", integer(0, math.MaxInt64)},
	{"message.timestamp.type", kmsg.ConfigTypeString, "CreateTime", oneOf("CreateTime", "LogAppendTime")},
	{"min.cleanable.dirty.ratio", kmsg.ConfigTypeDouble, "0.5", ratio},
	{"min.compaction.lag.ms", kmsg.ConfigTypeLong, "0", integer(0, math.MaxInt64)},
	{"min.insync.replicas", kmsg.ConfigTypeInt, "1", integer(1, math.MaxInt32)},
	{"preallocate", kmsg.ConfigTypeBoolean, "false", boolean},
	{"remote.log.copy.disable", kmsg.ConfigTypeBoolean, "false", boolean},
	{"remote.log.delete.on.disable", kmsg.ConfigTypeBoolean, "false", boolean},
	{"remote.storage.enable", kmsg.ConfigTypeBoolean, "false", boolean},
	{"retention.bytes", kmsg.ConfigTypeLong, "-1", integer(-1, math.MaxInt64)},
	{"retention.ms", kmsg.ConfigTypeLong, "604800000", integer(-1, math.MaxInt64)},
	{"segment.bytes", kmsg.ConfigTypeInt, "1073741824", integer(14, math.MaxInt32)},
	{"segment.index.bytes", kmsg.ConfigTypeInt, "10485760", integer(4, math.MaxInt32)},
	{"segment.jitter.ms", kmsg.ConfigTypeLong, "0", integer(0, math.MaxInt64)},
	{"segment.ms", kmsg.ConfigTypeLong, "604800000", integer(1, math.MaxInt64)},
	{"unclean.leader.election.enable", kmsg.ConfigTypeBoolean, "false", boolean},
}

func topicSetting(name string) (setting, bool) {
	for _, s := range topicSettings {
		if s.name == name {
			return s, true
		}
	}
	return setting{}, false
}

// checkSetting says why a topic cannot have a setting.
func checkSetting(name, value string) error {
	s, ok := topicSetting(name)
	if !ok {
		return fmt.Errorf("unknown topic config name: %s", name)
	}
	if err := s.check(value); err != nil {
		return fmt.Errorf("invalid value %q for configuration %s: %w", value, name, err)
	}
	return nil
}

// checkSettings says what is wrong with the settings of a topic taken together.
func checkSettings(set map[string]string) error {
	for name, value := range set {
		if err := checkSetting(name, value); err != nil {
			return err
		}
	}
	if lo, hi := settingInt(set, "min.compaction.lag.ms"), settingInt(set, "max.compaction.lag.ms"); lo > hi {
		return fmt.Errorf("min.compaction.lag.ms %d is above max.compaction.lag.ms %d", lo, hi)
	}
	return nil
}

// brokerName returns the name of a topic's setting as a default of the broker, "" if it is none.
func brokerName(setting string) string {
	switch setting {
	case "compression.type", "compression.gzip.level", "compression.lz4.level", "compression.zstd.level", "min.insync.replicas", "unclean.leader.election.enable":
		return setting
	case "max.message.bytes":
		return "message.max.bytes"
	case "delete.retention.ms", "min.compaction.lag.ms", "max.compaction.lag.ms":
		return "log.cleaner." + setting
	case "min.cleanable.dirty.ratio":
		return "log.cleaner.min.cleanable.ratio"
	case "segment.ms", "segment.jitter.ms":
		return "log.roll" + setting[len("segment"):]
	case "segment.index.bytes":
		return "log.index.size.max.bytes"
	case "flush.messages", "flush.ms":
		return "log.flush.interval" + setting[len("flush"):]
	case "file.delete.delay.ms":
		return "log.segment.delete.delay.ms"
	case "cleanup.policy", "index.interval.bytes", "local.retention.bytes", "local.retention.ms", "message.timestamp.after.max.ms",
		"message.timestamp.before.max.ms", "message.timestamp.type", "preallocate", "retention.bytes", "retention.ms", "segment.bytes":
		return "log." + setting
	}
	return ""
}

// ofTopics translates defaults of the broker into settings of topics.
func ofTopics(defaults map[string]string) map[string]string {
	set := map[string]string{}
	for _, s := range topicSettings {
		if value, ok := defaults[brokerName(s.name)]; ok {
			set[s.name] = value
		}
	}
	return set
}

// settingValue returns a setting of a topic, its default if the topic does not say.
func settingValue(set map[string]string, name string) string {
	if v, ok := set[name]; ok {
		return v
	}
	s, _ := topicSetting(name)
	return s.value
}

func settingInt(set map[string]string, name string) int64 {
	v, _ := strconv.ParseInt(strings.TrimSpace(settingValue(set, name)), 10, 64)
	return v
}

// compressions are the values of compression.type.
var compressions = map[string]log.Compression{
	"producer": log.AsProduced, "uncompressed": log.Uncompressed, "gzip": log.Gzip, "snappy": log.Snappy, "lz4": log.LZ4, "zstd": log.Zstd,
}

// logConfig translates a topic's settings for the log. Where the log takes 0 for "no limit", Kafka's largest number is
// that.
func logConfig(set map[string]string) log.Config {
	limit := func(name string) int64 {
		if v := settingInt(set, name); v != math.MaxInt64 {
			return v
		}
		return 0
	}
	// As far as a timestamp may be off. 0 is a limit here.
	off := func(name string) int64 {
		if settingInt(set, name) == 0 {
			return -1
		}
		return limit(name)
	}
	policy := splitList(settingValue(set, "cleanup.policy"))
	dirty, _ := strconv.ParseFloat(strings.TrimSpace(settingValue(set, "min.cleanable.dirty.ratio")), 64)
	return log.Config{
		SegmentBytes:           settingInt(set, "segment.bytes"),
		SegmentMS:              settingInt(set, "segment.ms"),
		Delete:                 slices.Contains(policy, "delete"),
		RetentionMS:            settingInt(set, "retention.ms"),
		RetentionBytes:         settingInt(set, "retention.bytes"),
		Compact:                slices.Contains(policy, "compact"),
		MinCompactionLagMS:     settingInt(set, "min.compaction.lag.ms"),
		MaxCompactionLagMS:     limit("max.compaction.lag.ms"),
		DeleteRetentionMS:      settingInt(set, "delete.retention.ms"),
		MinCleanableDirtyRatio: dirty,
		MaxMessageBytes:        int32(max(settingInt(set, "max.message.bytes"), 1)), // no batch has less
		LogAppendTime:          settingValue(set, "message.timestamp.type") == "LogAppendTime",
		TimestampBeforeMaxMS:   off("message.timestamp.before.max.ms"),
		TimestampAfterMaxMS:    off("message.timestamp.after.max.ms"),
		Compression:            compressions[settingValue(set, "compression.type")],
		FileDeleteDelayMS:      settingInt(set, "file.delete.delay.ms"),
	}
}
