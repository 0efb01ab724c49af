package franz

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/moldau/moldau/internal/assign"
	"github.com/moldau/moldau/internal/cluster"
	"github.com/moldau/moldau/internal/cluster/clustertest"
	"github.com/moldau/moldau/internal/flow"
)

// What takes a real cluster and its time.

func fresh(t *testing.T, c *Cluster, name string, partitions int32) *flow.Topic {
	t.Helper()
	topic := &flow.Topic{Name: fmt.Sprintf("%s-%d", name, time.Now().UnixNano()), Partitions: partitions}
	if err := c.Admin().Create(t.Context(), cluster.TopicSpec{Name: topic.Name, Partitions: partitions, Replication: -1}); err != nil {
		t.Fatal(err)
	}
	return topic
}

func write(p cluster.Producer, topic *flow.Topic, value string) error {
	ch := make(chan error, 1)
	p.Produce([]flow.Out{{Topic: topic, Value: []byte(value)}}, func(_ map[cluster.TP]int64, err error) { ch <- err })
	p.Flush()
	return <-ch
}

// A transaction that the broker gives up because it took too long is not taken for a successor's doing.
func TestTransactionTimesOut(t *testing.T) {
	c := connect(t)
	for _, how := range []string{"commit", "abort", "offsets", "produce", "init"} {
		t.Run(how, func(t *testing.T) {
			topic := fresh(t, c, "timeout", 1)
			tp := cluster.TP{Topic: topic.Name}
			p, err := c.Producer(cluster.ProducerConfig{TransactionalID: topic.Name, TransactionTimeout: time.Second})
			must(t, err)
			defer p.Close()
			must(t, p.Init(t.Context()))
			must(t, p.Begin())
			must(t, write(p, topic, "late"))
			for deadline := time.Now().Add(25 * time.Second); ; {
				ends, err := c.Admin().Ends(t.Context(), true, tp)
				must(t, err)
				if ends[tp] == 2 {
					break
				}
				if time.Now().After(deadline) {
					t.Fatal("the broker does not time transactions out")
				}
				time.Sleep(50 * time.Millisecond)
			}
			group := cluster.GroupMetadata{Group: topic.Name, Generation: -1}
			switch how {
			case "commit":
				is(t, p.End(t.Context(), true), cluster.ErrUnknown)
				must(t, p.Init(t.Context()))
			case "abort":
				must(t, p.End(t.Context(), false))
			case "offsets":
				is(t, p.CommitOffsets(t.Context(), group, map[cluster.TP]cluster.Offset{tp: {At: 1}}), cluster.ErrAborted)
			case "produce":
				is(t, write(p, topic, "later"), cluster.ErrAborted)
				is(t, p.End(t.Context(), true), cluster.ErrAborted)
			case "init":
				must(t, p.Init(t.Context()))
			}
			must(t, p.Begin())
			must(t, write(p, topic, "good"))
			must(t, p.CommitOffsets(t.Context(), group, map[cluster.TP]cluster.Offset{tp: {At: 2}}))
			must(t, p.End(t.Context(), true))
			at, err := c.Admin().Committed(t.Context(), topic.Name, tp)
			must(t, err)
			if at[tp].At != 2 {
				t.Errorf("committed %v", at)
			}
		})
	}
}

// A member that could not be heard for a session finds that all is lost, and is back once it can be heard again.
func TestLostSession(t *testing.T) {
	brokers(t)
	n := &clustertest.Network{}
	c := connect(t, kgo.Dialer(n.Dial))
	topic := fresh(t, c, "lost", 2)
	m, err := c.Member(cluster.MemberConfig{
		Group: topic.Name, Instance: "p", SessionTimeout: 6 * time.Second,
		Subtopologies: []assign.Subtopology{{Topics: []string{topic.Name}}},
	})
	must(t, err)
	defer m.Close()
	await := func(kind cluster.EventKind, partitions int) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			f, err := m.Poll(ctx)
			cancel()
			must(t, err)
			for _, e := range f.Events {
				if e.Kind != kind || len(e.Partitions) != partitions {
					t.Fatalf("event %+v, want kind %d with %d partitions", e, kind, partitions)
				}
				return
			}
		}
		t.Fatalf("no event of kind %d", kind)
	}
	await(cluster.Assigned, 2)
	old := m.Group()
	n.Cut()
	time.Sleep(7 * time.Second)
	n.Heal()
	await(cluster.Lost, 2)
	m.Released()
	await(cluster.Assigned, 2)
	if m.Group() == old {
		t.Error("back, and still the same member")
	}
	if err := m.Commit(t.Context(), map[cluster.TP]cluster.Offset{{Topic: topic.Name}: {At: 1}}); err != nil {
		t.Error(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func is(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got %v, want %v", err, want)
	}
}
