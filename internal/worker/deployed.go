package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/moldau/moldau/internal/cluster"
	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/topology"
)

// ErrTopology: the program's topology cannot take over from the one that runs, or ran last.
var ErrTopology = errors.New("the topology has changed in a way that is not safe")

// DeployedTopic is the compacted topic in which an application records what it runs, as JSON under one key.
func DeployedTopic(app string) string { return app + "-topology" }

// deployedKey is the key of the record that holds the description.
const deployedKey = "topology"

// deploy compares the topology with the one recorded on the cluster, refuses one that could not read what the other wrote, and
// records it.
func (n *Node) deploy(ctx context.Context) error {
	tp := cluster.TP{Topic: DeployedTopic(n.cfg.App)}
	infos, err := n.topics.describe(ctx, []string{tp.Topic})
	if err != nil {
		return err
	}
	if _, ok := infos[tp.Topic]; !ok {
		replication := n.cfg.Replication
		if replication == 0 {
			replication = -1
		}
		n.log.Info("creating topic", "topic", tp.Topic, "kind", "topology", "partitions", 1)
		if err := n.admin.Create(ctx, cluster.TopicSpec{Name: tp.Topic, Partitions: 1, Replication: replication,
			Config: map[string]string{"cleanup.policy": "compact"}}); err != nil {
			return fmt.Errorf("creating topic %q: %w", tp.Topic, err)
		}
	}
	next := n.describe()
	last, err := n.deployed(ctx, tp)
	if err != nil {
		return fmt.Errorf("reading topic %q: %w", tp.Topic, err)
	}
	if string(last) == string(next.JSON()) {
		return nil
	}
	if last != nil {
		was, err := topology.ParseDescription(last)
		if err != nil {
			return fmt.Errorf("reading topic %q: %w", tp.Topic, err)
		}
		changes := topology.Diff(was, next)
		if unsafe := changes.Unsafe(); len(unsafe) > 0 {
			if !n.cfg.AcceptTopology {
				return fmt.Errorf("%w; the topology that application %q ran with is recorded in topic %q:\n%s", ErrTopology, n.cfg.App, tp.Topic, changes)
			}
			n.log.Warn("the topology has changed in a way that is not safe, and is accepted", "changes", unsafe.String())
		} else if len(changes) > 0 {
			n.log.Info("the topology has changed", "changes", changes.String())
		}
	}
	if err := n.record(ctx, tp, next.JSON()); err != nil {
		return fmt.Errorf("writing topic %q: %w", tp.Topic, err)
	}
	return nil
}

// describe is the topology with the partitions that its internal topics have.
func (n *Node) describe() topology.Description {
	d := n.cfg.Topology.Describe()
	for i, t := range d.Topics {
		if t.Kind != topology.External {
			info, _ := n.topics.info(n.cfg.App + "-" + t.Name)
			d.Topics[i].Partitions = info.Partitions
		}
	}
	return d
}

// deployed is the last description that was recorded; nil: none.
func (n *Node) deployed(ctx context.Context, tp cluster.TP) (last []byte, err error) {
	ends, err := n.admin.Ends(ctx, false, tp)
	if err != nil || ends[tp] == 0 {
		return nil, err
	}
	reader, err := n.cfg.Cluster.Reader()
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	reader.Assign(map[cluster.TP]int64{tp: -1})
	for {
		if at, ok := reader.Position(tp); ok && at >= ends[tp] {
			return last, nil
		}
		wait, cancel := context.WithTimeout(ctx, time.Second)
		batches, err := reader.Poll(wait)
		cancel()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return nil, err
		}
		for _, b := range batches {
			for _, r := range b.Records {
				if string(r.Key) == deployedKey {
					last = slices.Clone(r.Value)
				}
			}
			if b.Release != nil {
				b.Release()
			}
		}
	}
}

func (n *Node) record(ctx context.Context, tp cluster.TP, description []byte) error {
	p, err := n.cfg.Cluster.Producer(cluster.ProducerConfig{})
	if err != nil {
		return err
	}
	defer p.Close()
	if err := p.Init(ctx); err != nil {
		return err
	}
	done := make(chan error, 1)
	p.Produce([]flow.Out{{Topic: &flow.Topic{Name: tp.Topic, Partitions: 1}, Time: n.millis(), Key: []byte(deployedKey), Value: description}},
		func(_ map[cluster.TP]int64, err error) { done <- err })
	p.Flush()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
