package topics

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
)

// Progress is how far a consumer group is in some topics, in offsets.
type Progress struct {
	Committed int64            // sum over all partitions of what the group has committed
	Lag       map[string]int64 // by topic: what is written and not committed as processed
}

// Behind is the sum of all lags.
func (p Progress) Behind() (n int64) {
	for _, lag := range p.Lag {
		n += lag
	}
	return n
}

// ReadProgress asks the cluster. The group's offsets are read before the ends: if a topic was found without lag, then
// nothing that the group had made of it is missing in the ends of the others. A topic that does not exist is left out.
func ReadProgress(ctx context.Context, adm *kadm.Client, group string, names ...string) (Progress, error) {
	committed, err := adm.FetchOffsets(ctx, group)
	if err != nil {
		return Progress{}, fmt.Errorf("fetching the offsets of group %s: %w", group, err)
	}
	ends, err := Offsets(adm.ListEndOffsets(ctx, names...))
	if err != nil {
		return Progress{}, err
	}
	starts, err := Offsets(adm.ListStartOffsets(ctx, names...))
	if err != nil {
		return Progress{}, err
	}
	p := Progress{Lag: map[string]int64{}}
	for topic, partitions := range ends {
		p.Lag[topic] = 0
		for partition, end := range partitions {
			at := starts[topic][partition]
			if o, ok := committed.Lookup(topic, partition); ok && o.At >= 0 {
				p.Committed += o.At
				at = max(at, o.At)
			}
			p.Lag[topic] += max(0, end-at)
		}
	}
	return p, nil
}
