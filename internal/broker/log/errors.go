package log

import (
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
)

var (
	// ErrLocked says that another process, or another Log in this one, has the directory open.
	ErrLocked = errors.New("the directory is in use")
	// ErrFormat says that the directory was written by a version this one does not know.
	ErrFormat = errors.New("unknown format")
	// ErrCorrupt says that bytes which were synced are not what was written.
	ErrCorrupt = errors.New("corrupt")
	// ErrClosed says that the log was closed.
	ErrClosed = errors.New("the log is closed")
)

// storageError is what a client sees as KAFKA_STORAGE_ERROR.
func storageError(err error) error {
	return fmt.Errorf("%w: %w", kerr.KafkaStorageError, err)
}

// refusal is why an append or a marker is not written: the protocol's error and a sentence for the client.
type refusal struct {
	err     *kerr.Error
	message string
	records []int32
}

func refuse(err *kerr.Error, format string, args ...any) *refusal {
	return &refusal{err: err, message: fmt.Sprintf(format, args...)}
}
