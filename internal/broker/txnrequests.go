package broker

import (
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/moldau/moldau/internal/broker/group"
	"github.com/moldau/moldau/internal/broker/log"
	"github.com/moldau/moldau/internal/broker/txn"
)

// both waits for two writes, of which either may be nil.
func both(resp kmsg.Response, fs ...*future) reply {
	return reply{wait: func(ctx context.Context) kmsg.Response {
		for _, f := range fs {
			if !f.wait(ctx) {
				return nil
			}
		}
		return resp
	}}
}

func (b *Broker) initProducerID(r *request, q *kmsg.InitProducerIDRequest) reply {
	resp := response[*kmsg.InitProducerIDResponse](q)
	resp.ProducerID, resp.ProducerEpoch = -1, -1
	fail := func(err error) reply {
		if err == kerr.ProducerFenced && q.Version < 4 {
			err = kerr.InvalidProducerEpoch
		}
		resp.ErrorCode = code(err)
		return answer(resp)
	}
	if (q.ProducerID < 0) != (q.ProducerEpoch < 0) {
		return fail(kerr.InvalidRequest)
	}
	if q.TransactionalID != nil && !r.mayTransact(kmsg.ACLOperationWrite, *q.TransactionalID) {
		return fail(kerr.TransactionalIDAuthorizationFailed)
	}
	if q.TransactionalID == nil {
		if !r.mayProduceSomewhere() {
			return fail(kerr.ClusterAuthorizationFailed)
		}
		id, f := b.txns.ids.take()
		resp.ProducerID, resp.ProducerEpoch = id, 0
		return after(f, resp)
	}
	timeout := millis(q.TransactionTimeoutMillis)
	switch {
	case *q.TransactionalID == "":
		return fail(kerr.InvalidRequest)
	case timeout <= 0 || timeout > b.cfg.MaxTransactionTimeout:
		return fail(kerr.InvalidTransactionTimeout)
	}
	var expected *txn.Producer
	if q.ProducerID >= 0 {
		expected = &txn.Producer{ID: q.ProducerID, Epoch: q.ProducerEpoch}
	}
	var block *future
	newID := func() (id int64) {
		id, block = b.txns.ids.take()
		return id
	}
	now := b.cfg.Now()
	e := b.txns.lockNew(*q.TransactionalID, now, newID)
	defer e.mu.Unlock()
	producer, ending, err := e.state.Init(now, timeout, expected, newID)
	if err != nil {
		return fail(err)
	}
	var f *future
	if ending != nil {
		f = b.txns.end(e, ending)
	} else {
		f, _ = b.txns.submit(e, log.Write{Puts: []log.Put{e.put()}}, log.WaitSync)
	}
	resp.ProducerID, resp.ProducerEpoch = producer.ID, producer.Epoch
	return both(resp, block, f)
}

func (b *Broker) addPartitionsToTxn(r *request, q *kmsg.AddPartitionsToTxnRequest) reply {
	resp := response[*kmsg.AddPartitionsToTxnResponse](q)
	if q.Version < 4 {
		var rts []kmsg.AddPartitionsToTxnRequestTransactionTopic
		for _, t := range q.Topics {
			rts = append(rts, kmsg.AddPartitionsToTxnRequestTransactionTopic{Topic: t.Topic, Partitions: t.Partitions})
		}
		results, f := b.addPartitions(r, q.TransactionalID, txn.Producer{ID: q.ProducerID, Epoch: q.ProducerEpoch}, rts, false, q.Version)
		for _, r := range results {
			t := kmsg.NewAddPartitionsToTxnResponseTopic()
			t.Topic = r.Topic
			for _, p := range r.Partitions {
				t.Partitions = append(t.Partitions, kmsg.AddPartitionsToTxnResponseTopicPartition{Partition: p.Partition, ErrorCode: p.ErrorCode})
			}
			resp.Topics = append(resp.Topics, t)
		}
		return after(f, resp)
	}
	if !r.mayCluster(kmsg.ACLOperationClusterAction) {
		resp.ErrorCode = kerr.ClusterAuthorizationFailed.Code
		return answer(resp)
	}
	var fs []*future
	for _, qt := range q.Transactions {
		rt := kmsg.NewAddPartitionsToTxnResponseTransaction()
		rt.TransactionalID = qt.TransactionalID
		var f *future
		rt.Topics, f = b.addPartitions(r, qt.TransactionalID, txn.Producer{ID: qt.ProducerID, Epoch: qt.ProducerEpoch}, qt.Topics, qt.VerifyOnly, q.Version)
		fs = append(fs, f)
		resp.Transactions = append(resp.Transactions, rt)
	}
	return both(resp, fs...)
}

// addPartitions adds partitions to a transaction, all or none, or says which are in it.
func (b *Broker) addPartitions(r *request, id string, producer txn.Producer, topics []kmsg.AddPartitionsToTxnRequestTransactionTopic, verifyOnly bool, version int16) ([]kmsg.AddPartitionsToTxnResponseTransactionTopic, *future) {
	var parts []txn.Partition
	var results []kmsg.AddPartitionsToTxnResponseTransactionTopic
	var found []*topic // of results; nil: unknown
	missing := false
	// Whoever asks for version 4 is another broker, and has checked.
	may := func(topic string) bool { return version >= 4 || r.mayTopic(kmsg.ACLOperationWrite, topic) }
	each := func(f func(name string, t *topic, rp *kmsg.AddPartitionsToTxnResponseTransactionTopicPartition)) {
		for i := range results {
			for j := range results[i].Partitions {
				f(results[i].Topic, found[i], &results[i].Partitions[j])
			}
		}
	}
	for _, qt := range topics {
		rt := kmsg.NewAddPartitionsToTxnResponseTransactionTopic()
		rt.Topic = qt.Topic
		t := b.catalog.topic(qt.Topic)
		for _, p := range qt.Partitions {
			rp := kmsg.NewAddPartitionsToTxnResponseTransactionTopicPartition()
			rp.Partition = p
			if t.partition(p) == nil || !may(qt.Topic) {
				missing = true
			} else {
				parts = append(parts, txn.Partition{Topic: t.id, Partition: p})
			}
			rt.Partitions = append(rt.Partitions, rp)
		}
		results, found = append(results, rt), append(found, t)
	}
	fail := func(err error) ([]kmsg.AddPartitionsToTxnResponseTransactionTopic, *future) {
		err = fencedOf(err, version)
		each(func(_ string, _ *topic, rp *kmsg.AddPartitionsToTxnResponseTransactionTopicPartition) {
			rp.ErrorCode = code(err)
		})
		return results, nil
	}
	if id == "" {
		return fail(kerr.InvalidRequest)
	}
	if version < 4 && !r.mayTransact(kmsg.ACLOperationWrite, id) {
		return fail(kerr.TransactionalIDAuthorizationFailed)
	}
	if missing {
		each(func(topic string, t *topic, rp *kmsg.AddPartitionsToTxnResponseTransactionTopicPartition) {
			rp.ErrorCode = kerr.OperationNotAttempted.Code
			if !may(topic) {
				rp.ErrorCode = kerr.TopicAuthorizationFailed.Code
			} else if t.partition(rp.Partition) == nil {
				rp.ErrorCode = kerr.UnknownTopicOrPartition.Code
			}
		})
		return results, nil
	}
	e := b.txns.lock(id)
	if e == nil {
		return fail(kerr.InvalidProducerIDMapping)
	}
	defer e.mu.Unlock()
	if verifyOnly {
		each(func(_ string, t *topic, rp *kmsg.AddPartitionsToTxnResponseTransactionTopicPartition) {
			rp.ErrorCode = code(e.state.Verify(producer, txn.Partition{Topic: t.id, Partition: rp.Partition}))
		})
		return results, nil
	}
	changed, err := e.state.Add(b.cfg.Now(), producer, parts)
	if err != nil {
		return fail(err)
	}
	if changed {
		f, _ := b.txns.submit(e, log.Write{Puts: []log.Put{e.put()}}, log.WaitNone)
		return results, f
	}
	return results, e.last
}

// fencedOf returns what clients of before version 2 know a fenced producer by.
func fencedOf(err error, version int16) error {
	if err == kerr.ProducerFenced && version < 2 {
		return kerr.InvalidProducerEpoch
	}
	return err
}

// lockTransaction returns a transactional id for its producer to work with, locked.
func (b *Broker) lockTransaction(r *request, id string) (*transaction, error) {
	if id == "" {
		return nil, kerr.InvalidRequest
	}
	if !r.mayTransact(kmsg.ACLOperationWrite, id) {
		return nil, kerr.TransactionalIDAuthorizationFailed
	}
	e := b.txns.lock(id)
	if e == nil {
		return nil, kerr.InvalidProducerIDMapping
	}
	return e, nil
}

func (b *Broker) addOffsetsToTxn(r *request, q *kmsg.AddOffsetsToTxnRequest) reply {
	resp := response[*kmsg.AddOffsetsToTxnResponse](q)
	fail := func(err error) reply {
		resp.ErrorCode = code(fencedOf(err, q.Version))
		return answer(resp)
	}
	e, err := b.lockTransaction(r, q.TransactionalID)
	if err != nil {
		return fail(err)
	}
	defer e.mu.Unlock()
	if !r.mayGroup(kmsg.ACLOperationRead, q.Group) {
		return fail(kerr.GroupAuthorizationFailed)
	}
	changed, err := e.state.Add(b.cfg.Now(), txn.Producer{ID: q.ProducerID, Epoch: q.ProducerEpoch}, nil, q.Group)
	if err != nil {
		return fail(err)
	}
	f := e.last
	if changed {
		f, _ = b.txns.submit(e, log.Write{Puts: []log.Put{e.put()}}, log.WaitNone)
	}
	return after(f, resp)
}

func (b *Broker) txnOffsetCommit(r *request, q *kmsg.TxnOffsetCommitRequest) reply {
	resp := response[*kmsg.TxnOffsetCommitResponse](q)
	producer := txn.Producer{ID: q.ProducerID, Epoch: q.ProducerEpoch}
	check := committing{stale: kerr.IllegalGeneration}
	var e *transaction
	switch {
	case !r.mayTransact(kmsg.ACLOperationWrite, q.TransactionalID):
		check.forbidden = kerr.TransactionalIDAuthorizationFailed
	case !r.mayGroup(kmsg.ACLOperationRead, q.Group):
		check.forbidden = kerr.GroupAuthorizationFailed
	default:
		if e = b.txns.lock(q.TransactionalID); e == nil {
			check.refused = kerr.InvalidProducerIDMapping
		}
	}
	changed := false
	commit := group.Commit{MemberID: q.MemberID, InstanceID: deref(q.InstanceID), Generation: q.Generation, Transactional: true}
	if q.Version < 3 {
		commit.MemberID, commit.Generation = "", -1
	}
	var g *consumers
	if e != nil {
		defer e.mu.Unlock()
		// As in Kafka the transaction is asked before the group: it may have got the group when the group refuses.
		switch {
		case !b.anyTxnPartition(q): // what does not exist is nobody's business
		case q.Version >= 5:
			changed, check.refused = e.state.Add(b.cfg.Now(), producer, nil, q.Group)
		default:
			if check.refused = e.state.VerifyGroup(producer, q.Group); check.refused == kerr.InvalidTxnState && q.Version >= 4 {
				check.refused = kerr.TransactionAbortable // old clients do not know it
			}
		}
		if check.refused == kerr.ProducerFenced {
			check.refused = kerr.InvalidProducerEpoch
		}
		if check.refused == nil {
			g, check.accept, check.refused = b.validateTxnCommit(q, commit)
		}
		if g != nil {
			defer g.mu.Unlock()
		}
	}
	var puts []log.Put
	for _, qt := range q.Topics {
		rt := kmsg.NewTxnOffsetCommitResponseTopic()
		rt.Topic, rt.TopicID = qt.Topic, qt.TopicID
		byID := q.Version >= 6
		t, unknown := b.catalog.asked(byID, qt.Topic, qt.TopicID)
		mayRead := r.mayRead(t, byID, qt.Topic)
		for _, qp := range qt.Partitions {
			rp := kmsg.NewTxnOffsetCommitResponseTopicPartition()
			rp.Partition, rp.ErrorCode = qp.Partition, check.code(t, unknown, mayRead, qp.Partition, qp.Metadata)
			if rp.ErrorCode == 0 {
				tp := group.TopicPartition{Topic: t.name, Partition: qp.Partition}
				o := b.commitOffset(qp.Offset, qp.LeaderEpoch, qp.Metadata, -1)
				g.offsets.CommitPending(producer.ID, tp, o)
				puts = append(puts, g.offsetPut(kindPending, producer.ID, tp, o.Marshal()))
			}
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	if changed {
		puts = append(puts, e.put())
	}
	if len(puts) == 0 {
		return answer(resp)
	}
	// What waits for the end of a transaction need not be durable before it.
	var touched []*consumers
	if g != nil {
		touched = append(touched, g)
	}
	f, _ := b.txns.submit(e, log.Write{Puts: puts}, log.WaitNone, touched...)
	return after(f, resp)
}

// anyTxnPartition says whether a partition that offsets are committed of exists.
func (b *Broker) anyTxnPartition(q *kmsg.TxnOffsetCommitRequest) bool {
	return slices.ContainsFunc(q.Topics, func(qt kmsg.TxnOffsetCommitRequestTopic) bool {
		t, _ := b.catalog.asked(q.Version >= 6, qt.Topic, qt.TopicID)
		return slices.ContainsFunc(qt.Partitions, func(qp kmsg.TxnOffsetCommitRequestTopicPartition) bool { return t.partition(qp.Partition) != nil })
	})
}

// validateTxnCommit says whether a transaction may commit offsets of a group, and returns the group locked unless it is
// not known. Clients that do not say who they are may, as any administrator may.
func (b *Broker) validateTxnCommit(q *kmsg.TxnOffsetCommitRequest, c group.Commit) (*consumers, func(group.Part) error, error) {
	g := b.groups.lock(q.Group, c.Generation < 0 && b.anyTxnPartition(q))
	if g == nil {
		if q.Version >= 6 {
			return nil, nil, kerr.GroupIDNotFound
		}
		return nil, nil, kerr.IllegalGeneration
	}
	accept, err := b.validateCommit(g, c, q.Version)
	return g, accept, err
}

func (b *Broker) endTxn(r *request, q *kmsg.EndTxnRequest) reply {
	resp := response[*kmsg.EndTxnResponse](q)
	resp.ProducerID, resp.ProducerEpoch = -1, -1
	fail := func(err error) reply {
		resp.ErrorCode = code(fencedOf(err, q.Version))
		return answer(resp)
	}
	e, err := b.lockTransaction(r, q.TransactionalID)
	if err != nil {
		return fail(err)
	}
	defer e.mu.Unlock()
	var block *future
	newID := func() (id int64) {
		id, block = b.txns.ids.take()
		return id
	}
	ended, err := e.state.End(b.cfg.Now(), txn.Producer{ID: q.ProducerID, Epoch: q.ProducerEpoch}, q.Commit, q.Version >= 5, newID)
	if err != nil {
		return fail(err)
	}
	// A request that was answered before waits for the write of the first one: its answer may have been lost for that.
	f := e.last
	if ended.Ending != nil {
		f = b.txns.end(e, ended.Ending)
	}
	resp.ProducerID, resp.ProducerEpoch = ended.Producer.ID, ended.Producer.Epoch
	return both(resp, block, f)
}

// writeTxnMarkers writes markers by hand: how an operator ends a transaction that nobody coordinates any more.
func (b *Broker) writeTxnMarkers(r *request, q *kmsg.WriteTxnMarkersRequest) reply {
	resp := response[*kmsg.WriteTxnMarkersResponse](q)
	may := r.mayCluster(kmsg.ACLOperationAlter) || r.mayCluster(kmsg.ACLOperationClusterAction)
	var fs []*future
	for _, qm := range q.Markers {
		rm := kmsg.NewWriteTxnMarkersResponseMarker()
		rm.ProducerID = qm.ProducerID
		var w log.Write
		var at [][2]int
		for _, qt := range qm.Topics {
			rt := kmsg.NewWriteTxnMarkersResponseMarkerTopic()
			rt.Topic = qt.Topic
			t := b.catalog.topic(qt.Topic)
			for _, p := range qt.Partitions {
				rp := kmsg.NewWriteTxnMarkersResponseMarkerTopicPartition()
				rp.Partition = p
				if part := t.partition(p); !may {
					rp.ErrorCode = kerr.ClusterAuthorizationFailed.Code
				} else if part == nil {
					rp.ErrorCode = kerr.UnknownTopicOrPartition.Code
				} else {
					w.Markers = append(w.Markers, log.Marker{
						Partition: part, ProducerID: qm.ProducerID, Epoch: qm.ProducerEpoch,
						CoordinatorEpoch: qm.CoordinatorEpoch, Commit: qm.Committed, TV2: qm.TransactionVersion >= 2,
					})
					at = append(at, [2]int{len(rm.Topics), len(rt.Partitions)})
				}
				rt.Partitions = append(rt.Partitions, rp)
			}
			rm.Topics = append(rm.Topics, rt)
		}
		if len(w.Markers) > 0 {
			f := newFuture()
			for i, r := range b.log.Submit(w, log.WaitSync, f.set) {
				rm.Topics[at[i][0]].Partitions[at[i][1]].ErrorCode = code(r.Err)
			}
			fs = append(fs, f)
		}
		resp.Markers = append(resp.Markers, rm)
	}
	return both(resp, fs...)
}
