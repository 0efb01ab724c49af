package broker

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kerr"
	"golang.org/x/sync/errgroup"

	"github.com/moldau/moldau/internal/broker/log"
)

// maxPartitions bounds the partitions of a topic: each has files and buffers of its own.
const maxPartitions = 10_000

// The kinds of the log's keyed records.
const (
	kindCluster  = 'C' // cluster id and producer ids
	kindTopic    = 'T' // by name
	kindGroup    = 'G' // by group id: groups of the classic protocol
	kindConsumer = 'M' // by group id: groups of the consumer protocol
	kindStreams  = 'R' // by group id: groups of the streams protocol
	kindOffset   = 'O' // by group, topic and partition
	kindPending  = 'P' // by group, producer, topic and partition: offsets of open transactions
	kindTransact = 'X' // by transactional id
	kindACL      = 'A' // by the rule
	kindUser     = 'U' // by mechanism and user: SCRAM credentials
	kindQuota    = 'Q' // by user and client-id
	// kindGroupConfig are the settings of groups, by group id.
	kindGroupConfig = 'S'
	// kindBrokerConfig are the settings of the broker that were changed while it ran, by the resource.
	kindBrokerConfig = 'B'
)

// topic is a topic of the catalog. It is never changed; a change puts a new one in its place.
type topic struct {
	name       string
	id         [16]byte
	partitions []*log.Partition
	settings   map[string]string // those given, without defaults
}

// topics is a state of the catalog, never changed either.
type topics struct {
	version int64
	byName  map[string]*topic
	byID    map[[16]byte]*topic
}

// Version numbers the states of the catalog in one run of the broker.
func (ts *topics) Version() int64 { return ts.version }

// Lookup finds a topic that consumers may subscribe to.
func (ts *topics) Lookup(name string) (id [16]byte, partitions int32, ok bool) {
	t := ts.byName[name]
	if t == nil {
		return id, 0, false
	}
	return t.id, int32(len(t.partitions)), true
}

// Name returns the name of a topic.
func (ts *topics) Name(id [16]byte) (string, bool) {
	t := ts.byID[id]
	if t == nil {
		return "", false
	}
	return t.name, true
}

// Names lists the topics, in order.
func (ts *topics) Names() []string { return slices.Sorted(maps.Keys(ts.byName)) }

// catalog knows the topics. Readers take the current state without a lock.
type catalog struct {
	log     *log.Log
	mu      sync.Mutex // held by writers until what they change is durable: nobody writes to a topic that could vanish
	current atomic.Pointer[topics]
	// defaults are settings of topics that have none of their own, where the broker's were changed.
	defaults atomic.Pointer[map[string]string]
}

// settingsOf returns the settings of a topic with the broker's defaults.
func (c *catalog) settingsOf(t *topic) map[string]string {
	set := maps.Clone(*c.defaults.Load())
	maps.Copy(set, t.settings)
	return set
}

// setDefaults changes the defaults of all topics.
func (c *catalog) setDefaults(set map[string]string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.defaults.Store(&set)
	for _, t := range c.current.Load().byID {
		cfg := logConfig(c.settingsOf(t))
		for _, p := range t.partitions {
			p.SetConfig(cfg)
		}
	}
}

// The topics in which Kafka keeps what we keep as keyed records. They exist, empty, because tools and clients expect them.
const (
	offsetsTopic      = "__consumer_offsets"
	transactionsTopic = "__transaction_state"
)

// internal says whether clients may not write to a topic.
func (t *topic) internal() bool { return t.name == offsetsTopic || t.name == transactionsTopic }

// ensure makes an internal topic if it is missing.
func (c *catalog) ensure(name string) {
	if c.topic(name) == nil {
		c.create([]newTopic{{name: name, partitions: 1, settings: map[string]string{"cleanup.policy": "compact"}}}, false, func(int32) *refusal { return nil })
	}
}

const topicVersion = 1

// topicRecord is a topic as it is stored.
type topicRecord struct {
	Version    int               `json:"v"`
	ID         []byte            `json:"id"`
	Partitions int32             `json:"partitions"`
	Settings   map[string]string `json:"settings,omitempty"`
}

func newCatalog(l *log.Log, defaults map[string]string) *catalog {
	c := &catalog{log: l}
	c.defaults.Store(&defaults)
	c.current.Store(&topics{byName: map[string]*topic{}, byID: map[[16]byte]*topic{}})
	return c
}

// restore takes a stored topic back in.
func (c *catalog) restore(name string, value []byte) error {
	var r topicRecord
	if err := json.Unmarshal(value, &r); err != nil {
		return fmt.Errorf("broker: topic %q: %w", name, err)
	}
	if r.Version != topicVersion || len(r.ID) != 16 {
		return fmt.Errorf("broker: topic %q: its record has format %d, this version of Moldau reads format %d", name, r.Version, topicVersion)
	}
	t := &topic{name: name, id: [16]byte(r.ID), settings: r.Settings}
	if err := c.open(t, r.Partitions); err != nil {
		return err
	}
	cur := c.current.Load()
	cur.byName[name], cur.byID[t.id] = t, t
	return nil
}

// open gives a topic the partitions it lacks.
func (c *catalog) open(t *topic, partitions int32) error {
	for p := int32(len(t.partitions)); p < partitions; p++ {
		part, err := c.log.CreatePartition(log.PartitionID{Topic: t.id, Partition: p}, t.name, logConfig(c.settingsOf(t)))
		if err != nil {
			return fmt.Errorf("broker: topic %q partition %d: %w", t.name, p, err)
		}
		t.partitions = append(t.partitions, part)
	}
	return nil
}

func (c *catalog) record(t *topic) log.Put {
	b, err := json.Marshal(topicRecord{Version: topicVersion, ID: t.id[:], Partitions: int32(len(t.partitions)), Settings: t.settings})
	if err != nil {
		panic("broker: " + err.Error()) // strings and numbers always marshal
	}
	return log.Put{Kind: kindTopic, Key: t.name, Value: b}
}

// change takes old topics out of the catalog and puts new ones in, once that is durable.
func (c *catalog) change(olds, news []*topic) *refusal {
	cur := c.current.Load()
	next := &topics{version: cur.version + 1, byName: maps.Clone(cur.byName), byID: maps.Clone(cur.byID)}
	var w log.Write
	for _, t := range olds {
		delete(next.byName, t.name)
		delete(next.byID, t.id)
		w.Puts = append(w.Puts, log.Put{Kind: kindTopic, Key: t.name})
	}
	for _, t := range news {
		next.byName[t.name], next.byID[t.id] = t, t
		w.Puts = append(w.Puts, c.record(t))
	}
	f := newFuture()
	c.log.Submit(w, log.WaitSync, f.set)
	if <-f.done; f.err != nil {
		for _, t := range news {
			have := 0
			if old := cur.byID[t.id]; old != nil {
				have = len(old.partitions)
			}
			for p := have; p < len(t.partitions); p++ {
				c.log.ForgetPartition(log.PartitionID{Topic: t.id, Partition: int32(p)})
			}
		}
		return refuse(kerr.KafkaStorageError, "%v", f.err)
	}
	c.current.Store(next)
	return nil
}

// topic returns a topic by name, or nil.
func (c *catalog) topic(name string) *topic { return c.current.Load().byName[name] }

// topicByID returns a topic by id, or nil.
func (c *catalog) topicByID(id [16]byte) *topic { return c.current.Load().byID[id] }

// asked returns the topic that a request asks for, by id or by name, or nil; unknown is the error for one that is not there.
func (c *catalog) asked(byID bool, name string, id [16]byte) (t *topic, unknown *kerr.Error) {
	if !byID {
		return c.topic(name), kerr.UnknownTopicOrPartition
	}
	if t = c.topicByID(id); t == nil {
		return nil, kerr.UnknownTopicID
	}
	return t, kerr.UnknownTopicOrPartition
}

// all returns the topics in order of name.
func (c *catalog) all() []*topic {
	return slices.SortedFunc(maps.Values(c.current.Load().byName), func(a, b *topic) int { return strings.Compare(a.name, b.name) })
}

// partition returns a partition, or nil.
func (t *topic) partition(p int32) *log.Partition {
	if t == nil || p < 0 || int(p) >= len(t.partitions) {
		return nil
	}
	return t.partitions[p]
}

// newID returns a random topic id: a UUID of version 4 whose text, as tools print it, does not look like a flag.
func newID() [16]byte {
	for {
		var id [16]byte
		rand.Read(id[:])
		id[6] = id[6]&0x0f | 0x40
		id[8] = id[8]&0x3f | 0x80
		if idText(id)[0] != '-' {
			return id
		}
	}
}

// idText is how Kafka writes a UUID.
func idText(id [16]byte) string { return base64.RawURLEncoding.EncodeToString(id[:]) }

// checkName says what is wrong with a topic's name.
func checkName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("topic name is empty")
	case name == "." || name == "..":
		return fmt.Errorf("topic name cannot be %q", name)
	case len(name) > 249:
		return fmt.Errorf("topic name is %d characters long, at most 249 are possible", len(name))
	}
	for _, r := range []byte(name) {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '.' && r != '_' && r != '-' {
			return fmt.Errorf("topic name %q is illegal: it may hold only ASCII letters, digits, '.', '_' and '-'", name)
		}
	}
	return nil
}

// collision returns the name of another topic that metrics could not tell from name, because '.' becomes '_' there.
func (ts *topics) collision(name string) string {
	if !strings.ContainsAny(name, "._") {
		return ""
	}
	flat := strings.ReplaceAll(name, ".", "_")
	for other := range ts.byName {
		if other != name && strings.ReplaceAll(other, ".", "_") == flat {
			return other
		}
	}
	return ""
}

// refusal is an error of the protocol with words for the client.
type refusal struct {
	err *kerr.Error
	msg string
}

func refuse(err *kerr.Error, format string, args ...any) *refusal {
	return &refusal{err, fmt.Sprintf(format, args...)}
}

// answer returns the code and the words of an answer: none for nil.
func (r *refusal) answer() (int16, *string) {
	if r == nil {
		return 0, nil
	}
	return r.err.Code, &r.msg
}

// newTopic is a topic to make.
type newTopic struct {
	name       string
	partitions int32
	settings   map[string]string
}

// check is in Kafka's order: what a topic is called, what it is set to, how large it is.
func (n newTopic) check(cur *topics) *refusal {
	if err := checkName(n.name); err != nil {
		return refuse(kerr.InvalidTopicException, "%v", err)
	}
	if cur.byName[n.name] != nil {
		return refuse(kerr.TopicAlreadyExists, "topic %q already exists", n.name)
	}
	if other := cur.collision(n.name); other != "" {
		return refuse(kerr.InvalidTopicException, "topic %q collides with existing topic %q", n.name, other)
	}
	if err := checkSettings(n.settings); err != nil {
		return refuse(kerr.InvalidConfig, "%v", err)
	}
	if n.partitions < 1 {
		return refuse(kerr.InvalidPartitions, "number of partitions must be larger than 0")
	}
	if n.partitions > maxPartitions {
		return refuse(kerr.InvalidPartitions, "%d partitions: at most %d are possible", n.partitions, maxPartitions)
	}
	return nil
}

// create makes topics, in one write, and returns for each the topic or why there is none. With validateOnly it only says
// whether it could: the topics it returns have no partitions. A topic against which nothing else speaks is counted by quota.
func (c *catalog) create(news []newTopic, validateOnly bool, quota func(partitions int32) *refusal) ([]*topic, []*refusal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	cur := c.current.Load()
	ts, no := make([]*topic, len(news)), make([]*refusal, len(news))
	var made []*topic
	for i, n := range news {
		if no[i] = n.check(cur); no[i] == nil {
			no[i] = quota(n.partitions)
		}
		if no[i] != nil {
			continue
		}
		ts[i] = &topic{name: n.name, id: newID(), settings: n.settings}
		if validateOnly {
			continue
		}
		if err := c.open(ts[i], n.partitions); err != nil {
			no[i] = refuse(kerr.KafkaStorageError, "%v", err)
			continue
		}
		made = append(made, ts[i])
	}
	if len(made) == 0 {
		return ts, no
	}
	if failed := c.change(nil, made); failed != nil {
		for i := range no {
			if no[i] == nil {
				no[i] = failed
			}
		}
	}
	return ts, no
}

// drop deletes the partitions of topics that are no longer in the catalog. A crash in between leaves remains that the
// next start clears away.
func (c *catalog) drop(ts []*topic) error {
	var g errgroup.Group
	g.SetLimit(256)
	for _, t := range ts {
		for p := range t.partitions {
			g.Go(func() error { return c.log.DeletePartition(log.PartitionID{Topic: t.id, Partition: int32(p)}) })
		}
	}
	return g.Wait()
}

// clear deletes what the log holds of topics that the catalog does not know.
func (c *catalog) clear() error {
	for _, id := range c.log.Partitions() {
		if c.topicByID(id.Topic).partition(id.Partition) == nil {
			if err := c.log.DeletePartition(id); err != nil {
				return err
			}
		}
	}
	return nil
}

// update changes a topic: edit gets a copy to work on.
func (c *catalog) update(id [16]byte, edit func(t *topic) *refusal) *refusal {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.current.Load().byID[id]
	if old == nil {
		return refuse(kerr.UnknownTopicOrPartition, "the topic was deleted")
	}
	t := &topic{name: old.name, id: old.id, partitions: slices.Clone(old.partitions), settings: maps.Clone(old.settings)}
	if t.settings == nil {
		t.settings = map[string]string{}
	}
	if no := edit(t); no != nil {
		return no
	}
	if no := c.change([]*topic{old}, []*topic{t}); no != nil {
		return no
	}
	cfg := logConfig(c.settingsOf(t))
	for _, p := range t.partitions {
		p.SetConfig(cfg)
	}
	return nil
}

// grow adds partitions to a topic.
func (c *catalog) grow(id [16]byte, partitions int32) *refusal {
	return c.update(id, func(t *topic) *refusal {
		if err := c.open(t, partitions); err != nil {
			return refuse(kerr.KafkaStorageError, "%v", err)
		}
		return nil
	})
}

// remove deletes topics, in one write. Those that are gone already are left out of what it returns.
func (c *catalog) remove(ids [][16]byte) ([]*topic, *refusal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var olds []*topic
	for _, id := range ids {
		if t := c.current.Load().byID[id]; t != nil {
			olds = append(olds, t)
		}
	}
	if len(olds) == 0 {
		return nil, nil
	}
	if no := c.change(olds, nil); no != nil {
		return nil, no
	}
	if err := c.drop(olds); err != nil {
		return nil, refuse(kerr.KafkaStorageError, "%v", err)
	}
	return olds, nil
}
