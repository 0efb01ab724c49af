package main

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

var groupCommand = administration("group", "consumer groups: list, describe, reset, delete",
	verb{"list", "", 0, 0, "every group", simple(func(ctx context.Context, a *admin, _ []string) error {
		groups, err := a.ListGroups(ctx)
		if err != nil {
			return err
		}
		a.head("group", "state", "protocol_type")
		for _, g := range groups.Sorted() {
			a.row(g.Group, g.State, g.ProtocolType)
		}
		return nil
	})},
	verb{"describe", "GROUP", 1, 1, "members, offsets and lag, by partition", simple(describeGroup)},
	verb{"reset", "GROUP TOPIC", 2, 2, "other offsets, for a group without members", func(f *flag.FlagSet) func(context.Context, *admin, []string) error {
		to := f.String("to", "", "`where`: earliest, latest, an offset, or a time such as 2026-01-31T12:00:00Z")
		partition := f.Int("partition", -1, "`number` of the one partition (default: all)")
		dry := f.Bool("dry-run", false, "only show what would be committed")
		return func(ctx context.Context, a *admin, args []string) error {
			return resetGroup(ctx, a, args[0], args[1], *to, int32(*partition), *dry)
		}
	}},
	verb{"delete", "GROUP...", 1, -1, "groups without members, with their offsets", simple(func(ctx context.Context, a *admin, args []string) error {
		gone, err := a.DeleteGroups(ctx, args...)
		if err != nil {
			return err
		}
		for _, g := range gone.Sorted() {
			a.result(g.Group, g.Err)
		}
		return nil
	})},
)

// holder is the member that a partition is assigned to.
type holder struct{ member, host string }

// holders returns who consumes what in a group, of any protocol.
func holders(ctx context.Context, a *admin, group string) (map[string]map[int32]holder, error) {
	who := map[string]map[int32]holder{}
	set := func(topic string, p int32, h holder) {
		if who[topic] == nil {
			who[topic] = map[int32]holder{}
		}
		who[topic][p] = h
	}
	// Clusters before Kafka 4 do not know the new protocols' groups, and the others are described as classic ones.
	if modern, err := a.DescribeConsumerGroups(ctx, group); err == nil && modern[group].Err == nil && modern[group].Group != "" {
		for _, m := range modern[group].Members {
			for topic, parts := range m.Assignment {
				for p := range parts {
					set(topic, p, holder{m.MemberID, m.ClientHost})
				}
			}
		}
		return who, nil
	}
	if g := streamsGroup(ctx, a, group); g != nil {
		reads := map[string][]string{}
		for _, sub := range g.Topology.Subtopologies {
			reads[sub.SubtopologyID] = slices.Clone(sub.SourceTopics)
			for _, t := range sub.RepartitionSourceTopics {
				reads[sub.SubtopologyID] = append(reads[sub.SubtopologyID], t.Topic)
			}
		}
		for _, m := range g.Members {
			for _, task := range m.Assignment.ActiveTasks {
				for _, topic := range reads[task.SubtopologyID] {
					for _, p := range task.Partitions {
						set(topic, p, holder{m.MemberID, m.ClientHost})
					}
				}
			}
		}
		return who, nil
	}
	groups, err := a.DescribeGroups(ctx, group)
	if err != nil {
		return nil, err
	}
	d := groups[group]
	switch {
	case d.Err != nil:
		return nil, d.Err
	case d.State == "Dead":
		return nil, fmt.Errorf("there is no such group")
	}
	for _, m := range d.Members {
		if assigned, ok := m.Assigned.AsConsumer(); ok {
			for _, t := range assigned.Topics {
				for _, p := range t.Partitions {
					set(t.Topic, p, holder{m.MemberID, m.ClientHost})
				}
			}
		}
	}
	return who, nil
}

// streamsGroup returns a group of the streams protocol (KIP-1071), nil if it is none or the cluster knows none. kgo does not
// know yet that its coordinator is to be asked.
func streamsGroup(ctx context.Context, a *admin, group string) *kmsg.StreamsGroupDescribeResponseGroup {
	at := a.FindGroupCoordinators(ctx, group)[group]
	if at.Err != nil {
		return nil
	}
	q := kmsg.NewPtrStreamsGroupDescribeRequest()
	q.Groups = []string{group}
	resp, err := q.RequestWith(ctx, a.kafka.Broker(int(at.NodeID)))
	if err != nil || len(resp.Groups) != 1 || resp.Groups[0].ErrorCode != 0 || resp.Groups[0].Topology == nil {
		return nil
	}
	return &resp.Groups[0]
}

func describeGroup(ctx context.Context, a *admin, args []string) error {
	group := args[0]
	who, err := holders(ctx, a, group)
	if err != nil {
		return fmt.Errorf("group %s: %w", group, err)
	}
	committed, err := a.FetchOffsets(ctx, group)
	if err != nil {
		return fmt.Errorf("group %s: %w", group, err)
	}
	topics := map[string]bool{}
	for t := range who {
		topics[t] = true
	}
	for t := range committed {
		topics[t] = true
	}
	a.head("topic", "partition", "committed", "end", "lag", "member", "host")
	if len(topics) == 0 {
		return nil
	}
	ends, err := a.ListEndOffsets(ctx, slices.Sorted(maps.Keys(topics))...)
	if err != nil {
		return err
	}
	for _, t := range slices.Sorted(maps.Keys(topics)) {
		for _, p := range slices.Sorted(maps.Keys(ends[t])) {
			h := who[t][p]
			end := ends[t][p]
			if end.Err != nil {
				return fmt.Errorf("topic %s partition %d: %w", t, p, end.Err)
			}
			if c, ok := committed.Lookup(t, p); ok && c.At >= 0 {
				a.row(t, p, c.At, end.Offset, max(0, end.Offset-c.At), h.member, h.host)
			} else if h != (holder{}) {
				a.row(t, p, nil, end.Offset, nil, h.member, h.host)
			}
		}
	}
	return nil
}

func resetGroup(ctx context.Context, a *admin, group, topic, to string, partition int32, dry bool) error {
	var listed kadm.ListedOffsets
	var err error
	var at int64
	switch {
	case to == "earliest":
		listed, err = a.ListStartOffsets(ctx, topic)
	case to == "latest":
		listed, err = a.ListEndOffsets(ctx, topic)
	case to == "":
		return usageError{fmt.Errorf("-to says where: earliest, latest, an offset or a time")}
	default:
		when, bad := time.Parse(time.RFC3339, to)
		if bad == nil {
			listed, err = a.ListOffsetsAfterMilli(ctx, when.UnixMilli(), topic)
			break
		}
		if _, err := fmt.Sscanf(to+"\n", "%d\n", &at); err != nil || at < 0 {
			return usageError{fmt.Errorf("-to %q is none of earliest, latest, an offset, a time as RFC 3339 has it", to)}
		}
		if listed, err = a.ListEndOffsets(ctx, topic); err == nil {
			err = clamp(ctx, a, topic, listed, at)
		}
	}
	if err == nil {
		err = listed.Error()
	}
	if err != nil {
		return fmt.Errorf("topic %s: %w", topic, err)
	}
	offsets := listed.Offsets()
	offsets.KeepFunc(func(o kadm.Offset) bool { return partition < 0 || o.Partition == partition })
	if len(offsets.Sorted()) == 0 {
		return fmt.Errorf("topic %s has no such partition", topic)
	}
	if !dry {
		if err := a.CommitAllOffsets(ctx, group, offsets); err != nil {
			return fmt.Errorf("group %s: %w; only a group without members is reset", group, err)
		}
	}
	a.head("topic", "partition", "offset")
	for _, o := range offsets.Sorted() {
		a.row(o.Topic, o.Partition, o.At)
	}
	return nil
}

// clamp puts an offset into every partition, within what the partition has.
func clamp(ctx context.Context, a *admin, topic string, ends kadm.ListedOffsets, at int64) error {
	starts, err := a.ListStartOffsets(ctx, topic)
	if err != nil {
		return err
	}
	for p, end := range ends[topic] {
		start, _ := starts.Lookup(topic, p)
		end.Offset = min(max(at, start.Offset), end.Offset)
		ends[topic][p] = end
	}
	return nil
}

var txnCommand = administration("txn", "transactions: list, describe, abort",
	verb{"list", "", 0, 0, "every transactional id", func(f *flag.FlagSet) func(context.Context, *admin, []string) error {
		var states list
		f.Var(&states, "state", "`state` to show, such as Ongoing; may be given several times")
		return func(ctx context.Context, a *admin, _ []string) error {
			txns, err := a.ListTransactions(ctx, nil, states)
			if err != nil {
				return err
			}
			a.head("transactional_id", "producer_id", "state")
			for _, t := range txns.Sorted() {
				a.row(t.TxnID, t.ProducerID, t.State)
			}
			return nil
		}
	}},
	verb{"describe", "ID...", 1, -1, "producer, timeout and partitions", simple(func(ctx context.Context, a *admin, args []string) error {
		txns, err := a.DescribeTransactions(ctx, args...)
		if err != nil {
			return err
		}
		a.head("transactional_id", "producer_id", "epoch", "state", "timeout_ms", "started", "partitions")
		for _, t := range txns.Sorted() {
			if t.Err != nil {
				return fmt.Errorf("transactional id %s: %w", t.TxnID, t.Err)
			}
			started := ""
			if t.StartTimestamp >= 0 {
				started = time.UnixMilli(t.StartTimestamp).UTC().Format(time.RFC3339)
			}
			var parts []string
			for _, topic := range t.Topics.Sorted() {
				for _, p := range topic.Partitions {
					parts = append(parts, fmt.Sprint(topic.Topic, "/", p))
				}
			}
			a.row(t.TxnID, t.ProducerID, t.ProducerEpoch, t.State, t.TimeoutMillis, started, strings.Join(parts, " "))
		}
		return nil
	})},
	verb{"abort", "ID...", 1, -1, "ends what the producers of transactional ids have open, and fences them", simple(func(ctx context.Context, a *admin, args []string) error {
		for _, id := range args {
			a.result(id, fence(ctx, a, id))
		}
		return nil
	})},
)

// fence does what a new producer of an id begins with: it aborts what is open. Whoever had the id is fenced.
func fence(ctx context.Context, a *admin, id string) error {
	described, err := a.DescribeTransactions(ctx, id)
	if err != nil {
		return err
	}
	if d := described[id]; d.Err != nil {
		return d.Err
	}
	q := kmsg.NewPtrInitProducerIDRequest()
	q.TransactionalID, q.TransactionTimeoutMillis, q.ProducerID, q.ProducerEpoch = &id, 60_000, -1, -1
	for {
		resp, err := q.RequestWith(ctx, a.kafka)
		if err != nil {
			return err
		}
		if err = kerr.ErrorForCode(resp.ErrorCode); err != kerr.ConcurrentTransactions {
			return err
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return err
		}
	}
}
