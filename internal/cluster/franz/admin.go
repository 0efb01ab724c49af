package franz

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/moldau/moldau/internal/cluster"
)

type admin struct{ *Cluster }

// Requests of this package give up on a single broker's work after this many ms; contexts may end earlier.
const brokerTimeout = 30_000

func (a admin) List(ctx context.Context) ([]string, error) {
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = nil // all
	resp, err := req.RequestWith(ctx, a.cl)
	if err != nil {
		return nil, wrap(err, "listing topics")
	}
	var names []string
	for _, t := range resp.Topics {
		if !t.IsInternal && t.Topic != nil {
			names = append(names, *t.Topic)
		}
	}
	slices.Sort(names)
	return names, nil
}

func (a admin) Describe(ctx context.Context, topics ...string) (map[string]cluster.TopicInfo, error) {
	infos := make(map[string]cluster.TopicInfo, len(topics))
	if len(topics) == 0 {
		return infos, nil
	}
	req := kmsg.NewPtrMetadataRequest()
	for _, t := range topics {
		rt := kmsg.NewMetadataRequestTopic()
		rt.Topic = kmsg.StringPtr(t)
		req.Topics = append(req.Topics, rt)
	}
	resp, err := req.RequestWith(ctx, a.cl)
	if err != nil {
		return nil, wrap(err, "describing topics")
	}
	conf := kmsg.NewPtrDescribeConfigsRequest()
	for _, t := range resp.Topics {
		if t.ErrorCode == kerr.UnknownTopicOrPartition.Code {
			continue
		}
		// A topic that was created a moment ago may have no leader yet; it exists all the same.
		if t.ErrorCode != 0 && t.ErrorCode != kerr.LeaderNotAvailable.Code {
			return nil, code(t.ErrorCode, "describing topic %q", *t.Topic)
		}
		infos[*t.Topic] = cluster.TopicInfo{ID: t.TopicID, Partitions: int32(len(t.Partitions))}
		r := kmsg.NewDescribeConfigsRequestResource()
		r.ResourceType, r.ResourceName = kmsg.ConfigResourceTypeTopic, *t.Topic
		conf.Resources = append(conf.Resources, r)
	}
	if len(conf.Resources) == 0 {
		return infos, nil
	}
	confs, err := conf.RequestWith(ctx, a.cl)
	if err != nil {
		return nil, wrap(err, "describing the settings of topics")
	}
	for _, r := range confs.Resources {
		info, ok := infos[r.ResourceName]
		if !ok || r.ErrorCode != 0 {
			continue
		}
		info.Config = make(map[string]string, len(r.Configs))
		for _, c := range r.Configs {
			if c.Value != nil {
				info.Config[c.Name] = *c.Value
			}
		}
		info.MaxRecord = a.maxRecord(info.Config["max.message.bytes"])
		infos[r.ResourceName] = info
	}
	return infos, nil
}

// batchCost is more than what a batch of one record costs besides its key, value and headers.
const batchCost = 150

// maxRecord is the largest record that both the topic and our producers take.
func (a admin) maxRecord(topic string) int {
	most := 0
	if n, ok := a.cl.OptValue(kgo.ProducerBatchMaxBytes).(int32); ok {
		most = int(n)
	}
	if n, err := strconv.Atoi(topic); err == nil && (most == 0 || n < most) {
		most = n
	}
	return max(most-batchCost, 0)
}

func (a admin) Create(ctx context.Context, topics ...cluster.TopicSpec) error {
	if len(topics) == 0 {
		return nil
	}
	req := kmsg.NewPtrCreateTopicsRequest()
	req.TimeoutMillis = brokerTimeout
	names := make([]string, 0, len(topics))
	for _, t := range topics {
		names = append(names, t.Name)
		rt := kmsg.NewCreateTopicsRequestTopic()
		rt.Topic, rt.NumPartitions, rt.ReplicationFactor = t.Name, t.Partitions, t.Replication
		if t.Replication == 0 {
			rt.ReplicationFactor = -1
		}
		for _, k := range slices.Sorted(maps.Keys(t.Config)) {
			c := kmsg.NewCreateTopicsRequestTopicConfig()
			c.Name, c.Value = k, kmsg.StringPtr(t.Config[k])
			rt.Configs = append(rt.Configs, c)
		}
		req.Topics = append(req.Topics, rt)
	}
	resp, err := req.RequestWith(ctx, a.cl)
	if err != nil {
		return wrap(err, "creating topics")
	}
	var errs []error
	for _, t := range resp.Topics {
		if t.ErrorCode == 0 || t.ErrorCode == kerr.TopicAlreadyExists.Code {
			continue
		}
		err := code(t.ErrorCode, "creating topic %q", t.Topic)
		if t.ErrorMessage != nil {
			err = wrap(kerr.ErrorForCode(t.ErrorCode), "creating topic %q (%s)", t.Topic, *t.ErrorMessage)
		}
		errs = append(errs, err)
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	return a.awaitTopics(ctx, names)
}

// awaitTopics waits until brokers know topics that the controller has created, so that whoever comes next finds them.
func (a admin) awaitTopics(ctx context.Context, names []string) error {
	for {
		req := kmsg.NewPtrMetadataRequest()
		for _, n := range names {
			t := kmsg.NewMetadataRequestTopic()
			t.Topic = kmsg.StringPtr(n)
			req.Topics = append(req.Topics, t)
		}
		resp, err := req.RequestWith(ctx, a.cl)
		if err != nil {
			return wrap(err, "waiting for new topics")
		}
		ready := true
		for _, t := range resp.Topics {
			ready = ready && t.ErrorCode == 0
			for _, p := range t.Partitions {
				ready = ready && p.Leader >= 0
			}
		}
		if ready {
			return nil
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return wrap(ctx.Err(), "waiting for new topics %v", names)
		}
	}
}

func (a admin) Ends(ctx context.Context, committed bool, tps ...cluster.TP) (map[cluster.TP]int64, error) {
	isolation := int8(0)
	if committed {
		isolation = 1
	}
	return listOffsets(ctx, a.Cluster, isolation, -1, tps)
}

func (a admin) Starts(ctx context.Context, tps ...cluster.TP) (map[cluster.TP]int64, error) {
	return listOffsets(ctx, a.Cluster, 0, -2, tps)
}

func listOffsets(ctx context.Context, c *Cluster, isolation int8, timestamp int64, tps []cluster.TP) (map[cluster.TP]int64, error) {
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID, req.IsolationLevel, req.TimeoutMillis = -1, isolation, brokerTimeout
	for topic, partitions := range byTopic(tps) {
		t := kmsg.NewListOffsetsRequestTopic()
		t.Topic = topic
		for _, n := range partitions {
			p := kmsg.NewListOffsetsRequestTopicPartition()
			p.Partition, p.Timestamp, p.CurrentLeaderEpoch = n, timestamp, -1
			t.Partitions = append(t.Partitions, p)
		}
		req.Topics = append(req.Topics, t)
	}
	out := make(map[cluster.TP]int64, len(tps))
	if len(tps) == 0 {
		return out, nil
	}
	resp, err := req.RequestWith(ctx, c.cl)
	if err != nil {
		return nil, wrap(err, "listing offsets")
	}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if p.ErrorCode != 0 {
				return nil, code(p.ErrorCode, "listing the offsets of %s-%d", t.Topic, p.Partition)
			}
			out[cluster.TP{Topic: t.Topic, Partition: p.Partition}] = p.Offset
		}
	}
	return out, nil
}

func (a admin) DeleteRecords(ctx context.Context, below map[cluster.TP]int64) error {
	if len(below) == 0 {
		return nil
	}
	req := kmsg.NewPtrDeleteRecordsRequest()
	req.TimeoutMillis = brokerTimeout
	for topic, partitions := range byTopic(slices.Collect(maps.Keys(below))) {
		t := kmsg.NewDeleteRecordsRequestTopic()
		t.Topic = topic
		for _, n := range partitions {
			p := kmsg.NewDeleteRecordsRequestTopicPartition()
			p.Partition, p.Offset = n, below[cluster.TP{Topic: topic, Partition: n}]
			t.Partitions = append(t.Partitions, p)
		}
		req.Topics = append(req.Topics, t)
	}
	resp, err := req.RequestWith(ctx, a.cl)
	if err != nil {
		return wrap(err, "deleting records")
	}
	var errs []error
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			errs = append(errs, code(p.ErrorCode, "deleting the records of %s-%d", t.Topic, p.Partition))
		}
	}
	return errors.Join(errs...)
}

func (a admin) Committed(ctx context.Context, group string, tps ...cluster.TP) (map[cluster.TP]cluster.Offset, error) {
	out := make(map[cluster.TP]cluster.Offset, len(tps))
	if len(tps) == 0 {
		return out, nil
	}
	req := kmsg.NewPtrOffsetFetchRequest()
	req.RequireStable, req.Group = true, group
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group = group
	for topic, partitions := range byTopic(tps) {
		t := kmsg.NewOffsetFetchRequestTopic()
		t.Topic, t.Partitions = topic, partitions
		req.Topics = append(req.Topics, t)
		gt := kmsg.NewOffsetFetchRequestGroupTopic()
		gt.Topic, gt.Partitions = topic, partitions
		g.Topics = append(g.Topics, gt)
	}
	req.Groups = []kmsg.OffsetFetchRequestGroup{g}

	// From version 10 on topics go by id.
	answer, err := coordinate(ctx, a.cl, groupCoordinator, group, req, 9, func(r kmsg.Response) (codes []int16) {
		eachCommitted(r.(*kmsg.OffsetFetchResponse), func(_ cluster.TP, _ cluster.Offset, code int16) { codes = append(codes, code) })
		return codes
	})
	if err != nil {
		return nil, wrap(err, "fetching the committed offsets of group %q", group)
	}
	eachCommitted(answer.(*kmsg.OffsetFetchResponse), func(tp cluster.TP, at cluster.Offset, c int16) {
		switch {
		case c == kerr.UnknownTopicOrPartition.Code: // nothing was ever committed there
		case c != 0:
			err = code(c, "fetching the committed offset of %s-%d for group %q", tp.Topic, tp.Partition, group)
		case at.At >= 0:
			out[tp] = at
		}
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// eachCommitted goes through an answer of either shape: one group with topics (below version 8) or a list of groups.
func eachCommitted(r *kmsg.OffsetFetchResponse, f func(cluster.TP, cluster.Offset, int16)) {
	text := func(s *string) string {
		if s == nil {
			return ""
		}
		return *s
	}
	if r.ErrorCode != 0 {
		f(cluster.TP{}, cluster.Offset{}, r.ErrorCode)
	}
	if len(r.Groups) > 0 {
		for _, g := range r.Groups {
			if g.ErrorCode != 0 {
				f(cluster.TP{}, cluster.Offset{}, g.ErrorCode)
			}
			for _, t := range g.Topics {
				for _, p := range t.Partitions {
					f(cluster.TP{Topic: t.Topic, Partition: p.Partition}, cluster.Offset{At: p.Offset, Metadata: text(p.Metadata)}, p.ErrorCode)
				}
			}
		}
		return
	}
	for _, t := range r.Topics {
		for _, p := range t.Partitions {
			f(cluster.TP{Topic: t.Topic, Partition: p.Partition}, cluster.Offset{At: p.Offset, Metadata: text(p.Metadata)}, p.ErrorCode)
		}
	}
}

// markersWait bounds how long ClearWriters waits for a transaction that has ended to be complete; a caller may ask again.
const markersWait = 2 * time.Second

func (a admin) ClearWriters(ctx context.Context, ours func(string) bool, tps ...cluster.TP) error {
	for began, wait := time.Now(), 2*time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		ending, err := a.clearWriters(ctx, ours, tps)
		if err != nil || ending == "" {
			return err
		}
		if time.Since(began) > markersWait {
			return fmt.Errorf("the transaction of %q has ended, but its markers are not in all of its partitions after %v", ending, markersWait)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return wrap(ctx.Err(), "waiting for the markers of %q", ending)
		}
	}
}

// clearWriters fences who has a transaction open on the partitions. A producer whose transaction has ended and only lacks
// its markers may be alive, it has done its part: it is named, to be waited for.
func (a admin) clearWriters(ctx context.Context, ours func(string) bool, tps []cluster.TP) (ending string, err error) {
	writers, err := a.openWriters(ctx, tps)
	if err != nil || len(writers) == 0 {
		return "", err
	}
	list := kmsg.NewPtrListTransactionsRequest()
	list.ProducerIDFilters = writers
	resp, err := list.RequestWith(ctx, a.cl)
	if err != nil {
		return "", wrap(err, "listing transactions")
	}
	if resp.ErrorCode != 0 {
		return "", code(resp.ErrorCode, "listing transactions")
	}
	describe := kmsg.NewPtrDescribeTransactionsRequest()
	for _, s := range resp.TransactionStates {
		if ours(s.TransactionalID) {
			describe.TransactionalIDs = append(describe.TransactionalIDs, s.TransactionalID)
		}
	}
	if len(describe.TransactionalIDs) == 0 {
		return "", nil
	}
	described, err := describe.RequestWith(ctx, a.cl)
	if err != nil {
		return "", wrap(err, "describing transactions")
	}
	for _, s := range described.TransactionStates {
		switch whatToDo(s, tps) {
		case waitForIt:
			ending = s.TransactionalID
		case refuseIt:
			return "", code(s.ErrorCode, "describing the transaction of %q", s.TransactionalID)
		case fenceIt:
			// A new epoch aborts what is open; the answer comes when the markers are written.
			if err := initProducer(ctx, a.cl, s.TransactionalID); err != nil {
				return "", wrap(err, "fencing the producer %q", s.TransactionalID)
			}
		}
	}
	return ending, nil
}

type remedy int

const (
	leaveIt remedy = iota
	waitForIt
	fenceIt
	refuseIt
)

// whatToDo decides about a producer that had a transaction open on one of the partitions when they were asked, a moment ago.
func whatToDo(s kmsg.DescribeTransactionsResponseTransactionState, tps []cluster.TP) remedy {
	switch {
	case s.ErrorCode == kerr.TransactionalIDNotFound.Code:
		return leaveIt
	case s.ErrorCode != 0:
		return refuseIt
	case s.State != "Ongoing": // PrepareCommit, PrepareAbort, or complete meanwhile
		return waitForIt
	}
	for _, t := range s.Topics {
		for _, p := range t.Partitions {
			if slices.Contains(tps, cluster.TP{Topic: t.Topic, Partition: p}) {
				return fenceIt
			}
		}
	}
	return waitForIt // it is in its next transaction, and what we saw is over
}

func (a admin) EndTransactions(ctx context.Context, dead func(string) bool) error {
	list := kmsg.NewPtrListTransactionsRequest()
	list.StateFilters = []string{"Ongoing"}
	resp, err := list.RequestWith(ctx, a.cl)
	if err != nil {
		return wrap(err, "listing transactions")
	}
	if resp.ErrorCode != 0 {
		return code(resp.ErrorCode, "listing transactions")
	}
	for _, s := range resp.TransactionStates {
		if !dead(s.TransactionalID) {
			continue
		}
		if err := initProducer(ctx, a.cl, s.TransactionalID); err != nil {
			return wrap(err, "fencing the producer %q", s.TransactionalID)
		}
	}
	return nil
}

// openWriters returns the producers that have a transaction open on any of the partitions.
func (a admin) openWriters(ctx context.Context, tps []cluster.TP) ([]int64, error) {
	if len(tps) == 0 {
		return nil, nil
	}
	req := kmsg.NewPtrDescribeProducersRequest()
	for topic, partitions := range byTopic(tps) {
		t := kmsg.NewDescribeProducersRequestTopic()
		t.Topic, t.Partitions = topic, partitions
		req.Topics = append(req.Topics, t)
	}
	resp, err := req.RequestWith(ctx, a.cl)
	if err != nil {
		return nil, wrap(err, "describing producers")
	}
	var ids []int64
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if p.ErrorCode != 0 {
				return nil, code(p.ErrorCode, "describing the producers of %s-%d", t.Topic, p.Partition)
			}
			for _, w := range p.ActiveProducers {
				if w.CurrentTxnStartOffset >= 0 && !slices.Contains(ids, w.ProducerID) {
					ids = append(ids, w.ProducerID)
				}
			}
		}
	}
	return ids, nil
}

// initProducer takes a new epoch of a transactional id and waits until whatever the old one left open is aborted.
func initProducer(ctx context.Context, cl requestor, txnID string) error {
	for wait := 2 * time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		_, _, err := initProducerOnce(ctx, cl, txnID, time.Minute, -1, -1)
		if !errors.Is(err, kerr.ConcurrentTransactions) {
			return err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		}
	}
}

// initProducerOnce asks for a new epoch. With an id and epoch it is granted only if they are the latest, with -1 always.
func initProducerOnce(ctx context.Context, cl requestor, txnID string, timeout time.Duration, id int64, epoch int16) (int64, int16, error) {
	req := kmsg.NewPtrInitProducerIDRequest()
	req.TransactionalID = kmsg.StringPtr(txnID)
	req.TransactionTimeoutMillis = int32(timeout.Milliseconds())
	req.ProducerID, req.ProducerEpoch = id, epoch
	resp, err := req.RequestWith(ctx, cl)
	if err == nil {
		err = kerr.ErrorForCode(resp.ErrorCode)
	}
	if err != nil {
		return 0, 0, err
	}
	return resp.ProducerID, resp.ProducerEpoch, nil
}

// requestor is what kmsg asks of a client.
type requestor interface {
	Request(context.Context, kmsg.Request) (kmsg.Response, error)
}

func byTopic(tps []cluster.TP) map[string][]int32 {
	m := make(map[string][]int32)
	for _, tp := range tps {
		m[tp.Topic] = append(m[tp.Topic], tp.Partition)
	}
	return m
}
