package franz

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/moldau/moldau/internal/cluster"
)

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
