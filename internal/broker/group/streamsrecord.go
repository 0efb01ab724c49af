package group

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"
)

const streamsRecordVersion = 1

// streamsRecord is a Streams group as it is stored.
type streamsRecord struct {
	Version     int          `json:"v"`
	Epoch       int32        `json:"epoch"`
	TargetEpoch int32        `json:"targetEpoch"`
	TargetTime  int64        `json:"targetTime,omitempty"` // ms since 1970; 0: never
	Since       int64        `json:"since"`                // ms since 1970
	Topology    *Topology    `json:"topology,omitempty"`
	Validated   int32        `json:"validated"`
	Standbys    int          `json:"standbys,omitempty"`
	Required    []byte       `json:"required,omitempty"`
	Members     []runnerJSON `json:"members,omitempty"`
}

type runnerJSON struct {
	ID       string     `json:"id"`
	Rack     string     `json:"rack,omitempty"`
	Process  string     `json:"process,omitempty"`
	ClientID string     `json:"client,omitempty"`
	Host     string     `json:"host,omitempty"`
	Local    bool       `json:"local,omitempty"`
	RebalMs  int64      `json:"rebalance"`
	Topology int32      `json:"topology"`
	Tags     []Setting  `json:"tags,omitempty"`
	Endpoint *Endpoint  `json:"endpoint,omitempty"`
	Epoch    int32      `json:"epoch"`
	Previous int32      `json:"previous"`
	State    uint8      `json:"state,omitempty"`
	Assigned []taskJSON `json:"assigned,omitempty"`
	Revoking []taskJSON `json:"revoking,omitempty"`
	Target   []taskJSON `json:"target,omitempty"`
	Unproven int        `json:"unproven,omitempty"`
}

type taskJSON struct {
	Subtopology string `json:"s"`
	Partition   int32  `json:"p"`
	Standby     bool   `json:"standby,omitempty"`
	Since       int32  `json:"since,omitempty"`
}

func tasksJSON(tasks Tasks) []taskJSON {
	var out []taskJSON
	for _, t := range slices.SortedFunc(maps.Keys(tasks), Task.Compare) {
		out = append(out, taskJSON{t.Subtopology, t.Partition, tasks[t].Standby, tasks[t].Since})
	}
	return out
}

func readTasks(in []taskJSON) Tasks {
	tasks := Tasks{}
	for _, j := range in {
		tasks[Task{j.Subtopology, j.Partition}] = Held{j.Standby, j.Since}
	}
	return tasks
}

// Unsaved returns the group's record if it has changed since it was returned last.
func (g *Streams) Unsaved() ([]byte, bool) {
	if !g.unsaved || g.dead {
		return nil, false
	}
	g.unsaved = false
	r := streamsRecord{
		Version: streamsRecordVersion, Epoch: g.epoch, TargetEpoch: g.targetEpoch, Since: g.since.UnixMilli(),
		Topology: g.topology, Validated: g.validated, Standbys: g.standbys, Required: []byte(g.required),
	}
	if !g.targetTime.IsZero() {
		r.TargetTime = g.targetTime.UnixMilli()
	}
	for _, id := range g.memberIDs() {
		m := g.members[id]
		r.Members = append(r.Members, runnerJSON{
			ID: m.id, Rack: m.rack, Process: m.process, ClientID: m.clientID, Host: m.host, Local: m.local,
			RebalMs: m.rebalance.Milliseconds(), Topology: m.topology, Tags: m.tags, Endpoint: m.endpoint,
			Epoch: m.epoch, Previous: m.previous, State: uint8(m.state), Unproven: m.unproven,
			Assigned: tasksJSON(m.assigned), Revoking: tasksJSON(m.revoking), Target: tasksJSON(g.target[id]),
		})
	}
	return marshal(r), true
}

// RestoreStreams returns the group of a record, to be stored again. Sessions are as in RestoreConsumer.
func RestoreStreams(id string, l StreamsLimits, now time.Time, b []byte) (*Streams, error) {
	var r streamsRecord
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("group %q: %w", id, err)
	}
	if r.Version != streamsRecordVersion {
		return nil, fmt.Errorf("group %q: its record has format %d, this version of Moldau reads format %d", id, r.Version, streamsRecordVersion)
	}
	if r.Topology == nil && len(r.Members) > 0 {
		return nil, fmt.Errorf("group %q: its record has members without a topology", id)
	}
	g := NewStreams(id, l, time.UnixMilli(r.Since))
	g.epoch, g.targetEpoch, g.topology, g.validated = r.Epoch, r.TargetEpoch, r.Topology, r.Validated
	g.standbys, g.required = r.Standbys, string(r.Required)
	if r.TargetTime != 0 {
		g.targetTime = time.UnixMilli(r.TargetTime)
	}
	for _, j := range r.Members {
		m := &runner{
			id: j.ID, rack: j.Rack, process: j.Process, clientID: j.ClientID, host: j.Host,
			rebalance: time.Duration(j.RebalMs) * time.Millisecond, topology: j.Topology, tags: j.Tags, endpoint: j.Endpoint,
			epoch: j.Epoch, previous: j.Previous, state: reconciliation(j.State), unproven: j.Unproven + 1,
			assigned: readTasks(j.Assigned), revoking: readTasks(j.Revoking), deadline: now.Add(doubt(l.Session, j.Unproven)),
		}
		if len(m.revoking) > 0 {
			m.revokeDeadline = now.Add(m.rebalance)
		}
		g.members[m.id], g.target[m.id] = m, readTasks(j.Target)
		if j.Local {
			g.remove(now, m)
		}
	}
	g.unsaved = true
	return g, nil
}

// doubt is the first session after a restart: shorter each time a member is not heard of between two restarts.
func doubt(session time.Duration, unproven int) time.Duration {
	return session >> min(2*max(unproven, 0), 16)
}

// StreamsMember describes a member of a Streams group.
type StreamsMember struct {
	ID, Rack, Process, ClientID, Host string
	Epoch, TopologyEpoch              int32
	Tags                              []Setting
	Endpoint                          *Endpoint
	Assigned, Target                  Tasks
}

// StreamsDescription describes a Streams group.
type StreamsDescription struct {
	State              string
	Epoch, TargetEpoch int32
	// Topology has the partitions of internal topics where they are known.
	Topology *Topology
	Members  []StreamsMember
}

// State returns the group's state in the protocol.
func (g *Streams) State() string {
	switch {
	case g.dead:
		return "Dead"
	case len(g.members) == 0:
		return "Empty"
	case g.topology == nil || g.validated != g.topology.Epoch:
		return "NotReady"
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

// Describe returns what StreamsGroupDescribe shows.
func (g *Streams) Describe() StreamsDescription {
	d := StreamsDescription{State: g.State(), Epoch: g.epoch, TargetEpoch: g.targetEpoch}
	if g.topology != nil {
		d.Topology = g.topology.sorted()
		for i := range d.Topology.Subtopologies {
			s := &d.Topology.Subtopologies[i]
			for _, topics := range [][]InternalTopic{s.Repartitions, s.Changelogs} {
				for j := range topics {
					if g.wiring != nil && g.wiring.problem == nil {
						topics[j].Partitions = cmp.Or(topics[j].Partitions, g.wiring.internal[topics[j].Name])
					}
				}
			}
		}
	}
	for _, id := range g.memberIDs() {
		m := g.members[id]
		d.Members = append(d.Members, StreamsMember{
			ID: m.id, Rack: m.rack, Process: m.process, ClientID: m.clientID, Host: m.host, Epoch: m.epoch, TopologyEpoch: m.topology,
			Tags: m.tags, Endpoint: m.endpoint, Assigned: maps.Clone(m.assigned), Target: maps.Clone(g.target[id]),
		})
	}
	return d
}
