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

// Keys of that topic: of the record that holds the description, and of one that tells every process to stop, with the reason.
const (
	DeployedKey = "topology"
	stopKey     = "stop"
)

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
	last, _, at, err := n.deployed(ctx, tp, -1)
	if err != nil {
		return fmt.Errorf("reading topic %q: %w", tp.Topic, err)
	}
	n.deployedAt = at
	if last != nil {
		was, err := topology.ParseDescription(last)
		if err != nil {
			return fmt.Errorf("reading topic %q: %w", tp.Topic, err)
		}
		next = topology.Succeed(was, next)
		if string(last) == string(next.JSON()) {
			return nil
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
	if err := n.record(ctx, DeployedKey, next.JSON()); err != nil {
		return fmt.Errorf("writing topic %q: %w", tp.Topic, err)
	}
	return nil
}

// describe is the topology with the partitions that its internal topics have.
func (n *Node) describe() topology.Description {
	d := n.cfg.Topology.Describe()
	for i, t := range d.Topics {
		if t.Kind == topology.Repartition {
			info, _ := n.topics.info(n.cfg.App + "-" + t.Name)
			d.Topics[i].Partitions = info.Partitions
		}
	}
	return d
}

// deployed reads the topic from an offset on (-1: its start): the last description and the last order to stop, nil if there is
// none, and the offset to go on from.
func (n *Node) deployed(ctx context.Context, tp cluster.TP, from int64) (last, stop []byte, next int64, err error) {
	ends, err := n.admin.Ends(ctx, false, tp)
	if err != nil || ends[tp] <= max(from, 0) {
		return nil, nil, from, err
	}
	reader, err := n.cfg.Cluster.Reader()
	if err != nil {
		return nil, nil, from, err
	}
	defer reader.Close()
	reader.Assign(map[cluster.TP]int64{tp: from})
	for {
		if at, ok := reader.Position(tp); ok && at >= ends[tp] {
			return last, stop, at, nil
		}
		wait, cancel := context.WithTimeout(ctx, time.Second)
		batches, err := reader.Poll(wait)
		cancel()
		if ctx.Err() != nil {
			return nil, nil, from, ctx.Err()
		}
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return nil, nil, from, err
		}
		for _, b := range batches {
			for _, r := range b.Records {
				switch string(r.Key) {
				case DeployedKey:
					last = slices.Clone(r.Value)
				case stopKey:
					stop = slices.Clone(r.Value)
				}
			}
			if b.Release != nil {
				b.Release()
			}
		}
	}
}

// record writes one record into the topic.
func (n *Node) record(ctx context.Context, key string, value []byte) error {
	p, err := n.cfg.Cluster.Producer(cluster.ProducerConfig{})
	if err != nil {
		return err
	}
	defer p.Close()
	if err := p.Init(ctx); err != nil {
		return err
	}
	done := make(chan error, 1)
	to := &flow.Topic{Name: DeployedTopic(n.cfg.App), Partitions: 1}
	p.Produce([]flow.Out{{Topic: to, Time: n.millis(), Key: []byte(key), Value: value}}, func(_ map[cluster.TP]int64, err error) { done <- err })
	p.Flush()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
