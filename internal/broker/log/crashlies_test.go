package log

import (
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestCrashTestNotices shows that the crash test finds a log that leaves out any one kind of sync.
func TestCrashTestNotices(t *testing.T) {
	for _, lie := range []string{".wal", ".log", "checkpoint.tmp", "broker/wal", "broker/partitions", "-0", "broker"} {
		err := error(nil)
		seed := uint64(1)
		for ; err == nil && seed < 2000; seed++ {
			err = crashes(t, seed, 5, lie, nil)
		}
		if err == nil {
			t.Errorf("that %q is never synced went unnoticed", lie)
			continue
		}
		t.Logf("%s: seed %d: %.150s", lie, seed, err.Error())
	}
}

// lyingFS only claims to sync files whose path ends as lie says.
type lyingFS struct {
	vfs.FS
	lie string
}

type lyingFile struct{ vfs.File }

func (lyingFile) Sync() error     { return nil }
func (lyingFile) SyncData() error { return nil }

func (f lyingFS) wrap(name string, file vfs.File, err error) (vfs.File, error) {
	if err == nil && f.lie != "" && strings.HasSuffix(name, f.lie) {
		return lyingFile{file}, nil
	}
	return file, err
}

func (f lyingFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := f.FS.Create(name, c)
	return f.wrap(name, file, err)
}

func (f lyingFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	file, err := f.FS.OpenReadWrite(name, c, o...)
	return f.wrap(name, file, err)
}

func (f lyingFS) OpenDir(name string) (vfs.File, error) {
	file, err := f.FS.OpenDir(name)
	return f.wrap(name, file, err)
}
