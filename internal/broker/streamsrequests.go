package broker

import (
	"maps"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/moldau/moldau/internal/broker/group"
)

// streamsGroupHeartbeat is the one request of members of the streams protocol (KIP-1071). Static members, warm-up tasks and
// topics by regular expression are refused, as in Kafka 4.3.
func (b *Broker) streamsGroupHeartbeat(r *request, q *kmsg.StreamsGroupHeartbeatRequest) reply {
	resp := response[*kmsg.StreamsGroupHeartbeatResponse](q)
	fail := func(no *refusal) reply {
		resp.ErrorCode, resp.ErrorMessage = no.answer()
		return answer(resp)
	}
	if !r.mayGroup(kmsg.ACLOperationRead, q.Group) {
		return fail(refuse(kerr.GroupAuthorizationFailed, "%s may not read group %s", r.principal, q.Group))
	}
	hr, no := streamsRequest(q)
	if no == nil && hr.Topology != nil {
		no = r.mayRun(hr.Topology)
	}
	if no != nil {
		return fail(no)
	}
	hr.ClientID, hr.Host, hr.Local = r.ClientID, r.conn.host, r.conn.listener == nil
	res, written, err := b.streamsHeartbeat(q.Group, hr)
	if err == nil && len(res.Missing) > 0 {
		// What is made is there at once, so the group is asked again: a member that joins may join again, another is in the epoch that
		// it was told, as was what it has.
		if detail := b.createInternal(r, res.Missing); detail == "" {
			if hr.Topology == nil {
				hr.Epoch = res.Epoch
			}
			told := res.Assigned
			if res, written, err = b.streamsHeartbeat(q.Group, hr); res.Assigned == nil {
				res.Assigned = told
			}
		} else {
			last := &res.Status[slices.IndexFunc(res.Status, func(s group.Status) bool { return s.Code == group.MissingInternalTopics })]
			last.Detail += "; " + detail
		}
	}
	if err != nil {
		resp.ErrorCode, resp.ErrorMessage = code(err), ptr(err.Error())
		return answer(resp)
	}
	resp.MemberID, resp.MemberEpoch, resp.HeartbeatIntervalMillis = res.MemberID, res.Epoch, int32(res.Interval.Milliseconds())
	for _, s := range res.Status {
		resp.Status = append(resp.Status, kmsg.StreamsGroupHeartbeatResponseStatus{StatusCode: s.Code, StatusDetail: s.Detail})
	}
	if res.Assigned != nil {
		resp.ActiveTasks, resp.StandbyTasks, resp.WarmupTasks = taskIDs(res.Assigned, false), taskIDs(res.Assigned, true), []kmsg.TaskIDs{}
	}
	resp.EndpointInformationEpoch = res.EndpointEpoch
	if res.EndpointsGiven {
		resp.PartitionsByUserEndpoint = []kmsg.StreamsGroupHeartbeatResponsePartitionsByUserEndpoint{}
	}
	for _, e := range res.Endpoints {
		re := kmsg.NewStreamsGroupHeartbeatResponsePartitionsByUserEndpoint()
		re.UserEndpoint.Host, re.UserEndpoint.Port = e.Endpoint.Host, e.Endpoint.Port
		for _, p := range e.Active {
			re.ActivePartitions = append(re.ActivePartitions, kmsg.StreamsGroupHeartbeatResponsePartitionsByUserEndpointActivePartition{Topic: p.Topic, Partitions: p.Partitions})
		}
		for _, p := range e.Standby {
			re.StandbyPartitions = append(re.StandbyPartitions, kmsg.StreamsGroupHeartbeatResponsePartitionsByUserEndpointStandbyPartition{Topic: p.Topic, Partitions: p.Partitions})
		}
		resp.PartitionsByUserEndpoint = append(resp.PartitionsByUserEndpoint, re)
	}
	return after(written, resp)
}

// streamsHeartbeat is one step of a member of a group, with the write to wait for.
func (b *Broker) streamsHeartbeat(id string, hr group.StreamsRequest) (group.StreamsResult, *future, error) {
	joining := hr.Topology != nil
	g := b.groups.lock(id, joining)
	if g == nil {
		return group.StreamsResult{}, nil, kerr.GroupIDNotFound
	}
	defer g.mu.Unlock()
	now := b.cfg.Now()
	streams := g.streams()
	if joining {
		streams = b.groups.asStreams(g, now)
	}
	if streams == nil {
		return group.StreamsResult{}, nil, kerr.GroupIDNotFound
	}
	res, err := streams.Heartbeat(now, hr, b.catalog.current.Load())
	if err == nil && g.modern == nil {
		g.classic, g.modern, g.changed = group.NewClassic(id, b.groups.limits, now), streams, true
	}
	b.groups.settle(g)
	return res, g.last, err
}

// streamsRequest reads a request.
func streamsRequest(q *kmsg.StreamsGroupHeartbeatRequest) (group.StreamsRequest, *refusal) {
	hr := group.StreamsRequest{
		MemberID: q.MemberID, Epoch: q.MemberEpoch, Rack: q.RackID, Process: q.ProcessID, RebalanceTimeout: millis(q.RebalanceTimeoutMillis),
		EndpointEpoch: q.EndpointInformationEpoch, Shutdown: q.ShutdownApplication,
	}
	given := 0
	for _, tasks := range [][]kmsg.TaskIDs{q.ActiveTasks, q.StandbyTasks, q.WarmupTasks} {
		if tasks != nil {
			given++
		}
	}
	switch {
	case q.InstanceID != nil:
		return hr, refuse(kerr.InvalidRequest, "static membership is not yet supported for groups of the streams protocol")
	case q.TaskOffsets != nil, q.TaskEndOffsets != nil, len(q.WarmupTasks) > 0:
		return hr, refuse(kerr.InvalidRequest, "task offsets and warm-up tasks are not supported yet")
	case q.Group == "", q.MemberID == "":
		return hr, refuse(kerr.InvalidRequest, "the group or the member id is empty")
	case given != 0 && given != 3:
		return hr, refuse(kerr.InvalidRequest, "if one kind of tasks is given, all must be")
	}
	if given > 0 {
		hr.Owned = group.Tasks{}
	}
	for standby, tasks := range map[bool][]kmsg.TaskIDs{false: q.ActiveTasks, true: q.StandbyTasks} {
		for _, t := range tasks {
			for _, p := range t.Partitions {
				hr.Owned[group.Task{Subtopology: t.SubtopologyID, Partition: p}] = group.Held{Standby: standby}
			}
		}
	}
	if q.UserEndpoint != nil {
		hr.Endpoint = &group.Endpoint{Host: q.UserEndpoint.Host, Port: q.UserEndpoint.Port}
	}
	if q.ClientTags != nil {
		hr.Tags = []group.Setting{}
	}
	for _, t := range q.ClientTags {
		hr.Tags = append(hr.Tags, group.Setting{Key: t.Key, Value: t.Value})
	}
	if q.Topology != nil {
		var no *refusal
		if hr.Topology, no = readTopology(q.Topology); no != nil {
			return hr, no
		}
	}
	if err := hr.Check(); err != nil {
		return hr, refuse(err, "the heartbeat contradicts itself: a topology comes with epoch 0 and only with it, then with a rebalance timeout and without tasks; there are at most 1,000 subtopologies, each named once, and their changelogs have no number of partitions")
	}
	return hr, nil
}

func readTopology(q *kmsg.StreamsGroupHeartbeatRequestTopology) (*group.Topology, *refusal) {
	t := &group.Topology{Epoch: q.Epoch}
	internal := func(in []kmsg.TopicInfo) (out []group.InternalTopic) {
		for _, i := range in {
			topic := group.InternalTopic{Name: i.Topic, Partitions: i.NumPartitions, Replication: i.ReplicationFactor}
			for _, c := range i.Configs {
				topic.Settings = append(topic.Settings, group.Setting{Key: c.Key, Value: c.Value})
			}
			out = append(out, topic)
		}
		return out
	}
	for _, s := range q.Subtopologies {
		if len(s.SourceTopicRegex) > 0 {
			return nil, refuse(kerr.InvalidRequest, "subtopology %s: regular expressions for source topics are not supported yet", s.SubtopologyID)
		}
		sub := group.Subtopology{
			ID: s.SubtopologyID, Sources: s.SourceTopics, Sinks: s.RepartitionSinkTopics,
			Repartitions: internal(s.RepartitionSourceTopics), Changelogs: internal(s.StateChangelogTopics),
		}
		for _, c := range s.CopartitionGroups {
			var names []string
			for _, i := range c.SourceTopics {
				if int(i) >= len(sub.Sources) || i < 0 {
					return nil, refuse(kerr.InvalidRequest, "subtopology %s has no source topic %d", sub.ID, i)
				}
				names = append(names, sub.Sources[i])
			}
			for _, i := range c.RepartitionSourceTopics {
				if int(i) >= len(sub.Repartitions) || i < 0 {
					return nil, refuse(kerr.InvalidRequest, "subtopology %s has no repartition topic %d", sub.ID, i)
				}
				names = append(names, sub.Repartitions[i].Name)
			}
			sub.Copartitioned = append(sub.Copartitioned, names)
		}
		t.Subtopologies = append(t.Subtopologies, sub)
	}
	return t, nil
}

// topicsOf returns the names in a topology.
func topicsOf(t *group.Topology) []string {
	var names []string
	for _, s := range t.Subtopologies {
		names = append(append(names, s.Sources...), s.Sinks...)
		for _, in := range slices.Concat(s.Repartitions, s.Changelogs) {
			names = append(names, in.Name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// mayRun says what forbids a client to run a topology.
func (r *request) mayRun(t *group.Topology) *refusal {
	names := topicsOf(t)
	for _, name := range names {
		if err := checkName(name); err != nil {
			return refuse(kerr.StreamsInvalidTopology, "%v", err)
		}
		if (&topic{name: name}).internal() {
			return refuse(kerr.StreamsInvalidTopology, "topic %s is Kafka's own", name)
		}
	}
	for _, name := range names {
		if !r.mayTopic(kmsg.ACLOperationDescribe, name) {
			return refuse(kerr.TopicAuthorizationFailed, "%s may not describe all topics of the topology", r.principal)
		}
	}
	return nil
}

// createInternal makes the topics a group misses, for a member that may, and says which it could not make.
func (b *Broker) createInternal(r *request, missing []group.InternalTopic) string {
	var news []newTopic
	var forbidden, failed []string
	for _, in := range missing {
		if !r.mayCreate(in.Name) {
			forbidden = append(forbidden, in.Name)
		}
		n := newTopic{name: in.Name, partitions: in.Partitions, settings: map[string]string{}}
		for _, s := range in.Settings {
			n.settings[s.Key] = s.Value
		}
		news = append(news, n)
	}
	if len(forbidden) > 0 {
		return "Unauthorized to CREATE on topics " + strings.Join(forbidden, ", ") + "."
	}
	_, no := b.catalog.create(news, false, r.mutations(true).take)
	for i := range no {
		if no[i] != nil && no[i].err != kerr.TopicAlreadyExists { // another member was faster
			failed = append(failed, news[i].name+" ("+no[i].msg+")")
		}
	}
	if len(failed) > 0 {
		return "Creation failed: " + strings.Join(failed, ", ") + "."
	}
	return ""
}

// taskIDs are the tasks of a role.
func taskIDs(tasks group.Tasks, standby bool) []kmsg.TaskIDs {
	out := []kmsg.TaskIDs{}
	for _, t := range slices.SortedFunc(maps.Keys(tasks), group.Task.Compare) {
		if tasks[t].Standby != standby {
			continue
		}
		if n := len(out); n == 0 || out[n-1].SubtopologyID != t.Subtopology {
			out = append(out, kmsg.TaskIDs{SubtopologyID: t.Subtopology})
		}
		last := &out[len(out)-1]
		last.Partitions = append(last.Partitions, t.Partition)
	}
	return out
}

func (b *Broker) streamsGroupDescribe(r *request, q *kmsg.StreamsGroupDescribeRequest) reply {
	resp := response[*kmsg.StreamsGroupDescribeResponse](q)
	for _, id := range q.Groups {
		resp.Groups = append(resp.Groups, b.describeStreams(r, id, q.IncludeAuthorizedOperations))
	}
	return answer(resp)
}

func (b *Broker) describeStreams(r *request, id string, operations bool) kmsg.StreamsGroupDescribeResponseGroup {
	rg := kmsg.NewStreamsGroupDescribeResponseGroup()
	rg.Group = id
	if !r.mayGroup(kmsg.ACLOperationDescribe, id) {
		rg.ErrorCode = kerr.GroupAuthorizationFailed.Code
		return rg
	}
	g := b.groups.lock(id, false)
	if g == nil || g.streams() == nil {
		if g != nil {
			g.mu.Unlock()
		}
		rg.ErrorCode, rg.ErrorMessage = kerr.GroupIDNotFound.Code, ptr("there is no streams group "+id)
		return rg
	}
	d := g.streams().Describe()
	g.mu.Unlock()
	if d.Topology != nil && slices.ContainsFunc(topicsOf(d.Topology), func(name string) bool { return !r.mayTopic(kmsg.ACLOperationDescribe, name) }) {
		rg.ErrorCode, rg.ErrorMessage = kerr.TopicAuthorizationFailed.Code, ptr("the group uses topics that the client may not describe")
		return rg
	}
	if operations {
		rg.AuthorizedOperations = r.authorized(kmsg.ACLResourceTypeGroup, id)
	}
	rg.State, rg.Epoch, rg.AssignmentEpoch = d.State, d.Epoch, d.TargetEpoch
	if d.Topology != nil {
		rg.Topology = describeTopology(d.Topology)
	}
	assignment := func(tasks group.Tasks) kmsg.StreamsAssignment {
		a := kmsg.NewStreamsAssignment()
		a.ActiveTasks, a.StandbyTasks = taskIDs(tasks, false), taskIDs(tasks, true)
		return a
	}
	for _, m := range d.Members {
		rm := kmsg.NewStreamsGroupDescribeResponseGroupMember()
		rm.MemberID, rm.MemberEpoch, rm.RackID, rm.ClientID, rm.ClientHost = m.ID, m.Epoch, nullable(m.Rack), m.ClientID, m.Host
		rm.TopologyEpoch, rm.ProcessID = m.TopologyEpoch, m.Process
		if m.Endpoint != nil {
			rm.UserEndpoint = &kmsg.StreamsGroupDescribeResponseGroupMemberUserEndpoint{Host: m.Endpoint.Host, Port: m.Endpoint.Port}
		}
		for _, t := range m.Tags {
			rm.ClientTags = append(rm.ClientTags, kmsg.StreamsGroupDescribeResponseGroupMemberClientTag{Key: t.Key, Value: t.Value})
		}
		rm.Assignment, rm.TargetAssignment = assignment(m.Assigned), assignment(m.Target)
		rg.Members = append(rg.Members, rm)
	}
	return rg
}

func describeTopology(t *group.Topology) *kmsg.StreamsGroupDescribeResponseGroupTopology {
	rt := kmsg.NewStreamsGroupDescribeResponseGroupTopology()
	rt.Epoch, rt.Subtopologies = t.Epoch, []kmsg.StreamsGroupDescribeResponseGroupTopologySubtopology{}
	topics := func(in []group.InternalTopic) (out []kmsg.TopicInfo) {
		for _, i := range in {
			info := kmsg.TopicInfo{Topic: i.Name, NumPartitions: i.Partitions, ReplicationFactor: i.Replication}
			for _, s := range i.Settings {
				info.Configs = append(info.Configs, kmsg.TopicInfoConfig{Key: s.Key, Value: s.Value})
			}
			out = append(out, info)
		}
		return out
	}
	for _, s := range t.Subtopologies {
		rs := kmsg.NewStreamsGroupDescribeResponseGroupTopologySubtopology()
		rs.SubtopologyID, rs.SourceTopics, rs.RepartitionSinkTopics = s.ID, s.Sources, s.Sinks
		rs.StateChangelogTopics, rs.RepartitionSourceTopics = topics(s.Changelogs), topics(s.Repartitions)
		rt.Subtopologies = append(rt.Subtopologies, rs)
	}
	return &rt
}
