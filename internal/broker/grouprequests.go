package broker

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/moldau/moldau/internal/broker/group"
)

func millis(ms int32) time.Duration { return time.Duration(ms) * time.Millisecond }

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// nullable is the opposite of deref: "" is null.
func nullable(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// awaited answers with what make makes of the value that comes over c.
func awaited[T any](c <-chan T, make func(T) kmsg.Response) reply {
	return reply{wait: func(ctx context.Context) kmsg.Response {
		select {
		case v := <-c:
			return make(v)
		case <-ctx.Done():
			return nil
		}
	}}
}

func (b *Broker) joinGroup(r *request, q *kmsg.JoinGroupRequest) reply {
	joined := make(chan group.JoinResult, 1)
	jr := group.JoinRequest{
		MemberID:          q.MemberID,
		InstanceID:        deref(q.InstanceID),
		ClientID:          r.ClientID,
		Host:              r.conn.host,
		Local:             r.conn.listener == nil,
		SessionTimeout:    millis(q.SessionTimeoutMillis),
		RebalanceTimeout:  millis(q.RebalanceTimeoutMillis),
		ProtocolType:      q.ProtocolType,
		RequireKnownID:    q.Version >= 4,
		CanSkipAssignment: q.Version >= 9,
		Reply:             func(res group.JoinResult) { joined <- res },
	}
	if q.Version == 0 || q.RebalanceTimeoutMillis < 0 {
		jr.RebalanceTimeout = jr.SessionTimeout
	}
	prefix := r.ClientID
	if jr.InstanceID != "" {
		prefix = jr.InstanceID
	}
	jr.NewMemberID = prefix + "-" + uuid.NewString()
	for _, p := range q.Protocols {
		jr.Protocols = append(jr.Protocols, group.Protocol{Name: p.Name, Metadata: slices.Clone(p.Metadata)})
	}
	if !r.mayGroup(kmsg.ACLOperationRead, q.Group) {
		jr.Reply(group.JoinResult{Err: kerr.GroupAuthorizationFailed, MemberID: q.MemberID, Generation: -1})
	} else if q.Group == "" {
		jr.Reply(group.JoinResult{Err: kerr.InvalidGroupID, MemberID: q.MemberID, Generation: -1})
	} else if jr.SessionTimeout < b.cfg.MinSessionTimeout || jr.SessionTimeout > b.cfg.MaxSessionTimeout {
		// As in Kafka before the group is looked for, or made.
		jr.Reply(group.JoinResult{Err: kerr.InvalidSessionTimeout, MemberID: q.MemberID, Generation: -1})
	} else if g := b.groups.lock(q.Group, q.MemberID == ""); g == nil {
		// A member that says who it is belongs to a group that exists.
		jr.Reply(group.JoinResult{Err: kerr.UnknownMemberID, MemberID: q.MemberID, Generation: -1})
	} else {
		b.groups.apply(g, b.groups.join(g, b.cfg.Now(), jr))
		g.mu.Unlock()
	}
	return awaited(joined, func(res group.JoinResult) kmsg.Response {
		resp := response[*kmsg.JoinGroupResponse](q)
		resp.ErrorCode = code(res.Err)
		resp.Generation, resp.LeaderID, resp.MemberID, resp.SkipAssignment = res.Generation, res.Leader, res.MemberID, res.SkipAssignment
		resp.ProtocolType, resp.Protocol = nullable(res.ProtocolType), nullable(res.Protocol)
		if resp.Protocol == nil && q.Version < 7 {
			resp.Protocol = new(string)
		}
		for _, m := range res.Members {
			rm := kmsg.NewJoinGroupResponseMember()
			rm.MemberID, rm.InstanceID, rm.ProtocolMetadata = m.ID, nullable(m.InstanceID), m.Metadata
			resp.Members = append(resp.Members, rm)
		}
		return resp
	})
}

func (b *Broker) syncGroup(r *request, q *kmsg.SyncGroupRequest) reply {
	synced := make(chan group.SyncResult, 1)
	sr := group.SyncRequest{
		MemberID: q.MemberID, InstanceID: deref(q.InstanceID), Generation: q.Generation,
		ProtocolType: deref(q.ProtocolType), Protocol: deref(q.Protocol),
		Assignments: map[string][]byte{},
		Reply:       func(res group.SyncResult) { synced <- res },
	}
	for _, a := range q.GroupAssignment {
		sr.Assignments[a.MemberID] = slices.Clone(a.MemberAssignment)
	}
	if !r.mayGroup(kmsg.ACLOperationRead, q.Group) {
		sr.Reply(group.SyncResult{Err: kerr.GroupAuthorizationFailed})
	} else if q.Group == "" {
		sr.Reply(group.SyncResult{Err: kerr.InvalidGroupID})
	} else if g := b.groups.lock(q.Group, false); g == nil {
		sr.Reply(group.SyncResult{Err: kerr.UnknownMemberID})
	} else {
		b.groups.apply(g, b.groups.sync(g, b.cfg.Now(), sr))
		g.mu.Unlock()
	}
	return awaited(synced, func(res group.SyncResult) kmsg.Response {
		resp := response[*kmsg.SyncGroupResponse](q)
		resp.ErrorCode = code(res.Err)
		resp.ProtocolType, resp.Protocol = nullable(res.ProtocolType), nullable(res.Protocol)
		resp.MemberAssignment = res.Assignment
		return resp
	})
}

func (b *Broker) heartbeat(r *request, q *kmsg.HeartbeatRequest) reply {
	resp := response[*kmsg.HeartbeatResponse](q)
	if !r.mayGroup(kmsg.ACLOperationRead, q.Group) {
		resp.ErrorCode = kerr.GroupAuthorizationFailed.Code
	} else if q.Group == "" {
		resp.ErrorCode = kerr.InvalidGroupID.Code
	} else if g := b.groups.lock(q.Group, false); g == nil {
		resp.ErrorCode = kerr.UnknownMemberID.Code
	} else {
		resp.ErrorCode = code(b.groups.heartbeat(g, b.cfg.Now(), q.MemberID, deref(q.InstanceID), q.Generation))
		b.groups.settle(g)
		g.mu.Unlock()
	}
	return answer(resp)
}

func (b *Broker) leaveGroup(r *request, q *kmsg.LeaveGroupRequest) reply {
	resp := response[*kmsg.LeaveGroupResponse](q)
	leaving := []group.Leaving{{MemberID: q.MemberID}}
	if q.Version >= 3 {
		leaving = leaving[:0]
		for _, m := range q.Members {
			leaving = append(leaving, group.Leaving{MemberID: m.MemberID, InstanceID: deref(m.InstanceID)})
		}
	}
	errs := make([]error, len(leaving))
	var left *future
	if !r.mayGroup(kmsg.ACLOperationRead, q.Group) {
		resp.ErrorCode = kerr.GroupAuthorizationFailed.Code
		return answer(resp)
	}
	if q.Group == "" {
		resp.ErrorCode = kerr.InvalidGroupID.Code
		return answer(resp)
	}
	if g := b.groups.lock(q.Group, false); g == nil {
		for i := range errs {
			errs[i] = kerr.UnknownMemberID
		}
	} else {
		var e group.Effects
		errs, e = b.groups.leave(g, b.cfg.Now(), leaving)
		b.groups.apply(g, e)
		left = g.last
		g.mu.Unlock()
	}
	if q.Version < 3 {
		resp.ErrorCode = code(errs[0])
		return after(left, resp)
	}
	for i, l := range leaving {
		rm := kmsg.NewLeaveGroupResponseMember()
		rm.MemberID, rm.InstanceID, rm.ErrorCode = l.MemberID, q.Members[i].InstanceID, code(errs[i])
		resp.Members = append(resp.Members, rm)
	}
	return after(left, resp)
}

func (b *Broker) describeGroups(r *request, q *kmsg.DescribeGroupsRequest) reply {
	resp := response[*kmsg.DescribeGroupsResponse](q)
	for _, id := range q.Groups {
		rg := kmsg.NewDescribeGroupsResponseGroup()
		rg.Group, rg.State = id, group.Dead.String()
		if !r.mayGroup(kmsg.ACLOperationDescribe, id) {
			rg.State, rg.ErrorCode = "", kerr.GroupAuthorizationFailed.Code
			resp.Groups = append(resp.Groups, rg)
			continue
		}
		if q.IncludeAuthorizedOperations {
			rg.AuthorizedOperations = r.authorized(kmsg.ACLResourceTypeGroup, id)
		}
		g := b.groups.lock(id, false)
		if g != nil && g.modern != nil {
			g.mu.Unlock()
			g = nil // is for ConsumerGroupDescribe or StreamsGroupDescribe
		}
		if g == nil {
			if q.Version >= 6 {
				rg.ErrorCode, rg.ErrorMessage = kerr.GroupIDNotFound.Code, ptr("there is no classic group "+id)
			}
		} else {
			d := g.classic.Describe()
			g.mu.Unlock()
			rg.State, rg.ProtocolType, rg.Protocol = d.State.String(), d.ProtocolType, d.Protocol
			for _, m := range d.Members {
				rm := kmsg.NewDescribeGroupsResponseGroupMember()
				rm.MemberID, rm.InstanceID, rm.ClientID, rm.ClientHost = m.ID, nullable(m.InstanceID), m.ClientID, m.Host
				rm.ProtocolMetadata, rm.MemberAssignment = m.Metadata, m.Assignment
				rg.Members = append(rg.Members, rm)
			}
		}
		resp.Groups = append(resp.Groups, rg)
	}
	return answer(resp)
}

func (b *Broker) listGroups(r *request, q *kmsg.ListGroupsRequest) reply {
	resp := response[*kmsg.ListGroupsResponse](q)
	matches := func(filter []string, value string) bool {
		return len(filter) == 0 || slices.ContainsFunc(filter, func(f string) bool { return strings.EqualFold(f, value) })
	}
	all := r.mayCluster(kmsg.ACLOperationDescribe)
	b.groups.each(func(g *consumers) {
		if !all && !r.mayGroup(kmsg.ACLOperationDescribe, g.id) {
			return
		}
		lg := kmsg.NewListGroupsResponseGroup()
		lg.Group, lg.GroupState = g.id, g.state()
		lg.ProtocolType, lg.GroupType = g.classic.ProtocolType(), g.protocol()
		if g.modern != nil {
			lg.ProtocolType = lg.GroupType
		}
		if matches(q.StatesFilter, lg.GroupState) && matches(q.TypesFilter, lg.GroupType) {
			resp.Groups = append(resp.Groups, lg)
		}
	})
	return answer(resp)
}

func (b *Broker) deleteGroups(r *request, q *kmsg.DeleteGroupsRequest) reply {
	resp := response[*kmsg.DeleteGroupsResponse](q)
	var deleted []*future
	for _, id := range q.Groups {
		rg := kmsg.NewDeleteGroupsResponseGroup()
		rg.Group = id
		if !r.mayGroup(kmsg.ACLOperationDelete, id) {
			rg.ErrorCode = kerr.GroupAuthorizationFailed.Code
		} else if g := b.groups.lock(id, false); g == nil {
			rg.ErrorCode = kerr.GroupIDNotFound.Code
		} else {
			f, err := b.groups.delete(g, b.cfg.Now())
			g.mu.Unlock()
			if rg.ErrorCode = code(err); err == nil {
				deleted = append(deleted, f)
			}
		}
		resp.Groups = append(resp.Groups, rg)
	}
	return both(resp, deleted...)
}
