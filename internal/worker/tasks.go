package worker

import (
	"cmp"
	"slices"

	"github.com/moldau/moldau/internal/assign"
	"github.com/moldau/moldau/internal/cluster"
	"github.com/moldau/moldau/internal/task"
	"github.com/moldau/moldau/topology"
)

// topology is as of the last look at which topics there are.
func (n *Node) topology() *topology.Topology { return n.found.Load() }

func (n *Node) sub(id task.ID) *topology.Sub { return n.topology().Subs[id.Sub] }

// taskOf is the task that reads a partition.
func (n *Node) taskOf(tp cluster.TP) (task.ID, bool) {
	for _, s := range n.topology().Subs {
		for _, t := range s.Sources {
			if t.Full(n.cfg.App) == tp.Topic {
				return task.ID{Sub: s.ID, Partition: tp.Partition}, true
			}
		}
	}
	return task.ID{}, false
}

// source is a topic that is read, by its full name; nil: it is not read any more.
func (n *Node) source(name string) *topology.Topic {
	for _, s := range n.topology().Subs {
		for _, t := range s.Sources {
			if t.Full(n.cfg.App) == name {
				return t
			}
		}
	}
	return nil
}

// changelogs are the partitions that a task's stores write to.
func (n *Node) changelogs(id task.ID) []cluster.TP {
	var tps []cluster.TP
	for _, s := range n.sub(id).Stores {
		if s.Topic != nil && s.Replay == nil {
			tps = append(tps, cluster.TP{Topic: s.Topic.Full(n.cfg.App), Partition: id.Partition})
		}
	}
	return tps
}

// width is the number of tasks of a sub-topology.
func (n *Node) width(s *topology.Sub) int32 {
	return s.Tasks(func(t *topology.Topic) int32 {
		info, _ := n.topics.info(t.Full(n.cfg.App))
		return info.Partitions
	})
}

func (n *Node) taskCount() int {
	count := 0
	for _, s := range n.topology().Subs {
		count += int(n.width(s))
	}
	return count
}

func (n *Node) subtopologies() []assign.Subtopology {
	var subs []assign.Subtopology
	for i, s := range n.topology().Subs {
		var one assign.Subtopology
		for _, t := range s.Sources {
			if t.Of != nil {
				one.Matched = append(one.Matched, t.Name)
			} else {
				one.Topics = append(one.Topics, t.Full(n.cfg.App))
			}
		}
		for _, t := range n.cfg.Topology.Subs[i].Sources {
			if t.Kind == topology.Pattern {
				one.Patterns = append(one.Patterns, t.Name)
			}
		}
		for _, st := range s.Stores {
			one.Stateful = one.Stateful || st.Topic != nil
		}
		subs = append(subs, one)
	}
	return subs
}

// anchor keeps a process in the group that has nothing to read yet.
func (n *Node) anchor() string {
	if n.cfg.Topology.Patterns() {
		return DeployedTopic(n.cfg.App)
	}
	return ""
}

// leastBusy is the worker with the fewest tasks.
func (n *Node) leastBusy() *worker {
	return slices.MinFunc(n.workers, func(a, b *worker) int { return cmp.Compare(a.tasks.Load(), b.tasks.Load()) })
}

func compareIDs(a, b task.ID) int {
	return cmp.Or(cmp.Compare(a.Sub, b.Sub), cmp.Compare(a.Partition, b.Partition))
}
