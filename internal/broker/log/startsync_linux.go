package log

import (
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// startSync has the disk begin to write a range of a file. It promises nothing; what fails is what the sync that follows
// meets too.
func startSync(f vfs.File, off, n int64) {
	const write = 2 // SYNC_FILE_RANGE_WRITE
	if fd := f.Fd(); fd != vfs.InvalidFd {
		_ = syscall.SyncFileRange(int(fd), off, n, write)
	}
}
