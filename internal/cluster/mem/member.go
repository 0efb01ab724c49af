package mem

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/moldau/moldau/internal/assign"
	"github.com/moldau/moldau/internal/cluster"
)

// member implements cluster.Member.
type member struct {
	cursors
	conn     *Conn
	cfg      cluster.MemberConfig
	in       *membership // nil: not in the group
	events   []cluster.Event
	owned    map[cluster.TP]bool   // as of the events delivered
	revoking bool                  // a revocation was delivered and not answered
	losing   bool                  // a loss was; the member joins again after that
	last     cluster.GroupMetadata // who it was when it was last in the group
	fenced   bool
	left     bool
	closed   bool
}

// Member joins a group, at once.
func (c *Conn) Member(cfg cluster.MemberConfig) (cluster.Member, error) {
	topics := 0
	for _, s := range cfg.Subtopologies {
		topics += len(s.Reads())
	}
	if cfg.Group == "" || topics == 0 && cfg.Anchor == "" {
		return nil, errors.New("a member needs a group and topics")
	}
	c.log.mu.Lock()
	defer c.log.mu.Unlock()
	m := &member{cursors: cursors{log: c.log, at: map[cluster.TP]*cursor{}}, conn: c, cfg: cfg, owned: map[cluster.TP]bool{}}
	c.members = append(c.members, m)
	c.log.join(m)
	return m, nil
}

func (m *member) Poll(context.Context) (cluster.Fetched, error) {
	m.log.mu.Lock()
	defer m.log.mu.Unlock()
	switch {
	case m.conn.dead:
		return cluster.Fetched{}, errDead
	case m.closed:
		return cluster.Fetched{}, fmt.Errorf("member of group %q: %w", m.cfg.Group, cluster.ErrClosed)
	case m.fenced:
		return cluster.Fetched{}, fmt.Errorf("member %q of group %q: %w", m.cfg.Instance, m.cfg.Group, cluster.ErrFenced)
	}
	var f cluster.Fetched
	for len(m.events) > 0 && !m.revoking && !m.losing {
		e := m.events[0]
		m.events = m.events[1:]
		f.Events = append(f.Events, e)
		for _, tp := range e.Partitions {
			if e.Kind == cluster.Assigned {
				m.owned[tp] = true
				continue
			}
			delete(m.owned, tp)
			delete(m.at, tp)
		}
		m.revoking, m.losing = e.Kind == cluster.Revoke, e.Kind == cluster.Lost
	}
	if len(f.Events) > 0 {
		return f, nil
	}
	var err error
	f.Batches, err = m.poll()
	return f, err
}

func (m *member) Released() {
	m.log.mu.Lock()
	defer m.log.mu.Unlock()
	switch {
	case m.revoking:
		m.revoking = false
		if m.in != nil && len(m.in.taken) > 0 {
			m.log.released(m.in)
		}
	case m.losing:
		m.losing = false
		if !m.closed && !m.left {
			m.log.join(m)
		}
	}
}

func (m *member) Seek(offsets map[cluster.TP]int64) {
	m.log.mu.Lock()
	defer m.log.mu.Unlock()
	mine := maps.Clone(offsets)
	maps.DeleteFunc(mine, func(tp cluster.TP, _ int64) bool { return !m.owned[tp] })
	m.seek(mine)
}

func (m *member) Pause(tps ...cluster.TP) {
	m.log.mu.Lock()
	defer m.log.mu.Unlock()
	m.pause(tps, true)
}

func (m *member) Resume(tps ...cluster.TP) {
	m.log.mu.Lock()
	defer m.log.mu.Unlock()
	m.pause(tps, false)
}

func (m *member) Subscribe(subs []assign.Subtopology) {
	m.log.mu.Lock()
	defer m.log.mu.Unlock()
	m.cfg.Subtopologies = subs
	if m.in != nil {
		m.in.cfg.Subtopologies = subs
		m.log.rebalance(m.log.group(m.cfg.Group))
	}
}

func (m *member) Group() cluster.GroupMetadata {
	m.log.mu.Lock()
	defer m.log.mu.Unlock()
	return m.metadata()
}

func (m *member) metadata() cluster.GroupMetadata {
	if m.in == nil {
		return m.last
	}
	return cluster.GroupMetadata{Group: m.cfg.Group, Instance: m.cfg.Instance, Member: m.in.id, Generation: m.log.group(m.cfg.Group).generation}
}

// out notes that the member is no longer in the group. What it says of itself stays as it was.
func (m *member) out() { m.last, m.in = m.metadata(), nil }

func (m *member) Commit(_ context.Context, offsets map[cluster.TP]cluster.Offset) error {
	m.log.mu.Lock()
	defer m.log.mu.Unlock()
	if m.conn.dead {
		return errDead
	}
	if f := m.log.Faults.Commit; f != nil {
		if err := f(m.cfg.Group); err != nil {
			return err
		}
	}
	g := m.log.group(m.cfg.Group)
	if len(offsets) == 0 {
		return nil
	}
	if err := g.check(m.metadata()); err != nil {
		return err
	}
	maps.Copy(g.offsets, offsets)
	return nil
}

func (m *member) Leave(context.Context) error {
	m.log.mu.Lock()
	defer m.log.mu.Unlock()
	m.events, m.left = nil, true
	if m.in != nil {
		m.log.remove(m.in)
	}
	return nil
}

// Close ends the member. As with a real client, a dynamic member leaves; a static one keeps its place.
func (m *member) Close() {
	m.log.mu.Lock()
	defer m.log.mu.Unlock()
	if m.closed {
		return
	}
	m.closed = true
	if m.in != nil && m.cfg.Instance == "" && !m.conn.dead {
		m.log.remove(m.in)
	}
}
