package mem

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/moldau/moldau/internal/cluster"
)

// ErrPending is what Committed returns where a real cluster would let the caller wait: offsets lie in a transaction that
// has not ended.
var ErrPending = errors.New("offsets are pending in a transaction")

type admin struct{ *Log }

func (a admin) List(context.Context) ([]string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return sortedKeys(a.topics), nil
}

func (a admin) Describe(_ context.Context, topics ...string) (map[string]cluster.TopicInfo, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	infos := map[string]cluster.TopicInfo{}
	for _, name := range topics {
		if t := a.topics[name]; t != nil {
			infos[name] = cluster.TopicInfo{ID: t.id, Partitions: int32(len(t.partitions)), Config: maps.Clone(t.config), MaxRecord: a.maxRecord()}
		}
	}
	return infos, nil
}

func (a admin) Create(_ context.Context, topics ...cluster.TopicSpec) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, s := range topics {
		if a.topics[s.Name] != nil {
			continue
		}
		if s.Partitions < 1 {
			return fmt.Errorf("creating topic %q: %d partitions", s.Name, s.Partitions)
		}
		t := &topic{config: map[string]string{}}
		maps.Copy(t.config, s.Config)
		binary.BigEndian.PutUint64(t.id[8:], uint64(a.newID()))
		for range s.Partitions {
			t.partitions = append(t.partitions, &partition{open: map[*txn]int64{}})
		}
		a.topics[s.Name] = t
	}
	for _, id := range sortedKeys(a.groups) {
		a.noticeTopics(a.groups[id])
	}
	return nil
}

func (a admin) Ends(_ context.Context, committed bool, tps ...cluster.TP) (map[cluster.TP]int64, error) {
	return a.offsets(tps, func(p *partition) int64 {
		if committed {
			return p.stable()
		}
		return p.end
	})
}

func (a admin) Starts(_ context.Context, tps ...cluster.TP) (map[cluster.TP]int64, error) {
	return a.offsets(tps, func(p *partition) int64 { return p.start })
}

func (a admin) offsets(tps []cluster.TP, f func(*partition) int64) (map[cluster.TP]int64, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := map[cluster.TP]int64{}
	for _, tp := range tps {
		p, _, err := a.partition(tp)
		if err != nil {
			return nil, fmt.Errorf("listing offsets: %w", err)
		}
		out[tp] = f(p)
	}
	return out, nil
}

func (a admin) DeleteRecords(_ context.Context, below map[cluster.TP]int64) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, tp := range sortedTPs(below) {
		p, _, err := a.partition(tp)
		if err != nil {
			return fmt.Errorf("deleting records: %w", err)
		}
		if below[tp] > p.end {
			return fmt.Errorf("deleting records of %s-%d below %d: %w", tp.Topic, tp.Partition, below[tp], cluster.ErrOutOfRange)
		}
		p.start = max(p.start, below[tp])
		p.entries = slices.DeleteFunc(p.entries, func(e entry) bool { return e.offset < p.start })
	}
	return nil
}

func (a admin) Committed(_ context.Context, groupID string, tps ...cluster.TP) (map[cluster.TP]cluster.Offset, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	g := a.group(groupID)
	out := map[cluster.TP]cluster.Offset{}
	for _, tp := range tps {
		if g.pending[tp] > 0 {
			return nil, fmt.Errorf("committed offset of %s-%d for group %q: %w", tp.Topic, tp.Partition, groupID, ErrPending)
		}
		if o, ok := g.offsets[tp]; ok {
			out[tp] = o
		}
	}
	return out, nil
}

func (a admin) ClearWriters(_ context.Context, ours func(string) bool, tps ...cluster.TP) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, tp := range tps {
		if _, _, err := a.partition(tp); err != nil {
			return fmt.Errorf("clearing writers: %w", err)
		}
	}
	for _, id := range sortedKeys(a.writers) {
		w := a.writers[id]
		if !ours(id) {
			continue
		}
		if slices.ContainsFunc(tps, func(tp cluster.TP) bool { return w.holds(a.Log, tp) }) {
			a.fence(w)
		}
	}
	return nil
}

func (a admin) EndTransactions(_ context.Context, dead func(string) bool) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, id := range sortedKeys(a.writers) {
		if w := a.writers[id]; w.open != nil && dead(id) {
			a.fence(w)
		}
	}
	return nil
}
