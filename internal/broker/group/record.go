package group

import (
	"encoding/json"
	"fmt"
	"time"
)

// recordVersion is the format of a stored group. A reader that finds another one refuses it.
const recordVersion = 1

// record is a group as it is stored: what must survive a restart so that members go on as if nothing had happened.
type record struct {
	Version      int            `json:"v"`
	Generation   int32          `json:"generation"`
	ProtocolType string         `json:"type,omitempty"`
	Protocol     string         `json:"protocol,omitempty"`
	Leader       string         `json:"leader,omitempty"`
	Since        int64          `json:"since"` // ms since 1970
	Members      []memberRecord `json:"members,omitempty"`
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
}

// Marshal returns the group's record.
func (g *Classic) Marshal() []byte {
	r := record{
		Version: recordVersion, Generation: g.generation, ProtocolType: g.protocolType, Protocol: g.protocol,
		Leader: g.leader, Since: g.since.UnixMilli(),
	}
	for _, m := range g.members {
		r.Members = append(r.Members, memberRecord{
			ID: m.id, Instance: m.instance, ClientID: m.clientID, Host: m.host, Local: m.local,
			SessionMs: m.session.Milliseconds(), RebalMs: m.rebalance.Milliseconds(),
			Protocols: m.protocols, Assignment: m.assignment,
		})
	}
	b, err := json.Marshal(r)
	if err != nil {
		panic("group: " + err.Error()) // strings, numbers and bytes always marshal
	}
	return b
}

// RestoreClassic returns the group of a record. Members go on in their generation, with a fresh session each, except those that
// lived in the broker's process: if some are gone, the others rebalance.
func RestoreClassic(id string, l Limits, now time.Time, b []byte) (*Classic, error) {
	var r record
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("group %q: %w", id, err)
	}
	if r.Version != recordVersion {
		return nil, fmt.Errorf("group %q: its record has format %d, this version of Moldau reads format %d", id, r.Version, recordVersion)
	}
	g := NewClassic(id, l, time.UnixMilli(r.Since))
	g.generation, g.protocolType, g.protocol, g.leader = r.Generation, r.ProtocolType, r.Protocol, r.Leader
	gone := 0
	for _, mr := range r.Members {
		if mr.Local {
			gone++
			continue
		}
		g.add(&member{
			id: mr.ID, instance: mr.Instance, clientID: mr.ClientID, host: mr.Host,
			session: time.Duration(mr.SessionMs) * time.Millisecond, rebalance: time.Duration(mr.RebalMs) * time.Millisecond,
			protocols: mr.Protocols, assignment: mr.Assignment,
			deadline: now.Add(time.Duration(mr.SessionMs) * time.Millisecond),
		})
	}
	switch {
	case len(r.Members) == 0:
	case len(g.members) == 0:
		g.protocol, g.leader, g.since = "", "", now
		g.generation++ // what the lost members still send from the old generation is refused
	default:
		if g.member(g.leader) == nil {
			g.leader = g.members[0].id
		}
		g.state = Stable
		if gone > 0 {
			var e Effects
			g.prepare(now, &e)
		}
	}
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
