package group

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

const consumerRecordVersion = 1

// consumerRecord is a Consumer group as it is stored.
type consumerRecord struct {
	Version     int                  `json:"v"`
	Epoch       int32                `json:"epoch"`
	TargetEpoch int32                `json:"targetEpoch"`
	Since       int64                `json:"since"` // ms since 1970
	Subscribed  []byte               `json:"subscribed,omitempty"`
	Members     []consumerMemberJSON `json:"members,omitempty"`
}

type consumerMemberJSON struct {
	ID       string     `json:"id"`
	Instance string     `json:"instance,omitempty"`
	Rack     string     `json:"rack,omitempty"`
	ClientID string     `json:"client,omitempty"`
	Host     string     `json:"host,omitempty"`
	Local    bool       `json:"local,omitempty"`
	RebalMs  int64      `json:"rebalance"`
	Names    []string   `json:"names,omitempty"`
	Regex    string     `json:"regex,omitempty"`
	Assignor string     `json:"assignor,omitempty"`
	Epoch    int32      `json:"epoch"`
	Previous int32      `json:"previous"`
	State    uint8      `json:"state,omitempty"`
	Assigned []partJSON `json:"assigned,omitempty"`
	Revoking []partJSON `json:"revoking,omitempty"`
	Target   []partJSON `json:"target,omitempty"`
	Unproven int        `json:"unproven,omitempty"`
	// SessionMs and Protocols are those of a member of the classic protocol.
	SessionMs int64      `json:"session,omitempty"`
	Protocols []Protocol `json:"protocols,omitempty"`
}

// partJSON is partitions of one topic; Since is parallel to Partitions where it counts.
type partJSON struct {
	Topic      []byte  `json:"topic"`
	Partitions []int32 `json:"p"`
	Since      []int32 `json:"since,omitempty"`
}

func partsJSON(parts []Part, since map[Part]int32) []partJSON {
	var out []partJSON
	for _, p := range parts {
		if n := len(out); n == 0 || string(out[n-1].Topic) != string(p.Topic[:]) {
			out = append(out, partJSON{Topic: p.Topic[:]})
		}
		last := &out[len(out)-1]
		last.Partitions = append(last.Partitions, p.Partition)
		if since != nil {
			last.Since = append(last.Since, since[p])
		}
	}
	return out
}

func readParts(in []partJSON, each func(p Part, since int32)) error {
	for _, t := range in {
		if len(t.Topic) != 16 || t.Since != nil && len(t.Since) != len(t.Partitions) {
			return fmt.Errorf("a malformed assignment")
		}
		for i, p := range t.Partitions {
			var since int32
			if t.Since != nil {
				since = t.Since[i]
			}
			each(Part{[16]byte(t.Topic), p}, since)
		}
	}
	return nil
}

// Unsaved returns the group's record if it has changed since it was returned last.
func (g *Consumer) Unsaved() ([]byte, bool) {
	if !g.unsaved || g.dead {
		return nil, false
	}
	g.unsaved = false
	r := consumerRecord{
		Version: consumerRecordVersion, Epoch: g.epoch, TargetEpoch: g.targetEpoch, Since: g.since.UnixMilli(), Subscribed: []byte(g.subscribed),
	}
	for _, id := range g.memberIDs() {
		m := g.members[id]
		j := consumerMemberJSON{
			ID: m.id, Instance: m.instance, Rack: m.rack, ClientID: m.clientID, Host: m.host, Local: m.local,
			RebalMs: m.rebalance.Milliseconds(), Names: m.names, Regex: m.regex, Assignor: m.assignor,
			Epoch: m.epoch, Previous: m.previous, State: uint8(m.state), Unproven: m.unproven,
			Assigned: partsJSON(sortedParts(m.assigned), m.assigned), Revoking: partsJSON(sortedParts(m.revoking), nil),
			Target: partsJSON(sortedParts(g.target[id]), nil),
		}
		if m.classic != nil {
			j.SessionMs, j.Protocols = m.classic.session.Milliseconds(), m.classic.protocols
		}
		r.Members = append(r.Members, j)
	}
	b, err := json.Marshal(r)
	if err != nil {
		panic("group: " + err.Error()) // strings, numbers and bytes always marshal
	}
	return b, true
}

// RestoreConsumer returns the group of a record, to be stored again. As in RestoreClassic members have a fresh session, a
// shorter one each time they are not heard of between two restarts, and those of the broker's process are gone.
func RestoreConsumer(id string, l ConsumerLimits, now time.Time, b []byte) (*Consumer, error) {
	var r consumerRecord
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("group %q: %w", id, err)
	}
	if r.Version != consumerRecordVersion {
		return nil, fmt.Errorf("group %q: its record has format %d, this version of Moldau reads format %d", id, r.Version, consumerRecordVersion)
	}
	g := NewConsumer(id, l, time.UnixMilli(r.Since))
	g.epoch, g.targetEpoch, g.subscribed = r.Epoch, r.TargetEpoch, string(r.Subscribed)
	for _, j := range r.Members {
		m := &consumer{
			id: j.ID, instance: j.Instance, rack: j.Rack, clientID: j.ClientID, host: j.Host,
			rebalance: time.Duration(j.RebalMs) * time.Millisecond, names: j.Names, regex: j.Regex, assignor: j.Assignor,
			epoch: j.Epoch, previous: j.Previous, state: reconciliation(j.State), unproven: j.Unproven + 1,
		}
		if len(j.Protocols) > 0 {
			m.classic = &classicSide{session: time.Duration(j.SessionMs) * time.Millisecond, protocols: j.Protocols}
		}
		m.deadline = now.Add(doubt(m.session(l), j.Unproven))
		if m.regex != "" {
			var err error
			if m.pattern, err = compile(m.regex); err != nil {
				return nil, fmt.Errorf("group %q: %w", id, err)
			}
		}
		assigned, revoking, target := map[Part]int32{}, map[Part]struct{}{}, map[Part]struct{}{}
		for _, err := range []error{
			readParts(j.Assigned, func(p Part, since int32) { assigned[p] = since }),
			readParts(j.Revoking, func(p Part, _ int32) { revoking[p] = struct{}{} }),
			readParts(j.Target, func(p Part, _ int32) { target[p] = struct{}{} }),
		} {
			if err != nil {
				return nil, fmt.Errorf("group %q: %w", id, err)
			}
		}
		g.members[m.id] = m
		g.target[m.id] = target
		if m.instance != "" {
			g.static[m.instance] = m.id
		}
		g.have(m, assigned, revoking)
		if len(revoking) > 0 && m.classic == nil {
			m.revokeDeadline = now.Add(m.rebalance)
		}
		if j.Local {
			g.remove(now, m)
		}
	}
	g.unsaved = true
	return g, nil
}

// ConsumerMember describes a member of a Consumer group.
type ConsumerMember struct {
	ID, InstanceID, Rack, ClientID, Host string
	Epoch                                int32
	Names                                []string
	Regex                                string
	Assigned, Target                     []Part
	Classic                              bool // speaks the classic protocol
}

// ConsumerDescription describes a Consumer group.
type ConsumerDescription struct {
	State              string
	Epoch, TargetEpoch int32
	Assignor           string
	Members            []ConsumerMember
}

// State returns the group's state in the protocol.
func (g *Consumer) State() string {
	switch {
	case g.dead:
		return "Dead"
	case len(g.members) == 0:
		return "Empty"
	case g.epoch > g.targetEpoch:
		return "Assigning"
	}
	for _, m := range g.members { //lint:ordered any of them
		if m.state != settled || m.epoch != g.targetEpoch {
			return "Reconciling"
		}
	}
	return "Stable"
}

// has is what a member may work on: what it is assigned, and what it has not given up yet.
func (m *consumer) has() []Part {
	parts := slices.Concat(sortedParts(m.assigned), sortedParts(m.revoking))
	slices.SortFunc(parts, Part.Compare)
	return parts
}

// Describe returns what ConsumerGroupDescribe shows.
func (g *Consumer) Describe() ConsumerDescription {
	d := ConsumerDescription{State: g.State(), Epoch: g.epoch, TargetEpoch: g.targetEpoch, Assignor: g.assignor()}
	for _, id := range g.memberIDs() {
		m := g.members[id]
		d.Members = append(d.Members, ConsumerMember{
			ID: m.id, InstanceID: m.instance, Rack: m.rack, ClientID: m.clientID, Host: m.host, Epoch: m.epoch,
			Names: m.names, Regex: m.regex, Assigned: m.has(), Target: sortedParts(g.target[id]),
			Classic: m.classic != nil,
		})
	}
	return d
}
