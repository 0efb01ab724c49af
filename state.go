package moldau

import (
	"log/slog"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/moldau/moldau/internal/tier"
)

// directory is where the state of tasks lies: a directory for each. It implements worker.State.
type directory struct {
	fs     vfs.FS
	dir    string
	memory int64 // the budget of the process
	log    *slog.Logger

	once   sync.Once
	shared *tier.Shared
}

// blockShare is the part of the memory budget that the cache of Pebble's blocks may take on top, and openFiles how many
// files all tasks together keep open.
const (
	blockShare = 16
	openFiles  = 500
)

func (d *directory) Open(name string) (tier.DB, error) {
	d.once.Do(func() { d.shared = tier.NewShared(max(d.memory/blockShare, 1<<20), openFiles) })
	return tier.Open(d.fs.PathJoin(d.dir, name), tier.Options{FS: d.fs, Shared: d.shared, FlushBytes: min(max(d.memory/16, 1<<20), 32<<20),
		Log: func(message string) { d.log.Warn("state on disk: "+message, "task", name) }})
}

func (d *directory) Remove(name string) error { return d.fs.RemoveAll(d.fs.PathJoin(d.dir, name)) }

// Close lets go of what directories have in common, once all of them are closed.
func (d *directory) Close() {
	if d.shared != nil {
		d.shared.Close()
	}
}
