package main

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
)

var topicCommand = administration("topic", "topics: list, describe, create, grow, configure, delete",
	verb{"list", "", 0, 0, "every topic", func(f *flag.FlagSet) func(context.Context, *admin, []string) error {
		internal := f.Bool("internal", false, "those of the cluster itself, too")
		return func(ctx context.Context, a *admin, _ []string) error { return listTopics(ctx, a, *internal) }
	}},
	verb{"describe", "TOPIC...", 1, -1, "partitions, and where they begin and end", simple(describeTopics)},
	verb{"create", "TOPIC...", 1, -1, "new topics", func(f *flag.FlagSet) func(context.Context, *admin, []string) error {
		partitions := f.Int("partitions", -1, "`number` of partitions (default: the cluster's)")
		replicas := f.Int("replicas", -1, "`number` of replicas (default: the cluster's)")
		var settings list
		f.Var(&settings, "config", "`NAME=VALUE`; may be given several times")
		return func(ctx context.Context, a *admin, args []string) error {
			configs := map[string]*string{}
			for _, s := range settings {
				name, value, ok := strings.Cut(s, "=")
				if !ok {
					return usageError{fmt.Errorf("-config %q is not NAME=VALUE", s)}
				}
				configs[name] = &value
			}
			made, err := a.CreateTopics(ctx, int32(*partitions), int16(*replicas), configs, args...)
			if err != nil {
				return err
			}
			for _, m := range made.Sorted() {
				a.result(m.Topic, explained(m.Err, m.ErrMessage))
			}
			return nil
		}
	}},
	verb{"grow", "TOPIC PARTITIONS", 2, 2, "a topic gets so many partitions in all", simple(func(ctx context.Context, a *admin, args []string) error {
		var n int
		if _, err := fmt.Sscan(args[1], &n); err != nil {
			return usageError{fmt.Errorf("%q is no number of partitions", args[1])}
		}
		grown, err := a.UpdatePartitions(ctx, n, args[0])
		if err != nil {
			return err
		}
		for _, g := range grown.Sorted() {
			a.result(g.Topic, explained(g.Err, g.ErrMessage))
		}
		return nil
	})},
	verb{"config", "TOPIC [NAME=VALUE | NAME=]...", 1, -1, "the settings of a topic, or new ones; NAME= takes the default again", simple(configureTopic)},
	verb{"delete", "TOPIC...", 1, -1, "topics with all their records", simple(func(ctx context.Context, a *admin, args []string) error {
		gone, err := a.DeleteTopics(ctx, args...)
		if err != nil {
			return err
		}
		for _, g := range gone.Sorted() {
			a.result(g.Topic, explained(g.Err, g.ErrMessage))
		}
		return nil
	})},
)

// explained adds a broker's words to its error.
func explained(err error, words string) error {
	if err == nil || words == "" {
		return err
	}
	return fmt.Errorf("%w (%s)", err, words)
}

func listTopics(ctx context.Context, a *admin, internal bool) error {
	list := a.ListTopics
	if internal {
		list = a.ListTopicsWithInternal
	}
	topics, err := list(ctx)
	if err != nil {
		return err
	}
	a.head("topic", "partitions", "replicas", "id")
	for _, t := range topics.Sorted() {
		if t.Err != nil {
			return fmt.Errorf("topic %s: %w", t.Topic, t.Err)
		}
		a.row(t.Topic, len(t.Partitions), t.Partitions.NumReplicas(), t.ID.String())
	}
	return nil
}

func describeTopics(ctx context.Context, a *admin, args []string) error {
	topics, err := a.ListTopicsWithInternal(ctx, args...)
	if err != nil {
		return err
	}
	a.head("topic", "partition", "leader", "replicas", "start", "end")
	starts, err := a.ListStartOffsets(ctx, args...)
	if err != nil {
		return err
	}
	ends, err := a.ListEndOffsets(ctx, args...)
	if err != nil {
		return err
	}
	for _, t := range topics.Sorted() {
		if t.Err != nil {
			return fmt.Errorf("topic %s: %w", t.Topic, t.Err)
		}
		for _, p := range t.Partitions.Sorted() {
			start, _ := starts.Lookup(t.Topic, p.Partition)
			end, _ := ends.Lookup(t.Topic, p.Partition)
			a.row(t.Topic, p.Partition, p.Leader, p.Replicas, start.Offset, end.Offset)
		}
	}
	return nil
}

func configureTopic(ctx context.Context, a *admin, args []string) error {
	topic, changes := args[0], args[1:]
	if len(changes) > 0 {
		var alter []kadm.AlterConfig
		for _, s := range changes {
			name, value, ok := strings.Cut(s, "=")
			switch {
			case !ok:
				return usageError{fmt.Errorf("%q is not NAME=VALUE", s)}
			case value == "":
				alter = append(alter, kadm.AlterConfig{Op: kadm.DeleteConfig, Name: name})
			default:
				alter = append(alter, kadm.AlterConfig{Op: kadm.SetConfig, Name: name, Value: &value})
			}
		}
		done, err := a.AlterTopicConfigs(ctx, alter, topic)
		if err != nil {
			return err
		}
		for _, d := range done {
			a.result(d.Name, explained(d.Err, d.ErrMessage))
		}
		return nil
	}
	configs, err := a.DescribeTopicConfigs(ctx, topic)
	if err != nil {
		return err
	}
	config, err := configs.On(topic, nil)
	if err == nil {
		err = config.Err
	}
	if err != nil {
		return fmt.Errorf("topic %s: %w", topic, err)
	}
	a.head("name", "value", "source")
	slices.SortFunc(config.Configs, func(a, b kadm.Config) int { return strings.Compare(a.Key, b.Key) })
	for _, c := range config.Configs {
		a.row(c.Key, c.MaybeValue(), c.Source.String())
	}
	return nil
}
