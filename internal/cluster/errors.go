package cluster

import (
	"errors"
	"fmt"

	"github.com/moldau/moldau/internal/flow"
)

// Refused are the records of a call that the broker does not take for what they are: too large, of a time or without a key
// that the topic does not allow, or against a rule of the cluster's.
type Refused struct{ Records []flow.Refusal }

func (r *Refused) Error() string {
	return fmt.Sprintf("the broker refuses %d records, among them: %v", len(r.Records), r.Records[0].Err)
}

// Unwrap gives the errors of all of them.
func (r *Refused) Unwrap() []error {
	errs := make([]error, len(r.Records))
	for i := range r.Records {
		errs[i] = r.Records[i].Err
	}
	return errs
}

// What the runtime distinguishes. Implementations wrap them with what and where.
var (
	// ErrFenced: another producer with our transactional id has started; this one must stop for good.
	ErrFenced = errors.New("fenced by a newer producer with the same transactional id")
	// ErrGeneration: the group has moved on; refresh GroupMetadata, and if the task is still ours, send again.
	ErrGeneration = errors.New("the consumer group is at another generation")
	// ErrAborted: the transaction was aborted, by the broker or by an error; undo and go on with a new one.
	ErrAborted = errors.New("the transaction was aborted")
	// ErrUnknown: no answer; the transaction may or may not have been committed.
	ErrUnknown = errors.New("the outcome of the transaction is unknown")
	// ErrMetadata: what is committed along with an offset is more than the broker takes.
	ErrMetadata = errors.New("the metadata of a committed offset is larger than the broker takes (offset.metadata.max.bytes, 4096 by default); every operator of a sub-topology that closes windows or has timers keeps a number there: raise the broker's setting, or put a repartition topic between the operators, which makes two sub-topologies of one")
	// ErrTooLarge: a record exceeds what the broker accepts.
	ErrTooLarge = errors.New("record too large for the topic")
	// ErrMissingTopic: the topic does not exist.
	ErrMissingTopic = errors.New("topic does not exist")
	// ErrRecreated: the topic was deleted and made anew; its offsets mean nothing any more.
	ErrRecreated = errors.New("topic was deleted and created again")
	// ErrOutOfRange: the offset to read from is no longer, or not yet, in the log.
	ErrOutOfRange = errors.New("offset out of range")
	// ErrUnauthorized: the cluster refuses what was asked.
	ErrUnauthorized = errors.New("not authorized")
	// ErrUnreachable: nobody answers, or the connection broke; a broker that restarts is back in a moment.
	ErrUnreachable = errors.New("the cluster cannot be reached")
	// ErrClosed: the client was closed.
	ErrClosed = errors.New("client closed")
)
