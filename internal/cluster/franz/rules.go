package franz

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// rules are what a topic demands of a record, as far as it is known; 0: nothing.
type rules struct {
	size          int           // max.message.bytes
	before, after time.Duration // message.timestamp.before.max.ms and after
	keyed         bool          // it is compacted
}

// rulesOf asks the cluster for the rules of topics.
func (c *Cluster) rulesOf(ctx context.Context, topics ...string) (map[string]rules, error) {
	infos, err := c.Admin().Describe(ctx, topics...)
	if err != nil {
		return nil, err
	}
	all := map[string]rules{}
	for name, info := range infos {
		all[name] = rulesIn(info.Config)
	}
	return all, nil
}

func rulesIn(config map[string]string) rules {
	number := func(name string) int64 {
		n, err := strconv.ParseInt(config[name], 10, 64)
		if err != nil {
			return 0
		}
		return n
	}
	span := func(name string) time.Duration {
		ms := number(name)
		if ms > int64(100*365*24*time.Hour/time.Millisecond) {
			return 0 // for ever
		}
		return time.Duration(ms) * time.Millisecond
	}
	return rules{size: int(number("max.message.bytes")), before: span("message.timestamp.before.max.ms"), after: span("message.timestamp.after.max.ms"),
		keyed: strings.Contains(config["cleanup.policy"], "compact")}
}

// skew is how far clocks may be apart: what breaks a rule of time by less may not break it for the broker.
const skew = time.Minute

// broken says whether the broker refuses a record with err because of a rule. No is not certain.
func (l rules) broken(r *kgo.Record, err error, now time.Time) bool {
	k, ok := errors.AsType[*kerr.Error](err)
	if !ok {
		return false
	}
	switch k.Code {
	case kerr.MessageTooLarge.Code, kerr.RecordListTooLarge.Code:
		return l.size > 0 && len(r.Key)+len(r.Value) > l.size
	case kerr.InvalidTimestamp.Code:
		return l.before > 0 && now.Sub(r.Timestamp) > l.before+skew || l.after > 0 && r.Timestamp.Sub(now) > l.after+skew
	case kerr.InvalidRecord.Code:
		return l.keyed && r.Key == nil
	}
	return false
}
