package franz

import (
	"errors"
	"fmt"
	"net"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/moldau/moldau/internal/cluster"
)

// meaning maps the protocol's errors to those the runtime tells apart; nil: none of them.
func meaning(err error) error {
	var k *kerr.Error
	if errors.As(err, &k) {
		switch k.Code {
		case kerr.ProducerFenced.Code, kerr.InvalidProducerEpoch.Code, kerr.FencedInstanceID.Code:
			return cluster.ErrFenced
		case kerr.IllegalGeneration.Code, kerr.UnknownMemberID.Code, kerr.RebalanceInProgress.Code:
			return cluster.ErrGeneration
		case kerr.TransactionAbortable.Code, kerr.OperationNotAttempted.Code, kerr.InvalidTxnState.Code,
			kerr.UnknownProducerID.Code, kerr.OutOfOrderSequenceNumber.Code, kerr.InvalidProducerIDMapping.Code:
			return cluster.ErrAborted
		case kerr.OffsetMetadataTooLarge.Code:
			return cluster.ErrMetadata
		case kerr.MessageTooLarge.Code, kerr.RecordListTooLarge.Code:
			return cluster.ErrTooLarge
		case kerr.UnknownTopicOrPartition.Code:
			return cluster.ErrMissingTopic
		case kerr.UnknownTopicID.Code, kerr.InconsistentTopicID.Code:
			return cluster.ErrRecreated
		case kerr.OffsetOutOfRange.Code:
			return cluster.ErrOutOfRange
		case kerr.TopicAuthorizationFailed.Code, kerr.GroupAuthorizationFailed.Code, kerr.ClusterAuthorizationFailed.Code,
			kerr.TransactionalIDAuthorizationFailed.Code, kerr.SaslAuthenticationFailed.Code:
			return cluster.ErrUnauthorized
		}
	}
	switch {
	case errors.Is(err, kgo.ErrAborting):
		return cluster.ErrAborted
	case errors.Is(err, kgo.ErrClientClosed):
		return cluster.ErrClosed
	case kgo.IsRetryableBrokerErr(err), refused(err):
		return cluster.ErrUnreachable
	}
	return nil
}

// refused says whether a connection could not be made; kgo takes that for an error of its own kind.
func refused(err error) bool {
	e, ok := errors.AsType[*net.OpError](err)
	return ok && e.Op == "dial"
}

// wrap says where an error came from and what it means; nil stays nil.
func wrap(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	where := fmt.Sprintf(format, args...)
	if m := meaning(err); m != nil && !errors.Is(err, m) {
		return fmt.Errorf("%s: %w: %w", where, m, err)
	}
	return fmt.Errorf("%s: %w", where, err)
}

// code is wrap for an error code of the protocol.
func code(c int16, format string, args ...any) error {
	return wrap(kerr.ErrorForCode(c), format, args...)
}
