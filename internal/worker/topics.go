package worker

import (
	"context"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/moldau/moldau/internal/cluster"
	"github.com/moldau/moldau/internal/commit"
	"github.com/moldau/moldau/internal/flow"
	"github.com/moldau/moldau/topology"
)

// topics is what is known of the topics on the cluster.
type topics struct {
	n *Node

	mu    sync.Mutex
	infos map[string]cluster.TopicInfo
	flows map[string]*flow.Topic

	internal []string // names of the application's own topics; the start's, then the warden's
}

func newTopics(n *Node) *topics {
	return &topics{n: n, infos: map[string]cluster.TopicInfo{}, flows: map[string]*flow.Topic{}}
}

// prepare sees to it that every topic is there and as it must be: external ones exist, or are created on the bundled
// broker; internal ones are created or verified; none is another one than last time. Patterns take in what there is.
func (t *topics) prepare(ctx context.Context) error {
	top, err := t.resolve(ctx)
	if err != nil {
		return err
	}
	var external []*topology.Topic
	read := map[*topology.Topic]bool{}
	for _, topic := range top.Topics {
		if topic.Kind == topology.External {
			external = append(external, topic)
		}
	}
	for _, name := range t.n.cfg.Errors.Topics() {
		if !slices.ContainsFunc(external, func(have *topology.Topic) bool { return have.Name == name }) {
			external = append(external, &topology.Topic{Name: name, Kind: topology.External, At: "a dead-letter topic"})
		}
	}
	for _, s := range top.Subs {
		for _, topic := range s.Sources {
			read[topic] = true
		}
	}
	for _, g := range top.Globals {
		read[g.Topic] = true
	}
	names := make([]string, len(external))
	for i, topic := range external {
		names[i] = topic.Name
	}
	infos, err := t.describe(ctx, names)
	if err != nil {
		return err
	}
	var missing []*topology.Topic
	for _, topic := range external {
		if _, ok := infos[topic.Name]; ok {
			continue
		}
		if topic.Of != nil {
			return t.prepare(ctx) // it has gone since
		}
		missing = append(missing, topic)
	}
	if len(missing) > 0 {
		if !t.n.cfg.Bundled {
			return missingTopics(missing, read)
		}
		if err := t.createExternal(ctx, missing); err != nil {
			return err
		}
		return t.prepare(ctx) // what was created may match a pattern
	}
	t.learn(infos)
	partitions := map[string]int32{}
	for name, info := range infos {
		partitions[name] = info.Partitions
	}
	if err := t.compare(top, read); err != nil {
		return err
	}
	for _, s := range t.sourced() {
		if err := complete(s, infos[s.Topic.Name]); err != nil {
			return err
		}
	}
	plans, err := top.Plan(t.n.cfg.App, partitions)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrTopics, err)
	}
	if err := t.prepareInternal(ctx, top, plans); err != nil {
		return err
	}
	t.n.found.Store(top)
	return nil
}

func (t *topics) describe(ctx context.Context, names []string) (map[string]cluster.TopicInfo, error) {
	if len(names) == 0 {
		return map[string]cluster.TopicInfo{}, nil
	}
	return t.n.admin.Describe(ctx, names...)
}

func (t *topics) learn(infos map[string]cluster.TopicInfo) {
	t.mu.Lock()
	defer t.mu.Unlock()
	maps.Copy(t.infos, infos)
}

func missingTopics(missing []*topology.Topic, read map[*topology.Topic]bool) error {
	var b strings.Builder
	for _, topic := range missing {
		verb := "writes"
		if read[topic] {
			verb = "reads"
		}
		fmt.Fprintf(&b, "\n  topic %q, which the application %s (%s), does not exist; create it:\n    %s", topic.Name, verb, topic.At, command(topic))
	}
	return fmt.Errorf("%w: %w%s\n  (or: moldau topic create -brokers HOST:PORT TOPIC -partitions N)", ErrTopics, cluster.ErrMissingTopic, b.String())
}

// command creates a topic.
func command(t *topology.Topic) string {
	partitions := "N"
	if t.Partitions > 0 {
		partitions = strconv.Itoa(int(t.Partitions))
	}
	var b strings.Builder
	fmt.Fprintf(&b, "kafka-topics --bootstrap-server HOST:PORT --create --topic %s --partitions %s", t.Name, partitions)
	for _, k := range slices.Sorted(maps.Keys(t.Config)) {
		fmt.Fprintf(&b, " --config %s=%s", k, t.Config[k])
	}
	return b.String()
}

func (t *topics) createExternal(ctx context.Context, missing []*topology.Topic) error {
	var specs []cluster.TopicSpec
	for _, topic := range missing {
		n := topic.Partitions
		log := t.n.log.With("topic", topic.Name)
		if n == 0 {
			n = -1 // as the broker likes
		} else {
			log = log.With("partitions", n)
		}
		config := topic.Config
		if i := slices.IndexFunc(t.sourced(), func(s *topology.Store) bool { return s.Topic == topic }); i >= 0 {
			config = lasting(t.sourced()[i])
			maps.Copy(config, topic.Config)
		}
		specs = append(specs, cluster.TopicSpec{Name: topic.Name, Partitions: n, Replication: -1, Config: config})
		log.Info("creating topic")
	}
	if err := t.n.admin.Create(ctx, specs...); err != nil {
		return fmt.Errorf("creating topics: %w", err)
	}
	return nil
}

// sourced are the stores whose changelog is a source topic.
func (t *topics) sourced() (stores []*topology.Store) {
	for _, sub := range t.n.cfg.Topology.Subs {
		for _, s := range sub.Stores {
			if s.Replay != nil {
				stores = append(stores, s)
			}
		}
	}
	return stores
}

// lasting are the settings with which a source topic keeps what a store that is restored from it needs: of each key the last record, or
// all of them, since the latest version need not be the last.
func lasting(s *topology.Store) map[string]string {
	if s.Spec.Kind == flow.Versioned {
		return map[string]string{"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"}
	}
	return map[string]string{"cleanup.policy": "compact"}
}

// complete says whether a source topic has such settings, as far as they are known.
func complete(s *topology.Store, info cluster.TopicInfo) error {
	policy, known := info.Config["cleanup.policy"]
	deletes := strings.Contains(policy, "delete") && (info.Config["retention.ms"] != "-1" || info.Config["retention.bytes"] != "-1")
	if !known || !deletes && !(s.Spec.Kind == flow.Versioned && strings.Contains(policy, "compact")) {
		return nil
	}
	var add []string
	want := lasting(s)
	for _, k := range slices.Sorted(maps.Keys(want)) {
		add = append(add, k+"="+want[k])
	}
	return fmt.Errorf("%w: store %q is to be restored from topic %q (ReuseSourceTopic, %s), which has cleanup.policy=%s, retention.ms=%s and retention.bytes=%s and would lose rows: leave out ReuseSourceTopic, or set it: kafka-configs --bootstrap-server HOST:PORT --alter --entity-type topics --entity-name %s --add-config %s",
		ErrTopics, s.Spec.Name, s.Topic.Name, s.Spec.At, policy, info.Config["retention.ms"], info.Config["retention.bytes"], s.Topic.Name, strings.Join(add, ","))
}

func (t *topics) prepareInternal(ctx context.Context, top *topology.Topology, plans []topology.TopicPlan) error {
	if len(plans) == 0 {
		return nil
	}
	names := make([]string, len(plans))
	for i, p := range plans {
		names[i] = p.Name
	}
	infos, err := t.describe(ctx, names)
	if err != nil {
		return err
	}
	for _, p := range plans {
		if p.Kind == topology.Changelog {
			if err := t.forgotten(ctx, top, p, infos); err != nil {
				return err
			}
		}
	}
	if err := t.takesOver(ctx, top, plans, infos); err != nil {
		return err
	}
	var specs []cluster.TopicSpec
	for _, p := range plans {
		if _, ok := infos[p.Name]; ok {
			continue
		}
		replication := t.n.cfg.Replication
		if replication == 0 {
			replication = -1
		}
		specs = append(specs, cluster.TopicSpec{Name: p.Name, Partitions: p.Partitions, Replication: replication, Config: t.settings(p)})
		t.n.log.Info("creating topic", "topic", p.Name, "kind", p.Kind, "partitions", p.Partitions)
	}
	if len(specs) > 0 {
		if err := t.n.admin.Create(ctx, specs...); err != nil {
			return fmt.Errorf("creating internal topics: %w", err)
		}
		if infos, err = t.describe(ctx, names); err != nil {
			return err
		}
	}
	for _, p := range plans {
		info, ok := infos[p.Name]
		if !ok {
			return fmt.Errorf("%w: internal topic %q has been created, but the cluster does not know it: %w", ErrTopics, p.Name, cluster.ErrMissingTopic)
		}
		if err := verify(p, info); err != nil {
			return err
		}
	}
	t.learn(infos)
	t.internal = nil
	changelogs := map[string]SeenTopic{}
	for _, p := range plans {
		t.internal = append(t.internal, p.Name)
		if p.Kind == topology.Changelog {
			changelogs[p.Name] = seen(infos[p.Name])
		}
	}
	if id := t.n.cfg.Identity; !maps.Equal(changelogs, id.Changelogs) {
		id.Changelogs = changelogs
		return id.save()
	}
	return nil
}

// forgotten fails if a changelog that was there before is gone, or another, while the application's positions stand: what
// was counted up to them would be lost without a word. Offsets that somebody else has committed, as a reset does, say
// that it is to begin anew.
func (t *topics) forgotten(ctx context.Context, top *topology.Topology, p topology.TopicPlan, infos map[string]cluster.TopicInfo) error {
	id := t.n.cfg.Identity
	was, known := id.Changelogs[p.Name]
	info, there := infos[p.Name]
	if !known || there && (was.ID == "" || was.ID == seen(info).ID) {
		return nil
	}
	_, sub := top.Store(p.Store)
	if sub == nil {
		return nil
	}
	var tps []cluster.TP
	for _, s := range sub.Sources {
		for partition := range p.Partitions {
			tps = append(tps, cluster.TP{Topic: s.Full(t.n.cfg.App), Partition: partition})
		}
	}
	committed, err := t.n.admin.Committed(ctx, t.n.cfg.App, tps...)
	if err != nil {
		return fmt.Errorf("reading the committed positions: %w", err)
	}
	for _, o := range committed { // any of them will do
		if s, err := commit.ReadSequence(o.Metadata); err != nil || s.Number == 0 {
			continue
		}
		what := "has been deleted"
		if there {
			what = "has been deleted and created again"
		}
		return fmt.Errorf("%w: changelog topic %q %s: what store %q held up to the committed positions of group %s is lost; bring the topic back, or begin anew: stop the application and let it read from the start again (kafka-consumer-groups --bootstrap-server HOST:PORT --group %s --all-topics --reset-offsets --to-earliest --execute); to go on with an empty store, delete the file %s",
			ErrTopics, p.Name, what, p.Store, t.n.cfg.App, t.n.cfg.App, id.path("identity"))
	}
	return nil
}

// seen is what is remembered of a topic.
func seen(info cluster.TopicInfo) SeenTopic {
	s := SeenTopic{Partitions: info.Partitions}
	if info.ID != [16]byte{} {
		s.ID = hex.EncodeToString(info.ID[:])
	}
	return s
}

// settings are what an internal topic is created with: what the store's handle says comes before the application's
// configuration, and that before what is good for such a topic.
func (t *topics) settings(p topology.TopicPlan) map[string]string {
	config := maps.Clone(p.Config)
	maps.Copy(config, t.n.cfg.TopicConfig)
	if s, _ := t.n.cfg.Topology.Store(p.Store); s != nil {
		maps.Copy(config, s.Spec.Changelog)
	}
	return config
}

// verify compares an internal topic with what it must be.
func verify(p topology.TopicPlan, info cluster.TopicInfo) error {
	if info.Partitions != p.Partitions {
		return fmt.Errorf("%w: internal topic %q has %d partitions, the application needs %d: a source topic has other partitions than it had, or the topology has changed, so that keys would be looked for in the wrong place; run it under another name, or begin anew: stop the application and run \"moldau app reset\"",
			ErrTopics, p.Name, info.Partitions, p.Partitions)
	}
	policy, known := info.Config["cleanup.policy"]
	if p.Kind == topology.Changelog && known && strings.Contains(p.Config["cleanup.policy"], "compact") && !strings.Contains(policy, "compact") {
		return fmt.Errorf("%w: changelog topic %q has cleanup.policy=%s and would forget state; set it: kafka-configs --bootstrap-server HOST:PORT --alter --entity-type topics --entity-name %s --add-config cleanup.policy=[%s]",
			ErrTopics, p.Name, policy, p.Name, p.Config["cleanup.policy"])
	}
	return nil
}

// compare checks the source topics against what the state directory remembers of them.
func (t *topics) compare(top *topology.Topology, read map[*topology.Topic]bool) error {
	id := t.n.cfg.Identity
	now := map[string]SeenTopic{}
	for _, topic := range top.Topics {
		if topic.Kind != topology.External || !read[topic] {
			continue
		}
		info := t.infos[topic.Name]
		is := seen(info)
		if err := changed(topic.Name, id.Topics[topic.Name], is); err != nil {
			return err
		}
		now[topic.Name] = is
	}
	if maps.Equal(now, id.Topics) {
		return nil
	}
	id.Topics = now
	return id.save()
}

// changed says what is wrong with a source topic that was seen before; was is zero if it was not.
func changed(name string, was, is SeenTopic) error {
	switch {
	case was.Partitions == 0:
		return nil
	case was.ID != "" && is.ID != "" && was.ID != is.ID:
		return fmt.Errorf("%w: source topic %q has been deleted and created again (topic id %s, it was %s): the committed positions and the state are those of the old one; run the application under another name, or begin anew: stop it and run \"moldau app reset\"",
			ErrTopics, name, is.ID, was.ID)
	case was.Partitions != is.Partitions:
		return fmt.Errorf("%w: source topic %q has %d partitions, it had %d: keys may lie in other partitions than their state; run the application under another name, or begin anew: stop it and run \"moldau app reset\"",
			ErrTopics, name, is.Partitions, was.Partitions)
	}
	return nil
}

// watch looks at the source topics, and at the application's own, again.
func (t *topics) watch(ctx context.Context) error {
	id := t.n.cfg.Identity
	infos, err := t.describe(ctx, slices.Sorted(maps.Keys(id.Topics)))
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(id.Topics)) {
		info, ok := infos[name]
		if source := t.n.source(name); !ok && source != nil && source.Of != nil {
			return errVanished
		}
		if !ok {
			return fmt.Errorf("%w: source topic %q has been deleted: %w", ErrTopics, name, cluster.ErrMissingTopic)
		}
		if err := changed(name, id.Topics[name], seen(info)); err != nil {
			return err
		}
	}
	if infos, err = t.describe(ctx, t.internal); err != nil {
		return err
	}
	for _, name := range t.internal {
		was, _ := t.info(name)
		if info, ok := infos[name]; !ok || seen(info).ID != seen(was).ID {
			return fmt.Errorf("%w: internal topic %q has been deleted while the application runs: %w", ErrTopics, name, cluster.ErrMissingTopic)
		}
	}
	return nil
}

// info is what is known of a topic.
func (t *topics) info(name string) (cluster.TopicInfo, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	info, ok := t.infos[name]
	return info, ok
}

// known is a topic of the topology.
func (t *topics) known(name string) *flow.Topic {
	info, _ := t.info(name)
	return t.resolved(name, info)
}

// lookTime bounds how long a task waits for the cluster to say what it knows of a topic.
const lookTime = 2 * time.Second

// flow resolves a topic that a task writes to, asking the cluster if it has not been seen: a sink may choose per record.
// nil: there is none. That the cluster does not answer is no fault of the record, so it is tried again.
func (t *topics) flow(name string) (*flow.Topic, error) {
	t.mu.Lock()
	f, info := t.flows[name], t.infos[name]
	t.mu.Unlock()
	if f != nil {
		return f, nil
	}
	if info.Partitions == 0 {
		if topology.CheckName(name) != nil {
			return nil, nil
		}
		ctx, cancel := context.WithTimeout(t.n.work, lookTime)
		defer cancel()
		infos, err := t.describe(ctx, []string{name})
		if _, ok := infos[name]; err == nil && !ok && t.n.cfg.Bundled {
			if err = t.createExternal(ctx, []*topology.Topic{{Name: name, Kind: topology.External}}); err == nil {
				infos, err = t.describe(ctx, []string{name})
			}
		}
		switch {
		case err != nil && transient(err):
			return nil, fmt.Errorf("topic %q, which is written to, cannot be looked up: %w: %w", name, flow.ErrLater, err)
		case err != nil:
			return nil, fmt.Errorf("topic %q, which is written to, cannot be looked up: %w", name, err)
		}
		t.learn(infos)
		if info = infos[name]; info.Partitions == 0 {
			return nil, nil
		}
	}
	return t.resolved(name, info), nil
}

func (t *topics) resolved(name string, info cluster.TopicInfo) *flow.Topic {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.flows[name]
	if f == nil {
		f = &flow.Topic{Name: name, Partitions: info.Partitions, MaxRecord: info.MaxRecord}
		t.flows[name] = f
	}
	return f
}
