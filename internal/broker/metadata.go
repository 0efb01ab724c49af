package broker

import (
	"cmp"
	"net"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/moldau/moldau/internal/broker/log"
)

// nodeID is the broker's id: there is one.
const nodeID = 1

// localHost and localPort are what clients in this process are told to connect to. It leads back to Dial, whose address
// does not matter; no resolver knows the name.
const (
	localHost = "moldau.invalid"
	localPort = 9092
)

func splitHostPort(s string) (host string, port int32, err error) {
	host, p, err := net.SplitHostPort(s)
	if err != nil {
		return "", 0, err
	}
	n, err := strconv.ParseUint(p, 10, 16)
	return host, int32(n), err
}

// address returns where the client of a connection is told to connect to.
func (c *conn) address() (host string, port int32) {
	if c.listener == nil {
		return localHost, localPort
	}
	return c.listener.host, c.listener.port
}

func ptr[T any](v T) *T { return &v }

func (b *Broker) metadata(r *request, q *kmsg.MetadataRequest) reply {
	resp := response[*kmsg.MetadataResponse](q)
	mb := kmsg.NewMetadataResponseBroker()
	mb.NodeID = nodeID
	mb.Host, mb.Port = r.conn.address()
	resp.Brokers = append(resp.Brokers, mb)
	resp.ClusterID = &b.clusterID
	resp.ControllerID = nodeID
	if q.IncludeClusterAuthorizedOperations {
		resp.AuthorizedOperations = r.authorizedCluster()
	}

	add := func(t *topic) {
		mt := kmsg.NewMetadataResponseTopic()
		mt.Topic, mt.TopicID, mt.IsInternal = &t.name, t.id, t.internal()
		if q.IncludeTopicAuthorizedOperations {
			mt.AuthorizedOperations = r.authorized(kmsg.ACLResourceTypeTopic, t.name)
		}
		mt.Partitions = make([]kmsg.MetadataResponseTopicPartition, len(t.partitions))
		for i, p := range t.partitions {
			mp := &mt.Partitions[i]
			mp.Default()
			mp.Partition, mp.Leader, mp.LeaderEpoch = int32(i), nodeID, p.LeaderEpoch()
			mp.Replicas, mp.ISR = []int32{nodeID}, []int32{nodeID}
		}
		resp.Topics = append(resp.Topics, mt)
	}
	fail := func(name *string, id [16]byte, err *kerr.Error) {
		mt := kmsg.NewMetadataResponseTopic()
		mt.Topic, mt.TopicID, mt.ErrorCode = name, id, err.Code
		if name == nil && q.Version < 12 {
			mt.Topic = new(string)
		}
		resp.Topics = append(resp.Topics, mt)
	}

	if q.Topics == nil || q.Version == 0 && len(q.Topics) == 0 {
		for _, t := range b.catalog.all() {
			if r.mayTopic(kmsg.ACLOperationDescribe, t.name) {
				add(t)
			}
		}
		return answer(resp)
	}
	for _, want := range q.Topics {
		var none [16]byte
		if want.Topic == nil {
			if t := b.catalog.topicByID(want.TopicID); t != nil && want.TopicID != none && r.mayTopic(kmsg.ACLOperationDescribe, t.name) {
				add(t)
			} else {
				fail(nil, want.TopicID, kerr.UnknownTopicID)
			}
			continue
		}
		if !r.mayTopic(kmsg.ACLOperationDescribe, *want.Topic) {
			fail(want.Topic, none, kerr.TopicAuthorizationFailed)
			continue
		}
		t := b.catalog.topic(*want.Topic)
		if t == nil && !b.cfg.NoAutoCreate && (q.Version < 4 || q.AllowAutoTopicCreation) {
			if !r.mayCreate(*want.Topic) {
				fail(want.Topic, none, kerr.TopicAuthorizationFailed)
				continue
			}
			ts, no := b.catalog.create([]newTopic{{name: *want.Topic, partitions: b.cfg.DefaultPartitions}}, false, r.mutations(true).take)
			switch {
			case no[0] == nil:
				t = ts[0]
			case code(no[0].err) == kerr.TopicAlreadyExists.Code:
				t = b.catalog.topic(*want.Topic) // another client was faster
			case code(no[0].err) == kerr.ThrottlingQuotaExceeded.Code:
				// It does not exist, and clients ask again.
			default:
				fail(want.Topic, none, no[0].err)
				continue
			}
		}
		switch {
		case t != nil:
			add(t)
		case checkName(*want.Topic) != nil:
			fail(want.Topic, none, kerr.InvalidTopicException)
		default:
			fail(want.Topic, none, kerr.UnknownTopicOrPartition)
		}
	}
	return answer(resp)
}

func (b *Broker) describeCluster(r *request, q *kmsg.DescribeClusterRequest) reply {
	resp := response[*kmsg.DescribeClusterResponse](q)
	resp.ClusterID = b.clusterID
	resp.ControllerID = nodeID
	resp.EndpointType = q.EndpointType
	if q.Version >= 1 && q.EndpointType != 1 {
		resp.ErrorCode = kerr.MismatchedEndpointType.Code
		if q.EndpointType != 2 {
			resp.ErrorCode = kerr.UnsupportedEndpointType.Code
		}
		resp.ErrorMessage = ptr("this is a broker: ask it for brokers")
		return answer(resp)
	}
	if q.IncludeClusterAuthorizedOperations {
		resp.ClusterAuthorizedOperations = r.authorizedCluster()
	}
	db := kmsg.NewDescribeClusterResponseBroker()
	db.NodeID = nodeID
	db.Host, db.Port = r.conn.address()
	resp.Brokers = append(resp.Brokers, db)
	return answer(resp)
}

func (b *Broker) findCoordinator(r *request, q *kmsg.FindCoordinatorRequest) reply {
	resp := response[*kmsg.FindCoordinatorResponse](q)
	host, port := r.conn.address()
	// Types: 0 a group, 1 a transactional id, 2 a share group.
	var failure *kerr.Error
	if q.CoordinatorType != 0 && q.CoordinatorType != 1 {
		failure = kerr.InvalidRequest
	}
	switch q.CoordinatorType {
	case 0:
		b.catalog.ensure(offsetsTopic)
	case 1:
		b.catalog.ensure(transactionsTopic)
	}
	refused := func(key string) *kerr.Error {
		switch {
		case q.CoordinatorType == 0 && !r.mayGroup(kmsg.ACLOperationDescribe, key):
			return kerr.GroupAuthorizationFailed
		case q.CoordinatorType == 1 && !r.mayTransact(kmsg.ACLOperationDescribe, key):
			return kerr.TransactionalIDAuthorizationFailed
		}
		return failure
	}
	if q.Version < 4 {
		failure = refused(q.CoordinatorKey)
		resp.NodeID, resp.Host, resp.Port = nodeID, host, port
		if failure != nil {
			resp.NodeID, resp.Host, resp.Port, resp.ErrorCode = -1, "", -1, failure.Code
		}
		return answer(resp)
	}
	for _, key := range q.CoordinatorKeys {
		c := kmsg.NewFindCoordinatorResponseCoordinator()
		c.Key, c.NodeID, c.Host, c.Port = key, nodeID, host, port
		if failure := refused(key); failure != nil {
			c.NodeID, c.Host, c.Port, c.ErrorCode = -1, "", -1, failure.Code
		}
		resp.Coordinators = append(resp.Coordinators, c)
	}
	return answer(resp)
}

func (b *Broker) describeTopicPartitions(r *request, q *kmsg.DescribeTopicPartitionsRequest) reply {
	resp := response[*kmsg.DescribeTopicPartitionsResponse](q)
	var names []string
	if len(q.Topics) == 0 {
		for _, t := range b.catalog.all() {
			if r.mayTopic(kmsg.ACLOperationDescribe, t.name) {
				names = append(names, t.name)
			}
		}
	}
	for _, t := range q.Topics {
		names = append(names, t.Topic)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	var first int32
	if q.Cursor != nil {
		if q.Cursor.Partition < 0 {
			resp.NextCursor = nil
			return answer(resp)
		}
		i, found := slices.BinarySearch(names, q.Cursor.Topic)
		names = names[i:]
		if found {
			first = q.Cursor.Partition
		}
	}
	left := int(q.ResponsePartitionLimit)
	if left <= 0 || left > 2000 {
		left = 2000
	}
	for _, name := range names {
		rt := kmsg.NewDescribeTopicPartitionsResponseTopic()
		rt.Topic = ptr(name)
		if !r.mayTopic(kmsg.ACLOperationDescribe, name) {
			rt.ErrorCode = kerr.TopicAuthorizationFailed.Code
			resp.Topics = append(resp.Topics, rt)
			continue
		}
		rt.AuthorizedOperations = r.authorized(kmsg.ACLResourceTypeTopic, name)
		t := b.catalog.topic(name)
		if t == nil {
			rt.ErrorCode = kerr.UnknownTopicOrPartition.Code
			if checkName(name) != nil {
				rt.ErrorCode = kerr.InvalidTopicException.Code
			}
			resp.Topics = append(resp.Topics, rt)
			continue
		}
		if left == 0 {
			resp.NextCursor = &kmsg.DescribeTopicPartitionsResponseNextCursor{Topic: name}
			break
		}
		rt.TopicID, rt.IsInternal = t.id, t.internal()
		for p := first; int(p) < len(t.partitions) && left > 0; p++ {
			rp := kmsg.NewDescribeTopicPartitionsResponseTopicPartition()
			rp.Partition, rp.LeaderID, rp.LeaderEpoch = p, nodeID, t.partitions[p].LeaderEpoch()
			rp.Replicas, rp.ISR = []int32{nodeID}, []int32{nodeID}
			// Java's client cannot read null here, though the protocol allows it.
			rp.EligibleLeaderReplicas, rp.LastKnownELR = []int32{}, []int32{}
			rt.Partitions = append(rt.Partitions, rp)
			left--
		}
		resp.Topics = append(resp.Topics, rt)
		if done := int(first) + len(rt.Partitions); done < len(t.partitions) {
			resp.NextCursor = &kmsg.DescribeTopicPartitionsResponseNextCursor{Topic: name, Partition: int32(done)}
			break
		}
		first = 0
	}
	return answer(resp)
}

func (b *Broker) describeLogDirs(r *request, q *kmsg.DescribeLogDirsRequest) reply {
	resp := response[*kmsg.DescribeLogDirsResponse](q)
	if !r.mayCluster(kmsg.ACLOperationDescribe) {
		resp.ErrorCode = kerr.ClusterAuthorizationFailed.Code
		return answer(resp)
	}
	dir := kmsg.NewDescribeLogDirsResponseDir()
	dir.Dir = b.cfg.Dir
	add := func(t *topic, partitions []int32) {
		dt := kmsg.NewDescribeLogDirsResponseDirTopic()
		dt.Topic = t.name
		for _, i := range partitions {
			if p := t.partition(i); p != nil {
				dp := kmsg.NewDescribeLogDirsResponseDirTopicPartition()
				dp.Partition, dp.Size = i, p.Size()
				dt.Partitions = append(dt.Partitions, dp)
			}
		}
		dir.Topics = append(dir.Topics, dt)
	}
	if q.Topics == nil {
		for _, t := range b.catalog.all() {
			add(t, indexes(t.partitions))
		}
	}
	for _, want := range q.Topics {
		if t := b.catalog.topic(want.Topic); t != nil {
			add(t, want.Partitions)
		}
	}
	if u, err := b.cfg.FS.GetDiskUsage(b.cfg.Dir); err == nil {
		dir.TotalBytes, dir.UsableBytes = int64(u.TotalBytes), int64(u.AvailBytes)
	}
	resp.Dirs = append(resp.Dirs, dir)
	return answer(resp)
}

func indexes(ps []*log.Partition) []int32 {
	out := make([]int32, len(ps))
	for i := range ps {
		out[i] = int32(i)
	}
	return out
}

// electLeaders answers that the one node leads everything already.
func (b *Broker) electLeaders(r *request, q *kmsg.ElectLeadersRequest) reply {
	resp := response[*kmsg.ElectLeadersResponse](q)
	if !r.mayCluster(kmsg.ACLOperationAlter) {
		resp.ErrorCode = kerr.ClusterAuthorizationFailed.Code
		return answer(resp)
	}
	add := func(name string, partitions []int32) {
		rt := kmsg.NewElectLeadersResponseTopic()
		rt.Topic = name
		t := b.catalog.topic(name)
		for _, p := range partitions {
			rp := kmsg.NewElectLeadersResponseTopicPartition()
			rp.Partition, rp.ErrorCode = p, kerr.ElectionNotNeeded.Code
			if t.partition(p) == nil {
				rp.ErrorCode = kerr.UnknownTopicOrPartition.Code
			}
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	for _, t := range q.Topics {
		add(t.Topic, t.Partitions)
	}
	return answer(resp)
}

// listPartitionReassignments answers that nothing moves.
func (b *Broker) listPartitionReassignments(r *request, q *kmsg.ListPartitionReassignmentsRequest) reply {
	resp := response[*kmsg.ListPartitionReassignmentsResponse](q)
	if !r.mayCluster(kmsg.ACLOperationDescribe) {
		resp.ErrorCode = kerr.ClusterAuthorizationFailed.Code
	}
	return answer(resp)
}

func (b *Broker) offsetForLeaderEpoch(r *request, q *kmsg.OffsetForLeaderEpochRequest) reply {
	resp := response[*kmsg.OffsetForLeaderEpochResponse](q)
	for _, qt := range q.Topics {
		rt := kmsg.NewOffsetForLeaderEpochResponseTopic()
		rt.Topic = qt.Topic
		t := b.catalog.topic(qt.Topic)
		for _, qp := range qt.Partitions {
			rp := kmsg.NewOffsetForLeaderEpochResponseTopicPartition()
			rp.Partition, rp.LeaderEpoch, rp.EndOffset = qp.Partition, -1, -1
			p := t.partition(qp.Partition)
			if !r.mayTopic(kmsg.ACLOperationDescribe, qt.Topic) {
				rp.ErrorCode = kerr.TopicAuthorizationFailed.Code
			} else if p == nil {
				rp.ErrorCode = kerr.UnknownTopicOrPartition.Code
			} else if err := checkLeaderEpoch(p, qp.CurrentLeaderEpoch); err != nil {
				rp.ErrorCode = code(err)
			} else {
				rp.LeaderEpoch, rp.EndOffset = p.EndOffsetForEpoch(qp.LeaderEpoch)
			}
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return answer(resp)
}

// checkLeaderEpoch compares the leader epoch a client knows with the partition's; -1 is a client that knows none.
func checkLeaderEpoch(p *log.Partition, known int32) error {
	if known < 0 {
		return nil
	}
	switch cmp.Compare(known, p.LeaderEpoch()) {
	case -1:
		return kerr.FencedLeaderEpoch
	case 1:
		return kerr.UnknownLeaderEpoch
	}
	return nil
}
