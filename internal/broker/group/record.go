package group

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"
)

// recordVersion is the format of a stored group. A reader that finds another one refuses it.
const recordVersion = 1

// record is a group as it is stored: the last generation whose members got their assignments, and what was under way to
// the next one. Members go on after a restart as if nothing had happened.
type record struct {
	Version      int            `json:"v"`
	Generation   int32          `json:"generation"`
	ProtocolType string         `json:"type,omitempty"`
	Protocol     string         `json:"protocol,omitempty"`
	Leader       string         `json:"leader,omitempty"`
	Since        int64          `json:"since"` // ms since 1970
	Members      []memberRecord `json:"members,omitempty"`
	// Rebalancing says that a rebalance was under way, Next which number it had given out.
	Rebalancing bool  `json:"rebalancing,omitempty"`
	Next        int32 `json:"next,omitempty"`
	// Invited are ids in use that the generation does not have.
	Invited []invitationRecord `json:"invited,omitempty"`
}

type memberRecord struct {
	ID         string     `json:"id"`
	Instance   string     `json:"instance,omitempty"`
	ClientID   string     `json:"client,omitempty"`
	Host       string     `json:"host,omitempty"`
	Local      bool       `json:"local,omitempty"`
	SessionMs  int64      `json:"session"`
	RebalMs    int64      `json:"rebalance"`
	Protocols  []Protocol `json:"protocols"`
	Assignment []byte     `json:"assignment,omitempty"`
	// Unproven counts the restarts since the member last showed that it lives.
	Unproven int `json:"unproven,omitempty"`
}

type invitationRecord struct {
	ID        string `json:"id"`
	Instance  string `json:"instance,omitempty"`
	Local     bool   `json:"local,omitempty"`
	SessionMs int64  `json:"session"`
	Unproven  int    `json:"unproven,omitempty"`
}

func (r *record) member(id string) *memberRecord {
	for i := range r.Members {
		if r.Members[i].ID == id {
			return &r.Members[i]
		}
	}
	return nil
}

func (r *record) rename(from, to string) {
	if m := r.member(from); m != nil {
		m.ID = to
	}
	if r.Leader == from {
		r.Leader = to
	}
}

func (r *record) marshal() []byte {
	b, err := json.Marshal(r)
	if err != nil {
		panic("group: " + err.Error()) // strings, numbers and bytes always marshal
	}
	return b
}

// Marshal returns the record of a generation that is complete: all members have assignments, or there are none.
func (g *Classic) Marshal() []byte {
	r := &record{
		Version: recordVersion, Generation: g.generation, ProtocolType: g.protocolType, Protocol: g.protocol,
		Leader: g.leader, Since: g.since.UnixMilli(),
	}
	for _, m := range g.members {
		r.Members = append(r.Members, memberRecord{
			ID: m.id, Instance: m.instance, ClientID: m.clientID, Host: m.host, Local: m.local,
			SessionMs: m.session.Milliseconds(), RebalMs: m.rebalance.Milliseconds(),
			Protocols: m.protocols, Assignment: m.assignment, Unproven: m.unproven,
		})
	}
	g.stored = r
	g.note()
	return r.marshal()
}

// note brings the stored generation up to date: who of it is left and lives, and what is under way.
func (g *Classic) note() {
	g.unsaved = false
	r := g.stored
	r.Members = slices.DeleteFunc(r.Members, func(mr memberRecord) bool { return g.member(mr.ID) == nil })
	r.Rebalancing = g.state == PreparingRebalance || g.state == CompletingRebalance
	r.Next = g.generation
	r.Invited = nil
	for _, m := range g.members {
		if mr := r.member(m.id); mr != nil {
			mr.Unproven = m.unproven
			continue
		}
		r.Invited = append(r.Invited, invitationRecord{m.id, m.instance, m.local, m.session.Milliseconds(), m.unproven})
	}
	for _, id := range slices.Sorted(maps.Keys(g.invited)) {
		i := g.invited[id]
		r.Invited = append(r.Invited, invitationRecord{id, i.instance, i.local, i.session.Milliseconds(), i.unproven})
	}
}

// Unsaved returns the group's record if it has changed in a way that need not be durable: who is here and what is under
// way, around the last generation that was stored.
func (g *Classic) Unsaved() ([]byte, bool) {
	if !g.unsaved || g.state == Dead {
		return nil, false
	}
	g.note()
	return g.stored.marshal(), true
}

// RestoreClassic returns the group of a record, to be stored again: it counts restarts. Members go on in their generation
// with a fresh session each, except those that lived in the broker's process: if some are gone, the others rebalance. A
// member that has not been heard of since the restart before gets a quarter of it, and so on: it must not live for
// ever because the broker dies more often than sessions end.
func RestoreClassic(id string, l Limits, now time.Time, b []byte) (*Classic, error) {
	r := new(record)
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("group %q: %w", id, err)
	}
	if r.Version != recordVersion {
		return nil, fmt.Errorf("group %q: its record has format %d, this version of Moldau reads format %d", id, r.Version, recordVersion)
	}
	g := NewClassic(id, l, time.UnixMilli(r.Since))
	g.stored = r
	g.generation, g.protocolType, g.protocol, g.leader = max(r.Generation, r.Next), r.ProtocolType, r.Protocol, r.Leader
	local := 0
	session := func(ms int64, unproven int) (time.Duration, time.Time) {
		s := time.Duration(ms) * time.Millisecond
		return s, now.Add(s >> min(2*unproven, 16))
	}
	for _, mr := range r.Members {
		if mr.Local {
			local++
			continue
		}
		m := &member{
			id: mr.ID, instance: mr.Instance, clientID: mr.ClientID, host: mr.Host,
			rebalance: time.Duration(mr.RebalMs) * time.Millisecond,
			protocols: mr.Protocols, assignment: mr.Assignment, unproven: mr.Unproven + 1,
		}
		m.session, m.deadline = session(mr.SessionMs, mr.Unproven)
		g.add(m)
	}
	for _, ir := range r.Invited {
		if !ir.Local {
			i := &invitation{instance: ir.Instance, unproven: ir.Unproven + 1}
			i.session, i.deadline = session(ir.SessionMs, ir.Unproven)
			g.invited[ir.ID] = i
		}
	}
	switch {
	case len(g.members) == 0:
		if local > 0 {
			g.generation++ // what the lost members still send from the old generation is refused
			g.since = now
		}
		g.protocol, g.leader = "", ""
	default:
		if g.member(g.leader) == nil {
			g.leader = g.members[0].id
		}
		g.state = Stable
		if r.Rebalancing || local > 0 {
			g.prepare(now, new(Effects))
		}
	}
	g.unsaved = true
	return g, nil
}

// Member describes a member.
type Member struct {
	ID, InstanceID, ClientID, Host string
	Metadata, Assignment           []byte
}

// Description describes a group.
type Description struct {
	State                  State
	ProtocolType, Protocol string
	Members                []Member
}

// Describe returns what DescribeGroups shows. Metadata and assignments are those of a stable generation only.
func (g *Classic) Describe() Description {
	d := Description{State: g.state, ProtocolType: g.protocolType}
	stable := g.state == Stable
	if stable {
		d.Protocol = g.protocol
	}
	for _, m := range g.members {
		md := Member{ID: m.id, InstanceID: m.instance, ClientID: m.clientID, Host: m.host}
		if stable {
			md.Metadata, md.Assignment = m.metadata(g.protocol), m.assignment
		}
		d.Members = append(d.Members, md)
	}
	return d
}
