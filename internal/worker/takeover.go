package worker

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/moldau/moldau/internal/cluster"
	"github.com/moldau/moldau/topology"
)

// takesOver fails if somebody who records no topology, as Kafka Streams does not, has committed positions, and internal topics are missing:
// they have other names there, and what they hold up to the positions would be lost without a word.
func (t *topics) takesOver(ctx context.Context, top *topology.Topology, plans []topology.TopicPlan, infos map[string]cluster.TopicInfo) error {
	var missing []string
	for _, p := range plans {
		if _, ok := infos[p.Name]; !ok {
			missing = append(missing, fmt.Sprintf("%q", p.Name))
		}
	}
	if len(missing) == 0 || t.n.cfg.AcceptTopology {
		return nil
	}
	record := DeployedTopic(t.n.cfg.App)
	recorded, err := t.describe(ctx, []string{record})
	if err != nil || len(recorded) > 0 {
		return err
	}
	var tps []cluster.TP
	for _, s := range top.Subs {
		for _, source := range s.Sources {
			name := source.Full(t.n.cfg.App)
			info, ok := infos[name]
			if !ok {
				info, _ = t.info(name)
			}
			for partition := range info.Partitions {
				tps = append(tps, cluster.TP{Topic: name, Partition: partition})
			}
		}
	}
	committed, err := t.n.admin.Committed(ctx, t.n.cfg.App, tps...)
	if err != nil {
		return fmt.Errorf("reading the committed positions: %w", err)
	}
	starts, err := t.n.admin.Starts(ctx, tps...)
	if err != nil {
		return fmt.Errorf("asking for the starts of partitions: %w", err)
	}
	// Applications commit what they remember along with their positions; a position alone was set by a tool, such as a reset.
	processed := func(tp cluster.TP) bool {
		o, ok := committed[tp]
		return ok && o.At > starts[tp] && o.Metadata != ""
	}
	if !slices.ContainsFunc(tps, processed) {
		return nil
	}
	return fmt.Errorf("%w: group %s has committed positions, but there is no topic %q: another program, such as a Kafka Streams application, has run under this name. Of the internal topics that this one needs, %s are missing; what they should hold up to those positions lies under other names, or nowhere. Give the handles the names that the topics of that program have (kafka-topics --bootstrap-server HOST:PORT --list), or accept that these begin empty (Config.AcceptTopology)",
		ErrTopology, t.n.cfg.App, record, strings.Join(missing, ", "))
}
