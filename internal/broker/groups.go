package broker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/moldau/moldau/internal/broker/group"
	"github.com/moldau/moldau/internal/broker/log"
	"github.com/moldau/moldau/internal/broker/txn"
)

// offsetsCheck is how often expired offsets are looked for (offsets.retention.check.interval.ms).
const offsetsCheck = 10 * time.Minute

// groups is the group coordinator.
type groups struct {
	b      *Broker
	limits group.Limits
	modern modernLimits

	// altering is held by who changes settings until that is durable.
	altering sync.Mutex
	mu       sync.Mutex
	entries  map[string]*consumers
	settings map[string]map[string]string // by group id; a group's are never changed
}

// consumers is one group: its members and its offsets.
type consumers struct {
	id      string
	mu      sync.Mutex
	classic *group.Classic
	modern  modernGroup // of the consumer or the streams protocol; nil: of the classic one
	offsets *group.Offsets
	// last is the last write. Who shows the group's state to a client waits for it, so nobody sees what a crash could
	// take back.
	last   *future
	alarm  *alarm
	logged string // the state last told to the log
	broken atomic.Bool
	// changed says that the group has changed its protocol, and the record of the one before is still stored.
	changed bool
	gone    bool // deleted, or about to be: whoever still has it looks for the group anew
}

func newGroups(b *Broker) *groups {
	return &groups{b: b, entries: map[string]*consumers{}, settings: map[string]map[string]string{}, limits: group.Limits{
		MinSession: b.cfg.MinSessionTimeout, MaxSession: b.cfg.MaxSessionTimeout, InitialDelay: b.cfg.InitialRebalanceDelay,
	}, modern: modernLimits{
		consumer: group.ConsumerLimits{Session: b.cfg.ConsumerSessionTimeout, Heartbeat: b.cfg.ConsumerHeartbeatInterval},
		streams: group.StreamsLimits{
			Session: b.cfg.StreamsSessionTimeout, Heartbeat: b.cfg.StreamsHeartbeatInterval, InitialDelay: b.cfg.InitialRebalanceDelay,
		},
	}}
}

// entry returns a group, made if there is none.
func (c *groups) entry(id string) *consumers {
	c.mu.Lock()
	defer c.mu.Unlock()
	g := c.entries[id]
	if g == nil {
		g = &consumers{id: id, classic: group.NewClassic(id, c.limits, c.b.cfg.Now()), offsets: group.NewOffsets()}
		g.alarm = newAlarm(func(now time.Time) { c.tick(g, now) })
		c.entries[id] = g
	}
	return g
}

// lock returns a locked group; nil if there is none and none is to be made.
func (c *groups) lock(id string, create bool) *consumers {
	for {
		c.mu.Lock()
		g := c.entries[id]
		c.mu.Unlock()
		if g == nil {
			if !create {
				return nil
			}
			g = c.entry(id)
		}
		g.mu.Lock()
		if g.gone = g.gone && !g.last.failed(); !g.gone {
			c.mend(g)
			return g
		}
		deleted := g.last
		g.mu.Unlock()
		<-deleted.done // and it is no longer here, or there as before
	}
}

// each calls f for each group, in order of their ids, while it is locked.
func (c *groups) each(f func(g *consumers)) {
	for _, g := range c.all() {
		if g := c.lock(g.id, false); g != nil {
			f(g)
			g.mu.Unlock()
		}
	}
}

// all returns the groups in order of their ids.
func (c *groups) all() []*consumers {
	c.mu.Lock()
	defer c.mu.Unlock()
	gs := make([]*consumers, 0, len(c.entries))
	for _, id := range slices.Sorted(maps.Keys(c.entries)) {
		gs = append(gs, c.entries[id])
	}
	return gs
}

// mend takes a group back to what the log holds of it, after a write failed.
func (c *groups) mend(g *consumers) {
	if !g.broken.Swap(false) {
		return
	}
	if g.last != nil {
		<-g.last.done // it may be later than the one that failed, and durable
	}
	now := c.b.cfg.Now()
	for _, answer := range g.classic.Abandon(now).Answers {
		answer(nil)
	}
	g.classic, g.modern, g.offsets, g.last = group.NewClassic(g.id, c.limits, now), nil, group.NewOffsets(), nil
	for _, r := range c.restorers() {
		for key, value := range c.b.log.Records(r.kind) {
			if k, err := parseGroupKey(r.kind, key); err == nil && k.group == g.id {
				if err := r.restore(g, k, value, now); err != nil {
					c.b.slog.Error("a group's record cannot be read back", "group", g.id, "err", err)
				}
			}
		}
	}
	c.b.alarms.set(g.alarm, g.deadline())
}

// deadline returns when the group's members have to be looked at next.
func (g *consumers) deadline() time.Time {
	if g.modern != nil {
		return g.modern.Deadline()
	}
	return g.classic.Deadline()
}

// state returns the name of the group's state.
func (g *consumers) state() string {
	if g.modern != nil {
		return g.modern.State()
	}
	s, _ := g.classic.State()
	return s.String()
}

// restorer says how the records of a kind are taken back in.
type restorer struct {
	kind    byte
	restore func(g *consumers, k groupKey, value []byte, now time.Time) error
}

// restorers are those of groups. Committed offsets come before pending ones: what is pending was written later, or the commit would
// have cleared it.
func (c *groups) restorers() []restorer {
	return []restorer{
		{kindGroup, func(g *consumers, k groupKey, value []byte, now time.Time) (err error) {
			g.classic, err = group.RestoreClassic(k.group, c.limits, now, value)
			return err
		}},
		{kindConsumer, func(g *consumers, k groupKey, value []byte, now time.Time) error {
			modern, err := group.RestoreConsumer(k.group, c.limitsFor(k.group).consumer, now, value)
			if err == nil {
				g.modern = modern
			}
			return err
		}},
		{kindStreams, func(g *consumers, k groupKey, value []byte, now time.Time) error {
			modern, err := group.RestoreStreams(k.group, c.limitsFor(k.group).streams, now, value)
			if err == nil {
				g.modern = modern
			}
			return err
		}},
		{kindOffset, func(g *consumers, k groupKey, value []byte, _ time.Time) error {
			o, err := group.UnmarshalOffset(value)
			if err == nil {
				g.offsets.Commit(k.partition, o)
			}
			return err
		}},
		{kindPending, func(g *consumers, k groupKey, value []byte, _ time.Time) error {
			o, err := group.UnmarshalOffset(value)
			if err == nil {
				g.offsets.CommitPending(k.producer, k.partition, o)
			}
			return err
		}},
	}
}

// restore takes all stored groups back in.
func (c *groups) restore(now time.Time) error {
	if err := c.restoreSettings(); err != nil {
		return err
	}
	for _, r := range c.restorers() {
		for key, value := range c.b.log.Records(r.kind) {
			k, err := parseGroupKey(r.kind, key)
			if err == nil {
				err = r.restore(c.entry(k.group), k, value, now)
			}
			if err != nil {
				return fmt.Errorf("broker: %w", err)
			}
		}
	}
	for _, g := range c.all() {
		c.settle(g)
	}
	return nil
}

// settle does what every step of a group's members ends with.
func (c *groups) settle(g *consumers) { c.apply(g, group.Effects{}) }

// kindsOfGroups are the kinds of records of groups' members. A group has one of them.
var kindsOfGroups = [...]byte{kindGroup, kindConsumer, kindStreams}

// groupKey is the key of a group's record, as far as its kind has the parts.
type groupKey struct {
	group     string
	partition group.TopicPartition
	producer  int64
}

func (k groupKey) encode(kind byte) string {
	if slices.Contains(kindsOfGroups[:], kind) {
		return k.group
	}
	b := binary.AppendUvarint(nil, uint64(len(k.group)))
	b = append(b, k.group...)
	if kind == kindPending {
		b = binary.BigEndian.AppendUint64(b, uint64(k.producer))
	}
	b = append(b, k.partition.Topic...)
	return string(binary.BigEndian.AppendUint32(b, uint32(k.partition.Partition)))
}

var errKey = errors.New("a group's record has a key that cannot be read")

func parseGroupKey(kind byte, key string) (groupKey, error) {
	if slices.Contains(kindsOfGroups[:], kind) {
		return groupKey{group: key}, nil
	}
	b := []byte(key)
	n, w := binary.Uvarint(b)
	if w <= 0 || n > uint64(len(b)-w) {
		return groupKey{}, errKey
	}
	k := groupKey{group: string(b[w : w+int(n)])}
	b = b[w+int(n):]
	if kind == kindPending {
		if len(b) < 8 {
			return groupKey{}, errKey
		}
		k.producer = int64(binary.BigEndian.Uint64(b))
		b = b[8:]
	}
	if len(b) < 4 {
		return groupKey{}, errKey
	}
	k.partition = group.TopicPartition{Topic: string(b[:len(b)-4]), Partition: int32(binary.BigEndian.Uint32(b[len(b)-4:]))}
	return k, nil
}

// puts stores the record of the group's members; nil deletes it.
func (g *consumers) puts(record []byte) []log.Put {
	kind := byte(kindGroup)
	switch {
	case g.consumer() != nil:
		kind = kindConsumer
	case g.streams() != nil:
		kind = kindStreams
	}
	puts := []log.Put{{Kind: kind, Key: g.id, Value: record}}
	if g.changed || record == nil {
		for _, other := range kindsOfGroups {
			if other != kind {
				puts = append(puts, log.Put{Kind: other, Key: g.id})
			}
		}
		g.changed = false
	}
	return puts
}

// unsaved returns the record of the group's members if it is to be stored.
func (g *consumers) unsaved() ([]byte, bool) {
	if g.modern != nil {
		return g.modern.Unsaved()
	}
	return g.classic.Unsaved()
}

// offsetPut stores a committed offset, or a pending one of a producer; nil deletes it.
func (g *consumers) offsetPut(kind byte, producer int64, tp group.TopicPartition, value []byte) log.Put {
	return log.Put{Kind: kind, Key: groupKey{g.id, tp, producer}.encode(kind), Value: value}
}

// submit writes puts of a group.
func (c *groups) submit(g *consumers, wait log.Wait, puts []log.Put, then func(error)) *future {
	f := newFuture()
	c.b.log.Submit(log.Write{Puts: puts}, wait, func(err error) {
		if err != nil {
			g.broken.Store(true)
		}
		if then != nil {
			then(err)
		}
		f.set(err)
	})
	g.last = f
	return f
}

// apply does what a step of the group asks for: it stores what has changed, sends the answers once that is written, and
// sets the alarm for the next step that time brings.
func (c *groups) apply(g *consumers, e group.Effects) {
	more := c.downgrade(g, c.b.cfg.Now())
	e.Persist = e.Persist || more.Persist
	e.Answers = append(e.Answers, more.Answers...)
	send := func(err error) {
		for _, answer := range e.Answers {
			answer(err)
		}
	}
	if e.Persist {
		c.submit(g, log.WaitSync, g.puts(g.classic.Marshal()), send)
	} else if record, ok := g.unsaved(); ok {
		c.submit(g, log.WaitNone, g.puts(record), send)
	} else {
		send(nil)
	}
	if state := g.state(); state != g.logged {
		g.logged = state
		c.b.slog.Debug("group", "group", g.id, "state", state)
	}
	c.b.alarms.set(g.alarm, g.deadline())
}

func (c *groups) tick(g *consumers, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.gone {
		return
	}
	c.mend(g)
	var e group.Effects
	if g.modern != nil {
		g.modern.Tick(now)
	} else {
		e = g.classic.Tick(now)
	}
	c.apply(g, e)
}

// endTransaction ends a transaction in the groups it commits offsets of, and returns what to store. The groups stay
// locked, in order, until the caller has submitted that.
func (c *groups) endTransaction(ending *txn.Ending) (locked []*consumers, puts []log.Put) {
	for _, id := range ending.Groups {
		g := c.lock(id, false)
		if g == nil {
			continue // deleted since
		}
		locked = append(locked, g)
		for _, e := range g.offsets.Pending(ending.ProducerID) {
			puts = append(puts, g.offsetPut(kindPending, ending.ProducerID, e.TopicPartition, nil))
		}
		for _, e := range g.offsets.End(ending.ProducerID, ending.Commit) {
			puts = append(puts, g.offsetPut(kindOffset, 0, e.TopicPartition, e.Offset.Marshal()))
		}
	}
	return locked, puts
}

// topicsDeleted forgets the offsets of topics. It returns the last write, nil if there was nothing to forget.
func (c *groups) topicsDeleted(ts []*topic) *future {
	names := map[string]bool{}
	for _, t := range ts {
		names[t.name] = true
	}
	var last *future
	c.each(func(g *consumers) {
		if f := c.deleteOffsets(g, func(tp group.TopicPartition) bool { return names[tp.Topic] }); f != nil {
			last = f
		}
	})
	return last
}

// deleteOffsets forgets the offsets of some partitions, pending ones too. It returns nil if there are none.
func (c *groups) deleteOffsets(g *consumers, which func(group.TopicPartition) bool) *future {
	puts := g.forget(which)
	if len(puts) == 0 {
		return nil
	}
	return c.submit(g, log.WaitSync, puts, nil)
}

// forget takes the offsets of some partitions out of the group, and returns what does so in the log.
func (g *consumers) forget(which func(group.TopicPartition) bool) []log.Put {
	var puts []log.Put
	var tps []group.TopicPartition
	for _, e := range g.offsets.All() {
		if which(e.TopicPartition) {
			tps = append(tps, e.TopicPartition)
			puts = append(puts, g.offsetPut(kindOffset, 0, e.TopicPartition, nil))
		}
	}
	for _, id := range g.offsets.PendingProducers() {
		for _, e := range g.offsets.Pending(id) {
			if which(e.TopicPartition) {
				tps = append(tps, e.TopicPartition)
				puts = append(puts, g.offsetPut(kindPending, id, e.TopicPartition, nil))
			}
		}
	}
	for _, tp := range tps {
		g.offsets.Delete(tp)
	}
	return puts
}

// delete deletes a group that is empty. Until that is durable who asks for the group waits.
func (c *groups) delete(g *consumers, now time.Time) (*future, error) {
	kill := func() error { return g.classic.Kill(now) }
	if g.modern != nil {
		kill = g.modern.Kill
	}
	if err := kill(); err != nil {
		return nil, err
	}
	puts := append(g.forget(func(group.TopicPartition) bool { return true }), g.puts(nil)...)
	g.gone = true
	c.b.alarms.set(g.alarm, time.Time{})
	return c.submit(g, log.WaitSync, puts, func(err error) {
		if err == nil {
			c.mu.Lock()
			defer c.mu.Unlock()
			delete(c.entries, g.id)
		}
	}), nil
}

// expireOffsets forgets the offsets whose retention is over, and groups that have nothing left.
func (c *groups) expireOffsets(now time.Time) {
	c.each(func(g *consumers) { c.expireGroup(g, now) })
}

func (c *groups) expireGroup(g *consumers, now time.Time) {
	var expired []group.TopicPartition
	var empty bool
	var since time.Time
	if g.modern != nil {
		expired = g.modern.ExpiredOffsets(now, c.b.cfg.OffsetsRetention, g.offsets)
		empty, since = g.modern.Empty()
	} else {
		expired = g.classic.ExpiredOffsets(now, c.b.cfg.OffsetsRetention, g.offsets)
		var state group.State
		state, since = g.classic.State()
		empty = state == group.Empty
	}
	if len(expired) > 0 {
		over := make(map[group.TopicPartition]bool, len(expired))
		for _, tp := range expired {
			over[tp] = true
		}
		c.deleteOffsets(g, func(tp group.TopicPartition) bool { return over[tp] })
	}
	if empty && g.offsets.Len() == 0 && len(g.offsets.PendingProducers()) == 0 &&
		(len(expired) > 0 || now.Sub(since) > offsetsCheck) {
		c.delete(g, now)
	}
}
