package broker

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/moldau/moldau/internal/broker/histories"
)

// asking is a life of asking where partitions end and where the group is.
func (w *workload) asking(ctx context.Context, p *person) {
	cl := w.client()
	defer cl.Close()
	for ctx.Err() == nil {
		wait, cancel := context.WithTimeout(ctx, 5*time.Second)
		ends, _ := w.ends(wait, cl)
		positions, _ := w.positions(wait, cl)
		cancel()
		w.mu.Lock()
		w.h.Ends = append(w.h.Ends, ends...)
		w.h.Positions = append(w.h.Positions, positions...)
		w.mu.Unlock()
		p.rest(ctx, 100*time.Millisecond)
	}
}

// ends asks where partitions begin and end.
func (w *workload) ends(ctx context.Context, cl *kgo.Client) (out []histories.Ends, err error) {
	admin := kadm.NewClient(cl)
	begin := w.now()
	starts, err := admin.ListStartOffsets(ctx, workTopics...)
	if err != nil {
		return nil, err
	}
	stable, err := admin.ListCommittedOffsets(ctx, workTopics...)
	if err != nil {
		return nil, err
	}
	high, err := admin.ListEndOffsets(ctx, workTopics...)
	if err != nil {
		return nil, err
	}
	for _, topic := range workTopics {
		for n := range int32(workPartitions) {
			a, okA := starts.Lookup(topic, n)
			s, okS := stable.Lookup(topic, n)
			h, okH := high.Lookup(topic, n)
			if !okA || !okS || !okH || a.Err != nil || s.Err != nil || h.Err != nil {
				return nil, fmt.Errorf("%s-%d: %v, %v, %v", topic, n, a.Err, s.Err, h.Err)
			}
			out = append(out, histories.Ends{At: histories.TP{Topic: topic, Partition: n}, Begin: begin, End: w.now(), Start: a.Offset, Stable: s.Offset, High: h.Offset})
		}
	}
	return out, nil
}

// positions asks where the copying group is, pending commits waited for.
func (w *workload) positions(ctx context.Context, cl *kgo.Client) (out []histories.Position, err error) {
	q := kmsg.NewPtrOffsetFetchRequest()
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group = "copy"
	t := kmsg.NewOffsetFetchRequestGroupTopic()
	t.Topic = "in"
	for n := range int32(workPartitions) {
		t.Partitions = append(t.Partitions, n)
	}
	g.Topics = append(g.Topics, t)
	q.Groups, q.RequireStable = append(q.Groups, g), true
	begin := w.now()
	resp, err := q.RequestWith(ctx, cl)
	if err != nil {
		return nil, err
	}
	for _, g := range resp.Groups {
		for _, t := range g.Topics {
			for _, p := range t.Partitions {
				if p.ErrorCode == 0 && g.ErrorCode == 0 {
					out = append(out, histories.Position{Group: g.Group, At: histories.TP{Topic: "in", Partition: p.Partition}, Begin: begin, End: w.now(), Offset: p.Offset})
				}
			}
		}
	}
	if len(out) < workPartitions {
		return out, fmt.Errorf("%d offsets of %d", len(out), workPartitions)
	}
	return out, nil
}
