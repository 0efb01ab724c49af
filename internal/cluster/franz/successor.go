package franz

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/moldau/moldau/internal/cluster"
)

// A producer that lost its standing (an answer did not come, the broker ended the transaction, the epoch is refused) may
// go on only if no successor has taken its id over. The protocol has a request for that: InitProducerID with the epoch
// one has. But Apache Kafka 4.3.1 aborts a successor's open transaction before it refuses, and refuses the rightful
// owner if its coordinator has been loaded anew in the meantime. So we look at what the coordinator holds and judge
// ourselves.

// standing is what the coordinator's state says about whose it is.
type standing int

const (
	ours   standing = iota
	theirs          // a successor's
	moving          // a transaction is just being completed
	unsure
)

// prove returns nil if the transactional id is still ours to take.
func (p *producer) prove(ctx context.Context) error {
	for wait := 2 * time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		state, err := p.look(ctx)
		if err != nil && (p.txn.v2 || ctx.Err() != nil) {
			return wrap(err, "asking for the state of %s", p.name())
		}
		s := unsure
		if err == nil {
			s = p.judge(state)
		}
		if s == unsure {
			id, epoch, err := initProducerOnce(ctx, p.c.cl, p.cfg.TransactionalID, p.cfg.TransactionTimeout, p.txn.id, p.txn.epoch)
			switch {
			case err == nil:
				p.txn.id, p.txn.epoch, s = id, epoch, ours
			case errors.Is(err, kerr.ConcurrentTransactions):
				s = moving
			default:
				return wrap(err, "renewing %s", p.name())
			}
		}
		switch s {
		case ours:
			return nil
		case theirs:
			return fmt.Errorf("%s at id %d, epoch %d: %w: now at id %d, epoch %d, %s", p.name(), p.txn.id, p.txn.epoch,
				cluster.ErrFenced, state.ProducerID, state.ProducerEpoch, state.State)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return wrap(ctx.Err(), "waiting for the transaction of %s to be completed", p.name())
		}
	}
}

// look asks the coordinator what it holds for our id.
func (p *producer) look(ctx context.Context) (state kmsg.DescribeTransactionsResponseTransactionState, err error) {
	req := kmsg.NewPtrDescribeTransactionsRequest()
	req.TransactionalIDs = []string{p.cfg.TransactionalID}
	resp, err := req.RequestWith(ctx, p.c.cl)
	if err != nil {
		return state, err
	}
	if len(resp.TransactionStates) != 1 {
		return state, errors.New("the broker did not say")
	}
	state = resp.TransactionStates[0]
	if state.ErrorCode == kerr.TransactionalIDNotFound.Code {
		return state, nil
	}
	return state, kerr.ErrorForCode(state.ErrorCode)
}

// judge compares the coordinator's state with what we know. With transactions of version 2 every end moves the epoch on
// by one, a successor's initialisation by one more, so that one step to a completed transaction is ours (we did not see
// the answer, or the broker aborted it) and anything further is not. With version 1 that is not certain.
func (p *producer) judge(s kmsg.DescribeTransactionsResponseTransactionState) standing {
	if s.ErrorCode == kerr.TransactionalIDNotFound.Code {
		return ours // forgotten: nobody else used it either
	}
	steps := int(s.ProducerEpoch) - int(p.txn.epoch)
	if s.ProducerID != p.txn.id {
		// Epochs are used up; the id after this one begins at 0.
		if p.txn.epoch < math.MaxInt16-2 {
			return theirs
		}
		steps = int(s.ProducerEpoch) + 1
	}
	switch s.State {
	case "PrepareCommit", "PrepareAbort", "PrepareEpochFence":
		return moving
	}
	switch {
	case steps == 0:
		return ours
	case s.State == "Empty" && p.asked > 0 && steps > 0 && steps <= p.asked+1:
		return ours // what we asked for was granted, and the answer was lost
	case (s.State == "CompleteCommit" || s.State == "CompleteAbort") && steps == 1:
		if p.txn.v2 {
			return ours
		}
		return unsure
	}
	return theirs
}
