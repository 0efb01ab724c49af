// Package topics says what the example's topics are called and how they are set up, creates those that are missing and
// reads one from its start to its end. It is a plain Kafka application: it knows nothing of Moldau and works on any cluster.
package topics

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Names.
const (
	Flights      = "flights"        // each row of the CSV, in the order of arrival; key: origin
	Airports     = "airports"       // the list of airports; key: IATA code; compacted
	AirportHours = "airport-hours"  // final result of each hour of an airport; key: windowed IATA code
	FlightsLate  = "flights-late"   // rows of flights whose hour had closed when they came
	Routes       = "routes"         // totals of each route, key such as ORD-LAX
	Positions    = "flights-loader" // how far the loader is; key: content hash of the input; compacted
)

// Partitions of flights and of the topics made from it.
const Partitions = 4

// Spec is a topic as Create makes it.
type Spec struct {
	Name       string
	Partitions int32
	Config     map[string]string
}

// Specs are the example's topics. Nothing expires: the flights are of 2001, older than any retention time.
func Specs() []Spec {
	kept := map[string]string{"retention.ms": "-1"}
	compacted := map[string]string{"cleanup.policy": "compact"}
	return []Spec{
		{Flights, Partitions, kept},
		{Airports, 1, compacted},
		{AirportHours, Partitions, kept},
		{FlightsLate, Partitions, kept},
		{Routes, Partitions, kept},
		{Positions, 1, compacted},
	}
}

// Create makes the topics that are missing, with the cluster's default replication. One that exists stays as it is.
func Create(ctx context.Context, kafka []kgo.Opt) error {
	// What is being waited for below must not be answered from the client's memory.
	cl, err := kgo.NewClient(append(kafka[:len(kafka):len(kafka)], kgo.MetadataMinAge(10*time.Millisecond))...)
	if err != nil {
		return fmt.Errorf("creating the topics: %w", err)
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	present, err := adm.ListTopics(ctx)
	if err != nil {
		return fmt.Errorf("creating the topics: listing those of the cluster: %w", err)
	}
	for _, s := range Specs() {
		if present.Has(s.Name) {
			continue
		}
		config := map[string]*string{}
		for k, v := range s.Config {
			config[k] = &v
		}
		_, err := adm.CreateTopic(ctx, s.Partitions, -1, config, s.Name)
		if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
			return fmt.Errorf("creating topic %s: %w; create it yourself: %s", s.Name, err, s.command())
		}
	}
	return awaitAll(ctx, adm)
}

// awaitAll waits until the cluster shows every topic with a leader for each partition: a creation is acknowledged before all
// brokers know of it.
func awaitAll(ctx context.Context, adm *kadm.Client) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		present, err := adm.ListTopics(ctx)
		missing := ""
		for _, s := range Specs() {
			t, ok := present[s.Name]
			if !ok || t.Err != nil || slices.ContainsFunc(t.Partitions.Sorted(), func(p kadm.PartitionDetail) bool { return p.Err != nil || p.Leader < 0 }) {
				missing = s.Name
			}
		}
		if err == nil && missing == "" {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for topic %s to appear: %w", missing, errors.Join(ctx.Err(), err))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// command is what a person types where the program may not create topics.
func (s Spec) command() string {
	var b strings.Builder
	fmt.Fprintf(&b, "kafka-topics --bootstrap-server HOST:PORT --create --topic %s --partitions %d", s.Name, s.Partitions)
	for _, k := range sortedKeys(s.Config) {
		fmt.Fprintf(&b, " --config %s=%s", k, s.Config[k])
	}
	return b.String()
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
