package franz

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/moldau/moldau/internal/cluster"
)

// txn is what a producer knows about its transactions besides what kgo knows. Offsets are added by a request of our own,
// because kgo only does so for a client that is producer and group member in one; it must be told apart which of the two
// protocols for transactions kgo follows (KIP-890).
type txn struct {
	open    bool
	offsets bool // offsets were added to the open transaction
	v2      bool // partitions are added by producing to them, and every transaction has its own epoch
	broken  bool // kgo's client is beyond use; Init makes a new one

	// The latest id and epoch known. With them Init proves that nobody has taken over.
	id    int64
	epoch int16
}

func (p *producer) Init(ctx context.Context) error {
	if p.cfg.TransactionalID == "" || !p.known {
		return p.renew(ctx)
	}
	return p.reset(ctx)
}

// reset gives up whatever was under way and makes the producer as new, unless another has taken its place.
func (p *producer) reset(ctx context.Context) error {
	// Nothing of the old epoch counts any more; its answers need not be waited for.
	p.txn.open, p.txn.broken = false, true
	p.giveUp.Store(true)
	if p.cl != nil {
		p.cl.UnsafeAbortBufferedRecords()
	}
	if err := p.prove(ctx); err != nil {
		return err
	}
	p.asked++
	return p.renew(ctx)
}

// renew puts a new kgo client in place of the old one. kgo has ways to recover from most errors; this one is the same for
// all of them.
func (p *producer) renew(ctx context.Context) error {
	if p.cl != nil {
		p.giveUp.Store(true)
		p.cl.Close()
		p.calm(context.WithoutCancel(ctx))
		p.cl = nil
	}
	cl, err := p.client()
	if err != nil {
		return err
	}
	id, epoch, err := cl.ProducerID(ctx)
	if err != nil {
		cl.Close()
		return wrap(err, "initialising %s", p.name())
	}
	v2 := false
	if p.cfg.TransactionalID != "" {
		if v2, err = transactionsV2(ctx, cl); err != nil {
			cl.Close()
			return wrap(err, "initialising %s", p.name())
		}
	}
	p.cl, p.known, p.asked, p.txn = cl, true, 0, txn{v2: v2, id: id, epoch: epoch}
	p.forget()
	return nil
}

// transactionsV2 tells which protocol kgo will follow, by the same rule.
func transactionsV2(ctx context.Context, cl *kgo.Client) (bool, error) {
	if v, _ := cl.OptValue(kgo.MaxVersions).(*kversion.Versions); v != nil {
		for key, least := range map[kmsg.Key]int16{kmsg.Produce: 12, kmsg.EndTxn: 5, kmsg.TxnOffsetCommit: 5} {
			if got, ok := v.LookupMaxKeyVersion(int16(key)); !ok || got < least {
				return false, nil
			}
		}
	}
	resp, err := kmsg.NewPtrApiVersionsRequest().RequestWith(ctx, cl)
	if err != nil {
		return false, err
	}
	for _, f := range resp.FinalizedFeatures {
		if f.Name == "transaction.version" {
			return f.MaxVersionLevel >= 2, nil
		}
	}
	return false, nil
}

// forget starts the count of what the transaction holds.
func (p *producer) forget() {
	p.mu.Lock()
	p.written, p.failed = 0, nil
	p.mu.Unlock()
	p.txn.offsets = false
}

func (p *producer) Begin() error {
	switch {
	case p.cl == nil:
		return errNoInit
	case p.cfg.TransactionalID == "":
		return nil
	case p.txn.broken:
		return fmt.Errorf("%s must be initialised again before its next transaction", p.name())
	}
	if err := p.cl.BeginTransaction(); err != nil {
		return wrap(err, "beginning a transaction of %s", p.name())
	}
	p.forget()
	p.txn.open = true
	return nil
}

func (p *producer) CommitOffsets(ctx context.Context, group cluster.GroupMetadata, offsets map[cluster.TP]cluster.Offset) error {
	if !p.txn.open {
		return fmt.Errorf("%s: offsets can only be added to an open transaction", p.name())
	}
	if len(offsets) == 0 {
		return nil
	}
	err := p.commitOffsets(ctx, group, offsets)
	if errors.Is(err, kerr.InvalidProducerEpoch) || errors.Is(err, kerr.ProducerFenced) {
		return p.verdict(ctx, err)
	}
	return err
}

func (p *producer) commitOffsets(ctx context.Context, group cluster.GroupMetadata, offsets map[cluster.TP]cluster.Offset) error {
	version := int16(5)
	if !p.txn.v2 {
		version = 4
		if err := p.addOffsets(ctx, group.Group); err != nil {
			return err
		}
	}
	req := kmsg.NewPtrTxnOffsetCommitRequest()
	req.TransactionalID, req.Group = p.cfg.TransactionalID, group.Group
	req.ProducerID, req.ProducerEpoch = p.txn.id, p.txn.epoch
	req.Generation, req.MemberID, req.InstanceID = group.Generation, group.Member, instance(group)
	for topic, partitions := range byTopic(slices.Collect(maps.Keys(offsets))) {
		t := kmsg.NewTxnOffsetCommitRequestTopic()
		t.Topic = topic
		for _, n := range partitions {
			o := offsets[cluster.TP{Topic: topic, Partition: n}]
			tp := kmsg.NewTxnOffsetCommitRequestTopicPartition()
			tp.Partition, tp.Offset, tp.Metadata = n, o.At, kmsg.StringPtr(o.Metadata)
			t.Partitions = append(t.Partitions, tp)
		}
		req.Topics = append(req.Topics, t)
	}
	p.txn.offsets = true // from here on the broker may know of them
	resp, err := coordinate(ctx, p.cl, groupCoordinator, group.Group, req, version, func(r kmsg.Response) (codes []int16) {
		for _, t := range r.(*kmsg.TxnOffsetCommitResponse).Topics {
			for _, tp := range t.Partitions {
				codes = append(codes, tp.ErrorCode)
			}
		}
		return codes
	})
	if err != nil {
		return wrap(err, "adding offsets of group %q to the transaction of %s", group.Group, p.name())
	}
	for _, t := range resp.(*kmsg.TxnOffsetCommitResponse).Topics {
		for _, tp := range t.Partitions {
			if tp.ErrorCode != 0 {
				return code(tp.ErrorCode, "adding the offset of %s-%d for group %q in generation %d to the transaction of %s",
					t.Topic, tp.Partition, group.Group, group.Generation, p.name())
			}
		}
	}
	return nil
}

// addOffsets announces that offsets will come; the newer protocol has no need of it.
func (p *producer) addOffsets(ctx context.Context, group string) error {
	req := kmsg.NewPtrAddOffsetsToTxnRequest()
	req.TransactionalID, req.Group = p.cfg.TransactionalID, group
	req.ProducerID, req.ProducerEpoch = p.txn.id, p.txn.epoch
	p.txn.offsets = true
	resp, err := coordinate(ctx, p.cl, txnCoordinator, p.cfg.TransactionalID, req, req.MaxVersion(), func(r kmsg.Response) []int16 {
		return []int16{r.(*kmsg.AddOffsetsToTxnResponse).ErrorCode}
	})
	if err == nil {
		err = kerr.ErrorForCode(resp.(*kmsg.AddOffsetsToTxnResponse).ErrorCode)
	}
	return wrap(err, "adding group %q to the transaction of %s", group, p.name())
}

func (p *producer) End(ctx context.Context, commit bool) error {
	switch {
	case p.cfg.TransactionalID == "":
		return nil
	case !p.known:
		return errNoInit
	case !commit && (p.txn.open || p.txn.broken):
		return p.abort(ctx)
	case !p.txn.open && commit:
		return fmt.Errorf("%s: there is no open transaction to commit", p.name())
	case !p.txn.open:
		return nil
	}
	if err := p.flush(ctx); err != nil {
		return p.abortBecause(ctx, wrap(err, "flushing %s", p.name()))
	}
	p.mu.Lock()
	written, failed := p.written, p.failed
	p.mu.Unlock()
	if failed != nil {
		// kgo would commit what did succeed.
		return p.abortBecause(ctx, failed)
	}
	var err error
	if written == 0 && p.txn.offsets {
		err = p.endOffsetsOnly(ctx, true)
	} else {
		err = p.cl.EndTransaction(ctx, kgo.TryCommit)
	}
	if err == nil {
		p.txn.open = false
		p.learn(ctx)
		return nil
	}
	var k *kerr.Error
	if !errors.As(err, &k) || k.Retriable {
		return p.unknown(err)
	}
	switch k.Code {
	case kerr.UnknownServerError.Code:
		return p.unknown(err)
	case kerr.InvalidProducerEpoch.Code, kerr.ProducerFenced.Code, kerr.InvalidProducerIDMapping.Code, kerr.InvalidTxnState.Code:
		// The answer may be to a repetition: the request could have been lost or its answer.
		if fenced := p.reset(ctx); errors.Is(fenced, cluster.ErrFenced) {
			return fenced
		}
		return p.unknown(err)
	}
	return p.abortBecause(ctx, wrap(err, "committing the transaction of %s", p.name()))
}

// flush waits until everything is acknowledged, and until kgo knows where: it (v1.22.2) sends the first records of a topic
// before it has noted the topic's partitions, and a commit that comes in between finds no partition to commit, aborts and
// returns nil. To drop what is queued, which is nothing any more, takes the lock under which kgo notes them.
func (p *producer) flush(ctx context.Context) error {
	if err := p.cl.Flush(ctx); err != nil {
		return err
	}
	return p.cl.AbortBufferedRecords(ctx)
}

func (p *producer) unknown(cause error) error {
	p.txn.open, p.txn.broken = false, true
	return fmt.Errorf("committing the transaction of %s: %w: %w", p.name(), cluster.ErrUnknown, cause)
}

// abort ends the transaction without its effects. Where kgo cannot, or would only believe that it did, a new epoch does it.
func (p *producer) abort(ctx context.Context) error {
	p.txn.open = false
	if p.cl == nil || p.txn.broken || p.Abandon(ctx) != nil || p.txn.broken {
		return p.reset(ctx)
	}
	p.mu.Lock()
	written, failed := p.written, p.failed
	p.mu.Unlock()
	var err error
	switch {
	case lostEpoch(failed):
		return p.reset(ctx)
	case written == 0 && failed == nil && p.txn.offsets:
		err = p.endOffsetsOnly(ctx, false)
	default:
		err = p.cl.EndTransaction(ctx, kgo.TryAbort)
	}
	if err != nil {
		return p.reset(ctx)
	}
	p.learn(ctx)
	return nil
}

// lostEpoch tells whether the broker no longer takes what we send under our id and epoch.
func lostEpoch(err error) bool {
	for _, e := range []error{kerr.InvalidProducerEpoch, kerr.ProducerFenced, kerr.InvalidProducerIDMapping, kerr.UnknownProducerID, kerr.OutOfOrderSequenceNumber} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// abortBecause aborts instead of committing and says why. If that fails too, Init must see to it.
func (p *producer) abortBecause(ctx context.Context, cause error) error {
	err := p.abort(ctx)
	switch {
	case errors.Is(err, cluster.ErrFenced):
		return err
	case err != nil:
		return p.unknown(errors.Join(cause, err))
	}
	return fmt.Errorf("%w: %w", cluster.ErrAborted, cause)
}

// verdict finds out what an epoch that is too old means: fenced if another producer has taken over, aborted if the
// broker itself ended the transaction because it took too long. Where that cannot be found out now, ending the
// transaction will try again.
func (p *producer) verdict(ctx context.Context, cause error) error {
	if err := p.reset(ctx); errors.Is(err, cluster.ErrFenced) {
		return err
	}
	return fmt.Errorf("transaction of %s: %w: %w", p.name(), cluster.ErrAborted, cause)
}

// learn takes over the epoch that kgo goes on with. If kgo lost it in ending the transaction, the next needs Init.
func (p *producer) learn(ctx context.Context) {
	id, epoch, err := p.cl.ProducerID(ctx)
	if err != nil {
		p.txn.broken = true
		return
	}
	p.txn.id, p.txn.epoch = id, epoch
}

// endOffsetsOnly ends a transaction that holds offsets and no records. kgo would send nothing, as far as it knows there
// is nothing to end. Below version 5 the request leaves the epoch alone, so kgo need not know.
func (p *producer) endOffsetsOnly(ctx context.Context, commit bool) error {
	req := kmsg.NewPtrEndTxnRequest()
	req.TransactionalID, req.Commit = p.cfg.TransactionalID, commit
	req.ProducerID, req.ProducerEpoch = p.txn.id, p.txn.epoch
	resp, err := coordinate(ctx, p.cl, txnCoordinator, p.cfg.TransactionalID, req, 4, func(r kmsg.Response) []int16 {
		return []int16{r.(*kmsg.EndTxnResponse).ErrorCode}
	})
	if err != nil {
		return err
	}
	if err := kerr.ErrorForCode(resp.(*kmsg.EndTxnResponse).ErrorCode); err != nil {
		return err
	}
	// kgo still believes that it is in a transaction; with nothing produced this sends nothing.
	return p.cl.EndTransaction(ctx, kgo.TryAbort)
}
