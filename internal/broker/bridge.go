package broker

import (
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/moldau/moldau/internal/broker/group"
)

// A group is of the classic, the consumer or the streams protocol. From the classic one to the others and back it changes over
// while it has no members; between the classic and the consumer protocol also when the first member of
// the consumer protocol joins classic ones, and when the last of them leaves classic ones behind.

// modernGroup is a group of a protocol in which the coordinator decides who gets what.
type modernGroup interface {
	State() string
	Deadline() time.Time
	Tick(now time.Time)
	Unsaved() ([]byte, bool)
	Kill() error
	Empty() (bool, time.Time)
	Subscribes(topic string) bool
	ExpiredOffsets(now time.Time, retention time.Duration, o *group.Offsets) []group.TopicPartition
	ValidateCommit(c group.Commit, version int16) (func(group.Part) error, error)
	ValidateFetch(memberID *string, epoch int32) error
}

// consumer returns the group if it is of the consumer protocol; otherwise nil.
func (g *consumers) consumer() *group.Consumer {
	c, _ := g.modern.(*group.Consumer)
	return c
}

// streams returns the group if it is of the streams protocol; otherwise nil.
func (g *consumers) streams() *group.Streams {
	s, _ := g.modern.(*group.Streams)
	return s
}

// protocol returns the group's type in the protocol.
func (g *consumers) protocol() string {
	switch {
	case g.consumer() != nil:
		return "consumer"
	case g.streams() != nil:
		return "streams"
	}
	return "classic"
}

// toConsumer makes a group one of the consumer protocol, for a member of it that joins, if that can be.
func (c *groups) toConsumer(g *consumers, now time.Time) (e group.Effects) {
	if g.modern != nil {
		return e
	}
	limits := c.limitsFor(g.id).consumer
	modern := group.NewConsumer(g.id, limits, now)
	if state, _ := g.classic.State(); state != group.Empty {
		var err error
		if modern, e, err = g.classic.Upgrade(now, limits, c.b.catalog.current.Load()); err != nil {
			return e
		}
	}
	g.classic, g.modern, g.changed = group.NewClassic(g.id, c.limits, now), modern, true
	return e
}

// asStreams returns the group of the streams protocol that a member of it joins; nil: it may not join. A classic group without members
// becomes one once it has joined.
func (c *groups) asStreams(g *consumers, now time.Time) *group.Streams {
	if state, _ := g.classic.State(); g.modern == nil && state == group.Empty {
		return group.NewStreams(g.id, c.limitsFor(g.id).streams, now)
	}
	return g.streams()
}

// toClassic makes a group without members a classic one.
func (c *groups) toClassic(g *consumers, now time.Time) {
	if g.modern.Kill() == nil {
		g.classic, g.modern, g.changed = group.NewClassic(g.id, c.limits, now), nil, true
	}
}

// downgrade makes a group a classic one whose last member of the consumer protocol has left others behind.
func (c *groups) downgrade(g *consumers, now time.Time) group.Effects {
	modern := g.consumer()
	if modern == nil || !modern.OnlyClassic() {
		return group.Effects{}
	}
	var e group.Effects
	g.classic, e = modern.Downgrade(now, c.limits, c.b.catalog.current.Load())
	g.modern, g.changed = nil, true
	return e
}

// join, sync, heartbeat and leave are what members of the classic protocol ask, in a group of either.

func (c *groups) join(g *consumers, now time.Time, r group.JoinRequest) group.Effects {
	if g.modern != nil {
		if empty, _ := g.modern.Empty(); !empty {
			if g.streams() != nil {
				r.Reply(group.JoinResult{Err: kerr.InconsistentGroupProtocol, Generation: -1})
				return group.Effects{}
			}
			return g.consumer().Join(now, r, c.limits, c.b.catalog.current.Load())
		}
		c.toClassic(g, now)
	}
	return g.classic.Join(now, r)
}

func (c *groups) sync(g *consumers, now time.Time, r group.SyncRequest) group.Effects {
	if g.streams() != nil {
		r.Reply(group.SyncResult{Err: kerr.UnknownMemberID})
		return group.Effects{}
	}
	if modern := g.consumer(); modern != nil {
		return modern.Sync(now, r, c.b.catalog.current.Load())
	}
	return g.classic.Sync(now, r)
}

func (c *groups) heartbeat(g *consumers, now time.Time, id, instance string, generation int32) error {
	if g.streams() != nil {
		return kerr.UnknownMemberID
	}
	if modern := g.consumer(); modern != nil {
		return modern.ClassicHeartbeat(now, id, instance, generation)
	}
	return g.classic.Heartbeat(now, id, instance, generation)
}

func (c *groups) leave(g *consumers, now time.Time, leaving []group.Leaving) ([]error, group.Effects) {
	if g.streams() != nil {
		return slices.Repeat([]error{kerr.UnknownMemberID}, len(leaving)), group.Effects{}
	}
	if modern := g.consumer(); modern != nil {
		return modern.Leave(now, leaving), group.Effects{}
	}
	return g.classic.Leave(now, leaving)
}
