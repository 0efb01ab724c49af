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
