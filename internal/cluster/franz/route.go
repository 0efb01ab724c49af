package franz

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// What a coordinator coordinates, as FindCoordinator spells it.
const (
	groupCoordinator int8 = 0
	txnCoordinator   int8 = 1
)

// atMost is a request whose version is limited. kgo negotiates the highest version both sides know; some versions want
// what we do not have at hand (topic ids), others mean another protocol than the one kgo follows (transactions).
type atMost struct {
	kmsg.Request
	max int16
}

func (r atMost) MaxVersion() int16 { return min(r.max, r.Request.MaxVersion()) }

// coordinate sends a request to the coordinator of a group or transactional id and repeats it while the answer says that
// the coordinator moves or loads, that a transaction is still being completed, or (unstable) that offsets are pending.
// codes returns every error code of an answer.
func coordinate(ctx context.Context, cl *kgo.Client, kind int8, key string, req kmsg.Request, max int16, codes func(kmsg.Response) []int16) (kmsg.Response, error) {
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		resp, err := coordinateOnce(ctx, cl, kind, key, req, max)
		if err == nil {
			for _, c := range codes(resp) {
				if e := kerr.ErrorForCode(c); again(e) {
					err = e
				}
			}
			if err == nil {
				return resp, nil
			}
		} else if !again(err) {
			return nil, err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), err)
		}
	}
}

func again(err error) bool {
	return kerr.IsRetriable(err) && !errors.Is(err, kerr.UnknownTopicOrPartition) && !errors.Is(err, kerr.UnknownTopicID) ||
		errors.Is(err, kerr.ConcurrentTransactions)
}

func coordinateOnce(ctx context.Context, cl *kgo.Client, kind int8, key string, req kmsg.Request, max int16) (kmsg.Response, error) {
	find := kmsg.NewPtrFindCoordinatorRequest()
	find.CoordinatorType, find.CoordinatorKey, find.CoordinatorKeys = kind, key, []string{key}
	found, err := find.RequestWith(ctx, cl)
	if err != nil {
		return nil, err
	}
	node, c := found.NodeID, found.ErrorCode
	if len(found.Coordinators) > 0 {
		node, c = found.Coordinators[0].NodeID, found.Coordinators[0].ErrorCode
	}
	if err := kerr.ErrorForCode(c); err != nil {
		return nil, err
	}
	return cl.Broker(int(node)).RetriableRequest(ctx, atMost{req, max})
}
