package log

import (
	"github.com/cockroachdb/errors/oserror"
	"github.com/cockroachdb/pebble/v2/vfs"
)

func removeIfThere(fs vfs.FS, path string) error {
	if err := fs.Remove(path); err != nil && !oserror.IsNotExist(err) {
		return err
	}
	return nil
}

// makeDir makes the directory of a partition, and sees to it that it survives a power loss.
func (l *Log) makeDir(dir string) error {
	if err := l.fs.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return syncDir(l.fs, l.fs.PathDir(dir))
}
