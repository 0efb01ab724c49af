package broker

import (
	"time"

	"github.com/moldau/moldau/internal/broker/group"
)

// A group is of the classic or of the consumer protocol. It changes over while it has no members, when the first member of
// the consumer protocol joins classic ones, and when the last of them leaves classic ones behind.

// toConsumer makes a group one of the consumer protocol, for a member of it that joins, if that can be.
func (c *groups) toConsumer(g *consumers, now time.Time) (e group.Effects) {
	if g.modern != nil {
		return e
	}
	modern := group.NewConsumer(g.id, c.limitsFor(g.id), now)
	if state, _ := g.classic.State(); state != group.Empty {
		var err error
		if modern, e, err = g.classic.Upgrade(now, c.limitsFor(g.id), c.b.catalog.current.Load()); err != nil {
			return e
		}
	}
	g.classic, g.modern, g.changed = group.NewClassic(g.id, c.limits, now), modern, true
	return e
}

// toClassic makes a group without members a classic one.
func (c *groups) toClassic(g *consumers, now time.Time) {
	if g.modern.Kill() == nil {
		g.classic, g.modern, g.changed = group.NewClassic(g.id, c.limits, now), nil, true
	}
}

// downgrade makes a group a classic one whose last member of the consumer protocol has left others behind.
func (c *groups) downgrade(g *consumers, now time.Time) group.Effects {
	if g.modern == nil || !g.modern.OnlyClassic() {
		return group.Effects{}
	}
	var e group.Effects
	g.classic, e = g.modern.Downgrade(now, c.limits, c.b.catalog.current.Load())
	g.modern, g.changed = nil, true
	return e
}

// join, sync, heartbeat and leave are what members of the classic protocol ask, in a group of either.

func (c *groups) join(g *consumers, now time.Time, r group.JoinRequest) group.Effects {
	if g.modern != nil {
		if empty, _ := g.modern.Empty(); !empty {
			return g.modern.Join(now, r, c.limits, c.b.catalog.current.Load())
		}
		c.toClassic(g, now)
	}
	return g.classic.Join(now, r)
}

func (c *groups) sync(g *consumers, now time.Time, r group.SyncRequest) group.Effects {
	if g.modern != nil {
		return g.modern.Sync(now, r, c.b.catalog.current.Load())
	}
	return g.classic.Sync(now, r)
}

func (c *groups) heartbeat(g *consumers, now time.Time, id, instance string, generation int32) error {
	if g.modern != nil {
		return g.modern.ClassicHeartbeat(now, id, instance, generation)
	}
	return g.classic.Heartbeat(now, id, instance, generation)
}

func (c *groups) leave(g *consumers, now time.Time, leaving []group.Leaving) ([]error, group.Effects) {
	if g.modern != nil {
		return g.modern.Leave(now, leaving), group.Effects{}
	}
	return g.classic.Leave(now, leaving)
}
